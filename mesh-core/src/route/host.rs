//! Virtual hosts by authority: exact names, `*.suffix`, `prefix.*` and `*`; the longest wins.

use std::{borrow::Cow, str};

use super::hash::ByteMap;
use crate::model::StripPort;

/// From domain to the index of a virtual host.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    exact: ByteMap<u32>,
    /// Longest first.
    suffixes: Vec<(usize, ByteMap<u32>)>,
    /// Longest first.
    prefixes: Vec<(usize, ByteMap<u32>)>,
    default: Option<u32>,
}

/// Lower-casing needs no allocation up to this length.
const INLINE: usize = 256;

impl HostTable {
    /// Adds a domain; `false` if it is there already.
    pub(crate) fn insert(&mut self, domain: &str, host: u32) -> bool {
        let domain = domain.to_ascii_lowercase().into_bytes();
        match domain.as_slice() {
            b"*" => self.default.replace(host).is_none(),
            [b'*', suffix @ ..] => insert_wildcard(&mut self.suffixes, suffix, host),
            [prefix @ .., b'*'] => insert_wildcard(&mut self.prefixes, prefix, host),
            exact => self.exact.insert(exact.into(), host).is_none(),
        }
    }

    /// The virtual host for `authority`.
    pub(crate) fn find(&self, authority: &[u8], ignore_port: bool) -> Option<u32> {
        if self.has_default_alone() {
            return self.default;
        }
        let host = match port_start(authority) {
            Some(at) if ignore_port => &authority[..at],
            _ => authority,
        };
        if !host.iter().any(u8::is_ascii_uppercase) {
            return self.find_lower(host);
        }
        let mut buffer = [0; INLINE];
        match buffer.get_mut(..host.len()) {
            Some(lower) => {
                lower.copy_from_slice(host);
                lower.make_ascii_lowercase();
                self.find_lower(lower)
            }
            None => self.find_lower(&host.to_ascii_lowercase()),
        }
    }

    /// The virtual host of a request that does not say which: only `*` alone takes it.
    pub(crate) fn find_none(&self) -> Option<u32> {
        self.default.filter(|_| self.has_default_alone())
    }

    fn has_default_alone(&self) -> bool {
        self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty()
    }

    fn find_lower(&self, host: &[u8]) -> Option<u32> {
        if let Some(found) = self.exact.get(host) {
            return Some(*found);
        }
        let suffix = |len: usize| &host[host.len() - len..];
        let prefix = |len: usize| &host[..len];
        longest(&self.suffixes, host, suffix)
            .or_else(|| longest(&self.prefixes, host, prefix))
            .or(self.default)
    }
}

fn insert_wildcard(table: &mut Vec<(usize, ByteMap<u32>)>, text: &[u8], host: u32) -> bool {
    let at = match table.binary_search_by(|(len, _)| text.len().cmp(len)) {
        Ok(at) => at,
        Err(at) => {
            table.insert(at, (text.len(), ByteMap::default()));
            at
        }
    };
    table[at].1.insert(text.into(), host).is_none()
}

/// The wildcard stands for at least one character.
fn longest<'a>(
    table: &[(usize, ByteMap<u32>)],
    host: &'a [u8],
    part: impl Fn(usize) -> &'a [u8],
) -> Option<u32> {
    table
        .iter()
        .filter(|(len, _)| *len < host.len())
        .find_map(|(len, names)| names.get(part(*len)).copied())
}

/// Where the `:` of the port stands. An IPv6 address is in brackets.
pub fn port_start(authority: &[u8]) -> Option<usize> {
    let colon = memchr::memrchr(b':', authority)?;
    let bracket = memchr::memrchr(b']', authority);
    bracket
        .is_none_or(|bracket| bracket < colon)
        .then_some(colon)
}

/// The authority without the port that `strip` takes off. `listener_port` is the port that the connection was made to.
pub fn strip_port(authority: &[u8], strip: StripPort, listener_port: Option<u16>) -> &[u8] {
    let Some(colon) = port_start(authority) else {
        return authority;
    };
    let port = str::from_utf8(&authority[colon + 1..])
        .ok()
        .and_then(|port| port.parse::<u32>().ok());
    let stripped = match strip {
        StripPort::No => false,
        StripPort::Matching => port.is_some() && port == listener_port.map(u32::from),
        StripPort::Any => port.is_some(),
    };
    if stripped {
        &authority[..colon]
    } else {
        authority
    }
}

/// The authority without a dot at the end of its host.
pub fn strip_trailing_dot(authority: &[u8]) -> Cow<'_, [u8]> {
    let host = port_start(authority).map_or(authority, |at| &authority[..at]);
    match host.split_last() {
        Some((b'.', rest)) if host.len() == authority.len() => Cow::Borrowed(rest),
        Some((b'.', rest)) => Cow::Owned([rest, &authority[host.len()..]].concat()),
        _ => Cow::Borrowed(authority),
    }
}

/// Whether a header name has an underscore, which some servers read as `-`.
pub fn has_underscore(name: &str) -> bool {
    name.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(domains: &[&str]) -> HostTable {
        let mut table = HostTable::default();
        for (index, domain) in domains.iter().enumerate() {
            assert!(table.insert(domain, index as u32), "{domain} twice");
        }
        table
    }

    #[test]
    fn longest_wildcard_wins_and_exact_before_all() {
        let table = table(&[
            "*",
            "*.foo.com",
            "*-bar.foo.com",
            "a.foo.com",
            "a.*",
            "a.foo.*",
            "B.com:80",
        ]);
        for (host, wanted) in [
            ("a.foo.com", 3),
            ("A.FOO.COM", 3),
            ("x.foo.com", 1),
            ("x-bar.foo.com", 2),
            (".foo.com", 0),
            ("a.foo.net", 5),
            ("a.net", 4),
            ("b.com:80", 6),
            ("b.com", 0),
        ] {
            assert_eq!(table.find(host.as_bytes(), false), Some(wanted), "{host}");
        }
        assert_eq!(table.find(b"a.foo.com:8080", true), Some(3));
        assert_eq!(table.find(b"a.foo.com:8080", false), Some(5));
        let long = "X".repeat(300) + ".foo.com";
        assert_eq!(table.find(long.as_bytes(), false), Some(1));
    }

    #[test]
    fn duplicate_domain_is_told() {
        let mut table = table(&["a", "*.b", "c.*", "*"]);
        for domain in ["A", "*.B", "c.*", "*"] {
            assert!(!table.insert(domain, 9), "{domain}");
        }
    }

    #[test]
    fn ports_and_dots_are_stripped() {
        assert_eq!(strip_port(b"a:80", StripPort::Matching, Some(80)), b"a");
        assert_eq!(strip_port(b"a:81", StripPort::Matching, Some(80)), b"a:81");
        assert_eq!(strip_port(b"[::1]:81", StripPort::Any, None), b"[::1]");
        assert_eq!(strip_port(b"[::1]", StripPort::Any, None), b"[::1]");
        assert_eq!(strip_port(b"a:x", StripPort::Any, None), b"a:x");
        assert_eq!(strip_port(b"a:99999", StripPort::Any, None), b"a");
        assert_eq!(&*strip_trailing_dot(b"a.b."), b"a.b");
        assert_eq!(&*strip_trailing_dot(b"a.b.:80"), b"a.b:80");
        assert_eq!(&*strip_trailing_dot(b"a.b"), b"a.b");
    }
}
