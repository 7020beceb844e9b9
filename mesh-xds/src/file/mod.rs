//! Envoy's own bootstrap file, YAML or JSON, as a source of configuration.
//!
//! Clusters and listeners are taken out of the stream of events one at a time; there is never a tree of the whole file.
//! A file that cannot be read as a whole changes nothing; a resource that is wrong keeps its last good version. Each
//! rejection names file, line and column.

mod bootstrap;
mod place;
#[cfg(test)]
mod tests;
mod watch;

use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap as Proto;
use mesh_core::{
    config::{ConfigSource, Outcome, Rejection, SourceError, Update},
    model::{Name, Note},
};
use prost::Message;

pub use self::bootstrap::{Bootstrap, Node};
use crate::{
    graph::{Dump, Graph, Kind},
    json, yaml,
};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const RESOURCES: &str = "envoy.config.bootstrap.v3.Bootstrap.StaticResources";

/// Reads one bootstrap file, and again when it changes if that is asked for.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    graph: Graph,
    bootstrap: Bootstrap,
    /// About the bootstrap itself.
    notes: Vec<Note>,
    /// The first update, made when the source was opened.
    first: Option<Update>,
    watch: Option<watch::Watch>,
    version: u64,
}

impl FileSource {
    /// Reads the file. It may be YAML or JSON, whatever its name ends in.
    ///
    /// # Errors
    ///
    /// [`FileError`] with line, column and field, if the file as a whole cannot be used. Resources that were refused are
    /// in the first update.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let path = path.into();
        let text = read(&path)?;
        Self::parse(path, &text)
    }

    /// Takes `text` for the contents of the file `path`, for example a configuration given on the command line.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Self, FileError> {
        let mut source = Self {
            path: path.into(),
            graph: Graph::new(false),
            bootstrap: Bootstrap::default(),
            notes: Vec::new(),
            first: None,
            watch: None,
            version: 0,
        };
        source.first = Some(source.load(text)?);
        Ok(source)
    }

    /// Reads the file again whenever it changes.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watch = Some(watch::Watch::new(self.path.clone()));
        self
    }

    /// The settings of the program itself, of the last good version of the file.
    pub fn bootstrap(&self) -> &Bootstrap {
        &self.bootstrap
    }

    /// What the first update holds, until the driver has taken it: to see what was refused at start.
    pub fn first(&self) -> Option<&Update> {
        self.first.as_ref()
    }

    /// The resources in force, for `/config_dump`.
    pub fn dump(&self) -> Dump {
        self.graph.dump()
    }

    fn load(&mut self, text: &str) -> Result<Update, FileError> {
        let document = Document::read(text).map_err(|error| FileError::new(&self.path, &error))?;
        let (bootstrap, findings) = bootstrap::bootstrap(&document.rest);
        if let Some(rejection) = findings.rejections.first() {
            let location = place::locate(text, &rejection.path);
            let mut error = yaml::Error::new(rejection.reason.to_string());
            if let Some(location) = location {
                error = error.at(location);
            }
            error = error.in_field(place::segments(&rejection.path));
            return Err(FileError::new(&self.path, &error));
        }
        self.version += 1;
        let mut round = self.graph.round(self.version.to_string());
        for element in &document.elements {
            let wire = &document.arena[element.start..element.end];
            round.wire(element.kind, wire, &element.path());
        }
        for note in &findings.notes {
            round.note(note.clone());
        }
        round.bootstrap(document.rest.encode_to_vec().into());
        self.bootstrap = bootstrap;
        self.notes = findings.notes;
        let file = self.path.display().to_string();
        Ok(round.finish(&|path| match place::locate(text, path) {
            Some(at) => format!("{file}:{at}").into(),
            None => file.as_str().into(),
        }))
    }

    /// The update after a change of the file.
    fn reload(&mut self) -> Update {
        let result = read(&self.path).and_then(|text| self.load(&text));
        result.unwrap_or_else(|error| {
            self.version += 1;
            let mut notes = self.notes.clone();
            notes.append(&mut self.graph.notes());
            Update {
                version: self.version.to_string().into(),
                changes: Vec::new(),
                rejections: vec![error.rejection()],
                notes,
            }
        })
    }
}

impl ConfigSource for FileSource {
    async fn next(&mut self) -> Result<Update, SourceError> {
        if let Some(update) = self.first.take() {
            return Ok(update);
        }
        match &mut self.watch {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
        Ok(self.reload())
    }

    fn report(&mut self, outcome: &Outcome) {
        for rejection in &outcome.rejections {
            tracing::debug!(version = %outcome.version, %rejection, "refused");
        }
    }
}

fn read(path: &Path) -> Result<String, FileError> {
    let limits = yaml::Limits::default();
    yaml::read_file(path, &limits).map_err(|error| FileError::new(path, &error))
}

/// The file, taken apart.
struct Document {
    /// The bootstrap without its clusters and listeners.
    rest: Proto,
    /// Wire bytes of clusters and listeners.
    arena: Vec<u8>,
    elements: Vec<Element>,
}

struct Element {
    kind: Kind,
    index: usize,
    start: usize,
    end: usize,
}

impl Element {
    fn path(&self) -> String {
        let list = match self.kind {
            Kind::Listener => "listeners",
            _ => "clusters",
        };
        format!("static_resources.{list}[{}]", self.index)
    }
}

impl Document {
    fn read(text: &str) -> Result<Self, yaml::Error> {
        let mut arena = Vec::new();
        let mut elements: Vec<Element> = Vec::new();
        let mut counts = [0, 0];
        let taps = [(RESOURCES, "clusters"), (RESOURCES, "listeners")];
        let rest = json::stream_yaml(BOOTSTRAP, text, &taps, &mut |element| {
            let (kind, count) = match element.field.name {
                "listeners" => (Kind::Listener, &mut counts[1]),
                _ => (Kind::Cluster, &mut counts[0]),
            };
            let start = arena.len();
            arena.extend_from_slice(element.bytes);
            elements.push(Element {
                kind,
                index: *count,
                start,
                end: arena.len(),
            });
            *count += 1;
            Ok(())
        })?;
        Ok(Self {
            rest,
            arena,
            elements,
        })
    }
}

/// Why a file as a whole cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", before(.file, .place, .field))]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Line and column, if known.
    pub place: Option<yaml::Location>,
    /// The field, for example `static_resources.clusters[3].lb_policy`; empty for the file itself.
    pub field: String,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

fn before(file: &Path, place: &Option<yaml::Location>, field: &str) -> String {
    let mut out = format!("{}:", file.display());
    if let Some(place) = place {
        out.push_str(&format!("{place}:"));
    }
    out.push(' ');
    if !field.is_empty() {
        out.push_str(&format!("{field}: "));
    }
    out
}

impl FileError {
    fn new(file: &Path, error: &yaml::Error) -> Self {
        let mut reason = error.message().to_owned();
        if let Some(nearest) = error.nearest() {
            reason.push_str(&format!("; did you mean `{nearest}`?"));
        }
        Self {
            file: file.to_owned(),
            place: error.location(),
            field: error.path().to_string(),
            reason,
        }
    }

    fn rejection(&self) -> Rejection {
        let file = self.file.display().to_string();
        let location = match self.place {
            Some(place) => format!("{file}:{place}"),
            None => file.clone(),
        };
        Rejection {
            resource: Name::from(format!("file {file}")),
            path: self.field.as_str().into(),
            reason: self.reason.as_str().into(),
            location: location.into(),
        }
    }
}
