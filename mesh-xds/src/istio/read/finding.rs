//! What is to be said about an object or a file.

use std::fmt;
use std::sync::Arc;

use crate::istio::Object;
use crate::yaml::{self, Location, Path};

/// The identity of an object in a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// API group, empty for Kubernetes' core group.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectId {
    /// The identity of `object`.
    pub fn of(object: &Object) -> Self {
        Self {
            group: Arc::clone(&object.group),
            kind: Arc::clone(&object.kind),
            namespace: Arc::clone(&object.namespace),
            name: Arc::clone(&object.name),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() {
            "(no name)"
        } else {
            &self.name
        };
        write!(f, "{} {}/{name}", self.kind, self.namespace)
    }
}

/// How much a [`Finding`] weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The object or file is not taken; its last good version stays in force.
    Refused,
    /// The object is taken; something about it is probably not meant.
    Warning,
    /// The object or field is taken and has no effect (yet).
    Inactive,
    /// Not an object of the mesh: passed over.
    Foreign,
}

/// A remark about an object or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Line and column, if known.
    pub location: Option<Location>,
    /// The object concerned, if the file was readable that far.
    pub resource: Option<ObjectId>,
    /// The field concerned; the root for the whole object.
    pub path: Path,
    /// What there is to say, without a full stop.
    pub message: String,
    /// What is allowed instead; empty when it is not a short list.
    pub allowed: Vec<String>,
    /// The allowed name that looks most like the one written.
    pub nearest: Option<String>,
}

impl Finding {
    /// A finding without place.
    pub fn new(level: Level, file: &Arc<str>, message: impl Into<String>) -> Self {
        Self {
            level,
            file: Arc::clone(file),
            location: None,
            resource: None,
            path: Path::root(),
            message: message.into(),
            allowed: Vec::new(),
            nearest: None,
        }
    }

    /// A refusal out of a reader's error.
    pub(crate) fn refused(file: &Arc<str>, error: &yaml::Error) -> Self {
        Self {
            level: Level::Refused,
            file: Arc::clone(file),
            location: error.location(),
            resource: None,
            path: error.path(),
            message: error.message().to_owned(),
            allowed: error.allowed().to_vec(),
            nearest: error.nearest().map(str::to_owned),
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = location;
        self
    }

    /// Sets the object.
    #[must_use]
    pub fn about(mut self, resource: Option<ObjectId>) -> Self {
        self.resource = resource;
        self
    }

    /// Sets the field.
    #[must_use]
    pub fn field(mut self, path: Path) -> Self {
        self.path = path;
        self
    }

    /// The message with the nearest name and the allowed ones.
    pub fn reason(&self) -> String {
        let mut reason = self.message.clone();
        if let Some(nearest) = &self.nearest {
            reason += &format!("; did you mean `{nearest}`?");
        }
        if !self.allowed.is_empty() {
            reason += &format!("; allowed: {}", self.allowed.join(", "));
        }
        reason
    }

    /// `file:line:column`, as far as known.
    pub fn place(&self) -> String {
        match self.location {
            Some(location) => format!("{}:{location}", self.file),
            None => self.file.to_string(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        if let Some(resource) = &self.resource {
            write!(f, "{resource}: ")?;
        }
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason())
    }
}
