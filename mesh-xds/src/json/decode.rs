//! Turns wire bytes into JSON by the schema.

use serde_json::{Map, Number, Value};

use super::{
    scalar::{duration_text, timestamp_text, to_base64},
    schema::{Kind, Message},
    wire::{Item, Malformed, Reader},
};

/// How deep messages may be nested.
const MAX_DEPTH: u32 = 200;

/// The JSON form of a message: `.proto` field names as Envoy's admin writes them, default values left out.
///
/// Fields that the schema does not know are left out.
pub(super) fn message(message: Message, bytes: &[u8]) -> Result<Value, Malformed> {
    nested(message, bytes, 0)
}

fn nested(message: Message, bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed);
    }
    let depth = depth + 1;
    match message.name() {
        "google.protobuf.Any" => any(bytes, depth),
        "google.protobuf.Struct" => structure(bytes, depth),
        "google.protobuf.ListValue" => list(bytes, depth),
        "google.protobuf.Value" => value(bytes, depth),
        "google.protobuf.Duration" => {
            pair(bytes).map(|(seconds, nanos)| duration_text(seconds, nanos).into())
        }
        "google.protobuf.Timestamp" => {
            pair(bytes).map(|(seconds, nanos)| timestamp_text(seconds, nanos).into())
        }
        "google.protobuf.FieldMask" => mask(bytes),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            wrapper(message, bytes, depth)
        }
        _ => object(message, bytes, depth).map(Value::Object),
    }
}

fn object(message: Message, bytes: &[u8], depth: u32) -> Result<Map<String, Value>, Malformed> {
    let mut out = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        let Some(field) = message.number(number) else {
            continue;
        };
        if field.map {
            let (key, value) = entry(field.kind, item, depth)?;
            let map = out
                .entry(field.name)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        } else if field.repeated {
            let slot = out
                .entry(field.name)
                .or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = slot {
                item.unpack(field.kind, |item| {
                    values.push(single(field.kind, item, depth)?);
                    Ok(())
                })?;
            }
        } else {
            let value = single(field.kind, item, depth)?;
            // A message that comes in two parts is one message.
            match (out.get_mut(field.name), value) {
                (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
                (_, value) => {
                    out.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(out)
}

/// Key and value of a map's entry; what is absent has its default.
fn entry(kind: Kind, item: Item<'_>, depth: u32) -> Result<(String, Value), Malformed> {
    let Kind::Message(Some(entry)) = kind else {
        return Err(Malformed);
    };
    let fields = object(entry, item.bytes()?, depth)?;
    let key = match fields.get("key") {
        Some(Value::String(key)) => key.clone(),
        Some(key) => key.to_string(),
        None => match entry.field("key").map(|field| field.kind) {
            Some(Kind::String) | None => String::new(),
            Some(Kind::Bool) => "false".to_owned(),
            Some(_) => "0".to_owned(),
        },
    };
    let value = match fields.get("value") {
        Some(value) => value.clone(),
        None => match entry.field("value").map(|field| field.kind) {
            Some(Kind::Message(Some(target))) => nested(target, &[], depth)?,
            Some(Kind::String | Kind::Bytes) | None => "".into(),
            Some(Kind::Bool) => false.into(),
            Some(_) => 0.into(),
        },
    };
    Ok((key, value))
}

fn single(kind: Kind, item: Item<'_>, depth: u32) -> Result<Value, Malformed> {
    Ok(match kind {
        Kind::Message(Some(target)) => nested(target, item.bytes()?, depth)?,
        Kind::Message(None) => Value::Null,
        Kind::String => Value::String(item.text()?.to_owned()),
        Kind::Bytes => Value::String(to_base64(item.bytes()?)),
        Kind::Bool => Value::Bool(item.varint()? != 0),
        Kind::Enum(target) => {
            let number = item.int32()?;
            match target.and_then(|target| target.value(number)) {
                Some(name) => name.into(),
                None => number.into(),
            }
        }
        Kind::Int64 => item.varint()?.cast_signed().to_string().into(),
        Kind::Uint64 => item.varint()?.to_string().into(),
        Kind::Sint64 => zigzag(item.varint()?).to_string().into(),
        Kind::Fixed64 => item.fixed64()?.to_string().into(),
        Kind::Sfixed64 => item.fixed64()?.cast_signed().to_string().into(),
        Kind::Int32 => item.int32()?.into(),
        Kind::Uint32 => item.uint32()?.into(),
        Kind::Sint32 => zigzag(item.varint()?).into(),
        Kind::Fixed32 => item.fixed32()?.into(),
        Kind::Sfixed32 => item.fixed32()?.cast_signed().into(),
        Kind::Double => number(f64::from_bits(item.fixed64()?)),
        Kind::Float => float(f32::from_bits(item.fixed32()?)),
    })
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// A number; an integer if it is one.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    match Number::from_f64(value) {
        Some(number) => number.into(),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// The shortest decimal text that gives the same float.
fn float(value: f32) -> Value {
    value
        .to_string()
        .parse()
        .map_or_else(|_| number(f64::from(value)), number)
}

fn pair(bytes: &[u8]) -> Result<(i64, i32), Malformed> {
    let mut reader = Reader::new(bytes);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => seconds = item.varint()?.cast_signed(),
            2 => nanos = item.int32()?,
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn mask(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut paths = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((_, item)) = reader.next()? {
        let mut camel = String::new();
        let mut raise = false;
        for letter in item.text()?.chars() {
            match letter {
                '_' => raise = true,
                letter if raise => {
                    camel.push(letter.to_ascii_uppercase());
                    raise = false;
                }
                letter => camel.push(letter),
            }
        }
        paths.push(camel);
    }
    Ok(paths.join(",").into())
}

fn wrapper(message: Message, bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    let fields = object(message, bytes, depth)?;
    if let Some(value) = fields.get("value") {
        return Ok(value.clone());
    }
    Ok(match message.name() {
        "google.protobuf.BoolValue" => false.into(),
        "google.protobuf.StringValue" | "google.protobuf.BytesValue" => "".into(),
        "google.protobuf.Int64Value" | "google.protobuf.UInt64Value" => "0".into(),
        _ => 0.into(),
    })
}

fn structure(bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    let mut out = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((_, item)) = reader.next()? {
        let mut entry = Reader::new(item.bytes()?);
        let (mut key, mut inner) = (String::new(), Value::Null);
        while let Some((number, item)) = entry.next()? {
            match number {
                1 => item.text()?.clone_into(&mut key),
                2 => inner = value(item.bytes()?, depth)?,
                _ => {}
            }
        }
        out.insert(key, inner);
    }
    Ok(Value::Object(out))
}

fn list(bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    let mut out = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((_, item)) = reader.next()? {
        out.push(value(item.bytes()?, depth)?);
    }
    Ok(Value::Array(out))
}

fn value(bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed);
    }
    let depth = depth + 1;
    let mut out = Value::Null;
    let mut reader = Reader::new(bytes);
    while let Some((field, item)) = reader.next()? {
        out = match field {
            2 => number(f64::from_bits(item.fixed64()?)),
            3 => item.text()?.into(),
            4 => (item.varint()? != 0).into(),
            5 => structure(item.bytes()?, depth)?,
            6 => list(item.bytes()?, depth)?,
            _ => Value::Null,
        };
    }
    Ok(out)
}

/// `@type` and the fields; of an unknown type, `@type` and the bytes as `value`.
fn any(bytes: &[u8], depth: u32) -> Result<Value, Malformed> {
    let (mut url, mut body) = ("", &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => url = item.text()?,
            2 => body = item.bytes()?,
            _ => {}
        }
    }
    if url.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let inner = match Message::of_url(url) {
        Some(target) => nested(target, body, depth)?,
        None => Value::String(to_base64(body)),
    };
    let special = Message::of_url(url).is_none_or(|target| {
        target
            .name()
            .strip_prefix("google.protobuf.")
            .is_some_and(|name| name != "Empty")
    });
    let mut out = match inner {
        Value::Object(fields) if !special => fields,
        inner => Map::from_iter([("value".to_owned(), inner)]),
    };
    out.insert("@type".to_owned(), url.into());
    Ok(Value::Object(out))
}
