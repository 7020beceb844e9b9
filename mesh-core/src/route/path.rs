//! Paths: the part that is matched, and the normalisations that a connection manager makes before routing.

use std::borrow::Cow;

use crate::model::EscapedSlashes;

/// The path up to the query or the fragment.
pub fn without_query(path: &[u8]) -> &[u8] {
    memchr::memchr2(b'?', b'#', path).map_or(path, |at| &path[..at])
}

/// The path without the parameters of its segments (`;` up to the next `/`).
pub(crate) fn without_parameters(path: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b';', path).is_none() {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len());
    let mut inside = false;
    for &byte in path {
        inside = byte == b';' || inside && byte != b'/';
        if !inside {
            out.push(byte);
        }
    }
    Cow::Owned(out)
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

/// Several `/` in a row become one; the query stays. A path of nothing else keeps its first and its last, as in Envoy.
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
    if out == b"/" {
        out.push(b'/');
    }
    out.extend_from_slice(query);
    Cow::Owned(out)
}

/// Removes dot segments (RFC 3986, 5.2.4), reads `\` as `/`, decodes escaped unreserved characters and escapes the ones that
/// a path cannot hold. A `%` that decoding would make the begin of an escape becomes `%25`, so that a second time changes
/// nothing. The query stays. `None` if the path does not begin with `/` or holds a NUL: the request is refused (400).
pub fn normalize(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (only, query) = path.split_at(without_query(path).len());
    if only.first() != Some(&b'/') && only.first() != Some(&b'\\') {
        return None;
    }
    if is_normal(only) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = unreserved_decoded(only)?;
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let segment = bare_dots(segment);
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

/// `.;x` and `..;x` are `.` and `..`: some servers read what follows the semicolon as a parameter of the segment. So they are where
/// the dots were escaped, which Envoy 1.40 decodes and sends on as they are: it leads those servers out of the path that was
/// routed.
fn bare_dots(segment: &[u8]) -> &[u8] {
    match segment {
        [b'.', b';', ..] => b".",
        [b'.', b'.', b';', ..] => b"..",
        other => other,
    }
}

/// Whether nothing is to be done, so that the common path costs one scan.
fn is_normal(path: &[u8]) -> bool {
    let plain = path
        .iter()
        .all(|byte| *byte != b'\\' && *byte != b'%' && !must_escape(*byte));
    plain && !path.windows(2).any(|pair| pair == b"/.")
}

/// The path as a URI can hold it: with a slash in front, and the bytes escaped that it cannot hold.
pub(crate) fn sendable(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 16);
    if path.first() != Some(&b'/') {
        out.push(b'/');
    }
    for &byte in path {
        if must_escape(byte) || byte == b'#' {
            push_escaped(byte, &mut out);
        } else {
            out.push(byte);
        }
    }
    out
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]);
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn must_escape(byte: u8) -> bool {
    !byte.is_ascii_graphic()
        || matches!(byte, b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}')
}

/// The byte that an escape at the begin of `text` stands for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).map(|digit| digit as u8);
    match text {
        [b'%', high, low, ..] => Some(digit(high)? * 16 + digit(low)?),
        _ => None,
    }
}

/// `None` if there is a NUL, escaped or not.
fn unreserved_decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    // The last `%` that begins no escape, in `out`.
    let mut lone = None;
    let mut rest = path;
    while let Some(&byte) = rest.first() {
        match (escaped(rest), byte) {
            (Some(0), _) | (_, 0) => return None,
            (Some(byte), _) if is_unreserved(byte) => {
                out.push(byte);
                rest = &rest[3..];
                keep_lone(&mut out, lone, rest);
                continue;
            }
            (None, b'%') => {
                lone = Some(out.len());
                out.push(b'%');
            }
            (_, b'\\') => out.push(b'/'),
            (_, byte) if must_escape(byte) => push_escaped(byte, &mut out),
            (_, byte) => out.push(byte),
        }
        rest = &rest[1..];
    }
    Some(out)
}

/// The `%` at `lone` stays one, though the byte that was decoded last would make an escape of it.
fn keep_lone(out: &mut Vec<u8>, lone: Option<usize>, rest: &[u8]) {
    let Some(lone) = lone else {
        return;
    };
    let nested = match (&out[lone + 1..], rest.first()) {
        ([high, low], _) | ([high], Some(low)) => {
            high.is_ascii_hexdigit() && low.is_ascii_hexdigit()
        }
        _ => false,
    };
    if nested {
        out.splice(lone + 1..lone + 1, *b"25");
    }
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
            ("/a|b^c[d]", "/a%7Cb%5Ec[d]"),
        ] {
            let seen = normalize(path.as_bytes()).expect("begins with a slash");
            assert_eq!(seen, wanted.as_bytes(), "{path}");
        }
        assert_eq!(normalize(b"a"), None);
        assert_eq!(normalize(b"*"), None);
        assert_eq!(normalize(b"/a%00b"), None, "Envoy refuses a NUL");
        assert_eq!(normalize(b"/a\0b"), None);
        assert_eq!(
            normalize(b"/a?%00").as_deref(),
            Some(&b"/a?%00"[..]),
            "the query stays"
        );
    }

    /// Measured with Envoy 1.40, but for those that are escaped, with which it makes `..;` itself.
    #[test]
    fn dots_with_parameters_are_dots() {
        for (path, wanted) in [
            ("/..;/a", "/a"),
            ("/a/..;x=1/b", "/b"),
            ("/.;/a", "/a"),
            ("/a/.;/b", "/a/b"),
            ("/a/%2e%2e;/b", "/b"),
            ("/a/.%2e;q/b", "/b"),
            ("/%2E;", "/"),
            ("/a\\%2e.;/b", "/b"),
            ("/a;/b", "/a;/b"),
            ("/a/..;", "/"),
            ("/a/b/..;/..;/c", "/c"),
            ("/a/.;x", "/a/"),
            ("/a/...;/b", "/a/...;/b"),
            ("/a/..%3b/b", "/a/..%3b/b"),
            ("/a/;x/b", "/a/;x/b"),
            ("/a/..;?q=..;/x", "/?q=..;/x"),
        ] {
            let seen = normalize(path.as_bytes()).expect("begins with a slash");
            assert_eq!(seen, wanted.as_bytes(), "{path}");
        }
    }

    /// Measured with Envoy 1.40.
    #[test]
    fn decoding_makes_no_new_escape() {
        for (path, wanted) in [
            ("/%4%41", "/%254A"),
            ("/%2%66", "/%252f"),
            ("/%2%46", "/%252F"),
            ("/%2%32%66", "/%2522f"),
            ("/%4%31%32", "/%25412"),
            ("/%a%41%4", "/%25aA%4"),
            ("/%%341", "/%2541"),
            ("/%%34%31", "/%2541"),
            ("/%%%34%31", "/%%2541"),
            ("/%%30%30", "/%2500"),
            ("/%%32F..", "/%252F.."),
            ("/%%66f", "/%25ff"),
            ("/a/.%2%65/b", "/a/.%252e/b"),
            ("/a%2%66b/../c", "/c"),
            ("/%%34g", "/%4g"),
            ("/%%34%2f", "/%4%2f"),
            ("/%%41", "/%A"),
            ("/%4%2e", "/%4."),
            ("/%4.%31", "/%4.1"),
            ("/%2%4g", "/%2%4g"),
            ("/%25%34%31", "/%2541"),
            ("/%%2541", "/%%2541"),
            ("/%252f", "/%252f"),
            ("/%zz/../%41", "/A"),
            ("/%/..", "/"),
            ("/%", "/%"),
            ("/a%2", "/a%2"),
            ("/a%25b", "/a%25b"),
        ] {
            let seen = normalize(path.as_bytes()).expect("begins with a slash");
            assert_eq!(seen, wanted.as_bytes(), "{path}");
        }
    }

    /// Every path of up to six characters that matter to one another.
    #[test]
    fn a_normal_path_is_normal() {
        const LETTERS: &[u8] = b"%246e./\\";
        let mut changed = 0;
        for length in 0..=6_u32 {
            for number in 0..LETTERS.len().pow(length) {
                let mut path = vec![b'/'];
                path.extend(
                    (0..length).map(|at| LETTERS[number / LETTERS.len().pow(at) % LETTERS.len()]),
                );
                let once = normalize(&path).expect("begins with a slash, and has no NUL");
                changed += u32::from(*once != *path);
                let twice = normalize(&once).expect("begins with a slash");
                assert_eq!(twice, once, "{}", path.escape_ascii());
            }
        }
        assert!(changed > 100_000, "{changed} paths were to be changed");
    }

    /// Measured with Envoy 1.40.
    #[test]
    fn every_segment_loses_its_parameters() {
        for (path, wanted) in [
            ("/a;p=1/b", "/a/b"),
            ("/a;p/b;q;r", "/a/b"),
            ("/;p/a", "//a"),
            ("/a;p/", "/a/"),
            ("/a/;p/b", "/a//b"),
            ("/a;;", "/a"),
            (";", ""),
        ] {
            assert_eq!(without_parameters(path.as_bytes()), wanted.as_bytes());
        }
        assert!(matches!(without_parameters(b"/a/b"), Cow::Borrowed(_)));
    }

    #[test]
    fn slashes_merge_in_the_path_only() {
        assert_eq!(merge_slashes(b"//a///b?c//d"), &b"/a/b?c//d"[..]);
        assert_eq!(merge_slashes(b"///?c//d"), &b"//?c//d"[..]);
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
