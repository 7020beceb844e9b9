//! What is known of an object that was refused and of which no good version is in force.

use std::fmt;
use std::sync::Arc;

use super::{Object, Origin, Spec};

/// An object that was refused and of which no version is in force: what it would have protected stays closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Its kind; `None` if that cannot be told, so that it may be any kind that protects.
    pub kind: Option<Arc<str>>,
    /// Its namespace; `None` if that cannot be told, so that it may be any.
    pub namespace: Option<Arc<str>>,
    /// Its name; empty if that cannot be told.
    pub name: Arc<str>,
    /// Where it was read.
    pub origin: Origin,
    /// The part of its content that says what it protects, as far as that was readable. `None`: everything that an
    /// object of its kind and namespace can protect.
    pub spec: Option<Spec>,
}

impl Lost {
    /// A file of which nothing can be told.
    #[must_use]
    pub fn unreadable(file: &Arc<str>) -> Self {
        Self {
            origin: Origin {
                file: Arc::clone(file),
                line: 0,
            },
            ..Self::default()
        }
    }

    /// The object that stands in its place in the index; `None` where its content could not be told. It counts as the
    /// oldest of all, so that nothing overrules it.
    #[must_use]
    pub fn stand_in(&self) -> Option<Object> {
        Some(Object {
            kind: Arc::clone(self.kind.as_ref()?),
            name: Arc::clone(&self.name),
            namespace: Arc::clone(self.namespace.as_ref()?),
            creation_timestamp: i64::MIN,
            origin: self.origin.clone(),
            spec: self.spec.clone()?,
            ..Object::default()
        })
    }

    /// Whether it is a version of `object`, as far as known.
    #[must_use]
    pub fn may_be(&self, object: &Object) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == object.kind)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == object.namespace)
            && (self.name.is_empty() || self.name == object.name)
    }

    /// Whether `other` says the same of itself.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
    }

    /// Whether kind, namespace and name are known.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.kind.is_some() && self.namespace.is_some() && !self.name.is_empty()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(kind) = &self.kind else {
            return write!(f, "file {}", self.origin.file);
        };
        let namespace = self.namespace.as_deref().unwrap_or("(no namespace)");
        let name = match &*self.name {
            "" => "(no name)",
            name => name,
        };
        write!(f, "{kind} {namespace}/{name}")
    }
}
