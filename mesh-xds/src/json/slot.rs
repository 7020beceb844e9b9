//! The value of one field: scalars, lists, maps, messages and the types with a JSON form of their own.

use std::fmt;

use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{
    any::any,
    encode::{Body, Element, Encoder, fields},
    scalar::{Scalar, duration, near_duration, put, put_bytes, timestamp},
    schema::{Field, Kind, Message},
};
use crate::yaml::nearest;

/// A key as text: numbers and booleans become their text.
pub(super) struct TextKey;

impl<'de> DeserializeSeed<'de> for TextKey {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextKey {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<String, E> {
        Ok(key.to_owned())
    }

    fn visit_string<E>(self, key: String) -> Result<String, E> {
        Ok(key)
    }

    fn visit_bool<E>(self, key: bool) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_i64<E>(self, key: i64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_u64<E>(self, key: u64) -> Result<String, E> {
        Ok(key.to_string())
    }

    fn visit_f64<E>(self, key: f64) -> Result<String, E> {
        Ok(key.to_string())
    }
}

/// The value of a field, with tag. The value tells whether there was one (not null).
pub(super) struct Slot<'a, 't> {
    pub(super) encoder: &'a mut Encoder<'t>,
    pub(super) field: Field,
    /// One item of a list or map, not the whole.
    pub(super) element: bool,
    /// Its items are taken out of the document.
    pub(super) tapped: bool,
}

impl<'de> DeserializeSeed<'de> for Slot<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Slot<'_, '_> {
    fn list(&self) -> bool {
        self.field.repeated && !self.element
    }

    /// The message whose JSON form is the value's.
    fn message(&self) -> Option<Message> {
        match self.field.kind {
            Kind::Message(message) if !self.list() => message,
            _ => None,
        }
    }

    fn scalar<E: Error>(self, scalar: Scalar<'_>) -> Result<bool, E> {
        let wrong = |slot: &Self| {
            let value = match scalar {
                Scalar::Bool(value) => value.to_string(),
                Scalar::Signed(value) => value.to_string(),
                Scalar::Unsigned(value) => value.to_string(),
                Scalar::Float(value) => value.to_string(),
                Scalar::Text(text) => format!("{text:?}"),
            };
            let near = match (scalar, slot.field.kind) {
                (Scalar::Text(text), Kind::Enum(Some(target))) => {
                    nearest(text, target.values().map(|(name, _)| name))
                }
                _ => None,
            };
            let unquoted = !matches!(scalar, Scalar::Text(_)) && !slot.list();
            let near = near.map(str::to_owned).or_else(|| match slot.message() {
                Some(message) if message.name() == "google.protobuf.Duration" => {
                    near_duration(value.trim_matches('"'))
                }
                _ => None,
            });
            let hint = match slot.field.kind {
                Kind::String if unquoted => "; write it in quotes".to_owned(),
                _ => String::new(),
            };
            let hint = near.map_or(hint, |name| format!("; did you mean `{name}`?"));
            E::custom(format_args!("{value} is not {}{hint}", Expected(slot)))
        };
        if self.list() {
            if self.field.map || self.tapped {
                return Err(wrong(&self));
            }
            return self.only().scalar(scalar);
        }
        let Kind::Message(message) = self.field.kind else {
            encode_key(
                self.field.number,
                wire_type(self.field.kind),
                &mut self.encoder.out,
            );
            return match put(&mut self.encoder.out, self.field.kind, scalar) {
                Some(()) => Ok(true),
                None => Err(wrong(&self)),
            };
        };
        let at = self.encoder.open(self.field.number);
        let done =
            message.is_some_and(|message| well_known(&mut self.encoder.out, message, scalar));
        if !done {
            return Err(wrong(&self));
        }
        self.encoder.close(at);
        Ok(true)
    }

    /// What stands for a list of one: Envoy's parser takes it without brackets, and its users write it.
    fn only(self) -> Self {
        Self {
            element: true,
            ..self
        }
    }

    fn null(self) -> bool {
        match self.field.kind {
            Kind::Message(Some(message)) if message.name() == "google.protobuf.Value" => {
                let at = self.encoder.open(self.field.number);
                self.encoder.out.extend([1 << 3, 0]);
                self.encoder.close(at);
                true
            }
            Kind::Enum(Some(target)) if target.name() == "google.protobuf.NullValue" => {
                encode_key(self.field.number, WireType::Varint, &mut self.encoder.out);
                self.encoder.out.push(0);
                true
            }
            _ => false,
        }
    }
}

/// Writes the body of a message whose JSON form is a scalar.
fn well_known(out: &mut Vec<u8>, message: Message, scalar: Scalar<'_>) -> bool {
    let pair = |out: &mut Vec<u8>, (seconds, nanos): (i64, i32)| {
        encode_key(1, WireType::Varint, out);
        encode_varint(seconds.cast_unsigned(), out);
        encode_key(2, WireType::Varint, out);
        encode_varint(i64::from(nanos).cast_unsigned(), out);
    };
    match (message.name(), scalar) {
        ("google.protobuf.Duration", Scalar::Text(text)) => {
            duration(text).map(|value| pair(out, value)).is_some()
        }
        ("google.protobuf.Timestamp", Scalar::Text(text)) => {
            timestamp(text).map(|value| pair(out, value)).is_some()
        }
        ("google.protobuf.FieldMask", Scalar::Text(text)) => {
            for path in text.split(',').filter(|path| !path.is_empty()) {
                encode_key(1, WireType::LengthDelimited, out);
                put_bytes(out, snake(path).as_bytes());
            }
            true
        }
        ("google.protobuf.Value", scalar) => value_scalar(out, scalar),
        (name, scalar) if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let Some(inner) = message.field("value") else {
                return false;
            };
            encode_key(inner.number, wire_type(inner.kind), out);
            put(out, inner.kind, scalar).is_some()
        }
        _ => false,
    }
}

fn value_scalar(out: &mut Vec<u8>, scalar: Scalar<'_>) -> bool {
    let (number, kind) = match scalar {
        Scalar::Bool(_) => (4, Kind::Bool),
        Scalar::Text(_) => (3, Kind::String),
        _ => (2, Kind::Double),
    };
    encode_key(number, wire_type(kind), out);
    put(out, kind, scalar).is_some()
}

fn snake(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

pub(super) fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

/// What a slot wants, for messages.
struct Expected<'s, 'a, 't>(&'s Slot<'a, 't>);

impl fmt::Display for Expected<'_, '_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.0.field;
        match field.kind {
            _ if self.0.list() && field.map => f.write_str("an object (a map)"),
            _ if self.0.list() => f.write_str("a list"),
            Kind::Enum(Some(target)) => {
                let names: Vec<_> = target.values().map(|(name, _)| name).collect();
                write!(f, "one of {}", names.join(", "))
            }
            kind => f.write_str(kind.expected()),
        }
    }
}

impl<'de> Visitor<'de> for Slot<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Expected(self))
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(self.null())
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        Ok(self.null())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.scalar(Scalar::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.scalar(Scalar::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        self.scalar(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
        self.scalar(Scalar::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        if let Some("google.protobuf.Value" | "google.protobuf.ListValue") =
            self.message().map(Message::name)
        {
            let at = self.encoder.open(self.field.number);
            if self.message().map(Message::name) == Some("google.protobuf.Value") {
                let inner = self.encoder.open(6);
                list_value(self.encoder, &mut seq)?;
                self.encoder.close(inner);
            } else {
                list_value(self.encoder, &mut seq)?;
            }
            self.encoder.close(at);
            return Ok(true);
        }
        if !self.list() || self.field.map {
            return Err(A::Error::custom(format_args!(
                "a list is not {}",
                Expected(&self)
            )));
        }
        let Self {
            encoder,
            field,
            tapped,
            ..
        } = self;
        let mut index = 0;
        loop {
            let more = encoder.step(format_args!("[{index}]"), |encoder| {
                item(encoder, field, tapped, &mut seq)
            })?;
            if !more {
                return Ok(true);
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        if self.list() {
            if self.field.map {
                map_entries(self.encoder, self.field, &mut map)?;
                return Ok(true);
            }
            return match (self.field.kind, self.tapped) {
                (Kind::Message(Some(message)), true) => {
                    let start = self.encoder.out.len();
                    fields(self.encoder, message, Vec::new(), map)?;
                    taken(self.encoder, self.field, start)?;
                    Ok(true)
                }
                _ => self.only().visit_map(map),
            };
        }
        let Some(message) = self.message() else {
            return Err(A::Error::custom(format_args!(
                "an object is not {}",
                Expected(&self)
            )));
        };
        let at = self.encoder.open(self.field.number);
        match message.name() {
            "google.protobuf.Any" => any(self.encoder, map)?,
            "google.protobuf.Struct" => structure(self.encoder, &mut map)?,
            "google.protobuf.Value" => {
                let inner = self.encoder.open(5);
                structure(self.encoder, &mut map)?;
                self.encoder.close(inner);
            }
            "google.protobuf.FieldMask" | "google.protobuf.ListValue" => {
                return Err(A::Error::custom(format_args!(
                    "an object is not {}",
                    Expected(&self)
                )));
            }
            // Envoy's parser takes the fields of a duration and of wrapped values too, and its users write them.
            _ => fields(self.encoder, message, Vec::new(), map)?,
        }
        self.encoder.close(at);
        Ok(true)
    }
}

/// Reads one item of a list; `false` at its end.
fn item<'de, A: SeqAccess<'de>>(
    encoder: &mut Encoder<'_>,
    field: Field,
    tapped: bool,
    seq: &mut A,
) -> Result<bool, A::Error> {
    let start = encoder.out.len();
    let read = if tapped && let Kind::Message(Some(message)) = field.kind {
        seq.next_element_seed(Body { encoder, message })?
    } else {
        seq.next_element_seed(Slot {
            encoder,
            field,
            element: true,
            tapped: false,
        })?
    };
    match read {
        None => return Ok(false),
        Some(false) => return Err(A::Error::custom("null is not an item of a list")),
        Some(true) => {}
    }
    if tapped {
        taken(encoder, field, start)?;
    }
    Ok(true)
}

/// Gives away the element that begins at `start`.
fn taken<E: Error>(encoder: &mut Encoder<'_>, field: Field, start: usize) -> Result<(), E> {
    if let Some(tap) = &mut encoder.tap {
        let bytes = &encoder.out[start..];
        let path = &encoder.path;
        (tap.take)(Element { path, field, bytes }).map_err(E::custom)?;
        encoder.out.truncate(start);
    }
    Ok(())
}

fn map_entries<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder<'_>,
    field: Field,
    map: &mut A,
) -> Result<(), A::Error> {
    let entry = match field.kind {
        Kind::Message(Some(entry)) => entry.field("key").zip(entry.field("value")),
        _ => None,
    };
    let (key, value) = entry.expect("a map's entry has the fields key and value");
    while let Some(text) = map.next_key_seed(TextKey)? {
        encoder.step(format_args!("[{text:?}]"), |encoder| {
            let at = encoder.open(field.number);
            let scalar = match text.as_str() {
                "true" if key.kind == Kind::Bool => Scalar::Bool(true),
                "false" if key.kind == Kind::Bool => Scalar::Bool(false),
                text => Scalar::Text(text),
            };
            let slot = Slot {
                encoder,
                field: key,
                element: true,
                tapped: false,
            };
            slot.scalar(scalar)?;
            let slot = Slot {
                encoder,
                field: value,
                element: true,
                tapped: false,
            };
            if !map.next_value_seed(slot)? {
                return Err(A::Error::custom("null is not a value of a map"));
            }
            encoder.close(at);
            Ok(())
        })?;
    }
    Ok(())
}

/// The body of a `google.protobuf.Struct`.
fn structure<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder<'_>,
    map: &mut A,
) -> Result<(), A::Error> {
    encoder.enter()?;
    let value = Message::find("google.protobuf.ListValue").and_then(|list| list.field("values"));
    let value = value.expect("the table holds ListValue");
    while let Some(key) = map.next_key_seed(TextKey)? {
        encoder.name_step(&key, |encoder| {
            let at = encoder.open(1);
            encode_key(1, WireType::LengthDelimited, &mut encoder.out);
            put_bytes(&mut encoder.out, key.as_bytes());
            let field = Field { number: 2, ..value };
            map.next_value_seed(Slot {
                encoder,
                field,
                element: true,
                tapped: false,
            })?;
            encoder.close(at);
            Ok(())
        })?;
    }
    encoder.depth -= 1;
    Ok(())
}

/// The body of a `google.protobuf.ListValue`.
fn list_value<'de, A: SeqAccess<'de>>(
    encoder: &mut Encoder<'_>,
    seq: &mut A,
) -> Result<(), A::Error> {
    encoder.enter()?;
    let values = Message::find("google.protobuf.ListValue").and_then(|list| list.field("values"));
    let field = values.expect("the table holds ListValue");
    let mut index = 0;
    loop {
        let more = encoder.step(format_args!("[{index}]"), |encoder| {
            seq.next_element_seed(Slot {
                encoder,
                field,
                element: true,
                tapped: false,
            })
        })?;
        if more.is_none() {
            break;
        }
        index += 1;
    }
    encoder.depth -= 1;
    Ok(())
}
