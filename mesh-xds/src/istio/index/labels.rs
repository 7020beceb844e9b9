//! What selectors choose, without a look at everything for each of them.

use std::collections::{BTreeMap, HashMap};

use super::service_entry::selects;

pub(super) type Labels = BTreeMap<String, String>;

/// Namespace, name and value of one label.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Things with labels, in order, by each of their labels.
pub(super) struct ByLabels<'a, T> {
    things: HashMap<Key<'a>, Vec<(&'a Labels, T)>>,
    namespaces: HashMap<&'a str, Vec<T>>,
}

impl<'a, T: Copy> ByLabels<'a, T> {
    /// Of things with their namespaces and labels.
    pub(super) fn new(all: impl Iterator<Item = (&'a str, &'a Labels, T)>) -> Self {
        let mut things: HashMap<Key<'a>, Vec<_>> = HashMap::new();
        let mut namespaces: HashMap<&str, Vec<T>> = HashMap::new();
        for (namespace, labels, thing) in all {
            namespaces.entry(namespace).or_default().push(thing);
            for (name, value) in labels {
                let with = things.entry((namespace, name, value)).or_default();
                with.push((labels, thing));
            }
        }
        Self { things, namespaces }
    }

    /// As [`chosen`](Self::chosen), except that an empty selector means all of the namespace, as those of Istio's kinds do.
    pub(super) fn selected(&self, namespace: &str, selector: &Labels) -> Vec<T> {
        if selector.is_empty() {
            return self.namespaces.get(namespace).cloned().unwrap_or_default();
        }
        self.chosen(namespace, selector).collect()
    }

    /// Those of the namespace that have all labels of a selector, in order; none if it is empty, as with Kubernetes' Services.
    pub(super) fn chosen<'s>(
        &'s self,
        namespace: &'s str,
        selector: &'s Labels,
    ) -> impl Iterator<Item = T> + 's {
        let with = |(name, value): (&'s String, &'s String)| {
            let key: Key<'s> = (namespace, name, value);
            self.things.get(&key).map_or(&[][..], Vec::as_slice)
        };
        let fewest = selector.iter().map(with).min_by_key(|with| with.len());
        let all = fewest.unwrap_or_default().iter();
        all.filter(|(labels, _)| selects(selector, labels))
            .map(|(_, thing)| *thing)
    }
}

/// Selectors in order, by the first of their labels: what a thing with labels is chosen by.
pub(super) struct Selectors<'a, T> {
    by_first: HashMap<Key<'a>, Vec<(usize, &'a Labels, T)>>,
}

impl<'a, T: Copy> Selectors<'a, T> {
    /// Of namespaces and selectors, each with what it stands for; an empty one chooses nothing.
    pub(super) fn new(all: impl Iterator<Item = (&'a str, &'a Labels, T)>) -> Self {
        let mut by_first: HashMap<Key<'a>, Vec<_>> = HashMap::new();
        for (place, (namespace, selector, thing)) in all.enumerate() {
            if let Some((name, value)) = selector.first_key_value() {
                let with = by_first.entry((namespace, name, value)).or_default();
                with.push((place, selector, thing));
            }
        }
        Self { by_first }
    }

    /// The first that chooses something with these labels.
    pub(super) fn first_of<'s>(&'s self, namespace: &'s str, labels: &'s Labels) -> Option<T> {
        let with = |(name, value): (&'s String, &'s String)| {
            let key: Key<'s> = (namespace, name, value);
            self.by_first.get(&key).map_or(&[][..], Vec::as_slice)
        };
        let candidates = labels.iter().flat_map(with);
        let choosing = candidates.filter(|(_, selector, _)| selects(selector, labels));
        choosing
            .min_by_key(|(place, ..)| *place)
            .map(|(.., thing)| *thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_selector_of_all_chooses() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            let owned = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            owned.collect()
        };
        let all = [
            labels(&[]),
            labels(&[("b", "1")]),
            labels(&[("a", "1"), ("b", "2")]),
            labels(&[("a", "1")]),
        ];
        let numbered = all.iter().enumerate().map(|(i, own)| ("n", own, i));
        let selectors = Selectors::new(numbered);
        for (namespace, pairs, first) in [
            ("n", &[("a", "1"), ("b", "1")][..], Some(1)),
            ("n", &[("a", "1"), ("b", "2"), ("c", "3")], Some(2)),
            ("n", &[("a", "1")], Some(3)),
            ("n", &[("a", "2")], None),
            ("n", &[], None),
            ("m", &[("a", "1")], None),
        ] {
            let found = selectors.first_of(namespace, &labels(pairs));
            assert_eq!(found, first, "{namespace} {pairs:?}");
        }
    }

    #[test]
    fn a_selector_chooses_what_has_all_of_its_labels() {
        let labels = |text: &str| -> Labels {
            let pairs = text.split(' ').filter_map(|pair| pair.split_once('='));
            pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
        };
        let things = ["a=1 b=1", "a=1", "a=1 b=2", "b=1", "a=1 b=1 c=1", ""].map(labels);
        let other = labels("a=1 b=1");
        let own = things.iter().enumerate().map(|(i, own)| ("n", own, i));
        let all = ByLabels::new(own.chain([("m", &other, 9)]));
        let chosen = |namespace: &str, text: &str| -> Vec<usize> {
            all.chosen(namespace, &labels(text)).collect()
        };
        assert_eq!(chosen("n", "a=1"), [0, 1, 2, 4]);
        assert_eq!(chosen("n", "a=1 b=1"), [0, 4]);
        assert_eq!(chosen("m", "a=1 b=1"), [9]);
        for nothing in ["a=2", "a=1 d=1", ""] {
            assert_eq!(chosen("n", nothing), [0; 0], "{nothing}");
        }
        let empty = Labels::new();
        assert_eq!(all.selected("n", &labels("a=1 b=1")), [0, 4]);
        assert_eq!(all.selected("n", &empty), [0, 1, 2, 3, 4, 5]);
        assert_eq!(all.selected("o", &empty), [0; 0]);
    }
}
