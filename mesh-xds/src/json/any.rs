//! `google.protobuf.Any`: a message of the type that `@type` names.

use std::borrow::Cow;

use prost::encoding::{WireType, encode_key};
use serde::de::{DeserializeSeed, Error, MapAccess};

use super::{
    encode::{Encoder, fields},
    scalar::put_bytes,
    schema::{Field, Kind, Message},
    slot::{Slot, TextKey},
};
use crate::yaml::nearest;

/// The body of a `google.protobuf.Any`: `@type` and the fields of that message.
pub(super) fn any<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder<'_>,
    mut map: A,
) -> Result<(), A::Error> {
    let mut early = Vec::new();
    let url = loop {
        match map.next_key_seed(TextKey)? {
            Some(key) if key == "@type" => break map.next_value::<Cow<'_, str>>()?,
            Some(key) => early.push((key, map.next_value::<serde_json::Value>()?)),
            None if early.is_empty() => return Ok(()),
            None => return Err(A::Error::custom("`@type` is missing")),
        }
    };
    let Some(message) = Message::of_url(&url) else {
        let near = near_type(&url)
            .map(|name| format!("; did you mean `type.googleapis.com/{name}`?"))
            .unwrap_or_default();
        return Err(A::Error::custom(format_args!("unknown type `{url}`{near}")));
    };
    encode_key(1, WireType::LengthDelimited, &mut encoder.out);
    put_bytes(&mut encoder.out, url.as_bytes());
    let at = encoder.open(2);
    let name = message.name();
    if scalar_form(name) || matches!(name, "google.protobuf.Any" | "google.protobuf.Struct") {
        any_value(encoder, message, early, map)?;
    } else {
        fields(encoder, message, early, map)?;
    }
    encoder.close(at);
    Ok(())
}

/// The message that was probably meant: one of the same package with a name like that, or of that name elsewhere.
fn near_type(url: &str) -> Option<&'static str> {
    let name = url.rsplit('/').next().unwrap_or(url);
    let (package, short) = name.rsplit_once('.')?;
    let all = || {
        Message::all().filter_map(|message| {
            message
                .name()
                .rsplit_once('.')
                .map(|parts| (message.name(), parts))
        })
    };
    let neighbours = all().filter(|(_, (own, _))| *own == package);
    if let Some(near) = nearest(short, neighbours.map(|(_, (_, short))| short)) {
        return all()
            .find(|(_, parts)| *parts == (package, near))
            .map(|(name, _)| name);
    }
    all()
        .find(|(_, (_, other))| *other == short)
        .map(|(name, _)| name)
}

/// A message with a JSON form of its own stands in an `Any` under the key `value`.
fn any_value<'de, A: MapAccess<'de>>(
    encoder: &mut Encoder<'_>,
    message: Message,
    mut early: Vec<(String, serde_json::Value)>,
    mut map: A,
) -> Result<(), A::Error> {
    while let Some(key) = map.next_key_seed(TextKey)? {
        early.push((key, map.next_value()?));
    }
    if let Some((key, _)) = early.iter().find(|(key, _)| key != "value") {
        return Err(A::Error::custom(format_args!(
            "unknown field `{key}` beside `@type`"
        )));
    }
    let Some((_, value)) = early.pop() else {
        return Ok(());
    };
    // The value is written as a field and the tag and length are taken off again.
    let mut inner = Encoder {
        depth: encoder.depth + 1,
        ..Encoder::default()
    };
    inner.enter()?;
    let values = Message::find("google.protobuf.ListValue").and_then(|list| list.field("values"));
    let field = Field {
        kind: Kind::Message(Some(message)),
        ..values.expect("the table holds ListValue")
    };
    let slot = Slot {
        encoder: &mut inner,
        field,
        element: true,
        tapped: false,
    };
    slot.deserialize(value).map_err(A::Error::custom)?;
    let mut body = inner.out.get(1..).unwrap_or_default();
    let _ = prost::encoding::decode_varint(&mut body).map_err(A::Error::custom)?;
    encoder.out.extend_from_slice(body);
    Ok(())
}

/// Whether the JSON form of the message is a scalar or a list.
fn scalar_form(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|name| {
        matches!(name, "Duration" | "Timestamp" | "FieldMask") || name.ends_with("Value")
    })
}
