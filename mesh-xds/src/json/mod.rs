//! Protobuf's JSON mapping for Envoy's messages, in both directions, strict.
//!
//! Reading goes from the events of any serde deserializer (JSON, YAML) straight to wire bytes, which prost decodes: no
//! document is held in memory. Types, names and rules come from a static table ([`schema`]), so nothing is built at
//! start. An unknown field, a wrong type, a second value of a oneof and an unknown `@type` are errors with their path.

mod any;
mod decode;
mod encode;
mod rules;
mod scalar;
pub mod schema;
mod slot;
#[cfg(test)]
mod tests;
mod typed_struct;
mod wire;

use prost::{Message, Name};
use serde::de::{DeserializeSeed, Deserializer};

use crate::yaml;

pub use self::{
    encode::Element,
    rules::{Violation, check},
    typed_struct::{resolve_any, typed_struct},
    wire::Malformed,
};

#[cfg(feature = "istio")]
pub(crate) use self::scalar::{base64, timestamp, written_duration};

use self::encode::{Body, Encoder, Tap};

/// Why a document is no message of the wanted type. `E` is the deserializer's error, with the place in the text.
#[derive(Debug, thiserror::Error)]
#[error("{}{source}", prefix(.path))]
pub struct Error<E: std::error::Error + 'static> {
    /// The field, for example `static_resources.clusters[3].lb_policy`; empty for the document itself.
    pub path: String,
    /// What is wrong there.
    pub source: E,
}

fn prefix(path: &str) -> String {
    match path {
        "" => String::new(),
        path => format!("{path}: "),
    }
}

/// Reads the message `full_name` as wire bytes.
///
/// # Errors
///
/// [`Error`] with the path of the field.
pub fn to_wire<'de, D>(full_name: &str, deserializer: D) -> Result<Vec<u8>, Error<D::Error>>
where
    D: Deserializer<'de, Error: 'static>,
{
    run(full_name, deserializer, None)
}

/// Reads the message `full_name`.
///
/// # Errors
///
/// [`Error`] with the path of the field.
pub fn from_deserializer<'de, M, D>(full_name: &str, deserializer: D) -> Result<M, Error<D::Error>>
where
    M: Message + Default,
    D: Deserializer<'de, Error: 'static>,
{
    parse(&run(full_name, deserializer, None)?)
}

/// Reads the message `full_name` from JSON text.
///
/// # Errors
///
/// [`Error`] with the path of the field.
pub fn from_str<M: Message + Default>(
    full_name: &str,
    text: &str,
) -> Result<M, Error<serde_json::Error>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let message = from_deserializer(full_name, &mut deserializer)?;
    deserializer.end().map_err(|source| Error {
        path: String::new(),
        source,
    })?;
    Ok(message)
}

/// Reads the message `full_name` and gives each element of the fields `taps` (message and field name) to `take` as soon
/// as it is complete, instead of keeping it: the returned message lacks these.
///
/// # Errors
///
/// [`Error`] with the path of the field; a sentence that `take` returns becomes one.
pub fn stream<'de, M, D>(
    full_name: &str,
    deserializer: D,
    taps: &[(&str, &str)],
    take: &mut dyn FnMut(Element<'_>) -> Result<(), String>,
) -> Result<M, Error<D::Error>>
where
    M: Message + Default,
    D: Deserializer<'de, Error: 'static>,
{
    let fields = resolve(taps);
    let tap = Tap {
        fields: &fields,
        take,
    };
    parse(&run(full_name, deserializer, Some(tap))?)
}

/// Reads the message `full_name` from YAML text.
///
/// # Errors
///
/// [`yaml::Error`] with line, column and path.
pub fn from_yaml<M: Message + Default>(full_name: &str, text: &str) -> Result<M, yaml::Error> {
    stream_yaml(full_name, text, &[], &mut |_| Ok(()))
}

/// [`stream`] from YAML text.
///
/// # Errors
///
/// [`yaml::Error`] with line, column and path; a sentence that `take` returns becomes one.
pub fn stream_yaml<M: Message + Default>(
    full_name: &str,
    text: &str,
    taps: &[(&str, &str)],
    take: &mut dyn FnMut(Element<'_>) -> Result<(), String>,
) -> Result<M, yaml::Error> {
    let message = schema::Message::find(full_name)
        .ok_or_else(|| yaml::Error::new(format!("unknown message {full_name}")))?;
    let fields = resolve(taps);
    let mut encoder = Encoder {
        tap: Some(Tap {
            fields: &fields,
            take,
        }),
        ..Encoder::default()
    };
    let body = Body {
        encoder: &mut encoder,
        message,
    };
    yaml::from_seed(text, body, &yaml::Limits::default())?;
    M::decode(encoder.out.as_slice()).map_err(|error| yaml::Error::new(error.to_string()))
}

fn resolve(taps: &[(&str, &str)]) -> Vec<(schema::Message, u32)> {
    taps.iter()
        .filter_map(|(message, field)| {
            let message = schema::Message::find(message)?;
            Some((message, message.field(field)?.number))
        })
        .collect()
}

fn run<'de, D>(
    full_name: &str,
    deserializer: D,
    tap: Option<Tap<'_>>,
) -> Result<Vec<u8>, Error<D::Error>>
where
    D: Deserializer<'de, Error: 'static>,
{
    let message = find(full_name)?;
    let mut encoder = Encoder {
        tap,
        ..Encoder::default()
    };
    let body = Body {
        encoder: &mut encoder,
        message,
    };
    match body.deserialize(deserializer) {
        Ok(_) => Ok(encoder.out),
        Err(source) => Err(Error {
            path: encoder.path,
            source,
        }),
    }
}

fn find<E: serde::de::Error>(full_name: &str) -> Result<schema::Message, Error<E>> {
    schema::Message::find(full_name).ok_or_else(|| custom(format!("unknown message {full_name}")))
}

fn parse<M: Message + Default, E: serde::de::Error>(bytes: &[u8]) -> Result<M, Error<E>> {
    M::decode(bytes).map_err(|error| custom(error.to_string()))
}

fn custom<E: serde::de::Error>(sentence: String) -> Error<E> {
    Error {
        path: String::new(),
        source: E::custom(sentence),
    }
}

/// The JSON form of `message`, of the type `full_name`: `.proto` field names, enum names, no default values, as
/// Envoy's `/config_dump` writes it.
///
/// # Errors
///
/// [`Malformed`] if `message` is of another type.
pub fn to_value(full_name: &str, message: &impl Message) -> Result<serde_json::Value, Malformed> {
    wire_to_value(full_name, &message.encode_to_vec())
}

/// The JSON form of a message that is there as wire bytes.
///
/// # Errors
///
/// [`Malformed`] if `bytes` are of another type.
pub fn wire_to_value(full_name: &str, bytes: &[u8]) -> Result<serde_json::Value, Malformed> {
    let message = schema::Message::find(full_name).ok_or(Malformed)?;
    decode::message(message, bytes)
}

/// Reads a message whose type knows its name.
///
/// # Errors
///
/// [`Error`] with the path of the field.
pub fn parse_str<M: Message + Name + Default>(text: &str) -> Result<M, Error<serde_json::Error>> {
    from_str(&M::full_name(), text)
}

/// A time as protobuf's JSON writes it.
pub(crate) fn timestamp_text_of(time: std::time::SystemTime) -> String {
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    // Milliseconds, as Envoy writes them.
    let nanos = i32::try_from(since.subsec_millis()).unwrap_or(0) * 1_000_000;
    scalar::timestamp_text(seconds, nanos)
}
