//! Wall-clock times as text, in UTC.

use std::{
    io::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A parsed `strftime` format with Envoy's additions (`%s`, `%3f`, `%E3S`, …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeFormat(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// `%Y`, `%m`, `%d`, `%H`, `%M`, `%S`, …
    Field(u8),
    /// Seconds since the epoch.
    Epoch,
    /// So many digits of the fraction of a second.
    Fraction(usize),
    /// Milliseconds, microseconds or nanoseconds since the epoch: `%3s`, `%6s`, `%9s`.
    EpochScaled(usize),
}

const KNOWN: &[u8] = b"YmdHMSFTDjeyRpIabBAZznt";

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
            let (part, used) = specifier(&rest[at + 1..])
                .ok_or_else(|| format!("unknown time specifier in {text:?}"))?;
            parts.extend(part);
            rest = &rest[at + 1 + used..];
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
    out.extend_from_slice(&nanos.as_bytes()[..digits.min(9)]);
    true
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
        [b'E', b'*', b'S', ..] => Some((seconds(9), 3)),
        [b'E', b'*', b'f', ..] => Some((vec![Part::Fraction(9)], 3)),
        [b'E', n, b'S', ..] => Some((seconds(digit(*n)?), 3)),
        [b'E', n, b'f', ..] => Some((vec![Part::Fraction(digit(*n)?)], 3)),
        [n, b'f', ..] if n.is_ascii_digit() => Some((vec![Part::Fraction(digit(*n)?)], 2)),
        [n, b's', ..] if n.is_ascii_digit() => Some((vec![Part::EpochScaled(digit(*n)?)], 2)),
        [field, ..] if KNOWN.contains(field) => Some((vec![Part::Field(*field)], 1)),
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
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let day_of_year = if month > 2 {
            day_of_march_year + 60 + u64::from(leap)
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
        match field {
            b'Y' => write!(out, "{year:04}"),
            b'y' => write!(out, "{:02}", year % 100),
            b'm' => write!(out, "{month:02}"),
            b'd' => write!(out, "{day:02}"),
            b'e' => write!(out, "{day:2}"),
            b'H' => write!(out, "{hour:02}"),
            b'I' => write!(out, "{:02}", (hour + 11) % 12 + 1),
            b'M' => write!(out, "{minute:02}"),
            b'S' => write!(out, "{second:02}"),
            b'p' => write!(out, "{}", if *hour < 12 { "AM" } else { "PM" }),
            b'j' => write!(out, "{:03}", self.day_of_year),
            b'F' => write!(out, "{year:04}-{month:02}-{day:02}"),
            b'D' => write!(out, "{month:02}/{day:02}/{:02}", year % 100),
            b'T' => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            b'R' => write!(out, "{hour:02}:{minute:02}"),
            b'a' => write!(out, "{}", &day_name[..3]),
            b'A' => write!(out, "{day_name}"),
            b'b' => write!(out, "{}", &month_name[..3]),
            b'B' => write!(out, "{month_name}"),
            b'Z' => write!(out, "UTC"),
            b'z' => write!(out, "+0000"),
            b'n' => writeln!(out),
            _ => write!(out, "\t"),
        }
        .is_ok()
    }
}
