//! What passes on an HTTP/2 connection, seen from outside its codec: the heads of frames.
//!
//! The codec answers malformed requests by itself, with RST_STREAM or 431, and tells nobody. Here it shows that a head came whose
//! request no service saw. A head that comes slowly shows as well.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Length of the client's preface, before its first frame.
const PREFACE: u32 = 24;
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What the connection's task asks for. Written by the socket's owner, who runs in the same task.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Heads of requests that came to their end.
    heads: AtomicU64,
    /// Streams that were reset from this side before they were answered.
    resets: AtomicU64,
    /// The newest stream was answered or reset, so that the codec has dealt with every head that came.
    settled: AtomicBool,
    /// A head is on its way.
    in_head: AtomicBool,
}

impl Tally {
    /// How many heads the codec has dealt with, once it has dealt with all.
    pub(super) fn settled(&self) -> Option<u64> {
        let settled = self.settled.load(Ordering::Relaxed);
        settled.then(|| self.heads.load(Ordering::Relaxed))
    }

    pub(super) fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    pub(super) fn in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }
}

/// Follows both directions of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    read: Cursor,
    wrote: Cursor,
    /// The newest stream of the peer.
    newest: u32,
    /// The newest stream that was answered or reset.
    answered: u32,
    /// A block of headers has not ended.
    open: bool,
    /// It begins a stream.
    opens: bool,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            read: Cursor {
                skip: PREFACE,
                ..Cursor::default()
            },
            wrote: Cursor::default(),
            newest: 0,
            answered: 0,
            open: false,
            opens: false,
        }
    }

    /// Bytes came from the peer; returns how many streams they reset.
    pub(super) fn read(&mut self, bytes: &[u8], tally: &Tally) -> u32 {
        let mut rest = bytes;
        let mut resets = 0;
        while let Some(frame) = self.read.next(&mut rest) {
            match frame.kind {
                HEADERS => {
                    self.opens = frame.stream > self.newest;
                    self.newest = self.newest.max(frame.stream);
                }
                CONTINUATION => {}
                RST_STREAM => {
                    resets += 1;
                    continue;
                }
                _ => continue,
            }
            self.open = frame.flags & END_HEADERS == 0;
            if self.opens {
                tally.settled.store(false, Ordering::Relaxed);
                if !self.open {
                    tally.heads.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let in_head = self.open || self.read.is_within_headers();
        if in_head != tally.in_head() {
            tally.in_head.store(in_head, Ordering::Relaxed);
        }
        resets
    }

    /// The socket took bytes for the peer.
    pub(super) fn wrote(&mut self, bytes: &[u8], tally: &Tally) {
        let mut rest = bytes;
        while let Some(frame) = self.wrote.next(&mut rest) {
            if !matches!(frame.kind, HEADERS | RST_STREAM) {
                continue;
            }
            // What the codec refuses is the newest by then.
            if frame.kind == RST_STREAM && frame.stream > self.answered {
                tally.resets.fetch_add(1, Ordering::Relaxed);
            }
            self.answered = self.answered.max(frame.stream);
            if self.answered >= self.newest {
                tally.settled.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The head of a frame (RFC 9113, 4.1).
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Where one direction stands.
#[derive(Debug, Default)]
struct Cursor {
    /// The part of a head that has come.
    head: [u8; HEAD],
    have: usize,
    /// Bytes of payload that are still to come.
    skip: u32,
    kind: u8,
}

impl Cursor {
    /// The next frame whose head ends in `rest`, which then begins behind that head.
    fn next(&mut self, rest: &mut &[u8]) -> Option<Frame> {
        let skipped = rest.len().min(self.skip as usize);
        self.skip -= skipped as u32;
        *rest = &rest[skipped..];
        let taken = rest.len().min(HEAD - self.have);
        self.head[self.have..self.have + taken].copy_from_slice(&rest[..taken]);
        *rest = &rest[taken..];
        self.have += taken;
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]);
        self.kind = kind;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    fn is_within_headers(&self) -> bool {
        self.skip > 0 && matches!(self.kind, HEADERS | CONTINUATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn heads_are_counted_at_any_split_and_settled_by_answers() {
        let came = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, b"block"),
            frame(0, 0, 1, b"body"),
            // Trailers are no new request.
            frame(HEADERS, END_HEADERS | 1, 1, b"trailer"),
            frame(HEADERS, 0, 3, b"bl"),
            frame(CONTINUATION, 0, 3, b""),
            frame(CONTINUATION, END_HEADERS, 3, b"ock"),
        ]
        .concat();
        for size in [1, 2, 5, 9, 1000] {
            let (tally, mut frames) = (Tally::default(), Frames::new());
            for part in came.chunks(size) {
                frames.read(part, &tally);
            }
            assert_eq!(tally.settled(), None);
            assert!(!tally.in_head());
            for part in frame(HEADERS, END_HEADERS, 1, &[0x88]).chunks(size) {
                frames.wrote(part, &tally);
            }
            assert_eq!(tally.settled(), None, "stream 3 is open");
            frames.wrote(&frame(RST_STREAM, 0, 3, &[0, 0, 0, 1]), &tally);
            // An answer that breaks off is no refusal.
            frames.wrote(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), &tally);
            assert_eq!((tally.settled(), tally.resets()), (Some(2), 1));
        }
    }

    #[test]
    fn a_head_is_on_its_way_until_its_last_byte() {
        let (tally, mut frames) = (Tally::default(), Frames::new());
        frames.read(&[b'x'; PREFACE as usize], &tally);
        for bytes in [
            &frame(HEADERS, 0, 1, b"")[..],
            &frame(CONTINUATION, END_HEADERS, 1, b"abc")[..11],
        ] {
            frames.read(bytes, &tally);
            assert!(tally.in_head());
        }
        frames.read(b"c", &tally);
        assert!(!tally.in_head());
        // A body that comes slowly is no head.
        frames.read(&frame(0, 0, 1, b"abc")[..10], &tally);
        assert!(!tally.in_head());
    }
}
