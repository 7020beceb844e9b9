//! What selectors choose, without a look at everything for each of them.

use std::collections::{BTreeMap, HashMap};

use super::service_entry::selects;

type Labels = BTreeMap<String, String>;

/// Namespace, name and value of one label.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Things with labels, in order, by each of their labels.
pub(super) struct ByLabels<'a, T> {
    things: HashMap<Key<'a>, Vec<(&'a Labels, T)>>,
}

impl<'a, T: Copy> ByLabels<'a, T> {
    /// Of things with their namespaces and labels.
    pub(super) fn new(all: impl Iterator<Item = (&'a str, &'a Labels, T)>) -> Self {
        let mut things: HashMap<Key<'a>, Vec<_>> = HashMap::new();
        for (namespace, labels, thing) in all {
            for (name, value) in labels {
                let with = things.entry((namespace, name, value)).or_default();
                with.push((labels, thing));
            }
        }
        Self { things }
    }

    /// Those of the namespace that have all labels of a selector, in order; none if it is empty.
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

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
