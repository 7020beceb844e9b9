//! `TypedStruct`: a message of a named type, written as a struct.

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use super::{
    decode,
    encode::{Body, Encoder},
    schema::Message,
    wire::Reader,
};

const NAMES: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// Full name and wire bytes of the message in an `Any`. A TypedStruct of a type that the schema knows becomes that type;
/// of another, its name goes with the bytes of its struct.
///
/// # Errors
///
/// A sentence, if the struct is not of the type that it names, or the bytes are malformed.
pub fn resolve_any<'a>(
    type_url: &'a str,
    value: &'a [u8],
) -> Result<(Cow<'a, str>, Cow<'a, [u8]>), String> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    if !NAMES.contains(&name) {
        return Ok((name.into(), value.into()));
    }
    let (mut inner, mut fields) = ("", &[][..]);
    let mut reader = Reader::new(value);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => inner = item.text()?,
            2 => fields = item.bytes()?,
            number => return Err(format!("unknown field number {number} in {name}")),
        }
    }
    let name = inner.rsplit('/').next().unwrap_or(inner);
    let Some(message) = Message::of_url(inner) else {
        return Ok((name.into(), fields.into()));
    };
    let document = decode::message(
        Message::find("google.protobuf.Struct").ok_or("the schema lacks Struct")?,
        fields,
    )?;
    let mut encoder = Encoder::default();
    let body = Body {
        encoder: &mut encoder,
        message,
    };
    match body.deserialize(document) {
        Ok(_) => Ok((name.into(), encoder.out.into())),
        Err(error) => Err(format!("value.{}: {error}", encoder.path)),
    }
}

/// An `Any` that holds a TypedStruct with these fields.
///
/// # Errors
///
/// [`serde_json::Error`] if `value` is no object.
pub fn typed_struct(
    type_url: &str,
    value: serde_json::Value,
) -> Result<envoy_types::pb::google::protobuf::Any, serde_json::Error> {
    let document = serde_json::json!({ "type_url": type_url, "value": value });
    let bytes = super::to_wire(NAMES[0], document).map_err(|error| error.source)?;
    Ok(envoy_types::pb::google::protobuf::Any {
        type_url: format!("type.googleapis.com/{}", NAMES[0]),
        value: bytes,
    })
}
