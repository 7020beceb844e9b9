//! `x-request-id`: random UUIDs whose 13th digit, the version, tells whether the request is traced, as Envoy packs it.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

/// The header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Length of a UUID as text.
const LENGTH: usize = 36;
/// Bytes that are cut into ids at a time.
const BLOCK: usize = LENGTH * 113;
/// Where the version stands.
const VERSION: usize = 14;

thread_local! {
    static MEMORY: RefCell<BytesMut> = RefCell::default();
}

/// Why a request is traced, as the version digit of its id tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    /// It is not.
    None,
    /// By chance.
    Sampled,
    /// The client wants it.
    Client,
    /// The service wants it (`x-envoy-force-trace`).
    Forced,
}

impl TraceReason {
    fn digit(self) -> u8 {
        match self {
            Self::None => b'4',
            Self::Forced => b'a',
            Self::Sampled => b'9',
            Self::Client => b'b',
        }
    }
}

/// A new id. The texts are cut from one block a thread, so that most cost no allocation.
pub fn generate(reason: TraceReason) -> HeaderValue {
    let mut text = uuid();
    text[VERSION] = reason.digit();
    let bytes = MEMORY.with_borrow_mut(|memory| {
        if memory.capacity() < LENGTH {
            memory.reserve(BLOCK);
        }
        memory.extend_from_slice(&text);
        memory.split_to(LENGTH).freeze()
    });
    from_ascii(bytes)
}

/// A header value of bytes that are known to be hexadecimal digits and dashes.
fn from_ascii(bytes: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A new random UUID (version 4) as text.
pub fn uuid() -> [u8; LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut random: [u8; 16] = rand::random();
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = [b'-'; LENGTH];
    let mut at = 0;
    for (index, byte) in random.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = DIGITS[usize::from(byte >> 4)];
        text[at + 1] = DIGITS[usize::from(byte & 15)];
        at += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_tell_the_reason() {
        let id = generate(TraceReason::Sampled);
        let text = id.to_str().expect("text");
        assert_eq!(text.len(), 36);
        for at in [8, 13, 18, 23] {
            assert_eq!(text.as_bytes()[at], b'-', "{text}");
        }
        assert_eq!(text.as_bytes()[14], b'9', "{text}");
        assert_ne!(generate(TraceReason::None), generate(TraceReason::None));
    }
}
