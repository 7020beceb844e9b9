//! serde over [`Events`]: what a node means is asked by the type that reads it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::de::value::CowStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::events::{Events, Kind, Step, Token, is_null};
use super::scalar::{Scalar, resolve};
use super::{Error, Location};

/// The node that comes next.
pub(crate) struct Node<'e, 'de>(pub(crate) &'e mut Events<'de>);

/// What is asked of a scalar.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Any,
    Text,
    Number,
    Bool,
}

impl<'de> Node<'_, 'de> {
    fn read<V: Visitor<'de>>(self, visitor: V, want: Want) -> Result<V::Value, Error> {
        let events = self.0;
        let (token, location) = events.next()?;
        match token {
            Token::Scalar { text, kind } => visit_scalar(text, kind, want, visitor)
                .map_err(|e| e.or_at(location, || events.current_path())),
            Token::MappingStart => read_map(events, location, visitor),
            Token::SequenceStart => read_seq(events, location, visitor),
            other => Err(Error::syntax(
                format!("expected a value, found {other:?}"),
                location,
            )),
        }
    }

    fn peek_null(&mut self) -> Result<bool, Error> {
        Ok(is_null(&self.0.peek()?.0))
    }

    /// A null where a list or mapping is asked is an empty one, as in protobuf's JSON and in `kubectl`.
    fn read_container<V: Visitor<'de>>(mut self, visitor: V, map: bool) -> Result<V::Value, Error> {
        if !self.peek_null()? {
            // Derived structs would take a list as their fields in order; no YAML means that.
            let (token, location) = self.0.peek()?;
            let location = *location;
            if map && *token == Token::SequenceStart {
                let error: Error = de::Error::invalid_type(de::Unexpected::Seq, &visitor);
                return Err(error.or_at(location, || self.0.current_path()));
            }
            return self.read(visitor, Want::Any);
        }
        let (_, location) = self.0.next()?;
        let empty = de::value::MapDeserializer::<_, Error>::new(std::iter::empty::<((), ())>());
        let value = if map {
            visitor.visit_map(empty)
        } else {
            visitor.visit_seq(de::value::SeqDeserializer::<_, Error>::new(
                std::iter::empty::<()>(),
            ))
        };
        value.map_err(|e| e.or_at(location, || self.0.current_path()))
    }
}

fn read_map<'de, V: Visitor<'de>>(
    events: &mut Events<'de>,
    location: Location,
    visitor: V,
) -> Result<V::Value, Error> {
    let depth = events.depth() - 1;
    let mut map = Map {
        events,
        keys: Keys::default(),
        merges: Vec::new(),
        merging: false,
        key_at: location,
    };
    let value = visitor.visit_map(&mut map);
    finish(map.events, depth, location, value)
}

fn read_seq<'de, V: Visitor<'de>>(
    events: &mut Events<'de>,
    location: Location,
    visitor: V,
) -> Result<V::Value, Error> {
    let depth = events.depth() - 1;
    let mut seq = Seq { events, index: 0 };
    let value = visitor.visit_seq(&mut seq);
    finish(seq.events, depth, location, value)
}

fn finish<T>(
    events: &mut Events<'_>,
    depth: usize,
    location: Location,
    value: Result<T, Error>,
) -> Result<T, Error> {
    match value {
        Ok(value) => {
            events.close_to(depth)?;
            Ok(value)
        }
        Err(error) => Err(error.or_at(location, || events.current_path())),
    }
}

fn visit_scalar<'de, V: Visitor<'de>>(
    text: Cow<'de, str>,
    kind: Kind,
    want: Want,
    visitor: V,
) -> Result<V::Value, Error> {
    let meaning = if kind == Kind::Text {
        Scalar::Text
    } else {
        resolve(&text)
    };
    let result = match meaning {
        Scalar::Text => return visit_text(text, visitor),
        Scalar::Null if want == Want::Text => return visitor.visit_borrowed_str(""),
        Scalar::Null => return visitor.visit_unit(),
        Scalar::Float(f) if want == Want::Number => visit_number(f, visitor),
        // A single letter is a boolean to a field that is one, and else nearly always a name.
        Scalar::Bool(_) if text.len() == 1 && want != Want::Bool => {
            return visit_text(text, visitor);
        }
        Scalar::Bool(b) => visitor.visit_bool(b),
        Scalar::Unsigned(n) => visitor.visit_u64(n),
        Scalar::Signed(n) => visitor.visit_i64(n),
        Scalar::Float(f) => visitor.visit_f64(f),
    };
    if want == Want::Text {
        return result.map_err(|e: Error| {
            Error::new(format!("{}; write it in quotes: \"{text}\"", e.message()))
        });
    }
    result
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value, Error> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

/// A float without a fraction is an integer to a field that is one, as in protobuf's JSON.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn visit_number<'de, V: Visitor<'de>>(f: f64, visitor: V) -> Result<V::Value, Error> {
    if f.fract() == 0.0 && f >= 0.0 && f <= u64::MAX as f64 {
        visitor.visit_u64(f as u64)
    } else if f.fract() == 0.0 && f < 0.0 && f >= i64::MIN as f64 {
        visitor.visit_i64(f as i64)
    } else {
        visitor.visit_f64(f)
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.read(visitor, Want::Number)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Any)
    }

    numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Bool)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Text)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Text)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor, Want::Text)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if self.peek_null()? {
            self.0.next()?;
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read_container(visitor, false)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read_container(visitor, true)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.read_container(visitor, true)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let events = self.0;
        let (token, location) = events.next()?;
        let value = match token {
            Token::Scalar { text, .. } => visitor.visit_enum(text.into_deserializer()),
            Token::MappingStart => {
                let depth = events.depth() - 1;
                let map = Map {
                    events,
                    keys: Keys::default(),
                    merges: Vec::new(),
                    merging: false,
                    key_at: location,
                };
                let value = visitor.visit_enum(de::value::MapAccessDeserializer::new(map));
                return finish(events, depth, location, value);
            }
            _ => Err(Error::new("expected one word or a mapping with one key")),
        };
        value.map_err(|e| e.or_at(location, || events.current_path()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.skip_node()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        f32 f64 char unit unit_struct tuple tuple_struct identifier
    }
}

/// The keys of one mapping: few are searched in a row, many in a set.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    const FEW: usize = 24;

    /// Adds a key; `false` if it was there.
    #[allow(clippy::ptr_arg, reason = "the key is kept as it is, borrowed or not")]
    fn insert(&mut self, key: &Cow<'de, str>) -> bool {
        if self.few.contains(key) || (!self.many.is_empty() && self.many.contains(key)) {
            return false;
        }
        if self.few.len() < Self::FEW {
            self.few.push(key.clone());
        } else {
            self.many.insert(key.clone());
        }
        true
    }
}

struct Map<'e, 'de> {
    events: &'e mut Events<'de>,
    keys: Keys<'de>,
    /// Values of `<<`, to be read after the mapping's own keys, which win.
    merges: Vec<Vec<(Token<'de>, Location)>>,
    merging: bool,
    key_at: Location,
}

impl<'de> Map<'_, 'de> {
    fn advance(&mut self) -> Result<Option<(Cow<'de, str>, Location)>, Error> {
        loop {
            if self.events.peek()?.0 == Token::MappingEnd {
                if !self.start_merge()? {
                    return Ok(None);
                }
                continue;
            }
            let (token, location) = self.events.next()?;
            let Token::Scalar { text, kind } = token else {
                return Err(Error::new("a key must be one word")
                    .or_at(location, || self.events.current_path()));
            };
            if kind == Kind::Plain && text == "<<" {
                let value = self.events.collect_node()?;
                self.merges.push(value);
                continue;
            }
            if self.keys.insert(&text) {
                return Ok(Some((text, location)));
            }
            if !self.merging {
                let message = format!("duplicate key `{text}`");
                self.events.path.push(Step::Key(text));
                return Err(Error::new(message)
                    .at(location)
                    .in_field(self.events.current_path()));
            }
            self.events.skip_node()?;
        }
    }

    /// Puts the entries of the next merged mapping before the end of this one.
    fn start_merge(&mut self) -> Result<bool, Error> {
        if self.merges.is_empty() {
            return Ok(false);
        }
        let mut entries = Vec::new();
        for value in self.merges.drain(..) {
            let at = value[0].1;
            let (Token::MappingStart | Token::SequenceStart) = value[0].0 else {
                return Err(Error::new("`<<` needs a mapping or a list of mappings").at(at));
            };
            flatten(value, &mut entries)?;
        }
        self.events.put_back(entries);
        self.merging = true;
        Ok(true)
    }
}

/// The entries of a mapping, or of each mapping of a list.
fn flatten<'de>(
    value: Vec<(Token<'de>, Location)>,
    entries: &mut Vec<(Token<'de>, Location)>,
) -> Result<(), Error> {
    let list = value[0].0 == Token::SequenceStart;
    let outer = 1 + usize::from(list);
    let mut depth = 0;
    for (token, location) in value {
        let closes = matches!(token, Token::MappingEnd | Token::SequenceEnd);
        let opens = matches!(token, Token::MappingStart | Token::SequenceStart);
        depth += usize::from(opens);
        let edge = depth <= outer && (opens || closes);
        if list && depth == 1 && !edge
            || edge && depth == outer && token == Token::SequenceStart && list
        {
            return Err(Error::new("`<<` needs a mapping or a list of mappings").at(location));
        }
        if !edge {
            entries.push((token, location));
        }
        depth -= usize::from(closes);
    }
    Ok(())
}

impl<'de> de::MapAccess<'de> for Map<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((key, location)) = self.advance()? else {
            return Ok(None);
        };
        self.key_at = location;
        self.events.path.push(Step::Key(key.clone()));
        let value = seed
            .deserialize(Key(key))
            .map_err(|e| e.or_at(location, || self.events.current_path()))?;
        Ok(Some(value))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        // A value without an own place (a seed that refuses before it reads) is blamed on its key.
        let value = seed
            .deserialize(Node(self.events))
            .map_err(|e| e.or_at(self.key_at, || self.events.current_path()))?;
        self.events.path.pop();
        Ok(value)
    }
}

struct Seq<'e, 'de> {
    events: &'e mut Events<'de>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Seq<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let (token, location) = self.events.peek()?;
        let location = *location;
        if *token == Token::SequenceEnd {
            return Ok(None);
        }
        self.events.path.push(Step::Index(self.index));
        self.index += 1;
        let value = seed
            .deserialize(Node(self.events))
            .map_err(|e| e.or_at(location, || self.events.current_path()))?;
        self.events.path.pop();
        Ok(Some(value))
    }
}

/// A key: text to whom asks for text, a number to whom asks for one.
struct Key<'de>(Cow<'de, str>);

macro_rules! key_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visit_scalar(self.0, Kind::Plain, Want::Number, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visit_text(self.0, visitor)
    }

    key_numbers!(deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        CowStrDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}
