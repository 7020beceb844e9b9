//! The rules of protobuf's JSON form that Istio YAML follows: `null` means absent, numbers may be strings, enums are
//! given by name or number, durations are text. <https://protobuf.dev/programming-guides/json/>

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::json::written_duration;

/// A text condition: the oneof `exact`, `prefix`, `regex`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum StringMatch {
    /// None of the three is given: where a name is matched too, the name just has to be present.
    #[default]
    Unset,
    /// The whole text.
    Exact(String),
    /// The beginning of the text.
    Prefix(String),
    /// An RE2 expression for the whole text.
    Regex(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStringMatch {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = RawStringMatch::deserialize(from)?;
        match (raw.exact, raw.prefix, raw.regex) {
            (None, None, None) => Ok(Self::Unset),
            (Some(text), None, None) => Ok(Self::Exact(text)),
            (None, Some(text), None) => Ok(Self::Prefix(text)),
            (None, None, Some(text)) => Ok(Self::Regex(text)),
            _ => Err(de::Error::custom(
                "only one of `exact`, `prefix` and `regex` may be given",
            )),
        }
    }
}

/// A floating-point number that is compared by its bits, so that configuration can be `Eq`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Double(pub f64);

impl PartialEq for Double {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Double {}

impl Serialize for Double {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(self.0)
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct DoubleVisitor;
        impl Visitor<'_> for DoubleVisitor {
            type Value = Double;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Double, E> {
                if value.is_finite() {
                    Ok(Double(value))
                } else {
                    Err(E::custom("the number is not finite"))
                }
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Double, E> {
                let parsed = value
                    .parse()
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))?;
                self.visit_f64(parsed)
            }
        }
        from.deserialize_any(DoubleVisitor)
    }
}

/// `null` is the same as an absent field.
pub(super) fn null<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A list that, if it is given, must not be empty: an empty one would mean everything, which nobody writes on purpose.
pub(super) fn not_empty<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Option::<Vec<T>>::deserialize(from)? {
        Some(list) if list.is_empty() => Err(de::Error::custom("the list must not be empty")),
        list => Ok(list.unwrap_or_default()),
    }
}

/// A map that, if it is given, must not be empty.
pub(super) fn not_empty_map<'de, D, T>(from: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    match Option::<BTreeMap<String, T>>::deserialize(from)? {
        Some(map) if map.is_empty() => Err(de::Error::custom("the map must not be empty")),
        map => Ok(map.unwrap_or_default()),
    }
}

/// A list without `null` among its items.
pub(super) fn no_nulls<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<Vec<Option<T>>>::deserialize(from)?.unwrap_or_default();
    let items = list.into_iter().enumerate();
    let items = items.map(|(i, item)| {
        item.ok_or_else(|| de::Error::custom(format_args!("item {i} must not be null")))
    });
    items.collect()
}

/// Conditions by name. Istio refuses a `null`; the empty condition `{}` asks that the name be present.
pub(super) fn conditions<'de, D>(from: D) -> Result<BTreeMap<String, StringMatch>, D::Error>
where
    D: Deserializer<'de>,
{
    let map = Option::<BTreeMap<String, Option<StringMatch>>>::deserialize(from)?;
    let entries = map.unwrap_or_default().into_iter();
    entries
        .map(|(key, value)| {
            let refused = || {
                de::Error::custom(format_args!(
                    "the condition on `{key}` must not be null: `{{}}` asks that it be present"
                ))
            };
            let value = value.ok_or_else(refused)?;
            Ok((key, value))
        })
        .collect()
}

/// An integer as number or text.
struct Int<T>(Option<T>);

impl<'de, T: TryFrom<i128>> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct IntVisitor<T>(PhantomData<T>);
        impl<T: TryFrom<i128>> IntVisitor<T> {
            fn convert<E: de::Error>(value: i128) -> Result<Int<T>, E> {
                let size = size_of::<T>() * 8;
                T::try_from(value)
                    .map(|value| Int(Some(value)))
                    .map_err(|_| {
                        E::custom(format_args!(
                            "{value} does not fit the field, an integer of {size} bits"
                        ))
                    })
            }
        }
        impl<T: TryFrom<i128>> Visitor<'_> for IntVisitor<T> {
            type Value = Int<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Int<T>, E> {
                Self::convert(value.into())
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Int<T>, E> {
                Self::convert(value.into())
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Int<T>, E> {
                if value.fract() == 0.0 && value.abs() < 1e18 {
                    Self::convert(value as i128)
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(value), &self))
                }
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Int<T>, E> {
                let parsed = value
                    .parse()
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))?;
                Self::convert(parsed)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Int<T>, E> {
                Ok(Int(None))
            }
        }
        from.deserialize_any(IntVisitor(PhantomData))
    }
}

/// An integer field; absent is 0.
pub(super) fn int<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128> + Default,
{
    Ok(Int::deserialize(from)?.0.unwrap_or_default())
}

/// An integer field that knows absence.
pub(super) fn opt_int<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i128>,
{
    Ok(Int::deserialize(from)?.0)
}

/// A map of integers.
pub(super) fn int_map<'de, D>(from: D) -> Result<BTreeMap<String, u32>, D::Error>
where
    D: Deserializer<'de>,
{
    let map = Option::<BTreeMap<String, Int<u32>>>::deserialize(from)?.unwrap_or_default();
    Ok(map
        .into_iter()
        .map(|(key, value)| (key, value.0.unwrap_or_default()))
        .collect())
}

/// A duration as Go writes it.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    struct DurationVisitor;
    impl Visitor<'_> for DurationVisitor {
        type Value = Option<Duration>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration, as in 1h, 1m, 1.5s, 100ms")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse_duration(text).map(Some).map_err(E::custom)
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            Err(E::custom(no_duration(&value.to_string())))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            Err(E::custom(no_duration(&value.to_string())))
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            Err(E::custom(no_duration(&value.to_string())))
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    from.deserialize_any(DurationVisitor)
}

/// What is wrong with a text that is no duration, with one that may be meant: its number in seconds where the unit is
/// missing, else with the unit in its right spelling.
fn no_duration(text: &str) -> String {
    let near = written_duration(text);
    let near = near.map(|(number, unit, _)| format!("; did you mean `{number}{unit}`?"));
    format!(
        "`{text}` is no duration: a number with a unit is needed, as in 1h, 1m, 1.5s, 100ms{}",
        near.unwrap_or_default()
    )
}

/// Units of durations with their nanoseconds.
const UNITS: [(&str, f64, u64); 8] = [
    ("ns", 1.0, 1),
    ("us", 1e3, 1_000),
    ("\u{b5}s", 1e3, 1_000),
    ("\u{3bc}s", 1e3, 1_000),
    ("ms", 1e6, 1_000_000),
    ("s", 1e9, 1_000_000_000),
    ("m", 6e10, 60_000_000_000),
    ("h", 3.6e12, 3_600_000_000_000),
];

/// Reads a duration as Istio does: decimal numbers with a unit, `1h30m`, `1.5s`, `100ms`, or `0`.
///
/// # Errors
/// A text saying what is wrong, when the text has another form, is negative or exceeds 584 years.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || no_duration(text);
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.starts_with('-') {
        return Err(format!("`{text}` is negative"));
    }
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let (_, float_scale, scale) = UNITS
            .iter()
            .find(|(name, ..)| *name == unit)
            .ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(wrong());
        }
        let too_long = || format!("`{text}` is longer than a duration can be");
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| too_long())?
        };
        let part: f64 = if fraction.is_empty() {
            0.0
        } else {
            format!("0.{fraction}").parse().map_err(|_| wrong())?
        };
        let add = whole.checked_mul(*scale).ok_or_else(too_long)?;
        nanos = nanos.checked_add(add).ok_or_else(too_long)?;
        nanos = nanos
            .checked_add((part * float_scale).round() as u64)
            .ok_or_else(too_long)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Defines a protobuf enum that is read by name or number; the first value is the default.
macro_rules! enumeration {
    ($(#[$doc:meta])* pub enum $name:ident { $($variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($variant = $number,)+ }

        impl $name {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $text),)+];
            const NAMES: &'static [&'static str] = &[$($text,)+];

            /// The name in YAML.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0].0
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                json::read_enum(from, Self::ALL, Self::NAMES, |value| value as i64)
            }
        }
    };
}
pub(super) use enumeration;

/// Reads an enum by name or number.
pub(super) fn read_enum<'de, D, T>(
    from: D,
    all: &'static [(T, &'static str)],
    names: &'static [&'static str],
    number: fn(T) -> i64,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Copy + 'static,
{
    struct EnumVisitor<T: 'static> {
        all: &'static [(T, &'static str)],
        names: &'static [&'static str],
        number: fn(T) -> i64,
    }
    impl<'de, T: Copy> Visitor<'de> for EnumVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "one of {}", self.names.join(", "))
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
            let found = self.all.iter().find(|(_, name)| *name == value);
            found
                .map(|(value, _)| *value)
                .ok_or_else(|| E::unknown_variant(value, self.names))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            let found = self
                .all
                .iter()
                .find(|(known, _)| (self.number)(*known) == value);
            found
                .map(|(value, _)| *value)
                .ok_or_else(|| E::unknown_variant(&value.to_string(), self.names))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            self.visit_i64(i64::try_from(value).unwrap_or(i64::MAX))
        }
        fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<T, A::Error> {
            Err(de::Error::invalid_type(de::Unexpected::Map, &self))
        }
    }
    from.deserialize_any(EnumVisitor { all, names, number })
}

#[cfg(test)]
mod tests {
    use super::super::virtual_service::{HttpMatchRequest, HttpRetry, VirtualService};
    use super::*;

    #[test]
    fn durations_follow_go() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0.000000001s"), Ok(Duration::from_nanos(1)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "5",
            "-1s",
            "1x",
            "s",
            ".s",
            "1.2.3s",
            "99999999999999999999h",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_duration_names_the_nearest() {
        for (text, near) in [
            ("5", Some("5s")),
            ("0.5", Some("0.5s")),
            ("5 s", Some("5s")),
            ("10S", Some("10s")),
            ("3 minutes", Some("3m")),
            ("250 MS", Some("250ms")),
            ("1d", None),
            ("soon", None),
            ("", None),
            ("1.2.3s", None),
        ] {
            let why = parse_duration(text).unwrap_err();
            let hint = near.map_or(String::new(), |near| format!("did you mean `{near}`?"));
            assert!(why.ends_with(&hint), "{text}: {why}");
            assert_eq!(
                why.contains("did you mean"),
                near.is_some(),
                "{text}: {why}"
            );
        }
        let number = serde_json::from_str::<HttpRetry>(r#"{"perTryTimeout": 5}"#);
        let why = number.unwrap_err().to_string();
        assert!(why.contains("did you mean `5s`?"), "{why}");
        let absent = serde_json::from_str::<HttpRetry>(r#"{"perTryTimeout": null}"#);
        assert_eq!(absent.expect("valid").per_try_timeout, None);
    }

    #[test]
    fn null_means_absent() {
        let read: VirtualService =
            serde_json::from_str(r#"{"hosts": null, "http": [], "tls": null}"#).expect("valid");
        assert_eq!(read, VirtualService::default());
    }

    #[test]
    fn numbers_may_be_text_and_names_original() {
        let read: HttpRetry =
            serde_json::from_str(r#"{"attempts": "3", "per_try_timeout": "2s"}"#).expect("valid");
        assert_eq!(read.attempts, 3);
        assert_eq!(read.per_try_timeout, Some(Duration::from_secs(2)));
    }

    #[test]
    fn string_match_is_a_oneof() {
        let read: HttpMatchRequest =
            serde_json::from_str(r#"{"headers": {"a": {}}}"#).expect("valid");
        assert_eq!(read.headers["a"], StringMatch::Unset);
        let null = serde_json::from_str::<HttpMatchRequest>(r#"{"headers": {"b": null}}"#);
        assert!(
            null.unwrap_err()
                .to_string()
                .contains("`b` must not be null")
        );
        let twice =
            serde_json::from_str::<HttpMatchRequest>(r#"{"uri": {"exact": "a", "regex": "b"}}"#);
        assert!(twice.unwrap_err().to_string().contains("only one of"));
    }

    #[test]
    fn enums_by_name_or_number() {
        use super::super::destination_rule::ClientTlsMode;
        assert_eq!(
            serde_json::from_str::<ClientTlsMode>("3").ok(),
            Some(ClientTlsMode::IstioMutual)
        );
        assert_eq!(
            serde_json::from_str::<ClientTlsMode>("\"SIMPLE\"").ok(),
            Some(ClientTlsMode::Simple)
        );
        let wrong = serde_json::from_str::<ClientTlsMode>("\"simple\"")
            .unwrap_err()
            .to_string();
        assert!(
            wrong.contains("expected one of `DISABLE`, `SIMPLE`, `MUTUAL`, `ISTIO_MUTUAL`"),
            "{wrong}"
        );
    }
}
