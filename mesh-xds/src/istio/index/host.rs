//! Host names, possibly with a leading `*`, and how they cover one another.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;

/// Whether the name begins with `*`.
#[must_use]
pub fn is_wildcard(name: &str) -> bool {
    name.starts_with('*')
}

/// Whether the two names overlap: equal, or one covers the other.
#[must_use]
pub fn matches(a: &str, b: &str) -> bool {
    subset_of(a, b) || subset_of(b, a)
}

/// Whether every name that `inner` stands for is covered by `outer`.
#[must_use]
pub fn subset_of(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (Some(_), None) => false,
        (None, Some(outer)) => inner.ends_with(outer),
        (None, None) => inner == outer,
    }
}

/// Names that overlap ([`matches()`]), each with one that covers it or is equal: pairs of places in `names`, the earlier one
/// first, ordered by the later one.
#[must_use]
pub fn overlaps(names: &[String]) -> Vec<(usize, usize)> {
    // Read from the end, what a wildcard covers begins with it, and stands right behind it in order.
    let mut sorted: Vec<(Vec<u8>, bool, usize)> = names
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let base = name.strip_prefix('*').unwrap_or(name);
            (base.bytes().rev().collect(), !is_wildcard(name), place)
        })
        .collect();
    sorted.sort_unstable();
    let mut found = Vec::new();
    let mut open: Vec<(&[u8], bool, usize)> = Vec::new();
    for (base, exact, place) in &sorted {
        while open
            .pop_if(|(outer, exact, _)| match exact {
                true => *outer != base.as_slice(),
                false => !base.starts_with(outer),
            })
            .is_some()
        {}
        if let Some((.., other)) = open.last() {
            found.push((*other.min(place), *other.max(place)));
        }
        open.push((base, *exact, *place));
    }
    found.sort_unstable_by_key(|(earlier, later)| (*later, *earlier));
    found
}

/// The full name of a host that an object in `namespace` names: a name without dots is a Kubernetes Service there.
#[must_use]
pub fn resolve(name: &str, namespace: &str, domain: &str) -> String {
    if name.is_empty() || name == "*" || name.contains('.') || name.parse::<IpAddr>().is_ok() {
        return name.to_owned();
    }
    let mut full = name.to_owned();
    if !namespace.is_empty() {
        full.push('.');
        full.push_str(namespace);
    }
    if !domain.is_empty() {
        full.push_str(".svc.");
        full.push_str(domain);
    }
    full
}

/// The entry that covers `name` most closely: an equal one, else the longest wildcard.
pub fn closest<'a, V>(name: &str, entries: &'a BTreeMap<String, V>) -> Option<&'a V> {
    if let Some(exact) = entries.get(name) {
        return Some(exact);
    }
    // All wildcards stand together in the order of the keys: `+` follows `*`.
    let wild = entries.range::<str, _>((Bound::Included("*"), Bound::Excluded("+")));
    let mut best: Option<(&str, &V)> = None;
    for (key, value) in wild.filter(|(key, _)| subset_of(name, key)) {
        if best.is_none_or(|(known, _)| more_specific(key, known)) {
            best = Some((key, value));
        }
    }
    best.map(|(_, value)| value)
}

/// Whether `a` comes before `b` in an order from most to least specific: exact names first, then by length, then by text.
#[must_use]
pub fn more_specific(a: &str, b: &str) -> bool {
    (is_wildcard(a), usize::MAX - a.len(), a) < (is_wildcard(b), usize::MAX - b.len(), b)
}

/// Splits `namespace/name`; without a slash the namespace is `*`.
#[must_use]
pub fn split_namespace(host: &str) -> (&str, &str) {
    host.split_once('/').unwrap_or(("*", host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_once_each() {
        let names = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let found = overlaps(&names(
            "a.com *.com b.org a.com *.b.com c.b.com *.org d.net",
        ));
        assert_eq!(found, [(0, 1), (0, 3), (1, 4), (4, 5), (2, 6)]);
        // Whether there is any is what each with each would say; how many is bounded.
        let parts = ["*", "*a", "*.a", "a", "b.a", "*b.a", "ba", "c"];
        for mask in 1_u32..256 {
            let some: Vec<String> = (0..8)
                .filter(|bit| mask & (1 << bit) != 0)
                .map(|bit| parts[bit].to_owned())
                .collect();
            let pairs = |i: usize| some[..i].iter().any(|a| matches(a, &some[i]));
            let any = (0..some.len()).any(pairs);
            assert_eq!(!overlaps(&some).is_empty(), any, "{some:?}");
        }
        assert_eq!(overlaps(&vec!["a".to_owned(); 1000]).len(), 999);
    }

    #[test]
    fn wildcards_cover_their_suffix() {
        assert!(matches("*.com", "foo.com"));
        assert!(matches("foo.com", "*.com"));
        assert!(!matches("*.foo.com", "foo.com"));
        assert!(matches("*", "*.com"));
        assert!(subset_of("*.foo.com", "*.com"));
        assert!(!subset_of("*.com", "*.foo.com"));
    }

    #[test]
    fn short_names_belong_to_the_namespace_of_the_rule() {
        assert_eq!(
            resolve("reviews", "prod", "cluster.local"),
            "reviews.prod.svc.cluster.local"
        );
        assert_eq!(
            resolve("reviews.prod", "x", "cluster.local"),
            "reviews.prod"
        );
        assert_eq!(resolve("*", "x", "cluster.local"), "*");
        assert_eq!(resolve("::1", "x", "cluster.local"), "::1");
    }

    #[test]
    fn closest_host_wins() {
        let keys = ["*", "*.com", "*.foo.com", "a.foo.com"];
        let entries: BTreeMap<String, &str> =
            keys.iter().map(|key| ((*key).to_owned(), *key)).collect();
        let find = |name: &str| closest(name, &entries).copied();
        assert_eq!(find("a.foo.com"), Some("a.foo.com"));
        assert_eq!(find("b.foo.com"), Some("*.foo.com"));
        assert_eq!(find("b.org"), Some("*"));
        assert_eq!(find("*.foo.com"), Some("*.foo.com"));
        assert_eq!(find("*.bar.com"), Some("*.com"));
    }
}
