//! What passes on an HTTP/1 connection, seen from outside its codec: heads that declare a body both by length and in chunks.
//!
//! The codec reads such a request by its chunks and drops the length before anybody sees it. Here the bytes show that there was
//! one. A head without chunks costs one search for a letter. Looked at are heads that are read while no request is in flight,
//! with what follows them in the same read; what is pipelined behind a request in flight passes unseen.

use std::sync::atomic::{AtomicBool, Ordering};

use memchr::{memchr, memchr2_iter};

/// Longer heads are not waited for; the codec's limit is most often lower.
const MOST: usize = 96 << 10;

/// A head that came since the last request has both.
#[derive(Debug, Default)]
pub(super) struct Both(AtomicBool);

impl Both {
    /// Whether there was such a head; asked once for a request in chunks.
    pub(super) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }

    fn set(&self, both: bool) {
        if self.0.load(Ordering::Relaxed) != both {
            self.0.store(both, Ordering::Relaxed);
        }
    }
}

/// Follows the bytes from the peer.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// The beginning of a head that has not ended; most heads come in one piece.
    part: Vec<u8>,
}

impl Heads {
    /// Bytes came while no request was in flight.
    pub(super) fn read(&mut self, bytes: &[u8], both: &Both) {
        if self.part.is_empty() {
            let (found, rest) = look(bytes);
            both.set(found);
            self.part.extend_from_slice(rest);
            return;
        }
        self.part.extend_from_slice(bytes);
        // Looked at again only if this ended it: a head may come byte by byte.
        let from = self.part.len() - bytes.len().min(self.part.len());
        if end(&self.part[from.saturating_sub(3)..]).is_some() || self.part.len() > MOST {
            both.set(look(&self.part).0);
            self.part = Vec::new();
        }
    }
}

/// Whether one of the heads in `bytes` has both, and the head that they begin and do not end.
fn look(bytes: &[u8]) -> (bool, &[u8]) {
    let ended = bytes.ends_with(b"\r\n\r\n");
    if ended && !names_chunks(bytes) {
        return (false, &[]);
    }
    let mut rest = bytes;
    // A body in chunks ends the search: where it ends only the codec knows.
    while let Some(length) = end(rest) {
        let (head, behind) = rest.split_at(length);
        let framing = Framing::of(head);
        match (framing.chunked, framing.length) {
            (true, length) => return (length.is_some(), &[]),
            (false, Some(length)) => match behind.get(length..) {
                Some(behind) => rest = behind,
                None => return (false, &[]),
            },
            (false, None) => rest = behind,
        }
    }
    (false, rest)
}

/// Whether the bytes contain `chunked`, in whatever case.
fn names_chunks(bytes: &[u8]) -> bool {
    const WORD: &[u8] = b"chunked";
    const AT: usize = 4;
    // The rarest of its letters.
    memchr2_iter(b'k', b'K', bytes).any(|at| {
        let word = at
            .checked_sub(AT)
            .and_then(|from| bytes.get(from..)?.get(..WORD.len()));
        word.is_some_and(|word| word.eq_ignore_ascii_case(WORD))
    })
}

/// Where the first head ends, behind its empty line.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr(b'\n', &bytes[from..]) {
        from += at + 1;
        match &bytes[from..] {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
    None
}

/// How a head says where its body ends.
#[derive(Default)]
struct Framing {
    chunked: bool,
    /// One that is no number has no body here, since the codec refuses it.
    length: Option<usize>,
}

impl Framing {
    fn of(head: &[u8]) -> Self {
        let mut framing = Self::default();
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = memchr(b':', line) else {
                continue;
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"transfer-encoding") {
                framing.chunked = true;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let text = std::str::from_utf8(value).unwrap_or_default();
                framing.length = Some(text.parse().unwrap_or(0));
            }
        }
        framing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nhost: kkk\r\n\r\n";
    const CHUNKS: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n";
    const BOTH: &str =
        "POST / HTTP/1.1\r\ncontent-length: 5\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    const TURNED: &str = "POST / HTTP/1.1\ntransfer-encoding: chunked\nContent-Length: 0\n\n";
    const LENGTH: &str = "POST / HTTP/1.1\r\ncontent-length: 57\r\n\r\n";
    /// As long as `LENGTH` says.
    const BODY: &str = "\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n......";

    #[test]
    fn heads_with_both_are_found_at_any_split() {
        assert_eq!(BODY.len(), 57);
        for (texts, wanted) in [
            (&[PLAIN][..], false),
            (&[CHUNKS, "0\r\n\r\n"], false),
            (&[BOTH, "0\r\n\r\n"], true),
            (&[TURNED], true),
            (&[PLAIN, BOTH], true),
            (&[PLAIN, PLAIN, TURNED], true),
            (&[LENGTH, BODY], false),
            (&[LENGTH, BODY, BOTH], true),
            (&[CHUNKS, "5\r\n", BOTH], false),
        ] {
            let text = texts.concat();
            let (mut heads, both) = (Heads::default(), Both::default());
            heads.read(text.as_bytes(), &both);
            assert_eq!(both.take(), wanted, "{text}");
            assert!(!both.take(), "told once");
        }
        for size in 1..BOTH.len() {
            let (mut heads, both) = (Heads::default(), Both::default());
            for part in BOTH.as_bytes().chunks(size) {
                heads.read(part, &both);
            }
            assert!(both.take(), "in parts of {size}");
            heads.read(PLAIN.as_bytes(), &both);
            heads.read(CHUNKS.as_bytes(), &both);
            assert!(!both.take(), "the next head has one only");
        }
    }

    #[test]
    fn a_head_without_an_end_is_not_kept() {
        let (mut heads, both) = (Heads::default(), Both::default());
        for _ in 0..1000 {
            heads.read(&[b'a'; 1000], &both);
            assert!(heads.part.len() <= MOST + 1000);
        }
    }
}
