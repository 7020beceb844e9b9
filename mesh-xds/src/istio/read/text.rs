//! One text into objects and findings.

use std::sync::Arc;

use serde::de::DeserializeSeed;
use serde_json::Value;

use super::finding::{Finding, Level, ObjectId};
use super::heads::{self, Head};
use super::kinds::{self, Role};
use super::lost;
use super::object::ObjectSeed;
use crate::istio::api::{Lost, MeshConfig, k8s};
use crate::istio::validate::{self, Problem, Severity};
use crate::istio::{Object, Origin, Spec};
use crate::yaml::{self, Error, Limits, Location, Node, Path, Reader, Segment, Token};

/// How texts are read.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Namespace of objects that name none. Default `default`, as with `kubectl`.
    pub default_namespace: Arc<str>,
    /// What a text may cost.
    pub limits: Limits,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self {
            default_namespace: "default".into(),
            limits: Limits::default(),
        }
    }
}

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The objects that are right, in the order of the text.
    pub objects: Vec<Arc<Object>>,
    /// What is to be said.
    pub findings: Vec<Finding>,
    /// The objects that are refused, as far as they could be named.
    pub refused: Vec<ObjectId>,
    /// What refused objects would protect, as far as that can be told.
    pub lost: Vec<Lost>,
    /// Whether the text itself is broken, so that nothing of it counts.
    pub broken: bool,
}

/// Reads a text.
///
/// A document without `apiVersion` and `kind` in a file called `mesh.yaml` is a MeshConfig; elsewhere it is foreign.
pub fn parse(file: &Arc<str>, text: &str, options: &TextOptions) -> Parsed {
    let mut parser = Parser {
        file,
        text,
        options,
        parsed: Parsed::default(),
        contents: Contents::new(text, &options.limits),
        unplaced: Vec::new(),
    };
    match heads::scan(text, &options.limits).and_then(|heads| parser.documents(&heads)) {
        Ok(()) => {
            parser.place();
            parser.parsed
        }
        Err(error) => broken(file, text, options, &error),
    }
}

fn broken(file: &Arc<str>, text: &str, options: &TextOptions, error: &Error) -> Parsed {
    let mut finding = Finding::refused(file, error);
    let lost = lost::of_text(file, text, options);
    let mut lines = text.lines().map(str::trim_start);
    if lines.any(|line| line.starts_with("{{")) {
        finding.message = format!("a template with `{{{{`, not YAML ({})", finding.message);
        // One that protects nothing is nobody's mistake.
        if lost.is_empty() {
            finding.level = Level::Foreign;
        }
    }
    Parsed {
        findings: vec![finding],
        lost,
        broken: true,
        ..Parsed::default()
    }
}

/// Whether that is the head of a chart (Helm): a version without group, and a name and version of its own.
fn is_chart(head: &Head) -> bool {
    let plain = |(version, _): &(String, Location)| !version.contains('/');
    let has = |name: &str| head.keys.iter().any(|(key, _)| key == name);
    head.api_version.as_ref().is_some_and(plain)
        && head.kind.is_none()
        && has("name")
        && has("version")
}

/// The namespace of the mesh's settings.
pub(super) const MESH_NAMESPACE: &str = "istio-system";

/// Whether a document without kind in this file is the settings of the mesh.
pub(super) fn is_settings(file: &str) -> bool {
    let name = file.rsplit(['/', '\\']).next().unwrap_or_default();
    matches!(name, "mesh.yaml" | "mesh.yml" | "mesh.json")
}

struct Parser<'p> {
    file: &'p Arc<str>,
    text: &'p str,
    options: &'p TextOptions,
    parsed: Parsed,
    contents: Contents<'p>,
    unplaced: Vec<Unplaced>,
}

/// The documents of a text as trees, for those that are refused. It only goes forward, as refusals do.
struct Contents<'p> {
    reader: Reader<'p>,
    /// Documents begun.
    begun: usize,
    document: Option<Value>,
}

impl<'p> Contents<'p> {
    fn new(text: &'p str, limits: &Limits) -> Self {
        Self {
            reader: Reader::new(text, limits),
            begun: 0,
            document: None,
        }
    }

    /// The object at that path of that document, if it can be read as a tree.
    fn of(&mut self, document: usize, at: &Path) -> Option<&Value> {
        while self.begun <= document {
            self.reader.next_document().ok()??;
            self.begun += 1;
            self.document = None;
            if self.begun > document {
                let tree = std::marker::PhantomData::<Value>;
                self.document = self.reader.read(tree).ok();
            }
        }
        let mut found = self.document.as_ref()?;
        for step in at.segments() {
            found = match step {
                Segment::Key(key) => found.get(key)?,
                Segment::Index(index) => found.get(index)?,
            };
        }
        Some(found)
    }
}

/// A finding whose place is looked up at the end, with all others in one pass.
struct Unplaced {
    finding: usize,
    document: usize,
    path: Path,
    /// A place in the block text that is the field's value.
    within: Option<Location>,
}

impl Parser<'_> {
    fn documents(&mut self, heads: &[Head]) -> Result<(), Error> {
        let mut reader = Reader::new(self.text, &self.options.limits);
        for (index, head) in heads.iter().enumerate() {
            if reader.next_document()?.is_none() {
                break;
            }
            if head.is_list() {
                self.list(&mut reader, index, head)?;
            } else {
                self.node(&mut reader, index, &Path::root(), head)?;
            }
        }
        Ok(())
    }

    fn list(&mut self, reader: &mut Reader<'_>, document: usize, head: &Head) -> Result<(), Error> {
        head.check_list()?;
        let depth = reader.events().depth();
        reader.events().next()?;
        loop {
            let (token, _) = reader.events().next()?;
            match token {
                Token::Scalar { text, .. } if text == "items" => break,
                Token::Scalar { .. } => reader.events().skip_node()?,
                _ => return reader.events().close_to(depth),
            }
        }
        let (token, location) = reader.events().next()?;
        if token != Token::SequenceStart && !yaml::is_null(&token) {
            let error = Error::syntax("items must be a list", location);
            return Err(error.in_field(Path::root().key("items")));
        }
        for (index, item) in head.items.iter().enumerate() {
            let path = Path::root().key("items").index(index);
            self.node(reader, document, &path, item)?;
        }
        reader.events().close_to(depth)
    }

    /// Reads the object that comes next; only an error of the text itself is returned.
    fn node(
        &mut self,
        reader: &mut Reader<'_>,
        document: usize,
        at: &Path,
        head: &Head,
    ) -> Result<(), Error> {
        let events = reader.events();
        let depth = events.depth();
        let before = events.consumed();
        events.path.clear();
        let result = self.object(events, at, head);
        events.path.clear();
        if events.consumed() == before {
            events.skip_node()?;
        }
        events.close_to(depth)?;
        match result {
            Ok(Some(object)) => self.accept(object, document, at),
            Ok(None) => {}
            Err(error) if error.is_syntax() => return Err(error),
            Err(error) => self.refuse(head, document, at, &error),
        }
        Ok(())
    }

    fn object(
        &mut self,
        events: &mut yaml::Events<'_>,
        at: &Path,
        head: &Head,
    ) -> Result<Option<Object>, Error> {
        let origin = Origin {
            file: Arc::clone(self.file),
            line: head.location.line,
        };
        let (Some((api_version, api_at)), Some((kind, kind_at))) = (&head.api_version, &head.kind)
        else {
            return self.unnamed(events, at, head, origin);
        };
        let found = kinds::find(api_version, kind).map_err(|e| {
            let at = if e.path() == Path::root().key("kind") {
                kind_at
            } else {
                api_at
            };
            e.at(*at)
        })?;
        let level = match found.role {
            Role::Istio | Role::Kubernetes => {
                let seed = ObjectSeed {
                    kind: &found,
                    api_version,
                    origin,
                    default_namespace: &self.options.default_namespace,
                };
                return seed.deserialize(Node(events)).map(Some);
            }
            Role::NotServed => Level::Inactive,
            Role::Passive | Role::Foreign => Level::Foreign,
        };
        let message = match found.role {
            Role::NotServed => format!("{api_version} {kind} is not served yet"),
            Role::Passive => format!("{kind} has no effect on a mesh of files"),
            _ => format!("{api_version} {kind} is no kind of the mesh"),
        };
        let finding = Finding::new(level, self.file, message);
        self.push(finding.at(Some(head.location)).about(self.id(head)));
        Ok(None)
    }

    /// A document without `apiVersion` or `kind`: the mesh's settings in `mesh.yaml`, a mistake if one of the two is there,
    /// else foreign.
    fn unnamed(
        &mut self,
        events: &mut yaml::Events<'_>,
        at: &Path,
        head: &Head,
        origin: Origin,
    ) -> Result<Option<Object>, Error> {
        if self.is_settings(head, at) {
            let config: MeshConfig = serde::Deserialize::deserialize(Node(events))?;
            return Ok(Some(mesh_object(config, origin)));
        }
        let neither = head.api_version.is_none() && head.kind.is_none();
        let near = |name: &str| {
            head.keys
                .iter()
                .find(|(k, _)| yaml::nearest(k, [name]).is_some())
        };
        let misspelt = if neither {
            near("apiVersion").filter(|_| near("kind").is_some())
        } else {
            None
        };
        let foreign = if neither && misspelt.is_none() {
            Some("no object: neither apiVersion nor kind")
        } else if is_chart(head) && near("kind").is_none() {
            Some("no object: the head of a chart")
        } else {
            None
        };
        if let Some(message) = foreign {
            let finding = Finding::new(Level::Foreign, self.file, message);
            self.push(finding.at(Some(head.location)));
            return Ok(None);
        }
        let missing = if head.api_version.is_none() {
            "apiVersion"
        } else {
            "kind"
        };
        Err(match near(missing).filter(|(k, _)| k != missing) {
            Some((key, location)) => Error::new(format!("unknown field `{key}`"))
                .with_allowed(key, ["apiVersion", "kind", "metadata", "spec", "status"])
                .at(*location)
                .in_field(Path::root().key(key)),
            None => match head.keys.iter().find(|(k, _)| k == missing) {
                Some((_, location)) => Error::new(format!("{missing} must be a text"))
                    .at(*location)
                    .in_field(Path::root().key(missing)),
                None => Error::new(format!("{missing} is required")).at(head.location),
            },
        })
    }

    fn is_settings(&self, head: &Head, at: &Path) -> bool {
        let neither = head.api_version.is_none() && head.kind.is_none();
        neither && at.is_root() && is_settings(self.file)
    }

    fn accept(&mut self, object: Object, document: usize, at: &Path) {
        let mut refused = false;
        if object.name.is_empty() && *object.kind != *"IstioOperator" {
            let path = Path::root().key("metadata").key("name");
            self.place_later(document, path.below(at), None);
            let finding = Finding::new(Level::Refused, self.file, "metadata.name is required");
            let id = ObjectId::of(&object);
            self.parsed.lost.extend(lost::of_object(&object));
            self.push(finding.about(Some(id)).field(path));
            return;
        }
        for problem in validate::object(&object) {
            refused |= problem.severity == Severity::Error;
            self.problem(&object, document, at, problem);
        }
        if refused {
            self.parsed.refused.push(ObjectId::of(&object));
            self.parsed.lost.extend(lost::of_object(&object));
            return;
        }
        if let Spec::ConfigMap(map) = &object.spec {
            self.config_map(&object, map, document, at);
            return;
        }
        self.parsed.objects.push(Arc::new(object));
    }

    fn problem(&mut self, object: &Object, document: usize, at: &Path, problem: Problem) {
        let path = problem.path;
        self.place_later(document, path.below(at), None);
        let level = match problem.severity {
            Severity::Error => Level::Refused,
            Severity::Warning => Level::Warning,
            Severity::Inactive => Level::Inactive,
        };
        self.push(Finding {
            level,
            file: Arc::clone(self.file),
            location: None,
            resource: Some(ObjectId::of(object)),
            path,
            message: problem.message,
            allowed: problem.allowed,
            nearest: problem.nearest,
        });
    }

    /// The key `mesh` of ConfigMap `istio` is the settings of the mesh; nothing else of such maps acts.
    fn config_map(&mut self, object: &Object, map: &k8s::ConfigMap, document: usize, at: &Path) {
        let own = *object.name == *"istio";
        let mesh = map.data.get("mesh");
        let mut without_effect = |level, message: &str, path| {
            self.place_later(document, Path::below(&path, at), None);
            let finding = Finding::new(level, self.file, message);
            let id = ObjectId::of(object);
            self.push(finding.about(Some(id)).field(path));
        };
        if !own {
            let (level, message) = match mesh {
                Some(_) => (
                    Level::Inactive,
                    "only the ConfigMap `istio` is read as settings of the mesh",
                ),
                None => (Level::Foreign, "ConfigMap has no effect on a mesh of files"),
            };
            return without_effect(level, message, Path::root());
        }
        for key in map.data.keys().filter(|key| *key != "mesh") {
            let path = Path::root().key("data").key(key);
            without_effect(Level::Inactive, &format!("{key} has no effect"), path);
        }
        if let Some(mesh) = mesh {
            self.mesh_config(object, mesh, document, at);
        }
    }

    /// The settings of the mesh, a text of its own.
    fn mesh_config(&mut self, map: &Object, text: &str, document: usize, at: &Path) {
        let field = Path::root().key("data").key("mesh");
        let tree = std::marker::PhantomData::<MeshConfig>;
        match yaml::from_seed(text, tree, &self.options.limits) {
            Ok(config) => {
                let first = self.parsed.findings.len();
                let object = mesh_object(config, map.origin.clone());
                self.accept(object, document, &field.below(at));
                for finding in &mut self.parsed.findings[first..] {
                    finding.path = finding.path.below(&field);
                }
            }
            Err(error) => {
                self.place_later(document, field.below(at), error.location());
                let error = error.clone().in_field(error.path().below(&field));
                let finding = Finding::refused(self.file, &error).about(Some(ObjectId::of(map)));
                self.parsed.refused.push(mesh_id());
                let lost = lost::of_mesh(map.origin.clone(), text, self.options);
                self.parsed.lost.push(lost);
                self.push(finding);
            }
        }
    }

    /// Remembers what a refused object protects.
    fn lose(&mut self, head: &Head, document: usize, at: &Path, error: &Error) {
        let origin = Origin {
            file: Arc::clone(self.file),
            line: head.location.line,
        };
        let group = head.api_version.as_ref().map(|(v, _)| kinds::split(v).0);
        let kind = head.kind.as_ref().map(|(kind, _)| kind.as_str());
        let settings = self.is_settings(head, at);
        let content = self.contents.of(document, at);
        if settings || (kind == Some("ConfigMap") && head.name == "istio") {
            let mesh = match (kind, content) {
                (Some(_), Some(map)) => map.pointer("/data/mesh").and_then(Value::as_str),
                _ => Some(self.text),
            };
            let lost = mesh.map(|mesh| lost::of_mesh(origin, mesh, self.options));
            return self.parsed.lost.extend(lost);
        }
        let kind = match kind.map(lost::protecting) {
            Some(None) => return,
            protecting => protecting.flatten(),
        };
        if content.is_none() && kind.is_some_and(lost::by_part) {
            return self.lose_by_words(head);
        }
        // A name of the namespace's own field may be what is wrong.
        let of_metadata =
            matches!(error.path().segments().first(), Some(Segment::Key(key)) if key == "metadata");
        let namespace: Option<Arc<str>> = match head.namespace.as_str() {
            "" if of_metadata || !head.keys.iter().any(|(key, _)| key == "metadata") => None,
            "" => Some(Arc::clone(&self.options.default_namespace)),
            namespace => Some(namespace.into()),
        };
        let lost = lost::of_document(
            group.unwrap_or_default(),
            kind,
            namespace,
            &head.name,
            origin,
            content,
        );
        self.parsed.lost.extend(lost);
    }

    /// An object that cannot be read as a tree, such as one with a key twice.
    fn lose_by_words(&mut self, head: &Head) {
        let (line, part) = lost::part_at(self.text, head.location.line);
        let mut found = lost::of_words(self.file, line, part, self.options);
        found.retain(|one| *one.name == *head.name && one.kind.is_some());
        for one in &mut found {
            one.origin.line = head.location.line;
        }
        self.parsed.lost.extend(found);
    }

    fn refuse(&mut self, head: &Head, document: usize, at: &Path, error: &Error) {
        self.lose(head, document, at, error);
        let settings = self.is_settings(head, at);
        let id = self.id(head);
        let id = id.or_else(|| settings.then(mesh_id));
        let mut finding = Finding::refused(self.file, error).about(id.clone());
        finding.location = finding.location.or(Some(head.location));
        if !at.is_root() && id.is_none() {
            finding.path = finding.path.below(at);
        }
        self.parsed.refused.extend(id);
        self.push(finding);
    }

    fn id(&self, head: &Head) -> Option<ObjectId> {
        let (kind, _) = head.kind.as_ref()?;
        let group = head
            .api_version
            .as_ref()
            .map_or("", |(v, _)| kinds::split(v).0);
        let namespace = if head.namespace.is_empty() {
            Arc::clone(&self.options.default_namespace)
        } else {
            head.namespace.as_str().into()
        };
        Some(ObjectId {
            group: group.into(),
            kind: kind.as_str().into(),
            namespace,
            name: head.name.as_str().into(),
        })
    }

    /// The finding that is pushed next has its place at this field.
    fn place_later(&mut self, document: usize, path: Path, within: Option<Location>) {
        self.unplaced.push(Unplaced {
            finding: self.parsed.findings.len(),
            document,
            path,
            within,
        });
    }

    fn place(&mut self) {
        let all = std::mem::take(&mut self.unplaced);
        let fields: Vec<_> = all.iter().map(|u| (u.document, u.path.clone())).collect();
        let located = yaml::locate_all(self.text, &fields);
        for (unplaced, location) in all.into_iter().zip(located) {
            let location = location.map(|field| match unplaced.within {
                // A block text begins on the line after its key.
                Some(within) => Location {
                    line: field.line + within.line,
                    column: within.column,
                },
                None => field,
            });
            self.parsed.findings[unplaced.finding].location = location;
        }
    }

    fn push(&mut self, finding: Finding) {
        self.parsed.findings.push(finding);
    }
}

/// There is one mesh, wherever its settings stand.
fn mesh_id() -> ObjectId {
    ObjectId::of(&mesh_object(MeshConfig::default(), Origin::default()))
}

fn mesh_object(config: MeshConfig, origin: Origin) -> Object {
    Object {
        kind: "MeshConfig".into(),
        name: "istio".into(),
        namespace: MESH_NAMESPACE.into(),
        origin,
        spec: Spec::MeshConfig(Box::new(config)),
        ..Object::default()
    }
}
