//! What is known of an object that was refused and of which no good version is in force.

use std::fmt;
use std::sync::Arc;

use super::{Object, Origin, Spec};

/// The API group of the kinds that do nothing but protect.
pub(crate) const SECURITY: &str = "security.istio.io";

/// An object that was refused and of which no version is in force: what it would have protected stays closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    /// Its kind; `None` if that cannot be told, so that it may be any kind of `security.istio.io`.
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
        let of_kind = match &self.kind {
            Some(kind) => *kind == object.kind,
            None => *object.group == *SECURITY,
        };
        of_kind
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == object.namespace)
            && (self.name.is_empty() || self.name == object.name)
    }

    /// Whether `other` has the same kind, namespace and name.
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
        let kind = self.kind.as_deref().unwrap_or(SECURITY);
        let namespace = self.namespace.as_deref().unwrap_or("(no namespace)");
        let name = match &*self.name {
            "" => "(no name)",
            name => name,
        };
        write!(f, "{kind} {namespace}/{name}")
    }
}
