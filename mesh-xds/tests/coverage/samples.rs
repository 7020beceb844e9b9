//! Values for fields: what differs from the default and keeps the rules of the API.

use mesh_xds::json::schema::{Check, Field, Kind, Message, Scope};
use serde_json::{Map, Value, json};

/// Values to try: what is the default of one field is another's change.
pub(super) fn samples(field: &Field, old: Option<&Value>) -> Vec<Value> {
    let mut out: Vec<Value> = sample(field, old, 0).into_iter().collect();
    match field.kind {
        Kind::Message(Some(message)) if field.repeated && !field.map => {
            if !message.name().starts_with("google.protobuf.") {
                out.extend(full(message).map(|value| json!([value])));
            }
        }
        _ if field.repeated => {}
        Kind::Enum(Some(target)) => out.extend(target.values().map(|(name, _)| json!(name))),
        Kind::Message(None) | Kind::Enum(None) => {}
        Kind::Message(Some(message)) => match message.name() {
            "google.protobuf.BoolValue" => out.extend([json!(true), json!(false)]),
            name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
                out.extend([json!(7), json!(50)]);
            }
            "envoy.config.core.v3.Metadata" => {
                out.push(json!({"filter_metadata": {"envoy.lb": {"a": "b"}}}));
            }
            name if name.starts_with("google.protobuf.") => {}
            _ => out.extend(full(message)),
        },
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Double | Kind::Float => {}
        _ => out.push(json!(7)),
    }
    out.retain(|value| Some(value) != old);
    out
}

/// The smallest message with every scalar field set besides.
fn full(message: Message) -> Option<Value> {
    let Some(Value::Object(mut fields)) = least(message, 1) else {
        return None;
    };
    for field in message
        .fields()
        .filter(|field| field.oneof.is_none() && !field.repeated)
    {
        let plain = match field.kind {
            Kind::Message(Some(inner)) => {
                inner.name().starts_with("google.protobuf.") && inner.name().ends_with("Value")
            }
            Kind::Message(None) => false,
            _ => true,
        };
        if plain && let Some(value) = single(&field, None, 1) {
            fields.insert(field.name.to_owned(), value);
        }
    }
    Some(Value::Object(fields))
}

/// A value that differs from the default and from `old`, and keeps the rules of the API.
fn sample(field: &Field, old: Option<&Value>, depth: u32) -> Option<Value> {
    let one = single(field, old, depth)?;
    Some(match (field.map, field.repeated) {
        (true, _) => {
            let Kind::Message(Some(entry)) = field.kind else {
                return None;
            };
            let value = entry.field("value")?;
            json!({ "1": single(&value, None, depth + 1)? })
        }
        (false, true) => {
            let least = field.rules().find_map(|rule| match rule.check {
                Check::MinItems(least) => usize::try_from(least).ok(),
                _ => None,
            });
            Value::Array(vec![one; least.unwrap_or(1).max(1)])
        }
        (false, false) => one,
    })
}

fn single(field: &Field, old: Option<&Value>, depth: u32) -> Option<Value> {
    if depth > 6 {
        return None;
    }
    Some(match field.kind {
        Kind::Bool => json!(old != Some(&json!(true))),
        Kind::String => text(field, old),
        Kind::Bytes => json!("AQID"),
        Kind::Enum(Some(target)) => {
            let fits = |name: &&str| old.and_then(Value::as_str) != Some(*name);
            let other = target.values().filter(|(_, number)| *number != 0);
            json!(other.map(|(name, _)| name).find(fits)?)
        }
        Kind::Message(Some(message)) => return message_value(field, message, old, depth),
        Kind::Message(None) | Kind::Enum(None) => return None,
        Kind::Double | Kind::Float => json!(1.5),
        _ => json!(number(field, old)),
    })
}

fn text(field: &Field, old: Option<&Value>) -> Value {
    let least = field.rules().find_map(|rule| match rule.check {
        Check::MinLen(least) => usize::try_from(least).ok(),
        _ => None,
    });
    let mut one = "1".repeat(least.unwrap_or(1).max(1));
    for rule in field.rules() {
        match rule.check {
            Check::OneOf(words) => {
                let fits = |word: &&str| !word.is_empty() && old != Some(&json!(word));
                return json!(words.split('\n').find(fits));
            }
            Check::Prefix(text) => one.insert_str(0, text),
            Check::Suffix(text) => one.push_str(text),
            _ => {}
        }
    }
    match old {
        Some(Value::String(old)) if *old == one => json!(format!("{one}1")),
        _ => json!(one),
    }
}

/// A number that keeps the rules; durations are in nanoseconds.
fn number(field: &Field, old: Option<&Value>) -> i64 {
    let (mut low, mut high) = (1, i64::MAX);
    for rule in field.rules() {
        match rule.check {
            Check::Above(limit) => low = low.max(limit + 1),
            Check::AtLeast(limit) => low = low.max(limit),
            Check::Below(limit) => high = high.min(limit - 1),
            Check::AtMost(limit) => high = high.min(limit),
            _ => {}
        }
    }
    let value = low.min(high);
    match old.and_then(Value::as_i64) {
        Some(old) if old == value && value < high => value + 1,
        _ => value,
    }
}

fn message_value(
    field: &Field,
    message: Message,
    old: Option<&Value>,
    depth: u32,
) -> Option<Value> {
    Some(match message.name() {
        "google.protobuf.Duration" => match old {
            Some(old) if old == "77s" => json!("78s"),
            _ => json!(format!(
                "{}s",
                (number(field, None) + 999_999_999) / 1_000_000_000 + 76
            )),
        },
        "google.protobuf.Timestamp" => json!("2020-01-01T00:00:00Z"),
        "google.protobuf.FieldMask" => json!("a"),
        "google.protobuf.Struct" => json!({"a": "b"}),
        "google.protobuf.Value" => json!("a"),
        "google.protobuf.ListValue" => json!(["a"]),
        "google.protobuf.Any" => json!({"@type": "type.googleapis.com/google.protobuf.Empty"}),
        "google.protobuf.BoolValue" => json!(old != Some(&json!(true))),
        "google.protobuf.StringValue" => text(field, old),
        "google.protobuf.DoubleValue" | "google.protobuf.FloatValue" => json!(1.5),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            json!(number(field, old))
        }
        _ => least(message, depth + 1)?,
    })
}

/// The smallest message that keeps the rules.
pub(super) fn least(message: Message, depth: u32) -> Option<Value> {
    let mut fields = Map::new();
    let mut oneofs = message.required_oneofs();
    for field in message.fields() {
        let needed = field.rules().any(|rule| {
            rule.scope == Scope::Field
                && match rule.check {
                    Check::Required => true,
                    Check::MinLen(least) | Check::MinItems(least) => least > 0,
                    Check::Above(limit) => limit >= 0 && !field.presence,
                    Check::AtLeast(limit) => limit > 0 && !field.presence,
                    Check::Not(number) => number == 0,
                    _ => false,
                }
        });
        let member = field.oneof.is_some_and(|oneof| oneofs & 1 << oneof != 0);
        if (needed && field.oneof.is_none()) || member {
            let Some(value) = sample(&field, None, depth) else {
                // Another member may do.
                if member {
                    continue;
                }
                return None;
            };
            if let Some(oneof) = field.oneof {
                oneofs &= !(1 << oneof);
            }
            fields.insert(field.name.to_owned(), value);
        }
    }
    (oneofs == 0).then_some(Value::Object(fields))
}
