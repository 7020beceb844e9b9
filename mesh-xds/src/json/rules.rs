//! The API's own validation rules, checked on wire bytes: required fields, lengths, ranges, known enum values, known
//! field numbers. So a resource from a control plane is held to the same rules as one from a file.

use std::cmp::Ordering;

use super::{
    scalar::duration_text,
    schema::{Check, Field, Kind, Message, Scope},
    wire::{Item, Malformed, Reader},
};

/// How deep messages may be nested: a hundred levels of JSON objects are two hundred messages.
const MAX_DEPTH: u32 = 220;

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Violation {
    /// The field, below the message.
    pub path: String,
    /// What is wrong, as a sentence without a full stop.
    pub reason: String,
}

/// Checks the message `full_name`, and all messages in it.
///
/// # Errors
///
/// The first [`Violation`].
pub fn check(full_name: &str, bytes: &[u8]) -> Result<(), Violation> {
    let mut walk = Walk::default();
    let result = match Message::find(full_name) {
        Some(message) => walk.message(message, bytes),
        None => Err(format!("unknown message {full_name}")),
    };
    result.map_err(|reason| Violation {
        path: walk.path,
        reason,
    })
}

impl From<Malformed> for String {
    fn from(malformed: Malformed) -> Self {
        malformed.to_string()
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    depth: u32,
}

impl Walk {
    fn message(&mut self, message: Message, bytes: &[u8]) -> Result<(), String> {
        if message.name() == "google.protobuf.Any" {
            return self.any(bytes);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("nested too deep".to_owned());
        }
        let mut seen: Vec<(u32, usize)> = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, item)) = reader.next()? {
            let Some(field) = message.number(number) else {
                return Err(format!(
                    "unknown field number {number} in {}",
                    message.name()
                ));
            };
            let index = match seen.iter_mut().find(|(other, _)| *other == number) {
                Some((_, count)) => {
                    *count += 1;
                    *count - 1
                }
                None => {
                    seen.push((number, 1));
                    0
                }
            };
            self.field(&field, index, item)?;
        }
        self.depth -= 1;
        self.missing(message, &seen)
    }

    fn field(&mut self, field: &Field, index: usize, item: Item<'_>) -> Result<(), String> {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(field.name);
        if field.map {
            self.entry(field, item)?;
        } else if field.repeated {
            let mut at = index;
            let start = self.path.len();
            let mut bad = Ok(());
            item.unpack(field.kind, |item| {
                if bad.is_ok() {
                    self.path.push_str(&format!("[{at}]"));
                    at += 1;
                    bad = self.value(field, item);
                    if bad.is_ok() {
                        self.path.truncate(start);
                    }
                }
                Ok(())
            })?;
            bad?;
        } else {
            self.value(field, item)?;
        }
        self.path.truncate(len);
        Ok(())
    }

    fn entry(&mut self, field: &Field, item: Item<'_>) -> Result<(), String> {
        let Kind::Message(Some(entry)) = field.kind else {
            return Ok(());
        };
        let bytes = item.bytes()?;
        let mut key = String::new();
        let mut value = None;
        let mut reader = Reader::new(bytes);
        while let Some((number, item)) = reader.next()? {
            match (number, item) {
                (1, Item::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (1, Item::Varint(number)) => key = number.to_string(),
                (2, item) => value = Some(item),
                _ => {}
            }
        }
        self.path.push_str(&format!("[{key:?}]"));
        for rule in field.rules().filter(|rule| rule.scope == Scope::Keys) {
            text(rule.check, key.as_bytes()).map_err(|reason| format!("the key {reason}"))?;
        }
        match (value, entry.field("value")) {
            (Some(item), Some(value)) => self.value(&value, item),
            _ => Ok(()),
        }
    }

    fn value(&mut self, field: &Field, item: Item<'_>) -> Result<(), String> {
        let limit = item_rules(field).any(|check| check != Check::IgnoreEmpty);
        if limit {
            constraints(field, item)?;
        }
        match field.kind {
            Kind::Message(Some(message)) if message.name() == "google.protobuf.Duration" => {
                duration(item.bytes()?)
            }
            Kind::Message(Some(message)) => self.message(message, item.bytes()?),
            Kind::String => item.text().map(|_| ()).map_err(String::from),
            _ => Ok(()),
        }
    }

    fn any(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (mut url, mut body) = ("", &[][..]);
        let mut reader = Reader::new(bytes);
        while let Some((number, item)) = reader.next()? {
            match number {
                1 => url = item.text()?,
                2 => body = item.bytes()?,
                _ => return Err(format!("unknown field number {number} in an Any")),
            }
        }
        // What an unknown type means is the decoder's business.
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("nested too deep".to_owned());
        }
        let result = match Message::of_url(url) {
            Some(message) => self.message(message, body),
            None => Ok(()),
        };
        self.depth -= 1;
        result
    }

    /// Rules that an absent field can break.
    fn missing(&mut self, message: Message, seen: &[(u32, usize)]) -> Result<(), String> {
        let required = message.required_oneofs();
        for field in message.ruled_fields() {
            let count = seen
                .iter()
                .find(|(number, _)| *number == field.number)
                .map_or(0, |(_, count)| *count);
            if let Err(reason) = counted(&field, count) {
                self.path
                    .push_str(if self.path.is_empty() { "" } else { "." });
                self.path.push_str(field.name);
                return Err(reason);
            }
        }
        for oneof in (0..16).take_while(|_| required != 0) {
            let is_member = |field: &Field| field.oneof == Some(oneof);
            if required & 1 << oneof != 0
                && !message.fields().any(|field| {
                    is_member(&field) && seen.iter().any(|(number, _)| *number == field.number)
                })
            {
                let names: Vec<_> = message.fields().filter(is_member).map(|f| f.name).collect();
                return Err(format!("one of {} must be set", names.join(", ")));
            }
        }
        Ok(())
    }
}

/// The rules for one value: of the field, or of the items of a list.
fn item_rules(field: &Field) -> impl Iterator<Item = Check> + use<> {
    let scope = match field.repeated {
        true => Scope::Items,
        false => Scope::Field,
    };
    field
        .rules()
        .filter(move |rule| rule.scope == scope)
        .map(|rule| rule.check)
}

/// Rules about presence and number of items.
fn counted(field: &Field, count: usize) -> Result<(), String> {
    let absent = count == 0 && field.oneof.is_none();
    let few = i64::try_from(count).unwrap_or(i64::MAX);
    let own = || field.rules().filter(|rule| rule.scope == Scope::Field);
    let ignore = own().any(|rule| rule.check == Check::IgnoreEmpty);
    for rule in own() {
        match rule.check {
            Check::Required if absent => return Err("must be set".to_owned()),
            Check::MinItems(limit) if few < limit && !(absent && ignore) => {
                return Err(format!("needs at least {limit} item(s)"));
            }
            Check::MaxItems(limit) if few > limit => {
                return Err(format!("has more than {limit} items"));
            }
            check if absent && !ignore && !field.presence && !field.repeated => match field.kind {
                Kind::String | Kind::Bytes | Kind::Message(_) => text(check, b"")?,
                Kind::Enum(_) if check == Check::Not(0) => return Err("must be set".to_owned()),
                _ => number(check, Scalar::Int(0), plain)?,
            },
            _ => {}
        }
    }
    Ok(())
}

/// Rules about one value.
fn constraints(field: &Field, item: Item<'_>) -> Result<(), String> {
    let ignore = item_rules(field).any(|check| check == Check::IgnoreEmpty);
    match field.kind {
        Kind::String | Kind::Bytes => {
            let bytes = item.bytes()?;
            if ignore && bytes.is_empty() {
                return Ok(());
            }
            item_rules(field).try_for_each(|check| text(check, bytes))
        }
        Kind::Enum(target) => {
            let value = item.int32()?;
            let name = target.and_then(|target| target.value(value));
            item_rules(field).try_for_each(|check| match (check, target) {
                (Check::DefinedOnly, Some(target)) if name.is_none() => {
                    let names: Vec<&str> = target.values().map(|(name, _)| name).collect();
                    Err(format!("{value} is no known value: {}", names.join(", ")))
                }
                (Check::Not(other), _) if other == i64::from(value) => {
                    Err(format!("{} is not allowed", name.unwrap_or("this value")))
                }
                _ => Ok(()),
            })
        }
        Kind::Message(Some(message)) => message_value(message, field, item),
        _ => match scalar(field.kind, item)? {
            Some(Scalar::Int(0)) if ignore => Ok(()),
            Some(value) => item_rules(field).try_for_each(|check| number(check, value, plain)),
            None => Ok(()),
        },
    }
}

/// What Envoy asks of every duration: neither negative nor over 64 bits of nanoseconds.
fn duration(bytes: &[u8]) -> Result<(), String> {
    const MOST_SECONDS: i64 = i64::MAX / 1_000_000_000;
    let (seconds, nanos) = seconds_and_nanos(bytes)?;
    if seconds < 0 || nanos < 0 {
        return Err("must not be negative".to_owned());
    }
    if seconds > MOST_SECONDS || nanos >= 1_000_000_000 {
        return Err(format!("must be at most {MOST_SECONDS} s"));
    }
    Ok(())
}

fn seconds_and_nanos(bytes: &[u8]) -> Result<(i64, i64), Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, item)) = reader.next()? {
        match number {
            1 => seconds = item.varint()?.cast_signed(),
            _ => nanos = i64::from(item.int32()?),
        }
    }
    Ok((seconds, nanos))
}

/// Wrappers and durations carry the rules of what they hold.
fn message_value(message: Message, field: &Field, item: Item<'_>) -> Result<(), String> {
    let bytes = item.bytes()?;
    match message.name() {
        "google.protobuf.Duration" => {
            let (seconds, nanos) = seconds_and_nanos(bytes)?;
            let total = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
            item_rules(field).try_for_each(|check| number(check, Scalar::Int(total), span))
        }
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let Some(inner) = message.field("value") else {
                return Ok(());
            };
            let mut reader = Reader::new(bytes);
            let mut item = None;
            while let Some((_, next)) = reader.next()? {
                item = Some(next);
            }
            match (inner.kind, item) {
                (Kind::String | Kind::Bytes, item) => {
                    let bytes = item.map_or(Ok(&[][..]), Item::bytes)?;
                    item_rules(field).try_for_each(|check| text(check, bytes))
                }
                (kind, Some(item)) => match scalar(kind, item)? {
                    Some(value) => item_rules(field).try_for_each(|c| number(c, value, plain)),
                    None => Ok(()),
                },
                (_, None) => {
                    item_rules(field).try_for_each(|check| number(check, Scalar::Int(0), plain))
                }
            }
        }
        _ => Ok(()),
    }
}

/// A number.
#[derive(Clone, Copy, Debug)]
enum Scalar {
    Int(i64),
    Float(f64),
}

impl Scalar {
    /// `None` for what is no number.
    #[expect(clippy::cast_precision_loss, reason = "limits are small")]
    fn compare(self, limit: i64) -> Option<Ordering> {
        match self {
            Self::Int(value) => Some(value.cmp(&limit)),
            Self::Float(value) => value.partial_cmp(&(limit as f64)),
        }
    }
}

/// A number; `None` for kinds that no rule is about.
fn scalar(kind: Kind, item: Item<'_>) -> Result<Option<Scalar>, Malformed> {
    Ok(Some(match kind {
        Kind::Int32 | Kind::Enum(_) => Scalar::Int(i64::from(item.int32()?)),
        Kind::Uint32 => Scalar::Int(i64::from(item.uint32()?)),
        Kind::Int64 => Scalar::Int(item.varint()?.cast_signed()),
        Kind::Uint64 | Kind::Bool => Scalar::Int(i64::try_from(item.varint()?).unwrap_or(i64::MAX)),
        Kind::Double => Scalar::Float(f64::from_bits(item.fixed64()?)),
        Kind::Float => Scalar::Float(f64::from(f32::from_bits(item.fixed32()?))),
        _ => return Ok(None),
    }))
}

fn number(check: Check, value: Scalar, shown: fn(i64) -> String) -> Result<(), String> {
    let order = |limit| value.compare(limit);
    match check {
        Check::Above(limit) if order(limit).is_some_and(Ordering::is_le) => {
            Err(format!("must be greater than {}", shown(limit)))
        }
        Check::AtLeast(limit) if order(limit).is_some_and(Ordering::is_lt) => {
            Err(format!("must be at least {}", shown(limit)))
        }
        Check::Below(limit) if order(limit).is_some_and(Ordering::is_ge) => {
            Err(format!("must be less than {}", shown(limit)))
        }
        Check::AtMost(limit) if order(limit).is_some_and(Ordering::is_gt) => {
            Err(format!("must be at most {}", shown(limit)))
        }
        Check::Is(limit) if order(limit) != Some(Ordering::Equal) => {
            Err("must be true if it is set".to_owned())
        }
        _ => Ok(()),
    }
}

fn plain(limit: i64) -> String {
    limit.to_string()
}

/// A limit of durations, in nanoseconds, as they are written.
fn span(limit: i64) -> String {
    const SECOND: i64 = 1_000_000_000;
    let nanos = i32::try_from(limit % SECOND).unwrap_or_default();
    duration_text(limit / SECOND, nanos)
}

/// Rules about text.
fn text(check: Check, bytes: &[u8]) -> Result<(), String> {
    let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    match check {
        Check::MinLen(1) if len == 0 => Err("must not be empty".to_owned()),
        Check::MinLen(limit) if len < limit => Err(format!("must have at least {limit} bytes")),
        Check::MaxLen(limit) if len > limit => Err(format!("must have at most {limit} bytes")),
        Check::OneOf(words) if words.split('\n').all(|word| word.as_bytes() != bytes) => {
            let words: Vec<&str> = words.split('\n').filter(|word| !word.is_empty()).collect();
            Err(format!(
                "{:?} is not one of {}",
                String::from_utf8_lossy(bytes),
                words.join(", ")
            ))
        }
        Check::Prefix(text) if !bytes.starts_with(text.as_bytes()) => {
            Err(format!("must begin with {text:?}"))
        }
        Check::Suffix(text) if !bytes.ends_with(text.as_bytes()) => {
            Err(format!("must end with {text:?}"))
        }
        // As the API's rules do unless `strict: true`.
        Check::HeaderName | Check::HeaderValue
            if bytes.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) =>
        {
            Err("must not hold NUL, CR or LF".to_owned())
        }
        _ => Ok(()),
    }
}
