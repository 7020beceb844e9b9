//! Turns the events of a serde deserializer into wire bytes, without a document in between.

use std::fmt;

use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};

use crate::yaml::nearest;

use super::{
    schema::{Field, Message},
    slot::Slot,
};

/// How deep messages may be nested.
const MAX_DEPTH: u32 = 100;

/// An element that was taken out of the document as soon as it was complete.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    /// Where it stands, for example `static_resources.clusters[3]`.
    pub path: &'a str,
    /// The field that holds it.
    pub field: Field,
    /// Its wire bytes.
    pub bytes: &'a [u8],
}

/// Takes elements of some fields instead of keeping them in the message that holds them.
pub(super) struct Tap<'t> {
    pub(super) fields: &'t [(Message, u32)],
    pub(super) take: &'t mut dyn FnMut(Element<'_>) -> Result<(), String>,
}

/// The state of one document.
#[derive(Default)]
pub(super) struct Encoder<'t> {
    pub(super) out: Vec<u8>,
    /// Where the reader stands; after an error, where it happened.
    pub(super) path: String,
    pub(super) tap: Option<Tap<'t>>,
    /// Field numbers and oneofs that were set in the open messages.
    pub(super) seen: Vec<u32>,
    pub(super) depth: u32,
}

impl Encoder<'_> {
    /// Opens a length-delimited field; returns where its length is written.
    pub(super) fn open(&mut self, number: u32) -> usize {
        encode_key(number, WireType::LengthDelimited, &mut self.out);
        self.out.push(0);
        self.out.len() - 1
    }

    /// Writes the length of what was put out since [`Encoder::open`].
    pub(super) fn close(&mut self, at: usize) {
        let len = self.out.len() - at - 1;
        if len < 128 {
            self.out[at] = u8::try_from(len).expect("less than 128");
        } else {
            let mut prefix = Vec::with_capacity(5);
            encode_varint(len as u64, &mut prefix);
            self.out.splice(at..=at, prefix);
        }
    }

    /// Runs `inner` with `step` at the end of the path. The path stays as it is if `inner` fails.
    pub(super) fn step<T, E>(
        &mut self,
        step: fmt::Arguments<'_>,
        inner: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        use fmt::Write;
        let len = self.path.len();
        self.path
            .write_fmt(step)
            .expect("writing to a String does not fail");
        let value = inner(self)?;
        self.path.truncate(len);
        Ok(value)
    }

    pub(super) fn name_step<T, E>(
        &mut self,
        name: &str,
        inner: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let value = inner(self)?;
        self.path.truncate(len);
        Ok(value)
    }

    pub(super) fn enter<E: Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(())
    }

    /// Notes that `field` is set; refuses a second value.
    fn once<E: Error>(&mut self, base: usize, message: Message, field: &Field) -> Result<(), E> {
        const ONEOF: u32 = 1 << 31;
        if self.seen[base..].contains(&field.number) {
            return Err(E::custom(format_args!(
                "field `{}` is set twice",
                field.name
            )));
        }
        self.seen.push(field.number);
        let Some(oneof) = field.oneof else {
            return Ok(());
        };
        let mark = ONEOF | u32::from(oneof);
        if self.seen[base..].contains(&mark) {
            let names: Vec<_> = message
                .fields()
                .filter(|other| other.oneof == field.oneof)
                .map(|other| other.name)
                .collect();
            let names = names.join(", ");
            return Err(E::custom(format_args!("only one of {names} may be set")));
        }
        self.seen.push(mark);
        Ok(())
    }
}

/// A whole message, without tag and length. The value tells whether there was one (not null).
pub(super) struct Body<'a, 't> {
    pub(super) encoder: &'a mut Encoder<'t>,
    pub(super) message: Message,
}

impl<'de> DeserializeSeed<'de> for Body<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Body<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name())
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        fields(self.encoder, self.message, Vec::new(), map)?;
        Ok(true)
    }
}

/// Reads the fields of `message`: those in `early`, then the rest of `map`.
pub(super) fn fields<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder<'_>,
    message: Message,
    early: Vec<(String, serde_json::Value)>,
    mut map: A,
) -> Result<(), A::Error> {
    encoder.enter()?;
    let base = encoder.seen.len();
    for (key, value) in early {
        let field = known(encoder, message, &key)?;
        encoder.once(base, message, &field)?;
        field_value(encoder, message, field, |slot| {
            slot.deserialize(value).map_err(A::Error::custom)
        })?;
    }
    while let Some(field) = map.next_key_seed(Key {
        encoder,
        message,
        base,
    })? {
        field_value(encoder, message, field, |slot| map.next_value_seed(slot))?;
    }
    encoder.seen.truncate(base);
    encoder.depth -= 1;
    Ok(())
}

fn known<E: Error>(encoder: &mut Encoder<'_>, message: Message, key: &str) -> Result<Field, E> {
    message.field(key).ok_or_else(|| {
        let near = alternatives(message, key);
        if !encoder.path.is_empty() {
            encoder.path.push('.');
        }
        encoder.path.push_str(key);
        E::custom(format_args!(
            "unknown field `{key}` in {}{near}",
            message.name()
        ))
    })
}

/// What may have been meant by a name that no field has: a field that looks like it, one that has it for a part (`port` is
/// `port_value`), else all, if these are few.
fn alternatives(message: Message, key: &str) -> String {
    const FEW: usize = 12;
    let names = || message.fields().map(|field| field.name);
    let part = |name: &&str| name.split('_').any(|part| part == key);
    if let Some(name) = nearest(key, names()).or_else(|| names().find(part)) {
        return format!(", did you mean `{name}`?");
    }
    let all: Vec<&str> = names().collect();
    match all.len() {
        1..=FEW => format!("; allowed: {}", all.join(", ")),
        _ => String::new(),
    }
}

fn field_value<E: Error>(
    encoder: &mut Encoder<'_>,
    message: Message,
    field: Field,
    read: impl FnOnce(Slot<'_, '_>) -> Result<bool, E>,
) -> Result<(), E> {
    encoder.name_step(field.name, |encoder| {
        let tapped = encoder
            .tap
            .as_ref()
            .is_some_and(|tap| tap.fields.contains(&(message, field.number)));
        let present = read(Slot {
            encoder,
            field,
            element: false,
            tapped,
        })?;
        if !present {
            let marks = 1 + usize::from(field.oneof.is_some());
            encoder.seen.truncate(encoder.seen.len() - marks);
        }
        Ok(())
    })
}

/// The key of a field.
struct Key<'a, 't> {
    encoder: &'a mut Encoder<'t>,
    message: Message,
    /// Where the marks of this message begin.
    base: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name of a field of {}", self.message.name())
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Field, E> {
        let field = known(self.encoder, self.message, key)?;
        self.encoder.once(self.base, self.message, &field)?;
        Ok(field)
    }
}
