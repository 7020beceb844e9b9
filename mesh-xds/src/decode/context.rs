//! Where a decoder stands, and what it found.

use std::{
    collections::HashSet,
    fmt::{Display, Write},
};

use envoy_types::pb::{envoy::config::core::v3::TypedExtensionConfig, google::protobuf::Any};
use mesh_core::{
    config::Rejection,
    model::{Name, Note},
};
use prost::{Message, Name as ProtoName};

use crate::json;

/// The path of the field that is being decoded, and everything found so far about one resource.
#[derive(Debug)]
pub struct Context {
    resource: Name,
    path: String,
    notes: Vec<Note>,
    rejections: Vec<Rejection>,
}

/// What a decoder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Fields without effect, and what refuses traffic.
    pub notes: Vec<Note>,
    /// Why the resource cannot be used; empty if it can.
    pub rejections: Vec<Rejection>,
}

/// A message in an `Any`, with TypedStructs resolved.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// Full name of the message, for example `envoy.extensions.filters.http.router.v3.Router`; empty if the `Any` was.
    pub(crate) name: String,
    /// Its wire bytes. For a TypedStruct of an unknown type, those of its `google.protobuf.Struct`.
    pub(crate) bytes: bytes::Bytes,
}

impl Typed {
    /// The type URL.
    pub(crate) fn url(&self) -> Name {
        format!("type.googleapis.com/{}", self.name).into()
    }
}

impl Context {
    /// A context for the resource, named by type and name: `cluster outbound|9080||reviews`.
    pub fn new(resource: impl Into<Name>) -> Self {
        Self {
            resource: resource.into(),
            path: String::new(),
            notes: Vec::new(),
            rejections: Vec::new(),
        }
    }

    /// The resource.
    pub fn resource(&self) -> &Name {
        &self.resource
    }

    /// The path that the decoder stands at.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs `inner` one field deeper.
    pub fn field<T>(&mut self, name: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        self.push(name);
        let value = inner(self);
        self.path.truncate(len);
        value
    }

    /// Runs `inner` in the item `index` of the list `name`.
    pub fn item<T>(&mut self, name: &str, index: usize, inner: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        self.push(name);
        write!(self.path, "[{index}]").expect("writing to a String does not fail");
        let value = inner(self);
        self.path.truncate(len);
        value
    }

    /// Runs `inner` in the entry `key` of the map `name`.
    pub fn entry<T>(&mut self, name: &str, key: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        self.push(name);
        write!(self.path, "[{key:?}]").expect("writing to a String does not fail");
        let value = inner(self);
        self.path.truncate(len);
        value
    }

    /// Decodes each item of the list `name`, leaving out those that gave nothing.
    pub fn each<I: IntoIterator, T>(
        &mut self,
        name: &str,
        items: I,
        mut inner: impl FnMut(&mut Self, I::Item) -> Option<T>,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            out.extend(self.item(name, index, |cx| inner(cx, item)));
        }
        out
    }

    fn push(&mut self, name: &str) {
        if !self.path.is_empty() && !name.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }

    fn at(&self, field: &str) -> Name {
        match (self.path.as_str(), field) {
            ("", field) => field.into(),
            (path, "") => path.into(),
            (path, field) => format!("{path}.{field}").into(),
        }
    }

    /// Notes something about `field` (empty: the present one).
    pub fn note(&mut self, field: &str, reason: impl Display) {
        self.notes.push(Note {
            resource: self.resource.clone(),
            path: self.at(field),
            reason: reason.to_string().into(),
        });
    }

    /// Notes that `field` has no effect, if it is set.
    pub fn ignored(&mut self, field: &str, set: bool) {
        if set {
            self.note(field, "ignored: it has no effect here");
        }
    }

    /// Refuses the resource because of `field` (empty: the present one).
    pub fn reject(&mut self, field: &str, reason: impl Display) {
        self.rejections.push(Rejection {
            resource: self.resource.clone(),
            path: self.at(field),
            reason: reason.to_string().into(),
            location: Name::from(""),
        });
    }

    /// Refuses the resource if `field` is set: it asks for something that must not be left out silently.
    pub fn unsupported(&mut self, field: &str, set: bool) {
        if set {
            self.reject(field, "not supported");
        }
    }

    /// Whether the resource was refused.
    pub fn is_rejected(&self) -> bool {
        !self.rejections.is_empty()
    }

    /// The findings, each note once.
    pub fn finish(mut self) -> Findings {
        let mut seen = HashSet::new();
        let once = |note: &Note| seen.insert((note.path.clone(), note.reason.clone()));
        self.notes.retain(once);
        Findings {
            notes: self.notes,
            rejections: self.rejections,
        }
    }

    /// The message in `any`. A TypedStruct of a known type becomes that type; of an unknown type, it keeps its name and
    /// the bytes of its struct. Refuses malformed ones.
    pub(crate) fn typed(&mut self, any: &Any) -> Option<Typed> {
        let resolved = json::resolve_any(&any.type_url, &any.value);
        match resolved {
            Ok((name, bytes)) => Some(Typed {
                name: name.into_owned(),
                bytes: bytes::Bytes::from(bytes.into_owned()),
            }),
            Err(reason) => {
                self.reject("", reason);
                None
            }
        }
    }

    /// The message of an extension that knows one type only; `what` is what people call such extensions.
    pub(crate) fn extension<M: Message + ProtoName + Default>(
        &mut self,
        what: &str,
        value: &TypedExtensionConfig,
    ) -> Option<M> {
        let known = M::full_name();
        let typed = self.field("typed_config", |cx| {
            cx.typed(value.typed_config.as_ref().unwrap_or(&Any::default()))
        })?;
        if typed.name != known {
            self.reject(
                "",
                format_args!("{what} {:?} is not supported; only {known} is", typed.name),
            );
            return None;
        }
        self.message(&typed)
    }

    /// Decodes the bytes of a message whose type is known.
    pub(crate) fn message<M: Message + Default>(&mut self, typed: &Typed) -> Option<M> {
        match M::decode(typed.bytes.as_ref()) {
            Ok(message) => Some(message),
            Err(error) => {
                self.reject("", format_args!("{}: {error}", typed.name));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_carry_resource_and_path() {
        let mut cx = Context::new("cluster a");
        cx.field("load_assignment", |cx| {
            cx.item("endpoints", 2, |cx| {
                cx.ignored("proximity", true);
                cx.ignored("proximity", true);
                cx.ignored("metadata", false);
                cx.entry("named", "x.y", |cx| cx.reject("", "no such thing"));
            });
        });
        let findings = cx.finish();
        assert_eq!(findings.notes.len(), 1);
        assert_eq!(
            &*findings.notes[0].path,
            "load_assignment.endpoints[2].proximity"
        );
        let rejection = &findings.rejections[0];
        assert_eq!(
            rejection.to_string(),
            r#"cluster a: load_assignment.endpoints[2].named["x.y"]: no such thing"#
        );
    }
}
