//! The fields that a type reads, found by asking its `Deserialize` for one path after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

/// What is read at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// These fields.
    Fields(Vec<&'static str>),
    /// A list of what is at `PATH[]`.
    List,
    /// A map of what is at `PATH{}`.
    Map,
    /// A value that has no parts.
    Leaf,
}

/// Every path below `T`, as `http[].match[].headers{}.exact`.
pub(super) fn shapes<T: for<'de> Deserialize<'de>>() -> BTreeMap<String, Shape> {
    let mut found = BTreeMap::new();
    let mut next = vec![Vec::new()];
    while let Some(path) = next.pop() {
        let seen = RefCell::new(None);
        // The value is of no use: a type may well refuse what is given to it here.
        let _ = T::deserialize(Probe {
            path: &path,
            seen: &seen,
        });
        let shape = seen.into_inner().unwrap_or(Shape::Leaf);
        let below = |step: Step| [path.as_slice(), &[step]].concat();
        match &shape {
            Shape::Fields(fields) => next.extend(fields.iter().map(|f| below(Step::Field(f)))),
            Shape::List => next.push(below(Step::Item)),
            Shape::Map => next.push(below(Step::Entry)),
            Shape::Leaf => {}
        }
        found.insert(text(&path), shape);
    }
    found
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Field(&'static str),
    Item,
    Entry,
}

fn text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Field(name) if out.is_empty() => out += name,
            Step::Field(name) => {
                out.push('.');
                out += name;
            }
            Step::Item => out += "[]",
            Step::Entry => out += "{}",
        }
    }
    out
}

/// Leads along `path` and writes down what is asked for at its end.
#[derive(Clone, Copy)]
struct Probe<'a> {
    path: &'a [Step],
    seen: &'a RefCell<Option<Shape>>,
}

impl Probe<'_> {
    fn saw(&self, shape: Shape) {
        if self.path.is_empty() {
            self.seen.borrow_mut().get_or_insert(shape);
        }
    }
}

/// The one part of a value that the path goes through.
struct Part<'a>(Option<(Step, Probe<'a>)>);

impl<'a> Part<'a> {
    fn of(probe: &Probe<'a>) -> Self {
        Self(probe.path.split_first().map(|(step, path)| {
            let seen = probe.seen;
            (*step, Probe { path, seen })
        }))
    }
}

impl<'de> SeqAccess<'de> for Part<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let part = self.0.take();
        part.map(|(_, probe)| seed.deserialize(probe)).transpose()
    }
}

impl<'de> MapAccess<'de> for Part<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((step, _)) = &self.0 else {
            return Ok(None);
        };
        let name = match step {
            Step::Field(name) => name,
            Step::Item | Step::Entry => "key",
        };
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (_, probe) = self.0.take().expect("a key came before");
        seed.deserialize(probe)
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.saw(Shape::Leaf);
        visitor.visit_u64(1)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // An alias is the name of protobuf for the same field.
        let own = fields.iter().filter(|name| !name.contains('_'));
        self.saw(Shape::Fields(own.copied().collect()));
        visitor.visit_map(Part::of(&self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.saw(Shape::List);
        visitor.visit_seq(Part::of(&self))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.saw(Shape::Map);
        visitor.visit_map(Part::of(&self))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct enum identifier ignored_any
    }
}

#[test]
fn paths_of_every_form_are_found() {
    let found = shapes::<crate::istio::api::VirtualService>();
    for (path, shape) in [
        ("hosts", Shape::List),
        ("hosts[]", Shape::Leaf),
        ("http[].timeout", Shape::Leaf),
        ("http[].match[].headers", Shape::Map),
        ("http[].match[].headers{}.regex", Shape::Leaf),
        ("http[].fault.delay.percentage.value", Shape::Leaf),
        ("http[].redirect.derivePort", Shape::Leaf),
        ("tcp[].route[].destination.port.number", Shape::Leaf),
    ] {
        assert_eq!(found.get(path), Some(&shape), "{path}");
    }
}
