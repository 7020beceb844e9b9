//! Paths: the part that is matched, and the normalisations that a connection manager makes before routing.

use std::borrow::Cow;

use crate::model::EscapedSlashes;

/// The path up to the query or the fragment.
pub fn without_query(path: &[u8]) -> &[u8] {
    memchr::memchr2(b'?', b'#', path).map_or(path, |at| &path[..at])
}

/// The path up to its parameters (`;`).
pub(crate) fn without_parameters(path: &[u8]) -> &[u8] {
    memchr::memchr(b';', path).map_or(path, |at| &path[..at])
}

/// What became of a path with escaped slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unescaped<'a> {
    /// Sent on as it is now.
    Forward(Cow<'a, [u8]>),
    /// The client is redirected (307) to this path.
    Redirect(Vec<u8>),
    /// The request is refused (400).
    Reject,
}

/// Applies `action` to `%2F` and `%5C` in the path; the query stays.
pub fn unescape_slashes(path: &[u8], action: EscapedSlashes) -> Unescaped<'_> {
    if action == EscapedSlashes::KeepUnchanged {
        return Unescaped::Forward(Cow::Borrowed(path));
    }
    let (only, query) = path.split_at(without_query(path).len());
    let Some(mut out) = with_slashes(only) else {
        return Unescaped::Forward(Cow::Borrowed(path));
    };
    out.extend_from_slice(query);
    match action {
        EscapedSlashes::RejectRequest => Unescaped::Reject,
        EscapedSlashes::UnescapeAndRedirect => Unescaped::Redirect(out),
        EscapedSlashes::UnescapeAndForward | EscapedSlashes::KeepUnchanged => {
            Unescaped::Forward(Cow::Owned(out))
        }
    }
}

/// The path with `%2F` and `%5C` decoded; `None` if it has neither.
fn with_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let slash = |at: usize| match path.get(at..at + 3) {
        Some([b'%', b'2', b'f' | b'F']) => Some(b'/'),
        Some([b'%', b'5', b'c' | b'C']) => Some(b'\\'),
        _ => None,
    };
    let first = memchr::memchr_iter(b'%', path).find(|at| slash(*at).is_some())?;
    let mut out = path[..first].to_vec();
    let mut at = first;
    while at < path.len() {
        match slash(at) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    Some(out)
}

/// Several `/` in a row become one; the query stays.
pub fn merge_slashes(path: &[u8]) -> Cow<'_, [u8]> {
    let (only, query) = path.split_at(without_query(path).len());
    if !only.windows(2).any(|pair| pair == b"//") {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    for &byte in only {
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    out.extend_from_slice(query);
    Cow::Owned(out)
}

/// Removes dot segments (RFC 3986, 5.2.4), reads `\` as `/`, decodes escaped unreserved characters and escapes the ones that
/// a path cannot hold. The query stays. `None` if the path does not begin with `/`: the request is refused (400).
pub fn normalize(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (only, query) = path.split_at(without_query(path).len());
    if only.first() != Some(&b'/') && only.first() != Some(&b'\\') {
        return None;
    }
    if is_normal(only) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = unreserved_decoded(only);
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment.len() == 2 {
                    let parent = out.iter().rposition(|byte| *byte == b'/');
                    out.truncate(parent.unwrap_or(0));
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    Some(Cow::Owned(out))
}

/// Whether nothing is to be done, so that the common path costs one scan.
fn is_normal(path: &[u8]) -> bool {
    let plain = path
        .iter()
        .all(|byte| *byte != b'\\' && *byte != b'%' && !must_escape(*byte));
    plain && !path.windows(2).any(|pair| pair == b"/.")
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn must_escape(byte: u8) -> bool {
    !byte.is_ascii_graphic() || matches!(byte, b'"' | b'<' | b'>' | b'`' | b'{' | b'}')
}

fn unreserved_decoded(path: &[u8]) -> Vec<u8> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let decoded = match (byte, tail) {
            (b'%', [high, low, ..]) => digit(high)
                .zip(digit(low))
                .map(|(high, low)| high * 16 + low)
                .filter(|byte| is_unreserved(*byte)),
            _ => None,
        };
        match (decoded, byte) {
            (Some(byte), _) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (None, b'\\') => out.push(b'/'),
            (None, byte) if must_escape(byte) => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.extend([
                    b'%',
                    DIGITS[usize::from(byte >> 4)],
                    DIGITS[usize::from(byte & 15)],
                ]);
            }
            (None, byte) => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalize_follows_rfc_3986() {
        for (path, wanted) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a//../b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/%2e%2E/a", "/a"),
            ("/%61%2f", "/a%2f"),
            ("/%zz", "/%zz"),
            ("/...", "/..."),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/a b", "/a%20b"),
            ("/a//b", "/a//b"),
        ] {
            let seen = normalize(path.as_bytes()).expect("begins with a slash");
            assert_eq!(seen, wanted.as_bytes(), "{path}");
        }
        assert_eq!(normalize(b"a"), None);
        assert_eq!(normalize(b"*"), None);
    }

    #[test]
    fn slashes_merge_in_the_path_only() {
        assert_eq!(merge_slashes(b"//a///b?c//d"), &b"/a/b?c//d"[..]);
        assert!(matches!(merge_slashes(b"/a/b?c//d"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_slashes_are_refused_redirected_or_decoded() {
        let path = b"/a%2fb%5C%2?%2f";
        let wanted = b"/a/b\\%2?%2f";
        assert_eq!(
            unescape_slashes(path, EscapedSlashes::UnescapeAndForward),
            Unescaped::Forward(Cow::Borrowed(wanted))
        );
        assert_eq!(
            unescape_slashes(path, EscapedSlashes::UnescapeAndRedirect),
            Unescaped::Redirect(wanted.to_vec())
        );
        assert_eq!(
            unescape_slashes(path, EscapedSlashes::RejectRequest),
            Unescaped::Reject
        );
        assert_eq!(
            unescape_slashes(b"/a?%2f", EscapedSlashes::RejectRequest),
            Unescaped::Forward(Cow::Borrowed(b"/a?%2f"))
        );
    }
}
