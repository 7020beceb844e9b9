//! Assembles resources into updates: what changed, what is gone, what refers to something that is missing.
//!
//! A source offers all its resources each time ([`Graph::round`]); equal ones cost a comparison of bytes. A refused
//! resource keeps its last good version in force. The wire form of what is in force is kept for `/config_dump`
//! ([`Dump`]).

mod conflicts;
mod dump;
mod notes;
mod references;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use mesh_core::{
    config::{Change, Rejection, Update},
    model::{Cluster, ClusterLoadAssignment, Listener, Name, Note, RouteConfiguration},
};
use prost::Message;

pub use self::dump::{Dump, DumpOptions};
use crate::decode::{self, Before, Decoded, Findings};

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
    /// Where it stands in the source's text; empty if there is none.
    place: Box<str>,
    version: Name,
    updated: SystemTime,
    dynamic: bool,
    seen: bool,
    /// Whether it is what was offered last: a later one may have been refused.
    newest: bool,
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

    /// The notes about everything in force, each with its place.
    pub fn notes(&self, locate: Locate<'_>) -> Vec<Note> {
        let (paths, mut notes): (Vec<_>, Vec<_>) = lock(&self.state).notes().into_iter().unzip();
        if !paths.is_empty() {
            notes::place(&mut notes, &locate(&paths));
        }
        notes
    }

    /// Fills in the places of rejections that have none, found in resources of the last round.
    pub fn locate(&self, rejections: &mut [Rejection], locate: Locate<'_>) {
        let state = lock(&self.state);
        let (mut open, mut paths) = (Vec::new(), Vec::new());
        for rejection in rejections.iter_mut().filter(|one| one.location.is_empty()) {
            if let Some(path) = state.place_of(rejection) {
                paths.push(path);
                open.push(rejection);
            }
        }
        drop(state);
        if !paths.is_empty() {
            for (rejection, place) in open.into_iter().zip(locate(&paths)) {
                rejection.location = place;
            }
        }
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

/// A decoder of whole resources, whatever was there before.
fn whole<T>(
    decoder: fn(&[u8]) -> Decoded<T>,
) -> impl FnOnce(&[u8], Option<&Entry<T>>) -> Decoded<T> {
    move |wire, _| decoder(wire)
}

fn routes(wire: &[u8], before: Option<&Entry<RouteConfiguration>>) -> Decoded<RouteConfiguration> {
    match before {
        Some(entry) => {
            let before = Before {
                wire: &entry.wire,
                model: &entry.model,
                notes: &entry.notes,
            };
            decode::routes_again(wire, before)
        }
        None => decode::routes(wire),
    }
}

/// A path below another.
fn join(path: &str, below: &str) -> String {
    match (path, below) {
        ("", below) => below.to_owned(),
        (path, "") => path.to_owned(),
        (path, below) => format!("{path}.{below}"),
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
    /// Offers a resource once more that is the same as when it was offered last: it costs no look at its content. `false` if
    /// that one was not taken, so that it has to be offered as a whole. `path` is where it stands in the source's text now.
    ///
    /// Messages that are equal may differ as bytes, since the entries of protobuf's maps have no order.
    pub fn same(&mut self, kind: Kind, name: &str, path: &str) -> bool {
        let dynamic = self.dynamic;
        match kind {
            Kind::Cluster => self.state.clusters.same(name, dynamic, path),
            Kind::Endpoints => self.state.endpoints.same(name, dynamic, path),
            Kind::Routes => self.state.routes.same(name, dynamic, path),
            Kind::Listener => self.state.listeners.same(name, dynamic, path),
        }
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
            Kind::Cluster => self.offer(kind, wire, path, whole(decode::cluster), |state| {
                (&mut state.clusters, Change::Cluster, now)
            }),
            Kind::Endpoints => self.offer(kind, wire, path, whole(decode::endpoints), |state| {
                (&mut state.endpoints, Change::Endpoints, now)
            }),
            Kind::Routes => self.offer(kind, wire, path, routes, |state| {
                (&mut state.routes, Change::Routes, now)
            }),
            Kind::Listener => self.offer(kind, wire, path, whole(decode::listener), |state| {
                (&mut state.listeners, Change::Listener, now)
            }),
        }
    }

    /// The wire form of a resource; `None` unless what was offered last of that name is in force.
    #[cfg(feature = "istio")]
    pub(crate) fn as_offered(&self, kind: Kind, name: &str) -> Option<Bytes> {
        let (wire, newest) = self.state.wire_of(kind, name)?;
        newest.then_some(wire)
    }

    fn offer<T: PartialEq>(
        &mut self,
        kind: Kind,
        wire: &[u8],
        path: &str,
        decoder: impl FnOnce(&[u8], Option<&Entry<T>>) -> Decoded<T>,
        table: impl Fn(&mut State) -> (&mut Table<T>, fn(Arc<T>) -> Change, SystemTime),
    ) {
        let name = resource_name(wire);
        let dynamic = self.dynamic;
        let (entries, change, now) = table(&mut self.state);
        if entries.again(&name, wire, dynamic, path) {
            return;
        }
        let Decoded {
            name,
            value,
            findings,
        } = decoder(wire, entries.entries.get(&*name));
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
                entry.newest = false;
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
            place: path.into(),
            version: self.version.clone(),
            updated: now,
            dynamic,
            seen: true,
            newest: true,
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

    /// Notes something that belongs to no resource; its path is one in the source's text.
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
        self.listeners_at_one_address();
        self.listeners_with_unknown_clusters();
        let mut removed = self.state.sweep();
        self.changes.append(&mut removed);
        self.state.version = self.version.clone();
        self.state.updated = Some(self.now);
        let own = self.notes.into_iter();
        let own = own.map(|note| (note.path.to_string(), note));
        let (mut paths, mut notes): (Vec<_>, Vec<_>) = own.chain(self.state.notes()).unzip();
        let (below, mut rejections): (Vec<_>, Vec<_>) = self
            .rejections
            .into_iter()
            .map(|(path, rejection)| (join(&path, &rejection.path), rejection))
            .unzip();
        paths.extend(below);
        if !paths.is_empty() {
            let places = locate(&paths);
            notes::place(&mut notes, &places);
            for (rejection, place) in rejections.iter_mut().zip(places.iter().skip(notes.len())) {
                rejection.location = place.clone();
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
}

impl State {
    /// The wire form of a resource in force, and whether it is what was offered last.
    fn wire_of(&self, kind: Kind, name: &str) -> Option<(Bytes, bool)> {
        fn of<T>(table: &Table<T>, name: &str) -> Option<(Bytes, bool)> {
            let entry = table.entries.get(name)?;
            Some((entry.wire.clone(), entry.newest))
        }
        match kind {
            Kind::Cluster => of(&self.clusters, name),
            Kind::Endpoints => of(&self.endpoints, name),
            Kind::Routes => of(&self.routes, name),
            Kind::Listener => of(&self.listeners, name),
        }
    }

    /// The path in the source's text of what was refused after decoding, whose own path becomes that of the API.
    fn place_of(&self, rejection: &mut Rejection) -> Option<String> {
        let kinds = [Kind::Cluster, Kind::Endpoints, Kind::Routes, Kind::Listener];
        let (kind, name) = kinds.into_iter().find_map(|kind| {
            let name = rejection.resource.strip_prefix(kind.word())?;
            Some((kind, name.strip_prefix(' ')?))
        })?;
        let place = match kind {
            Kind::Cluster => &self.clusters.entries.get(name)?.place,
            Kind::Endpoints => &self.endpoints.entries.get(name)?.place,
            Kind::Routes => &self.routes.entries.get(name)?.place,
            Kind::Listener => &self.listeners.entries.get(name)?.place,
        };
        if kind == Kind::Listener
            && let Some(path) = rejection.path.strip_prefix("filter_chains[")
            && let Some((index, field)) = path.split_once("].")
            && !field.starts_with("filter_chain_match")
        {
            let chain = format!("filter_chains[{index}]");
            let terminal = self.listeners.terminal(&name.into(), &chain);
            rejection.path = join(&terminal, field).into();
        }
        Some(join(place, &rejection.path))
    }
}

impl Table<Listener> {
    /// The path of a chain's terminal filter, whose index the model does not keep.
    fn terminal(&self, listener: &Name, chain: &str) -> String {
        use envoy_types::pb::envoy::config::listener::v3::Listener as Proto;
        let wire = self.entries.get(listener).map(|entry| entry.wire.clone());
        let proto = Proto::decode(wire.unwrap_or_default()).unwrap_or_default();
        let index = chain
            .trim_start_matches("filter_chains[")
            .trim_end_matches(']');
        let listed = index.parse::<usize>().ok();
        let listed = listed.and_then(|index| proto.filter_chains.get(index));
        let (chain, found) = match listed {
            Some(found) => (chain, Some(found)),
            None => ("default_filter_chain", proto.default_filter_chain.as_ref()),
        };
        let last = found.map_or(0, |chain| chain.filters.len().saturating_sub(1));
        format!("{chain}.filters[{last}].typed_config")
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

impl<T> Entry<T> {
    fn offered_again(&mut self, dynamic: bool, path: &str) {
        self.seen = true;
        self.newest = true;
        self.dynamic = dynamic;
        if &*self.place != path {
            self.place = path.into();
        }
    }
}

impl<T> Table<T> {
    /// Whether the resource is in force as these bytes and was not offered yet in this round; then it is now.
    fn again(&mut self, name: &str, wire: &[u8], dynamic: bool, path: &str) -> bool {
        let same = |entry: &&mut Entry<T>| entry.wire == wire && !entry.seen;
        let Some(entry) = self.entries.get_mut(name).filter(same) else {
            return false;
        };
        entry.offered_again(dynamic, path);
        true
    }

    /// As [`again`](Self::again), where the caller knows that it is the same as what was offered last.
    fn same(&mut self, name: &str, dynamic: bool, path: &str) -> bool {
        let newest = |entry: &&mut Entry<T>| entry.newest && !entry.seen;
        let Some(entry) = self.entries.get_mut(name).filter(newest) else {
            return false;
        };
        entry.offered_again(dynamic, path);
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
            previous.newest = false;
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
}
