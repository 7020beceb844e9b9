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
    let random = crate::world::random::<u128>().to_be_bytes();
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
    written(crate::world::random::<u128>().to_be_bytes())
}

/// `random` as a UUID of version 4, in text.
fn written(mut random: [u8; 16]) -> [u8; LENGTH] {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let [a, b, c, d] = [0, 4, 8, 12].map(|at| {
        let four = [random[at], random[at + 1], random[at + 2], random[at + 3]];
        digits(u32::from_be_bytes(four))
    });
    let mut text = [b'-'; LENGTH];
    text[..8].copy_from_slice(&a);
    text[9..13].copy_from_slice(&b[..4]);
    text[14..18].copy_from_slice(&b[4..]);
    text[19..23].copy_from_slice(&c[..4]);
    text[24..28].copy_from_slice(&c[4..]);
    text[28..].copy_from_slice(&d);
    text
}

/// The eight digits of a number, all at a time.
fn digits(number: u32) -> [u8; 8] {
    // Each digit gets a byte of its own: halves, then quarters, then eighths move apart.
    let mut wide = u64::from(number);
    wide = (wide << 16 | wide) & 0x0000_ffff_0000_ffff;
    wide = (wide << 8 | wide) & 0x00ff_00ff_00ff_00ff;
    wide = (wide << 4 | wide) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 in each byte whose digit is a letter: such a byte carries into its higher half when 6 is added.
    let letters = (wide + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    let above = u64::from(b'a' - b'0' - 10);
    (wide + 0x3030_3030_3030_3030 + letters * above).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, 0x9a9a_0f0f, u32::MAX] {
            let text = String::from_utf8(digits(number).to_vec()).expect("text");
            assert_eq!(text, format!("{number:08x}"));
        }
        let id = written([0xff; 16]);
        assert_eq!(&id, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

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
