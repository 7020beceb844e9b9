//! A folder of Istio and Kubernetes YAML as a source of configuration for one proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use mesh_core::config::{ConfigSource, Outcome, Rejection, SourceError, Update};
use mesh_core::model::{Name, Note};
use mesh_core::telemetry::metrics::Workload as Identity;
use prost::Message;

use super::api::Gateway;
use super::api::gateway::ServerTlsMode;
use super::index::service_entry::selects;
use super::index::{Config, Context, Interception, Proxy, ProxyKind, Workload};
use super::read::{self, Finding, Folder, FolderOptions, Level, ObjectId, Scan, Watch};
use super::translate::{self, NoteLevel, Resources};
use super::validate;
use crate::graph::{Dump, Graph, Kind};
use crate::yaml;

/// Which proxy the configuration is for.
///
/// Labels, addresses and service account are those of the workload of this namespace and name in the folder (a Pod, a
/// WorkloadEntry, or a Deployment that no Pod shows), unless they are given here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxySpec {
    /// Sidecar or gateway.
    pub kind: ProxyKind,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub name: String,
    /// Labels, in place of the workload's.
    pub labels: Option<BTreeMap<String, String>>,
    /// Addresses, in place of the workload's; empty: the workload's.
    pub addresses: Vec<String>,
    /// Service account, in place of the workload's.
    pub service_account: Option<String>,
    /// How traffic comes to a sidecar. `None`: without interception.
    pub interception: Option<Interception>,
    /// See [`Proxy::bind`].
    pub bind: Option<String>,
    /// See [`Proxy::application_address`].
    pub application_address: Option<String>,
}

/// How the folder is used.
#[derive(Clone, Debug)]
pub struct IstioOptions {
    /// The folder.
    pub folder: PathBuf,
    /// The proxy.
    pub proxy: ProxySpec,
    /// DNS domain of the cluster. Default `cluster.local`.
    pub domain: String,
    /// Refuses kinds and fields without effect, instead of listing them.
    pub strict: bool,
    /// Kinds whose protection is not enforced, instead of refusing the traffic that they protect:
    /// `AuthorizationPolicy`, `RequestAuthentication`, `PeerAuthentication`.
    pub insecure_skip: BTreeSet<String>,
    /// How files are read.
    pub read: FolderOptions,
}

impl IstioOptions {
    /// The folder for this proxy, everything else by default.
    pub fn new(folder: impl Into<PathBuf>, proxy: ProxySpec) -> Self {
        Self {
            folder: folder.into(),
            proxy,
            domain: "cluster.local".to_owned(),
            strict: false,
            insecure_skip: BTreeSet::new(),
            read: FolderOptions::default(),
        }
    }
}

pub use super::translate::SKIPPABLE;

/// Reads the folder, watches it, and delivers what changed: the Envoy resources that istiod would send to this proxy, decoded.
///
/// A refused object or file keeps its last good version in force; the rejection names file, line, column, object, field and
/// what is allowed. Reading and translating runs on tokio's blocking threads.
#[derive(Debug)]
pub struct IstioSource {
    worker: Arc<Mutex<Worker>>,
    watch: Watch,
    dump: Dump,
    started: bool,
}

impl IstioSource {
    /// A source for the folder, which must exist.
    ///
    /// # Errors
    /// The folder cannot be listed, or an option names something unknown.
    pub fn new(options: IstioOptions) -> Result<Self, SourceError> {
        let folder = options.folder.clone();
        std::fs::read_dir(&folder).map_err(|e| SourceError {
            reason: format!("folder {} cannot be read: {e}", folder.display()),
            source: Some(Box::new(e)),
        })?;
        for kind in &options.insecure_skip {
            if !SKIPPABLE.contains(&kind.as_str()) {
                let near = yaml::nearest(kind, SKIPPABLE.iter().copied());
                let near = near
                    .map(|n| format!("; did you mean `{n}`?"))
                    .unwrap_or_default();
                return Err(ended(format!(
                    "unknown kind `{kind}` to skip{near}; allowed: {}",
                    SKIPPABLE.join(", ")
                )));
            }
        }
        let graph = Graph::new(true);
        let dump = graph.dump();
        let watch = Watch::new(&folder);
        let worker = Worker {
            folder: Folder::new(folder, options.read.clone()),
            options,
            graph,
            workload: None,
            generation: 0,
            unsettled: false,
            ready: None,
            identity: None,
        };
        Ok(Self {
            worker: Arc::new(Mutex::new(worker)),
            watch,
            dump,
            started: false,
        })
    }

    /// What is in force, as Envoy's `/config_dump` shows it.
    pub fn dump(&self) -> Dump {
        self.dump.clone()
    }

    async fn refresh(&mut self) -> Result<(), SourceError> {
        let worker = Arc::clone(&self.worker);
        let refreshed = tokio::task::spawn_blocking(move || lock(&worker).refresh()).await;
        refreshed.map_err(|e| SourceError {
            reason: "the reader of the folder failed".to_owned(),
            source: Some(Box::new(e)),
        })?
    }
}

impl ConfigSource for IstioSource {
    async fn next(&mut self) -> Result<Update, SourceError> {
        loop {
            let (ready, unsettled) = {
                let mut worker = lock(&self.worker);
                (worker.ready.take(), worker.unsettled)
            };
            if let Some(update) = ready {
                self.started = true;
                return Ok(update);
            }
            if unsettled {
                self.watch.soon().await;
            } else if self.started {
                self.watch.due().await;
            }
            self.refresh().await?;
        }
    }

    /// Nobody waits for an answer: what was refused stays in the status, and the driver logs it.
    fn report(&mut self, _outcome: &Outcome) {}

    fn workload(&self) -> Option<Identity> {
        lock(&self.worker).identity.clone()
    }
}

/// Reads, indexes, translates and assembles; lives on a blocking thread while it works.
struct Worker {
    options: IstioOptions,
    folder: Folder,
    graph: Graph,
    /// The proxy's workload as last seen: it stays if its object goes.
    workload: Option<Workload>,
    generation: u64,
    unsettled: bool,
    ready: Option<Update>,
    /// Who the proxy is in metrics, once the folder was read.
    identity: Option<Identity>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("folder", &self.folder.root())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Looks at the folder; puts an update into `ready` if anything changed.
    fn refresh(&mut self) -> Result<(), SourceError> {
        let scan = self.folder.scan();
        self.unsettled = scan.unsettled;
        if !scan.changed && self.generation > 0 {
            return Ok(());
        }
        let context = Context::new(&scan.objects, &self.options.domain);
        let context = context.with_lost(scan.lost.clone());
        let proxy = self
            .proxy(&context)
            .map_err(|error| because(error, &scan))?;
        let options = translate::Options {
            insecure_skip: self.options.insecure_skip.clone(),
        };
        let resources = translate::translate(&context, &proxy, &options);
        let mut notes = notes(&scan, &context, &resources);
        notes.extend(tls_servers(&context, &proxy));
        let refused_by_strict = if self.options.strict {
            without_effect(&scan, &resources)
        } else {
            Vec::new()
        };
        self.generation += 1;
        let version: Name = self.generation.to_string().into();
        let mut rejections: Vec<Rejection> = scan
            .findings
            .iter()
            .filter(|f| f.level == Level::Refused)
            .map(rejection)
            .collect();
        if !refused_by_strict.is_empty() {
            if self.generation == 1 {
                let all: Vec<String> = refused_by_strict.iter().map(ToString::to_string).collect();
                return Err(ended(format!("refused since strict: {}", all.join("; "))));
            }
            rejections.extend(refused_by_strict);
            self.ready = Some(Update {
                version,
                changes: Vec::new(),
                rejections,
                notes,
            });
            return Ok(());
        }
        let mut update = self.assemble(version, &resources);
        update.rejections.splice(0..0, rejections);
        update.notes.retain(|note| !is_istiods_own(note));
        update.notes.splice(0..0, notes);
        self.ready = Some(update);
        Ok(())
    }

    fn assemble(&mut self, version: Name, resources: &Resources) -> Update {
        let mut round = self.graph.round(version);
        for cluster in &resources.clusters {
            let config = config(cluster.metadata.as_ref());
            round.wire(Kind::Cluster, &cluster.encode_to_vec(), &config);
        }
        for endpoints in &resources.endpoints {
            round.message(Kind::Endpoints, endpoints);
        }
        for routes in &resources.routes {
            round.message(Kind::Routes, routes);
        }
        for listener in &resources.listeners {
            let config = config(listener.metadata.as_ref());
            round.wire(Kind::Listener, &listener.encode_to_vec(), &config);
        }
        // The path of a resource begins with the name of the object that made it.
        let locate = |path: &str| -> Name {
            let made_by = |(config, _): &(&String, &super::Origin)| {
                path.strip_prefix(config.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let found = resources
                .origins
                .iter()
                .filter(made_by)
                .max_by_key(|(config, _)| config.len());
            found.map_or_else(|| Name::from(""), |(_, origin)| origin.to_string().into())
        };
        round.finish(&|paths| paths.iter().map(|path| locate(path)).collect())
    }

    /// The proxy, by the workload that the folder shows and what the options say.
    fn proxy(&mut self, context: &Context) -> Result<Proxy, SourceError> {
        let spec = &self.options.proxy;
        let shown = context
            .workload(&spec.namespace, &spec.name)
            .map(|w| (**w).clone());
        let complete = spec.labels.is_some() || !spec.addresses.is_empty();
        let mut workload = match shown.or_else(|| self.workload.clone()) {
            Some(workload) => workload,
            None if complete => Workload {
                name: spec.name.clone(),
                workload_name: spec.name.clone(),
                namespace: spec.namespace.clone(),
                ..Workload::default()
            },
            None => return Err(ended(no_workload(spec, context))),
        };
        self.workload = Some(workload.clone());
        if let Some(labels) = &spec.labels {
            workload.labels.clone_from(labels);
        }
        if !spec.addresses.is_empty() {
            workload.addresses.clone_from(&spec.addresses);
        }
        if let Some(account) = &spec.service_account {
            workload.service_account.clone_from(account);
        }
        self.identity = Some(workload.identity());
        let mut proxy = match spec.kind {
            ProxyKind::Sidecar => Proxy::sidecar(&workload, context),
            ProxyKind::Router => Proxy::router(&workload, context),
        };
        if let Some(interception) = spec.interception {
            proxy.interception = interception;
        }
        proxy.bind.clone_from(&spec.bind);
        proxy
            .application_address
            .clone_from(&spec.application_address);
        Ok(proxy)
    }
}

/// Whether a note is about a field that istiod writes into every listener, so that nobody asked for it.
fn is_istiods_own(note: &Note) -> bool {
    note.resource.starts_with("listener ") && note.path.ends_with(".proxy_100_continue")
}

/// The error with what of the folder was refused: the proxy's workload may have stood there.
fn because(mut error: SourceError, scan: &Scan) -> SourceError {
    const NAMED: usize = 5;
    let refused = scan.findings.iter().filter(|f| f.level == Level::Refused);
    let refused: Vec<String> = refused.map(ToString::to_string).collect();
    if !refused.is_empty() {
        let named = refused[..refused.len().min(NAMED)].join("; ");
        error.reason += &format!("; refused: {named}");
        if let Some(more @ 1..) = refused.len().checked_sub(NAMED) {
            error.reason += &format!("; and {more} more");
        }
    }
    error
}

fn no_workload(spec: &ProxySpec, context: &Context) -> String {
    let wanted = format!("{}/{}", spec.namespace, spec.name);
    let known: Vec<String> = context
        .workloads
        .iter()
        .map(|w| format!("{}/{}", w.namespace, w.name))
        .collect();
    let near = yaml::nearest(&wanted, known.iter().map(String::as_str));
    let near = near
        .map(|n| format!("; did you mean `{n}`?"))
        .unwrap_or_default();
    format!(
        "no workload {wanted} in the folder{near}; known: {}",
        known.join(", ")
    )
}

/// The object that made a resource, as its metadata says.
fn config(metadata: Option<&Metadata>) -> String {
    use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
    let istio = metadata.and_then(|m| m.filter_metadata.get("istio"));
    match istio
        .and_then(|s| s.fields.get("config"))
        .and_then(|v| v.kind.as_ref())
    {
        Some(ValueKind::StringValue(config)) => config.clone(),
        _ => String::new(),
    }
}

/// What there is to know: what has no effect, what leads nowhere, what refuses traffic, what was passed over.
fn notes(scan: &Scan, context: &Context, resources: &Resources) -> Vec<Note> {
    let mut notes = Vec::new();
    for finding in scan.findings.iter().filter(|f| f.level != Level::Refused) {
        notes.push(note_of(finding));
    }
    let dangling = validate::dangling(&scan.objects, context);
    let fields = dangling
        .iter()
        .map(|(object, problem)| (&**object, &problem.path));
    let places = read::places(fields);
    for ((object, problem), location) in dangling.into_iter().zip(places) {
        let finding = Finding {
            level: Level::Warning,
            file: Arc::clone(&object.origin.file),
            location,
            resource: Some(ObjectId::of(&object)),
            path: problem.path,
            message: problem.message,
            allowed: problem.allowed,
            nearest: problem.nearest,
        };
        notes.push(note_of(&finding));
    }
    notes.extend(
        resources
            .clusters
            .iter()
            .filter_map(|cluster| tls_origin(cluster, resources)),
    );
    for note in &resources.notes {
        let prefix = match note.level {
            NoteLevel::Ignored => "does not act",
            NoteLevel::Refusing => "REFUSES TRAFFIC",
        };
        notes.push(Note {
            resource: note.object.as_str().into(),
            path: Name::from(""),
            reason: reason(prefix, &note.text, &place(&note.origin)),
        });
    }
    notes
}

/// A cluster that asks for TLS: nothing here originates it yet, so no connection is made.
fn tls_origin(cluster: &Cluster, resources: &Resources) -> Option<Note> {
    let socket = cluster.transport_socket.as_ref()?;
    if socket.name != "envoy.transport_sockets.tls" {
        return None;
    }
    let config = config(cluster.metadata.as_ref());
    let mut parts = config.rsplit('/');
    let (name, _, namespace) = (parts.next(), parts.next(), parts.next());
    let object = match (name, namespace) {
        (Some(name), Some(namespace)) => format!("DestinationRule {namespace}/{name}"),
        _ => format!("cluster {}", cluster.name),
    };
    let text = format!(
        "TLS to the upstream cannot be originated yet, so requests to cluster {} answer 503",
        cluster.name
    );
    let origin = resources
        .origins
        .get(&config)
        .map(place)
        .unwrap_or_default();
    Some(Note {
        resource: object.into(),
        path: Name::from(""),
        reason: reason("REFUSES TRAFFIC", &text, &origin),
    })
}

/// Gateway servers that ask for TLS: their connections are closed, never served as plain text.
fn tls_servers(context: &Context, proxy: &Proxy) -> Vec<Note> {
    let passes = |mode| {
        matches!(
            mode,
            ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
        )
    };
    let mut notes = Vec::new();
    let served = |gateway: &&Arc<Config<Gateway>>| {
        proxy.kind == ProxyKind::Router && selects(&gateway.spec.selector, &proxy.labels)
    };
    for gateway in context.gateways.iter().filter(served) {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = server.tls.as_ref().filter(|tls| !passes(tls.mode)) else {
                continue;
            };
            let port = server.port.as_ref().map_or(0, |port| port.number);
            let text = format!(
                "TLS ({}) cannot be terminated yet, so connections to port {port} are closed",
                tls.mode.as_str()
            );
            notes.push(Note {
                resource: format!("Gateway {}/{}", gateway.meta.namespace, gateway.meta.name)
                    .into(),
                path: format!("spec.servers[{index}].tls").into(),
                reason: reason("REFUSES TRAFFIC", &text, &place(&gateway.meta.origin)),
            });
        }
    }
    notes
}

fn note_of(finding: &Finding) -> Note {
    let prefix = match finding.level {
        Level::Inactive => "does not act",
        Level::Foreign => Note::PASSED_OVER,
        Level::Warning | Level::Refused => "warning",
    };
    let resource = finding
        .resource
        .as_ref()
        .map_or_else(|| finding.file.to_string(), ToString::to_string);
    Note {
        resource: resource.into(),
        path: finding.path.to_string().into(),
        reason: reason(prefix, &finding.reason(), &finding.place()),
    }
}

fn reason(prefix: &str, text: &str, place: &str) -> Name {
    if place.is_empty() {
        format!("{prefix}: {text}").into()
    } else {
        format!("{prefix}: {text} ({place})").into()
    }
}

fn place(origin: &super::Origin) -> String {
    if origin.line == 0 {
        String::new()
    } else {
        origin.to_string()
    }
}

/// What strictness refuses.
fn without_effect(scan: &Scan, resources: &Resources) -> Vec<Rejection> {
    let inactive = scan
        .findings
        .iter()
        .filter(|f| f.level == Level::Inactive)
        .map(rejection);
    let ignored = resources
        .notes
        .iter()
        .filter(|n| n.level == NoteLevel::Ignored)
        .map(|note| Rejection {
            resource: note.object.as_str().into(),
            path: Name::from(""),
            reason: note.text.as_str().into(),
            location: place(&note.origin).into(),
        });
    inactive.chain(ignored).collect()
}

fn rejection(finding: &Finding) -> Rejection {
    let resource = finding
        .resource
        .as_ref()
        .map_or_else(|| "file".to_owned(), ToString::to_string);
    Rejection {
        resource: resource.into(),
        path: finding.path.to_string().into(),
        reason: finding.reason().into(),
        location: finding.place().into(),
    }
}

fn ended(reason: String) -> SourceError {
    SourceError {
        reason,
        source: None,
    }
}

/// A panic while the lock is held leaves a scan unfinished, which the next one repeats.
fn lock(worker: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    worker.lock().unwrap_or_else(PoisonError::into_inner)
}
