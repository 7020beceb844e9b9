//! Host names, possibly with a leading `*`, and how they cover one another.

use std::net::IpAddr;

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

/// The key of the entry that covers `name` most closely: an equal one, else the longest wildcard.
pub fn most_specific<'a, V>(
    name: &str,
    entries: impl IntoIterator<Item = (&'a String, V)>,
) -> Option<(&'a str, V)> {
    let mut best: Option<(&'a str, V)> = None;
    for (key, value) in entries {
        if key == name {
            return Some((key, value));
        }
        let covers = is_wildcard(key) && subset_of(name, key);
        let closer = best
            .as_ref()
            .is_none_or(|(known, _)| more_specific(key, known));
        if covers && closer {
            best = Some((key, value));
        }
    }
    best
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
        let keys: Vec<String> = ["*", "*.com", "*.foo.com", "a.foo.com"]
            .map(str::to_owned)
            .into();
        let find =
            |name: &str| most_specific(name, keys.iter().map(|k| (k, ()))).map(|(key, ())| key);
        assert_eq!(find("a.foo.com"), Some("a.foo.com"));
        assert_eq!(find("b.foo.com"), Some("*.foo.com"));
        assert_eq!(find("b.org"), Some("*"));
        assert_eq!(find("*.foo.com"), Some("*.foo.com"));
        assert_eq!(find("*.bar.com"), Some("*.com"));
    }
}
