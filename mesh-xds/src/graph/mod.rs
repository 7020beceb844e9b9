//! Assembles resources into updates: what changed, what is gone, what refers to something that is missing.
//!
//! A source offers all its resources each time ([`Graph::round`]); equal ones cost a comparison of bytes. A refused
//! resource keeps its last good version in force. The wire form of what is in force is kept for `/config_dump`
//! ([`Dump`]).

mod dump;
mod references;

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use mesh_core::{
    config::{Change, Rejection, Update},
    model::{
        Cluster, ClusterLoadAssignment, Discovery, Listener, Name, Note, RouteConfiguration,
        RouteSource,
    },
};
use prost::Message;

pub use self::dump::{Dump, DumpOptions};
use crate::decode::{self, Decoded, Findings};

/// The kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// `envoy.config.route.v3.RouteConfiguration`.
    Routes,
    /// `envoy.config.listener.v3.Listener`.
    Listener,
}

impl Kind {
    /// The full name of the message.
    pub fn message(self) -> &'static str {
        match self {
            Self::Cluster => "envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Routes => "envoy.config.route.v3.RouteConfiguration",
            Self::Listener => "envoy.config.listener.v3.Listener",
        }
    }

    /// The word that stands before the name in rejections and notes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Routes => "route configuration",
            Self::Listener => "listener",
        }
    }
}

/// Resources that stay the same from one update to the next, and those that did not.
#[derive(Debug)]
pub struct Graph {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    clusters: Table<Cluster>,
    endpoints: Table<ClusterLoadAssignment>,
    routes: Table<RouteConfiguration>,
    listeners: Table<Listener>,
    /// Whether resources come from a control plane unless a round says otherwise, for [`Dump`].
    dynamic: bool,
    version: Name,
    bootstrap: Bytes,
    updated: Option<SystemTime>,
}

#[derive(Debug)]
struct Table<T> {
    entries: BTreeMap<Name, Entry<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

/// A resource in force.
#[derive(Debug)]
struct Entry<T> {
    wire: Bytes,
    model: Arc<T>,
    notes: Box<[Note]>,
    version: Name,
    updated: SystemTime,
    dynamic: bool,
    seen: bool,
    /// What this one replaces, until the round ends: it may turn out that it cannot be used.
    previous: Option<Box<Entry<T>>>,
}

/// Finds the place of each path in the text that the resources were read from: `file:line:column`.
pub type Locate<'l> = &'l dyn Fn(&[String]) -> Vec<Name>;

impl Graph {
    /// A graph without resources. `dynamic` tells that they come from a control plane or something like it, not from
    /// the program's own start file.
    pub fn new(dynamic: bool) -> Self {
        let state = State {
            dynamic,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Reads what is in force, from any thread.
    pub fn dump(&self) -> Dump {
        Dump::new(self.state.clone())
    }

    /// The notes about everything in force.
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        lock(&self.state).notes(&mut notes);
        notes
    }

    /// Begins an update that will offer every resource.
    pub fn round(&mut self, version: impl Into<Name>) -> Round<'_> {
        let mut state = lock(&self.state);
        state.unsee();
        Round {
            dynamic: state.dynamic,
            state,
            version: version.into(),
            now: SystemTime::now(),
            changes: Vec::new(),
            rejections: Vec::new(),
            unplaced: Vec::new(),
            notes: Vec::new(),
            refused: Vec::new(),
            places: Vec::new(),
        }
    }
}

/// A panic while the lock is held leaves whole entries behind, so the state is used on.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One update in the making. Dropped without [`Round::finish`], nothing is removed, but what was offered stays.
#[derive(Debug)]
pub struct Round<'g> {
    state: MutexGuard<'g, State>,
    dynamic: bool,
    version: Name,
    now: SystemTime,
    changes: Vec<Change>,
    /// With the path of the resource in the source's text.
    rejections: Vec<(String, Rejection)>,
    /// With the place that they were found at.
    unplaced: Vec<Rejection>,
    notes: Vec<Note>,
    /// Names of resources that were refused.
    refused: Vec<(Kind, Name)>,
    /// Where changed listeners stand in the source's text.
    places: Vec<(Name, String)>,
}

impl Round<'_> {
    /// Offers a resource as a message.
    pub fn message(&mut self, kind: Kind, message: &impl Message) {
        self.wire(kind, &message.encode_to_vec(), "");
    }

    /// Says of what is offered from now on whether it belongs to the program's own start file or may come and go.
    pub fn dynamic(&mut self, dynamic: bool) {
        self.dynamic = dynamic;
    }

    /// Offers once more, as they are, all resources in force that are not dynamic.
    pub fn keep_static(&mut self) {
        fn keep<T>(table: &mut Table<T>) {
            for entry in table.entries.values_mut() {
                entry.seen |= !entry.dynamic;
            }
        }
        keep(&mut self.state.clusters);
        keep(&mut self.state.endpoints);
        keep(&mut self.state.routes);
        keep(&mut self.state.listeners);
    }

    /// The wire form of every resource of a kind that was offered so far, or is in force in place of one that was.
    pub fn offered(&self, kind: Kind) -> Vec<Bytes> {
        fn seen<T>(table: &Table<T>) -> Vec<Bytes> {
            let entries = table.entries.values().filter(|entry| entry.seen);
            entries.map(|entry| entry.wire.clone()).collect()
        }
        match kind {
            Kind::Cluster => seen(&self.state.clusters),
            Kind::Endpoints => seen(&self.state.endpoints),
            Kind::Routes => seen(&self.state.routes),
            Kind::Listener => seen(&self.state.listeners),
        }
    }

    /// Offers a resource as wire bytes. `path` is where it stands in the source's text; empty if there is none.
    pub fn wire(&mut self, kind: Kind, wire: &[u8], path: &str) {
        let now = self.now;
        match kind {
            Kind::Cluster => self.offer(kind, wire, path, decode::cluster, |state| {
                (&mut state.clusters, Change::Cluster, now)
            }),
            Kind::Endpoints => self.offer(kind, wire, path, decode::endpoints, |state| {
                (&mut state.endpoints, Change::Endpoints, now)
            }),
            Kind::Routes => self.offer(kind, wire, path, decode::routes, |state| {
                (&mut state.routes, Change::Routes, now)
            }),
            Kind::Listener => self.offer(kind, wire, path, decode::listener, |state| {
                (&mut state.listeners, Change::Listener, now)
            }),
        }
    }

    fn offer<T: PartialEq>(
        &mut self,
        kind: Kind,
        wire: &[u8],
        path: &str,
        decoder: fn(&[u8]) -> Decoded<T>,
        table: impl Fn(&mut State) -> (&mut Table<T>, fn(Arc<T>) -> Change, SystemTime),
    ) {
        let name = resource_name(wire);
        let dynamic = self.dynamic;
        let (entries, change, now) = table(&mut self.state);
        if entries.again(&name, wire, dynamic) {
            return;
        }
        let Decoded {
            name,
            value,
            findings,
        } = decoder(wire);
        // A listener without a name is known by its address, so the decoded name counts.
        let twice = self.refused.contains(&(kind, name.clone()));
        let entry = entries.entries.get_mut(&name);
        let seen = entry.as_ref().is_some_and(|entry| entry.seen);
        if seen || twice {
            self.refuse(kind, &name, path, "is given twice");
            return;
        }
        let Some(value) = value else {
            if let Some(entry) = entry {
                entry.seen = true;
            }
            self.undecoded(kind, name, path, findings);
            return;
        };
        let (model, changed) = match entry {
            Some(entry) if *entry.model == value => (entry.model.clone(), false),
            _ => (Arc::new(value), true),
        };
        if changed {
            self.changes.push(change(model.clone()));
            if kind == Kind::Listener {
                self.places.push((name.clone(), path.to_owned()));
            }
        }
        let entry = Entry {
            wire: Bytes::copy_from_slice(wire),
            model,
            notes: findings.notes.into(),
            version: self.version.clone(),
            updated: now,
            dynamic,
            seen: true,
            previous: None,
        };
        entries.put(name, entry, kind == Kind::Listener);
    }

    /// A resource that the decoder refused.
    fn undecoded(&mut self, kind: Kind, name: Name, path: &str, findings: Findings) {
        let rejections = findings.rejections.into_iter();
        self.rejections
            .extend(rejections.map(|rejection| (path.to_owned(), rejection)));
        self.refused.push((kind, name));
    }

    /// Notes something that belongs to no resource.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Refuses a resource by name.
    pub fn refuse(&mut self, kind: Kind, name: &str, path: &str, reason: &str) {
        let rejection = Rejection {
            resource: format!("{} {name}", kind.word()).into(),
            path: Name::from(""),
            reason: reason.into(),
            location: Name::from(""),
        };
        self.rejections.push((path.to_owned(), rejection));
    }

    /// A file, or another carrier of resources, cannot be read.
    pub fn reject(&mut self, rejection: Rejection) {
        self.unplaced.push(rejection);
    }

    /// Keeps the bootstrap, without its resources, for [`Dump`].
    pub fn bootstrap(&mut self, wire: Bytes) {
        self.state.bootstrap = wire;
    }

    /// Ends the round: what was not offered is removed, what is missing is named.
    pub fn finish(mut self, locate: Locate<'_>) -> Update {
        self.listeners_with_unknown_clusters();
        let mut removed = self.state.sweep();
        self.changes.append(&mut removed);
        self.state.version = self.version.clone();
        self.state.updated = Some(self.now);
        let mut notes = self.notes;
        self.state.notes(&mut notes);
        let (mut rejections, paths): (Vec<_>, Vec<_>) = self
            .rejections
            .into_iter()
            .map(|(path, rejection)| {
                let at = match (path.as_str(), &*rejection.path) {
                    ("", at) => at.to_owned(),
                    (path, "") => path.to_owned(),
                    (path, at) => format!("{path}.{at}"),
                };
                (rejection, at)
            })
            .unzip();
        if !paths.is_empty() {
            for (rejection, place) in rejections.iter_mut().zip(locate(&paths)) {
                rejection.location = place;
            }
        }
        rejections.append(&mut self.unplaced);
        Update {
            version: self.version,
            changes: self.changes,
            rejections,
            notes,
        }
    }

    /// An inline table that asks for it (`validate_clusters`) may name only clusters that exist; a listener that does
    /// not is refused, and what was in force before it stays. A cluster that was refused itself counts as existing: one
    /// mistake is one rejection.
    fn listeners_with_unknown_clusters(&mut self) {
        let clusters = &self.state.clusters.entries;
        let exists = |name: &Name| {
            clusters.get(name).is_some_and(|entry| entry.seen)
                || self.refused.contains(&(Kind::Cluster, name.clone()))
        };
        let mut refused = Vec::new();
        for change in &self.changes {
            let Change::Listener(listener) = change else {
                continue;
            };
            for (chain, manager) in references::managers(listener) {
                let RouteSource::Inline(table) = &manager.routes else {
                    continue;
                };
                let missing = references::clusters(table).find(|(_, name)| !exists(name));
                if let Some((path, name)) = missing.filter(|_| table.validate_clusters) {
                    refused.push((listener.name.clone(), chain, path, name.clone()));
                }
            }
        }
        for (listener, chain, path, cluster) in refused {
            self.changes
                .retain(|change| !matches!(change, Change::Listener(one) if one.name == listener));
            let filter = self.state.listeners.last_filter(&listener, &chain);
            self.state.listeners.restore(&listener);
            let rejection = Rejection {
                resource: format!("listener {listener}").into(),
                path: format!("{chain}.filters[{filter}].typed_config.route_config.{path}").into(),
                reason: format!("unknown cluster {cluster:?}").into(),
                location: Name::from(""),
            };
            let place = self.places.iter().find(|(name, _)| *name == listener);
            let place = place.map_or_else(String::new, |(_, path)| path.clone());
            self.rejections.push((place, rejection));
        }
    }
}

impl Table<Listener> {
    /// The index of the terminal filter, which the model does not keep.
    fn last_filter(&self, listener: &Name, chain: &str) -> usize {
        use envoy_types::pb::envoy::config::listener::v3::Listener as Proto;
        let wire = self.entries.get(listener).map(|entry| entry.wire.clone());
        let proto = Proto::decode(wire.unwrap_or_default()).unwrap_or_default();
        let index = chain
            .trim_start_matches("filter_chains[")
            .trim_end_matches(']');
        let chain = match index.parse::<usize>() {
            Ok(index) => proto.filter_chains.get(index),
            Err(_) => proto.default_filter_chain.as_ref(),
        };
        chain.map_or(0, |chain| chain.filters.len().saturating_sub(1))
    }
}

/// The name of a resource, which is its field number 1 in every kind but load assignments, where it is the cluster's.
fn resource_name(wire: &[u8]) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Head {
        #[prost(string, tag = "1")]
        name: String,
    }
    Head::decode(wire).map(|head| head.name).unwrap_or_default()
}

impl<T> Table<T> {
    /// Whether the resource is in force as these bytes and was not offered yet in this round; then it is now.
    fn again(&mut self, name: &str, wire: &[u8], dynamic: bool) -> bool {
        let same = |entry: &&mut Entry<T>| entry.wire == wire && !entry.seen;
        let Some(entry) = self.entries.get_mut(name).filter(same) else {
            return false;
        };
        entry.seen = true;
        entry.dynamic = dynamic;
        true
    }

    fn unsee(&mut self) {
        for entry in self.entries.values_mut() {
            entry.seen = false;
        }
    }

    /// Adds an entry or replaces one, which is kept until the round ends if `keep`.
    fn put(&mut self, name: Name, mut entry: Entry<T>, keep: bool) {
        match self.entries.entry(name) {
            btree_map::Entry::Vacant(slot) => {
                slot.insert(entry);
            }
            btree_map::Entry::Occupied(mut slot) if keep => {
                std::mem::swap(slot.get_mut(), &mut entry);
                slot.get_mut().previous = Some(Box::new(entry));
            }
            btree_map::Entry::Occupied(mut slot) => {
                slot.insert(entry);
            }
        }
    }

    /// Puts back what the entry replaced, if it replaced something.
    fn restore(&mut self, name: &Name) {
        let previous = self.entries.remove(name).and_then(|entry| entry.previous);
        if let Some(mut previous) = previous {
            previous.seen = true;
            self.entries.insert(name.clone(), *previous);
        }
    }

    fn sweep(&mut self, gone: fn(Name) -> Change, changes: &mut Vec<Change>) {
        self.entries.retain(|name, entry| {
            if !entry.seen {
                changes.push(gone(name.clone()));
            }
            entry.previous = None;
            entry.seen
        });
    }
}

impl State {
    fn unsee(&mut self) {
        self.clusters.unsee();
        self.endpoints.unsee();
        self.routes.unsee();
        self.listeners.unsee();
    }

    fn sweep(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.listeners.sweep(Change::RemoveListener, &mut changes);
        self.routes.sweep(Change::RemoveRoutes, &mut changes);
        self.endpoints.sweep(Change::RemoveEndpoints, &mut changes);
        self.clusters.sweep(Change::RemoveCluster, &mut changes);
        changes
    }

    /// All notes: of the decoders, and about references that lead nowhere.
    fn notes(&self, notes: &mut Vec<Note>) {
        for entry in self.clusters.entries.values() {
            notes.extend_from_slice(&entry.notes);
            if let Discovery::Eds(service) = &entry.model.discovery
                && !self.endpoints.entries.contains_key(service)
            {
                notes.push(Note {
                    resource: format!("cluster {}", entry.model.name).into(),
                    path: "eds_cluster_config".into(),
                    reason: format!(
                        "no endpoints are known under {service:?}: its requests answer 503"
                    )
                    .into(),
                });
            }
        }
        for entry in self.endpoints.entries.values() {
            notes.extend_from_slice(&entry.notes);
        }
        for entry in self.routes.entries.values() {
            notes.extend_from_slice(&entry.notes);
            let resource = format!("route configuration {}", entry.model.name);
            self.missing_clusters(&resource, &entry.model, notes);
        }
        for entry in self.listeners.entries.values() {
            notes.extend_from_slice(&entry.notes);
            let resource = format!("listener {}", entry.model.name);
            for (_, manager) in references::managers(&entry.model) {
                match &manager.routes {
                    RouteSource::Inline(table) => self.missing_clusters(&resource, table, notes),
                    RouteSource::Named(name) if !self.routes.entries.contains_key(name) => {
                        notes.push(Note {
                            resource: resource.as_str().into(),
                            path: "rds.route_config_name".into(),
                            reason: format!(
                                "route configuration {name:?} is not known: requests answer 404"
                            )
                            .into(),
                        });
                    }
                    RouteSource::Named(_) => {}
                }
            }
            for (path, name) in references::tcp_clusters(&entry.model) {
                self.missing_cluster(&resource, path, name, notes);
            }
        }
    }

    fn missing_clusters(&self, resource: &str, table: &RouteConfiguration, notes: &mut Vec<Note>) {
        for (path, name) in references::clusters(table) {
            self.missing_cluster(resource, path, name, notes);
        }
    }

    fn missing_cluster(&self, resource: &str, path: String, name: &Name, notes: &mut Vec<Note>) {
        if !self.clusters.entries.contains_key(name) {
            notes.push(Note {
                resource: resource.into(),
                path: path.into(),
                reason: format!("unknown cluster {name:?}: its requests answer 503").into(),
            });
        }
    }
}
