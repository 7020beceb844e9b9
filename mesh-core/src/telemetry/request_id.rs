//! `x-request-id`: random UUIDs whose 13th digit, the version, tells whether the request is traced, as Envoy packs it.

use http::{HeaderName, HeaderValue};

use crate::scratch;

/// The header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Length of a UUID as text.
const LENGTH: usize = 36;
/// Where the version stands.
const VERSION: usize = 14;

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

/// A new id, whose reason `reason` tells by the number that its first eight digits are. Most cost no allocation.
pub fn generate(reason: impl FnOnce(u32) -> TraceReason) -> HeaderValue {
    // In one number: an array would be drawn byte by byte.
    let random = rand::random::<u128>().to_be_bytes();
    let [a, b, c, d, ..] = random;
    let mut text = written(random);
    text[VERSION] = reason(u32::from_be_bytes([a, b, c, d])).digit();
    scratch::header_value(&text).expect("hexadecimal digits and dashes make a header value")
}

/// The number and the reason of an id; `None` if it is no UUID.
pub fn parse(id: &HeaderValue) -> Option<(u32, TraceReason)> {
    let id = id.as_bytes();
    let reason = match id.get(VERSION) {
        Some(b'a') => TraceReason::Forced,
        Some(b'9') => TraceReason::Sampled,
        Some(b'b') => TraceReason::Client,
        _ => TraceReason::None,
    };
    (id.len() == LENGTH).then_some(())?;
    Some((number(id)?, reason))
}

/// The same id with another reason; `None` if it is no UUID.
pub fn with_reason(id: &HeaderValue, reason: TraceReason) -> Option<HeaderValue> {
    let mut text: [u8; LENGTH] = id.as_bytes().try_into().ok()?;
    text[VERSION] = reason.digit();
    scratch::header_value(&text)
}

/// The first eight digits as a number, by which all proxies on the way sample alike.
fn number(id: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// A new random UUID (version 4) as text.
pub fn uuid() -> [u8; LENGTH] {
    written(rand::random::<u128>().to_be_bytes())
}

/// `random` as a UUID of version 4, in text.
fn written(mut random: [u8; 16]) -> [u8; LENGTH] {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = [b'-'; LENGTH];
    for (byte, at) in random.into_iter().zip(PLACES) {
        text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
    }
    text
}

/// Where the digits of each byte stand.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The two digits of each byte.
const HEX: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = [DIGITS[byte >> 4], DIGITS[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_and_tell_the_reason() {
        let mut seen = 0;
        let id = generate(|number| {
            seen = number;
            TraceReason::Sampled
        });
        let text = id.to_str().expect("text");
        assert_eq!(text.len(), 36);
        for at in [8, 13, 18, 23] {
            assert_eq!(text.as_bytes()[at], b'-', "{text}");
        }
        assert_eq!(text.as_bytes()[14], b'9', "{text}");
        assert_eq!(parse(&id), Some((seen, TraceReason::Sampled)));
        let other = with_reason(&id, TraceReason::Forced).expect("a UUID");
        assert_eq!(parse(&other), Some((seen, TraceReason::Forced)));
        assert_eq!(parse(&HeaderValue::from_static("mine")), None);
        assert_eq!(
            with_reason(&HeaderValue::from_static("mine"), TraceReason::None),
            None
        );
        let none = || generate(|_| TraceReason::None);
        assert_ne!(none(), none());
    }
}
