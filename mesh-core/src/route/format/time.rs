//! Wall-clock times as text, in UTC.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A parsed `strftime` format, of the C locale and with the flags and widths of glibc, with the additions of Envoy and of the
/// library that it uses (`%s`, `%3f`, `%E3S`, `%Ez`, …). What is no specifier stands for itself, as in Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// `%Y`, `%m`, `%d`, `%H`, `%M`, `%S`, …
    Field(u8),
    /// The same with flags or a width: `%-d`, `%^a`, `%5Y`.
    Styled(u8, Style),
    /// Seconds since the epoch.
    Epoch,
    /// So many digits of the fraction of a second.
    Fraction(usize),
    /// Milliseconds, microseconds or nanoseconds since the epoch: `%3s`, `%6s`, `%9s`.
    EpochScaled(usize),
}

const KNOWN: &[u8] = b"aAbBcCdDeFgGhHIjklmMpPrRStTuUVwWxXyYzZ";

/// Fields that are text, or padded with spaces: a width adds spaces.
const SPACED: &[u8] = b"aAbBcehklpPrtxXZ";

/// Digits of a fraction that there may be, and those that are known.
const MOST_DIGITS: usize = 15;
const KNOWN_DIGITS: usize = 9;

/// A width beyond this is of no use to anybody.
const MOST_WIDTH: usize = 64;

/// How a field is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    /// `-`: nothing in the place of leading zeros and spaces; `_`: spaces; `0`: zeros.
    pad: Option<u8>,
    /// `^`: upper case; `#`: the other case.
    case: Option<u8>,
    width: usize,
}

impl Default for TimeFormat {
    /// RFC 3339 with milliseconds: `2026-01-31T23:59:59.123Z`.
    fn default() -> Self {
        Self::parse("%Y-%m-%dT%H:%M:%S.%3fZ").expect("the default format is valid")
    }
}

impl TimeFormat {
    /// Parses `text`; empty means the default. The error is a reason.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                parts.push(Part::Literal(rest[..at].into()));
            }
            let after = &rest[at + 1..];
            if is_line_break(after) {
                return Err(format!("a line break in {text:?}"));
            }
            let used = match specifier(after).or_else(|| styled(after)) {
                Some((part, used)) => {
                    parts.extend(part);
                    used
                }
                None => {
                    parts.push(Part::Literal("%".into()));
                    0
                }
            };
            rest = &after[used..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(Self(parts.into()))
    }

    /// Appends the time. Times before 1970 count as 1970.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let civil = Civil::of(since.as_secs());
        self.0.iter().all(|part| match part {
            Part::Literal(text) => out.write_all(text.as_bytes()).is_ok(),
            Part::Field(field) => civil.write(*field, out),
            Part::Styled(field, style) => civil.write_styled(*field, *style, out),
            Part::Epoch => write!(out, "{}", since.as_secs()).is_ok(),
            Part::Fraction(digits) => write_fraction(since, *digits, out),
            Part::EpochScaled(digits) => {
                write!(out, "{}", since.as_secs()).is_ok() && write_fraction(since, *digits, out)
            }
        })
    }
}

fn write_fraction(since: Duration, digits: usize, out: &mut Vec<u8>) -> bool {
    let nanos = format!("{:09}", since.subsec_nanos());
    out.extend_from_slice(&nanos.as_bytes()[..digits.min(KNOWN_DIGITS)]);
    out.resize(out.len() + digits.saturating_sub(KNOWN_DIGITS), b'0');
    true
}

/// Whether the specifier is `%n`, of whatever style: a log line must stay one.
fn is_line_break(text: &str) -> bool {
    let rest = text.trim_start_matches(['-', '_', '0', '^', '#']);
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix(['E', 'O']).unwrap_or(rest);
    rest.starts_with('n')
}

/// One specifier after its `%`, as parts, and how many bytes it has.
fn specifier(text: &str) -> Option<(Vec<Part>, usize)> {
    let bytes = text.as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(10).map(|digit| digit as usize);
    match bytes {
        [b'%', ..] => Some((vec![Part::Literal("%".into())], 1)),
        [b's', ..] => Some((vec![Part::Epoch], 1)),
        [b'f', ..] => Some((vec![Part::Fraction(9)], 1)),
        // `%ET` is the date and time separator.
        [b'E', b'T', ..] => Some((vec![Part::Literal("T".into())], 2)),
        [b'E', b'z', ..] | [b':', b'z', ..] => zone("+00:00", 2),
        [b'E', b'*', b'z', ..] | [b':', b':', b'z', ..] => zone("+00:00:00", 3),
        [b':', b':', b':', b'z', ..] => zone("+00", 4),
        [b'E', b'4', b'Y', ..] => Some((vec![Part::Field(b'Y')], 3)),
        [b'E', b'*', b'S', ..] => Some((seconds(KNOWN_DIGITS), 3)),
        [b'E', b'*', b'f', ..] => Some((vec![Part::Fraction(KNOWN_DIGITS)], 3)),
        [b'E', n, ..] if n.is_ascii_digit() => fraction(&text[1..]),
        [n, b'f', ..] if matches!(n, b'1'..=b'9') => Some((vec![Part::Fraction(digit(*n)?)], 2)),
        [n, b's', ..] if matches!(n, b'1'..=b'9') => Some((vec![Part::EpochScaled(digit(*n)?)], 2)),
        [field, ..] if KNOWN.contains(field) => Some((vec![Part::Field(*field)], 1)),
        _ => None,
    }
}

/// The time is in UTC.
fn zone(text: &str, used: usize) -> Option<(Vec<Part>, usize)> {
    Some((vec![Part::Literal(text.into())], used))
}

/// `%E15f`, `%E3S`: after the `E`.
fn fraction(text: &str) -> Option<(Vec<Part>, usize)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let digits = text[..end].parse::<usize>().ok()?.min(MOST_DIGITS);
    let parts = match text.as_bytes()[end] {
        b'S' => seconds(digits),
        b'f' => vec![Part::Fraction(digits)],
        _ => return None,
    };
    Some((parts, end + 2))
}

/// A field with flags, a width or a modifier, which means nothing in the C locale.
fn styled(text: &str) -> Option<(Vec<Part>, usize)> {
    let mut style = Style::default();
    let mut rest = text.as_bytes();
    while let [flag @ (b'-' | b'_' | b'0' | b'^' | b'#'), after @ ..] = rest {
        match flag {
            b'^' | b'#' => style.case = Some(*flag),
            _ => style.pad = Some(*flag),
        }
        rest = after;
    }
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        style.width = (style.width * 10 + usize::from(digit - b'0')).min(MOST_WIDTH);
        rest = after;
    }
    if let [modifier @ (b'E' | b'O'), field, ..] = rest {
        let taken = match modifier {
            b'E' => b"cCPtuxXyYzZ".contains(field),
            _ => !b"aAcDFxXY".contains(field),
        };
        if !taken {
            return None;
        }
        rest = &rest[1..];
    }
    let used = text.len() - rest.len() + 1;
    match rest {
        [b's', ..] => Some((vec![Part::Epoch], used)),
        [field, ..] if KNOWN.contains(field) => Some((vec![Part::Styled(*field, style)], used)),
        _ => None,
    }
}

fn seconds(digits: usize) -> Vec<Part> {
    let mut parts = vec![Part::Field(b'S')];
    if digits > 0 {
        parts.extend([Part::Literal(".".into()), Part::Fraction(digits)]);
    }
    parts
}

/// A time in the proleptic Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    weekday: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

impl Civil {
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400;
        // Counted from 0000-03-01, so that a leap day is the last of its year; an era has 400 years.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_march_year + 2) / 153;
        let day = day_of_march_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let day_of_year = if month > 2 {
            day_of_march_year + 60 + u64::from(is_leap(year))
        } else {
            day_of_march_year - 305
        };
        Self {
            year,
            month,
            day,
            day_of_year,
            weekday: (days + 4) % 7,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// Week of the year, from 1; days before the first `begin` of the year are in week 0. Sunday is 0.
    fn week(&self, begin: u64) -> u64 {
        (self.day_of_year + 6 - (self.weekday + 7 - begin) % 7) / 7
    }

    /// Year and week of ISO 8601: a week is of the year that its Thursday is in.
    fn iso_week(&self) -> (u64, u64) {
        let from_monday = (self.weekday + 6) % 7;
        let days = |year| 365 + u64::from(is_leap(year));
        // The Thursday of this week, counted from the first day of the year before.
        let before = days(self.year - 1);
        let thursday = before + self.day_of_year + 3 - from_monday;
        if thursday <= before {
            (self.year - 1, thursday.div_ceil(7))
        } else if thursday - before > days(self.year) {
            (self.year + 1, 1)
        } else {
            (self.year, (thursday - before).div_ceil(7))
        }
    }

    fn write_styled(&self, field: u8, style: Style, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let known = self.write(field, out);
        let text = out.split_off(start);
        let (text, pad) = match style.pad {
            None if SPACED.contains(&field) => (&text[..], b' '),
            None => (&text[..], b'0'),
            Some(pad) => {
                let padded = |byte: &u8| matches!(byte, b'0' | b' ');
                let leading = text.iter().take_while(|byte| padded(byte)).count();
                // A zero alone is a number, and a sign or a letter is no padding.
                let leading = leading.min(text.len() - 1);
                let number = text
                    .iter()
                    .all(|byte| byte.is_ascii_digit() || *byte == b' ');
                let leading = if number { leading } else { 0 };
                let pad = if pad == b'0' { b'0' } else { b' ' };
                if style.pad != Some(b'-') {
                    out.resize(out.len() + leading, pad);
                }
                (&text[leading..], pad)
            }
        };
        let written = out.len() - start + text.len();
        out.resize(out.len() + style.width.saturating_sub(written), pad);
        out.extend_from_slice(text);
        let lower = style.case == Some(b'#') && matches!(field, b'p' | b'Z');
        match style.case {
            Some(_) if lower => out[start..].make_ascii_lowercase(),
            // `%P` is lower case whatever stands before it.
            Some(_) if field == b'P' => {}
            Some(_) => out[start..].make_ascii_uppercase(),
            None => {}
        }
        known
    }

    /// Fields that consist of others.
    fn write_all(&self, fields: &[u8], out: &mut Vec<u8>) -> bool {
        fields.iter().all(|byte| match byte {
            byte if byte.is_ascii_alphabetic() => self.write(*byte, out),
            other => {
                out.push(*other);
                true
            }
        })
    }

    fn write(&self, field: u8, out: &mut Vec<u8>) -> bool {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            ..
        } = self;
        let month_name = MONTHS[*month as usize - 1];
        let day_name = DAYS[self.weekday as usize];
        let hour_of_12 = (hour + 11) % 12 + 1;
        let half = if *hour < 12 { "AM" } else { "PM" };
        match field {
            b'c' => return self.write_all(b"a b e T Y", out),
            b'D' | b'x' => return self.write_all(b"m/d/y", out),
            b'F' => return self.write_all(b"Y-m-d", out),
            b'r' => return self.write_all(b"I:M:S p", out),
            b'R' => return self.write_all(b"H:M", out),
            b'T' | b'X' => return self.write_all(b"H:M:S", out),
            b'C' => write!(out, "{:02}", year / 100),
            b'g' => write!(out, "{:02}", self.iso_week().0 % 100),
            b'G' => write!(out, "{:04}", self.iso_week().0),
            b'V' => write!(out, "{:02}", self.iso_week().1),
            b'U' => write!(out, "{:02}", self.week(0)),
            b'W' => write!(out, "{:02}", self.week(1)),
            b'u' => write!(out, "{}", (self.weekday + 6) % 7 + 1),
            b'w' => write!(out, "{}", self.weekday),
            b'k' => write!(out, "{hour:2}"),
            b'l' => write!(out, "{hour_of_12:2}"),
            b'P' => write!(out, "{}", half.to_ascii_lowercase()),
            b'Y' => write!(out, "{year:04}"),
            b'y' => write!(out, "{:02}", year % 100),
            b'm' => write!(out, "{month:02}"),
            b'd' => write!(out, "{day:02}"),
            b'e' => write!(out, "{day:2}"),
            b'H' => write!(out, "{hour:02}"),
            b'I' => write!(out, "{hour_of_12:02}"),
            b'M' => write!(out, "{minute:02}"),
            b'S' => write!(out, "{second:02}"),
            b'p' => write!(out, "{half}"),
            b'j' => write!(out, "{:03}", self.day_of_year),
            b'a' => write!(out, "{}", &day_name[..3]),
            b'A' => write!(out, "{day_name}"),
            b'b' | b'h' => write!(out, "{}", &month_name[..3]),
            b'B' => write!(out, "{month_name}"),
            b'Z' => write!(out, "UTC"),
            b'z' => write!(out, "+0000"),
            _ => write!(out, "\t"),
        }
        .is_ok()
    }
}
