//! A folder of Istio and Kubernetes YAML as a source of configuration for one proxy.

mod notes;
mod place;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use mesh_core::config::{ConfigSource, Outcome, Rejection, SourceError, Update};
use mesh_core::model::{Name, Note};
use mesh_core::telemetry::metrics::Workload as Identity;
use prost::Message;

use super::api::{Lost, Object};
use super::index::{Context, Interception, ProcessSettings, Proxy, ProxyKind, Workload};
use super::read::{
    Finding, Folder, FolderOptions, Level, ObjectId, Places, Scan, Watch, protected_by,
};
use super::translate::{self, Resources};
use crate::decode::Parts;
use crate::graph::{Dump, Graph, Kind, Round};
use crate::yaml;
use notes::{config, idle_gateway, needs_a_start, notes, rejection, tls_servers, without_effect};

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
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use mesh_core::snapshot::Mesh;
/// use mesh_xds::istio::{IstioOptions, IstioSource, ProxySpec};
///
/// let workload = ProxySpec {
///     namespace: "default".into(),
///     name: "reviews-v1".into(), // a Pod or Deployment of the folder
///     ..ProxySpec::default()
/// };
/// let source = IstioSource::new(IstioOptions::new("mesh/", workload))?;
/// let (mesh, driver) = Mesh::builder().source(source).build();
/// tokio::spawn(driver.run());
/// let in_force = mesh.watch().changed().await;
/// println!("{} clusters", in_force.clusters().all().len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IstioSource {
    worker: Arc<Mutex<Worker>>,
    watch: Watch,
    dump: Dump,
    settings: Arc<OnceLock<ProcessSettings>>,
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
        let settings = Arc::new(OnceLock::new());
        let worker = Worker {
            folder: Folder::new(folder, options.read.clone()),
            options,
            graph,
            workload: None,
            generation: 0,
            unsettled: false,
            ready: None,
            identity: None,
            settings: Arc::clone(&settings),
            accepted: Vec::new(),
            places: Places::default(),
        };
        Ok(Self {
            worker: Arc::new(Mutex::new(worker)),
            watch,
            dump,
            settings,
            started: false,
        })
    }

    /// What is in force, as Envoy's `/config_dump` shows it.
    pub fn dump(&self) -> Dump {
        self.dump.clone()
    }

    /// What ProxyConfig objects, the workload's annotation and the mesh ask of the process, once the first update is there.
    /// What they ask later is noted as taking a new start.
    pub fn settings(&self) -> Arc<OnceLock<ProcessSettings>> {
        Arc::clone(&self.settings)
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

    fn locate(&self, rejections: &mut [Rejection]) {
        let worker = lock(&self.worker);
        let places = |paths: &[String]| {
            let origins = translate::origins(&worker.accepted, &[]);
            let tables = self.dump.resources(Kind::Routes).into_iter();
            let tables = tables.filter_map(|own| RouteConfiguration::decode(own.wire).ok());
            place::all(&origins, &tables.collect::<Vec<_>>(), paths)
        };
        worker.graph.locate(rejections, &places);
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
    /// What was asked of the process when it started.
    settings: Arc<OnceLock<ProcessSettings>>,
    /// The objects of the last scan that strictness took, which stay in force while it refuses one.
    accepted: Vec<Arc<Object>>,
    /// Where the fields stand that are told of.
    places: Places,
}

/// The index of some objects, and what it makes of a proxy.
struct Made {
    context: Context,
    proxy: Proxy,
    resources: Resources,
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
        if self.generation > 0 {
            return if scan.changed {
                self.translate(&scan)
            } else {
                Ok(())
            };
        }
        match readable(&scan).and_then(|()| self.translate(&scan)) {
            // A file may be in the middle of being written.
            Err(_) if scan.unsettled => Ok(()),
            done => done,
        }
    }

    /// Puts what the folder says into `ready`.
    fn translate(&mut self, scan: &Scan) -> Result<(), SourceError> {
        let made = self.make(scan, &scan.objects, scan.lost.clone())?;
        let refused_by_strict = if self.options.strict {
            without_effect(scan, &made.resources)
        } else {
            Vec::new()
        };
        if self.generation == 0 && !refused_by_strict.is_empty() {
            let all: Vec<String> = refused_by_strict.iter().map(ToString::to_string).collect();
            return Err(ended(format!("refused since strict: {}", all.join("; "))));
        }
        let made = if refused_by_strict.is_empty() {
            self.accepted.clone_from(&scan.objects);
            made
        } else {
            // The edit as a whole is refused, but what it would have closed is.
            let accepted = self.accepted.clone();
            self.make(scan, &accepted, refused_with(scan, &accepted))?
        };
        let mut notes = notes(
            &scan.findings,
            &made.context,
            &made.resources,
            &mut self.places,
        );
        notes.extend(tls_servers(&made.context, &made.proxy));
        notes.extend(idle_gateway(&made.context, &made.proxy));
        let settings = &made.resources.settings;
        if self.settings.get_or_init(|| settings.clone()) != settings {
            notes.push(needs_a_start(&made.proxy));
        }
        self.generation += 1;
        let version: Name = self.generation.to_string().into();
        let refused = scan.findings.iter().filter(|f| f.level == Level::Refused);
        let mut rejections: Vec<Rejection> = refused.map(rejection).collect();
        rejections.extend(refused_by_strict);
        let mut update = self.assemble(version, made.resources);
        update.rejections.splice(0..0, rejections);
        update
            .notes
            .retain(|note| !is_istiods_own(note) && !is_told(note));
        update.notes.splice(0..0, notes);
        self.ready = Some(update);
        Ok(())
    }

    /// What these objects make of the proxy.
    fn make(
        &mut self,
        scan: &Scan,
        objects: &[Arc<Object>],
        lost: Vec<Lost>,
    ) -> Result<Made, SourceError> {
        let context = Context::new(objects, &self.options.domain).with_lost(lost);
        let proxy = self.proxy(&context).map_err(|error| because(error, scan))?;
        let options = translate::Options {
            insecure_skip: self.options.insecure_skip.clone(),
        };
        let resources = translate::translate(&context, &proxy, &options);
        Ok(Made {
            context,
            proxy,
            resources,
        })
    }

    fn assemble(&mut self, version: Name, mut resources: Resources) -> Update {
        let mut round = self.graph.round(version);
        for cluster in &resources.clusters {
            let place = config(cluster.metadata.as_ref());
            offer(&mut round, Kind::Cluster, &cluster.name, cluster, &place);
        }
        for endpoints in &resources.endpoints {
            let name = &endpoints.cluster_name;
            offer(&mut round, Kind::Endpoints, name, endpoints, "");
        }
        for table in &mut resources.routes {
            offer_table(&mut round, table);
        }
        for listener in &resources.listeners {
            let place = config(listener.metadata.as_ref());
            offer(&mut round, Kind::Listener, &listener.name, listener, &place);
        }
        let (origins, routes) = (&resources.origins, &resources.routes);
        round.finish(&|paths| place::all(origins, routes, paths))
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

/// Offers a resource. One that stays the same is not decoded into the model again; equal messages may differ as bytes, since
/// the entries of protobuf's maps have no order, so that they are compared as messages then.
fn offer<M: Message + Default + PartialEq>(
    round: &mut Round<'_>,
    kind: Kind,
    name: &str,
    message: &M,
    place: &str,
) {
    let wire = message.encode_to_vec();
    let before = round.as_offered(kind, name);
    let same = before.is_some_and(|before| {
        before == wire || M::decode(before).is_ok_and(|before| before == *message)
    });
    if !(same && round.same(kind, name, place)) {
        round.wire(kind, &wire, place);
    }
}

/// Offers a route configuration. Virtual hosts that stay the same are not encoded again, so that they are known by their bytes.
fn offer_table(round: &mut Round<'_>, table: &mut RouteConfiguration) {
    let name = table.name.clone();
    let before = round.as_offered(Kind::Routes, &name);
    let before = before.and_then(|wire| Some((RouteConfiguration::decode(&*wire).ok()?, wire)));
    let wire = match before {
        Some((old, _)) if old == *table && round.same(Kind::Routes, &name, &name) => return,
        Some((old, wire)) => spliced(&old, &wire, table),
        None => table.encode_to_vec(),
    };
    round.wire(Kind::Routes, &wire, &name);
}

/// The wire form of `table`, with that of the virtual hosts that `old`, of which `wire` is the wire form, has as well.
fn spliced(old: &RouteConfiguration, wire: &[u8], table: &mut RouteConfiguration) -> Vec<u8> {
    let wires = Parts::of(wire).map(|parts| parts.hosts).unwrap_or_default();
    let known: HashMap<&str, (&VirtualHost, &[u8])> = old
        .virtual_hosts
        .iter()
        .zip(wires)
        .map(|(host, wire)| (host.name.as_str(), (host, wire)))
        .collect();
    let hosts = std::mem::take(&mut table.virtual_hosts);
    let mut out = table.encode_to_vec();
    for host in &hosts {
        match known.get(host.name.as_str()) {
            Some((same, wire)) if *same == host => Parts::push(&mut out, wire),
            _ => Parts::push(&mut out, &host.encode_to_vec()),
        }
    }
    table.virtual_hosts = hosts;
    out
}

/// Whether a note is about a field that istiod writes into every cluster found by DNS, so that nobody asked for it.
fn is_istiods_own(note: &Note) -> bool {
    note.resource.starts_with("cluster ") && &*note.path == "respect_dns_ttl"
}

/// Whether a note is about a cluster that a route leads to and that does not exist: the translation names the rule that leads
/// there, and the graph would tell of it for each table.
fn is_told(note: &Note) -> bool {
    note.resource.starts_with("route configuration ") && note.reason.starts_with("unknown cluster ")
}

/// Nothing starts without what may protect it: files that cannot be read may hold anything, and the settings of the mesh
/// say what counts as protection at all.
fn readable(scan: &Scan) -> Result<(), SourceError> {
    if !scan.unread.is_empty() {
        let named = some_of(&scan.unread);
        return Err(ended(format!(
            "what cannot be read may protect traffic: {named}"
        )));
    }
    let settings = |lost: &&Lost| lost.kind.as_deref() == Some("MeshConfig");
    match scan.lost.iter().find(settings) {
        Some(lost) => {
            let of_file = |f: &&Finding| f.level == Level::Refused && f.file == lost.origin.file;
            let refused: Vec<Finding> = scan.findings.iter().filter(of_file).cloned().collect();
            let (origin, why) = (&lost.origin, some_of(&refused));
            let reason = format!("the settings of the mesh in {origin} are refused: {why}");
            Err(ended(reason))
        }
        None => Ok(()),
    }
}

/// What is refused and has no version among `accepted`: objects of the folder as well, since strictness refuses all that is
/// new there.
fn refused_with(scan: &Scan, accepted: &[Arc<Object>]) -> Vec<Lost> {
    let known: HashSet<ObjectId> = accepted.iter().map(|own| ObjectId::of(own)).collect();
    let new = scan.objects.iter();
    let new = new.filter(|object| !known.contains(&ObjectId::of(object)));
    let in_force =
        |lost: &&Lost| lost.is_named() && accepted.iter().any(|object| lost.may_be(object));
    let refused = scan.lost.iter().filter(|lost| !in_force(lost)).cloned();
    refused
        .chain(new.filter_map(|object| protected_by(object)))
        .collect()
}

/// The error with what of the folder was refused: the proxy's workload may have stood there.
fn because(mut error: SourceError, scan: &Scan) -> SourceError {
    let refused = scan.findings.iter().filter(|f| f.level == Level::Refused);
    let refused: Vec<Finding> = refused.cloned().collect();
    if !refused.is_empty() {
        error.reason += &format!("; refused: {}", some_of(&refused));
    }
    error
}

/// The first findings as a text, and how many there are more.
fn some_of(findings: &[Finding]) -> String {
    const NAMED: usize = 5;
    let named: Vec<String> = findings
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let mut text = named.join("; ");
    if let Some(more @ 1..) = findings.len().checked_sub(NAMED) {
        text += &format!("; and {more} more");
    }
    text
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
    match known.as_slice() {
        [] => format!("no workload {wanted} in the folder, nor any other"),
        known => format!(
            "no workload {wanted} in the folder{near}; known: {}",
            known.join(", ")
        ),
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
