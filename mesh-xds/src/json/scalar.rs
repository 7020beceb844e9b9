//! Scalars, durations and times: JSON text to wire bytes and back.

use prost::encoding::encode_varint;

use super::schema::{Enum, Kind};

/// A JSON scalar.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
}

impl Scalar<'_> {
    fn signed(self) -> Option<i64> {
        match self {
            Self::Signed(value) => Some(value),
            Self::Unsigned(value) => i64::try_from(value).ok(),
            Self::Float(value) => whole(value).and_then(|value| i64::try_from(value).ok()),
            Self::Text(text) => text
                .parse()
                .ok()
                .or_else(|| whole(text.parse().ok()?)?.try_into().ok()),
            Self::Bool(_) => None,
        }
    }

    fn unsigned(self) -> Option<u64> {
        match self {
            Self::Signed(value) => u64::try_from(value).ok(),
            Self::Unsigned(value) => Some(value),
            Self::Float(value) => whole(value).and_then(|value| u64::try_from(value).ok()),
            Self::Text(text) => text
                .parse()
                .ok()
                .or_else(|| whole(text.parse().ok()?)?.try_into().ok()),
            Self::Bool(_) => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "JSON numbers are doubles")]
    fn float(self) -> Option<f64> {
        match self {
            Self::Signed(value) => Some(value as f64),
            Self::Unsigned(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            Self::Text("NaN") => Some(f64::NAN),
            Self::Text("Infinity") => Some(f64::INFINITY),
            Self::Text("-Infinity") => Some(f64::NEG_INFINITY),
            Self::Text(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
            Self::Bool(_) => None,
        }
    }
}

/// The integer that a double stands for exactly.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

/// Appends the wire form of `scalar`, without tag. `None` if it is of another type or out of range.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, scalar: Scalar<'_>) -> Option<()> {
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)).cast_unsigned();
    match kind {
        Kind::Bool => match scalar {
            Scalar::Bool(value) => encode_varint(u64::from(value), out),
            // As Envoy's parser reads it.
            Scalar::Text("true") => encode_varint(1, out),
            Scalar::Text("false") => encode_varint(0, out),
            _ => return None,
        },
        Kind::String => match scalar {
            Scalar::Text(text) => put_bytes(out, text.as_bytes()),
            _ => return None,
        },
        Kind::Bytes => match scalar {
            Scalar::Text(text) => put_bytes(out, &base64(text)?),
            _ => return None,
        },
        Kind::Enum(Some(target)) => encode_varint(enumerator(target, scalar)?, out),
        Kind::Int64 => encode_varint(scalar.signed()?.cast_unsigned(), out),
        Kind::Int32 => encode_varint(i64::from(int32(scalar)?).cast_unsigned(), out),
        Kind::Sint64 => encode_varint(zigzag(scalar.signed()?), out),
        Kind::Sint32 => encode_varint(zigzag(i64::from(int32(scalar)?)), out),
        Kind::Uint64 => encode_varint(scalar.unsigned()?, out),
        Kind::Uint32 => encode_varint(u64::from(uint32(scalar)?), out),
        Kind::Fixed64 => out.extend(scalar.unsigned()?.to_le_bytes()),
        Kind::Fixed32 => out.extend(uint32(scalar)?.to_le_bytes()),
        Kind::Sfixed64 => out.extend(scalar.signed()?.to_le_bytes()),
        Kind::Sfixed32 => out.extend(int32(scalar)?.to_le_bytes()),
        Kind::Double => out.extend(scalar.float()?.to_le_bytes()),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the nearest float is meant"
        )]
        Kind::Float => out.extend((scalar.float()? as f32).to_le_bytes()),
        Kind::Message(_) | Kind::Enum(None) => return None,
    }
    Some(())
}

fn int32(scalar: Scalar<'_>) -> Option<i32> {
    i32::try_from(scalar.signed()?).ok()
}

fn uint32(scalar: Scalar<'_>) -> Option<u32> {
    u32::try_from(scalar.unsigned()?).ok()
}

fn enumerator(target: Enum, scalar: Scalar<'_>) -> Option<u64> {
    let number = match scalar {
        Scalar::Text(name) => target.number(name)?,
        _ => int32(scalar)?,
    };
    Some(i64::from(number).cast_unsigned())
}

/// Appends length and bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Base64, standard or URL-safe, with or without padding.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    for chunk in text.chunks(4) {
        let mut word = 0u32;
        for byte in chunk {
            let digit = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(digit);
        }
        word <<= 6 * (4 - chunk.len());
        let [_, bytes @ ..] = word.to_be_bytes();
        out.extend(&bytes[..chunk.len() - 1]);
    }
    Some(out)
}

/// Base64 with padding.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            if place > chunk.len() {
                out.push('=');
            } else {
                out.push(char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]));
            }
        }
    }
    out
}

/// Seconds and nanoseconds of `1.5s`, `-3s`, `0.000000001s`.
pub(super) fn duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && part.is_empty() || part.len() > 9 {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) {
        return None;
    }
    let seconds: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let nanos: i32 = format!("{part:0<9}").parse().ok()?;
    if seconds > 315_576_000_000 {
        return None;
    }
    Some(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// The number, the unit in its short spelling and the seconds of a duration as people write it: `5`, `100ms`, `2 min`,
/// `1 Hour`. Without a unit seconds are meant.
pub(crate) fn written_duration(text: &str) -> Option<(String, &'static str, f64)> {
    let compact: String = text.split_whitespace().collect();
    let compact = compact.to_ascii_lowercase();
    let at = compact.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = compact.split_at(at.unwrap_or(compact.len()));
    let (unit, scale) = match unit {
        "" | "s" | "sec" | "secs" | "second" | "seconds" => ("s", 1.0),
        "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => ("ms", 1e-3),
        "m" | "min" | "mins" | "minute" | "minutes" => ("m", 60.0),
        "h" | "hr" | "hrs" | "hour" | "hours" => ("h", 3600.0),
        _ => return None,
    };
    let seconds = number.parse::<f64>().ok()? * scale;
    Some((number.to_owned(), unit, seconds))
}

/// The duration in protobuf's form that a text of another form may mean: `5` and `100ms`.
pub(super) fn near_duration(text: &str) -> Option<String> {
    let (.., seconds) = written_duration(text)?;
    let seconds = format!("{seconds}s");
    duration(&seconds).is_some().then_some(seconds)
}

/// `1.500s` from seconds and nanoseconds: 0, 3, 6 or 9 decimals.
pub(super) fn duration_text(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    let decimals = decimals(nanos.unsigned_abs());
    format!("{sign}{}{decimals}s", seconds.unsigned_abs())
}

fn decimals(nanos: u32) -> String {
    if nanos == 0 {
        String::new()
    } else if nanos.is_multiple_of(1_000_000) {
        format!(".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!(".{:06}", nanos / 1_000)
    } else {
        format!(".{nanos:09}")
    }
}

/// Seconds and nanoseconds since 1970 of an RFC 3339 time.
pub(crate) fn timestamp(text: &str) -> Option<(i64, i32)> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.splitn(3, '-');
    let mut next = |len: usize| -> Option<i64> {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.parse().ok()
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    let zone = time.rfind(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, part) = clock.split_once('.').unwrap_or((clock, ""));
    let seconds = seconds_of_day(clock)?;
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let minutes = seconds_of_day(&format!("{}:00", zone.get(1..)?))?;
            if zone.starts_with('-') {
                -minutes
            } else {
                minutes
            }
        }
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || part.len() > 9 {
        return None;
    }
    let nanos = format!("{part:0<9}").parse().ok()?;
    Some((days(year, month, day) * 86_400 + seconds - offset, nanos))
}

fn seconds_of_day(clock: &str) -> Option<i64> {
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let valid =
        (0..24).contains(&hours) && (0..60).contains(&minutes) && (0..=60).contains(&seconds);
    valid.then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// An RFC 3339 time in UTC.
pub(super) fn timestamp_text(seconds: i64, nanos: i32) -> String {
    let (day, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let decimals = decimals(nanos.unsigned_abs());
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{decimals}Z",
        clock / 3600,
        clock / 60 % 60,
        clock % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_times_are_read_and_written() {
        for (text, value) in [
            ("1.500s", (1, 500_000_000)),
            ("-3s", (-3, 0)),
            ("0.000000001s", (0, 1)),
            ("-0.250s", (0, -250_000_000)),
        ] {
            assert_eq!(duration(text), Some(value));
            assert_eq!(duration_text(value.0, value.1), text);
        }
        for bad in ["", "s", "1", "1m", "1.s5", "+1s", "--1s", "1.0000000001s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-02-28T23:59:59Z", 1_772_323_199),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(timestamp(text), Some((seconds, 0)));
            assert_eq!(timestamp_text(seconds, 0), text);
        }
        assert_eq!(
            timestamp("1970-01-01T01:00:00.5+01:00"),
            Some((0, 500_000_000))
        );
        assert_eq!(timestamp("1970-13-01T00:00:00Z"), None);
    }

    #[test]
    fn numbers_without_a_unit_have_a_duration_near_them() {
        for (text, near) in [
            ("5", Some("5s")),
            ("0.25", Some("0.25s")),
            ("100ms", Some("0.1s")),
            ("2 m", Some("120s")),
            ("1 Hour", Some("3600s")),
            ("1d", None),
            ("-5", None),
            ("1e400", None),
            ("", None),
        ] {
            assert_eq!(near_duration(text).as_deref(), near, "{text}");
        }
    }

    #[test]
    fn base64_takes_both_alphabets() {
        for bytes in [&b""[..], b"f", b"fo", b"foo", b"foob", &[0xfb, 0xff, 0xfe]] {
            assert_eq!(base64(&to_base64(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(base64("-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(base64("a"), None);
        assert_eq!(base64("a*aa"), None);
    }
}
