//! Envoy's own bootstrap file, YAML or JSON, as a source of configuration.
//!
//! Listeners, clusters, route tables and endpoints may also stand in files of their own (`path_config_source`), which are
//! watched; the bootstrap itself is read once, as Envoy reads it, unless [`FileSource::watched`] asks for more.
//!
//! Clusters and listeners are taken out of the stream of events one at a time; there is never a tree of the whole file.
//! A file that cannot be read as a whole changes nothing; a resource that is wrong keeps its last good version. Each
//! rejection names file, line and column.

mod bootstrap;
mod place;
mod subscribe;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap as Proto;
use mesh_core::{
    config::{ConfigSource, Outcome, Rejection, SourceError, Update},
    model::{Name, Note},
    telemetry::metrics::Workload,
};
use prost::Message;

pub use self::bootstrap::{Bootstrap, Node};
use self::{subscribe::Subscriptions, watch::Watch};
use crate::{
    graph::{Dump, Graph, Kind},
    json, yaml,
};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const RESOURCES: &str = "envoy.config.bootstrap.v3.Bootstrap.StaticResources";

/// Reads one bootstrap file, the files that it names, and these again when they change.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    options: FileOptions,
    graph: Graph,
    bootstrap: Bootstrap,
    /// About the bootstrap itself.
    notes: Vec<Note>,
    /// The texts that static resources stand in, with their names.
    texts: Vec<(String, String)>,
    subscriptions: Subscriptions,
    /// The first update, made when the source was opened.
    first: Option<Update>,
    /// The file as it was before it was read first.
    watch: Watch,
    watched: bool,
    version: u64,
}

/// What a bootstrap file is completed by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileOptions {
    /// Another bootstrap, YAML or JSON, merged over the file: its lists are appended, its values win.
    pub overlay: Option<String>,
    /// In place of `node.id`.
    pub node_id: Option<String>,
    /// In place of `node.cluster`.
    pub node_cluster: Option<String>,
    /// In place of `node.locality.zone`.
    pub node_zone: Option<String>,
}

impl FileSource {
    /// Reads the file. It may be YAML or JSON, whatever its name ends in.
    ///
    /// # Errors
    ///
    /// [`FileError`] with line, column and field, if the file as a whole cannot be used. Resources that were refused are
    /// in the first update.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        Self::open_with(path, FileOptions::default())
    }

    /// [`FileSource::open`], completed by `options`.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn open_with(path: impl Into<PathBuf>, options: FileOptions) -> Result<Self, FileError> {
        let path = path.into();
        let watch = Watch::new(path.clone());
        let text = read(&path)?;
        Self::loaded(path, watch, &text, options)
    }

    /// Takes `text` for the contents of the file `path`, for example a configuration given on the command line.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn parse(path: impl Into<PathBuf>, text: &str) -> Result<Self, FileError> {
        Self::parse_with(path, text, FileOptions::default())
    }

    /// [`FileSource::parse`], completed by `options`.
    ///
    /// # Errors
    ///
    /// As [`FileSource::open`].
    pub fn parse_with(
        path: impl Into<PathBuf>,
        text: &str,
        options: FileOptions,
    ) -> Result<Self, FileError> {
        let path = path.into();
        let watch = Watch::new(path.clone());
        Self::loaded(path, watch, text, options)
    }

    fn loaded(
        path: PathBuf,
        watch: Watch,
        text: &str,
        options: FileOptions,
    ) -> Result<Self, FileError> {
        let mut source = Self {
            path,
            options,
            graph: Graph::new(false),
            bootstrap: Bootstrap::default(),
            notes: Vec::new(),
            texts: Vec::new(),
            subscriptions: Subscriptions::default(),
            first: None,
            watch,
            watched: false,
            version: 0,
        };
        source.first = Some(source.load(text, true)?);
        Ok(source)
    }

    /// Reads the file again whenever it changes.
    #[must_use]
    pub fn watched(mut self) -> Self {
        self.watched = true;
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

    /// Reads the bootstrap and everything that it names.
    fn load(&mut self, text: &str, start: bool) -> Result<Update, FileError> {
        let mut document =
            Document::read(text).map_err(|error| FileError::new(&self.path, &error))?;
        let mut texts = vec![(self.path.display().to_string(), text.to_owned())];
        if let Some(overlay) = &self.options.overlay {
            let name = "--config-yaml";
            let over =
                Document::read(overlay).map_err(|error| FileError::new(Path::new(name), &error))?;
            document.merge(over);
            texts.push((name.to_owned(), overlay.clone()));
        }
        self.name_node(&mut document.rest);
        let (bootstrap, findings) = bootstrap::bootstrap(&document.rest);
        if let Some(rejection) = findings.rejections.first() {
            // The overlay wins, so a field that stands in both is read from it.
            let found = texts
                .iter()
                .rev()
                .find_map(|(name, text)| Some((name, place::locate(text, &rejection.path)?)));
            let mut error = yaml::Error::new(rejection.reason.to_string());
            let mut file = self.path.as_path();
            if let Some((name, location)) = found {
                error = error.at(location);
                file = Path::new(name);
            }
            error = error.in_field(place::segments(&rejection.path));
            return Err(FileError::new(file, &error));
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
        round.dynamic(true);
        self.subscriptions.offer(&mut round, &bootstrap, start)?;
        round.bootstrap(document.rest.encode_to_vec().into());
        self.bootstrap = bootstrap;
        self.notes = findings.notes;
        self.texts = texts;
        Ok(round.finish(&|paths| locate(&self.texts, &self.subscriptions, paths)))
    }

    /// Puts what the options say of the node over what the file says.
    fn name_node(&self, bootstrap: &mut Proto) {
        let FileOptions {
            overlay: _,
            node_id,
            node_cluster,
            node_zone,
        } = &self.options;
        if let Some(id) = node_id {
            bootstrap.node.get_or_insert_default().id.clone_from(id);
        }
        if let Some(cluster) = node_cluster {
            let node = bootstrap.node.get_or_insert_default();
            node.cluster.clone_from(cluster);
        }
        if let Some(zone) = node_zone {
            let node = bootstrap.node.get_or_insert_default();
            let locality = node.locality.get_or_insert_default();
            locality.zone.clone_from(zone);
        }
    }

    /// The update after a change of the bootstrap.
    fn reload(&mut self) -> Update {
        let result = read_again(&self.path).and_then(|text| self.load(&text, false));
        result.unwrap_or_else(|error| {
            self.version += 1;
            let mut notes = self.notes.clone();
            let locate = |paths: &[String]| locate(&self.texts, &self.subscriptions, paths);
            notes.append(&mut self.graph.notes(&locate));
            Update {
                version: self.version.to_string().into(),
                changes: Vec::new(),
                rejections: vec![error.rejection()],
                notes,
            }
        })
    }

    /// The update after a change of a file that the bootstrap, or what it holds, names.
    fn refresh(&mut self) -> Update {
        self.version += 1;
        let mut round = self.graph.round(self.version.to_string());
        round.keep_static();
        for note in &self.notes {
            round.note(note.clone());
        }
        round.dynamic(true);
        let offered = self.subscriptions.offer(&mut round, &self.bootstrap, false);
        if let Err(error) = offered {
            round.reject(error.rejection());
        }
        round.finish(&|paths| locate(&self.texts, &self.subscriptions, paths))
    }
}

impl ConfigSource for FileSource {
    async fn next(&mut self) -> Result<Update, SourceError> {
        if let Some(update) = self.first.take() {
            return Ok(update);
        }
        loop {
            if !self.watched && self.subscriptions.is_empty() {
                return std::future::pending().await;
            }
            tokio::time::sleep(Watch::INTERVAL).await;
            if self.watched && self.watch.look() {
                self.watch.seen();
                return Ok(self.reload());
            }
            if self.subscriptions.changed() {
                return Ok(self.refresh());
            }
        }
    }

    fn locate(&self, rejections: &mut [Rejection]) {
        let locate = |paths: &[String]| locate(&self.texts, &self.subscriptions, paths);
        self.graph.locate(rejections, &locate);
    }

    fn report(&mut self, outcome: &Outcome) {
        for rejection in &outcome.rejections {
            tracing::debug!(version = %outcome.version, %rejection, "refused");
        }
    }

    /// From the node and its metadata, under the names that Istio's bootstrap gives them.
    fn workload(&self) -> Option<Workload> {
        let node = &self.bootstrap.node;
        let text = |path: &[&str]| {
            let path: Vec<Name> = path.iter().map(|part| Name::from(*part)).collect();
            node.metadata.get("node", &path)?.as_text()
        };
        let name = text(&["WORKLOAD_NAME"]).unwrap_or(&node.id);
        let namespace = text(&["NAMESPACE"]).unwrap_or_default();
        let label = |name: &'static str| text(&["LABELS", name]);
        Some(Workload {
            cluster: text(&["CLUSTER_ID"]).unwrap_or_default().into(),
            ..Workload::labelled(name, namespace, label)
        })
    }
}

/// Where each field stands (`FILE:LINE:COLUMN`, or only the file), in the bootstrap's texts or in a file that it names: one
/// pass over each text.
fn locate(texts: &[(String, String)], files: &Subscriptions, paths: &[String]) -> Vec<Name> {
    let mut places = vec![Name::default(); paths.len()];
    let mut by_file: BTreeMap<String, (&str, Vec<usize>, Vec<&str>)> = BTreeMap::new();
    for (index, path) in paths.iter().enumerate() {
        let (text, field) = Element::text_of(path);
        let own = texts
            .get(text)
            .map(|(name, text)| (name.clone(), text.as_str(), field));
        if let Some((name, text, field)) = files.text_of(path).or(own) {
            let (_, indices, fields) = by_file.entry(name).or_insert((text, vec![], vec![]));
            indices.push(index);
            fields.push(field);
        }
    }
    for (name, (text, indices, fields)) in by_file {
        for (index, at) in indices.into_iter().zip(place::locate_all(text, &fields)) {
            places[index] = match at {
                Some(at) => format!("{name}:{at}").into(),
                None => name.as_str().into(),
            };
        }
    }
    places
}

fn read(path: &Path) -> Result<String, FileError> {
    let limits = yaml::Limits::default();
    yaml::read_file(path, &limits).map_err(|error| FileError::new(path, &error))
}

/// Reads a file that is read again at each change, which a pipe cannot be: it would block until somebody writes.
fn read_again(path: &Path) -> Result<String, FileError> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let error = yaml::Error::new("not a regular file, which a watched file must be");
        return Err(FileError::new(path, &error));
    }
    read(path)
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
    /// 0: the file; 1: what is merged over it.
    text: usize,
    index: usize,
    start: usize,
    end: usize,
}

impl Element {
    /// Begins paths in the overlay; no field begins so.
    const OVERLAY: char = '\u{2}';

    fn path(&self) -> String {
        let list = match self.kind {
            Kind::Listener => "listeners",
            _ => "clusters",
        };
        let path = format!("static_resources.{list}[{}]", self.index);
        match self.text {
            0 => path,
            _ => format!("{}{path}", Self::OVERLAY),
        }
    }

    /// The text that a path leads into, and the path there.
    fn text_of(path: &str) -> (usize, &str) {
        match path.strip_prefix(Self::OVERLAY) {
            Some(path) => (1, path),
            None => (0, path),
        }
    }
}

impl Document {
    /// Puts another document over this one, as protobuf merges messages.
    fn merge(&mut self, over: Self) {
        // A message that follows another of its kind on the wire is merged into it.
        let mut wire = self.rest.encode_to_vec();
        wire.extend(over.rest.encode_to_vec());
        if let Ok(rest) = Proto::decode(&*wire) {
            self.rest = rest;
        }
        let base = self.arena.len();
        self.arena.extend(over.arena);
        self.elements
            .extend(over.elements.into_iter().map(|element| Element {
                text: 1,
                start: base + element.start,
                end: base + element.end,
                ..element
            }));
    }

    fn read(text: &str) -> Result<Self, yaml::Error> {
        // Nothing at all is a file that somebody is about to write, not a proxy without listeners.
        if text.trim().is_empty() {
            return Err(yaml::Error::new("the file is empty"));
        }
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
                text: 0,
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
