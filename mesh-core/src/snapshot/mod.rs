//! The compiled, immutable configuration and how it replaces itself.
//!
//! [`Driver`] pulls updates from a [`ConfigSource`](crate::config::ConfigSource) and compiles them to a [`Snapshot`], which one
//! atomic store publishes. Parts that did not change keep their `Arc`; clusters keep counters,
//! limits in use and connections under their name; a route table is replaced in its [`RouteCell`], so that the next
//! request on an open connection meets it.

mod cell;
mod chain_tree;
mod clusters;
mod compile;
#[cfg(feature = "net")]
mod dns;
mod driver;
mod http;
mod listener;
mod routes;
mod stage;
mod status;
mod tcp;

use std::{collections::BTreeMap, sync::Arc};

use self::cell::SnapshotCell;
pub use self::{
    cell::{Reader, Watch},
    clusters::Clusters,
    driver::{Driver, Mesh, MeshBuilder, NotReady},
    http::Http,
    listener::{ChainConflict, ConnFacts, FilterChains},
    routes::RouteCell,
    stage::{Guard, Judged, Stage, Verdict},
    status::{Health, Status, StatusReport},
    tcp::Tcp,
};
pub(crate) use self::{
    compile::{Compiler, Own},
    stage::judge,
};
use crate::{
    model::{self, Name},
    telemetry::observer::Observer,
};

/// Everything that is in force at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    generation: u64,
    clusters: Clusters,
    routes: BTreeMap<Name, Arc<RouteCell>>,
    listeners: BTreeMap<Name, Arc<Listener>>,
}

impl Snapshot {
    /// Rises with each update.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The directory of clusters.
    pub fn clusters(&self) -> &Clusters {
        &self.clusters
    }

    /// Route tables that have a name of their own (RDS).
    pub fn routes(&self) -> &BTreeMap<Name, Arc<RouteCell>> {
        &self.routes
    }

    /// Listeners by name.
    pub fn listeners(&self) -> &BTreeMap<Name, Arc<Listener>> {
        &self.listeners
    }
}

/// A listener with its connection managers compiled. The same `Arc` as before if nothing in it changed.
#[derive(Debug)]
pub struct Listener {
    config: Arc<model::Listener>,
    /// One a filter chain, the default chain last; `None` where the chain is not HTTP.
    http: Vec<Option<Arc<Http>>>,
    /// The same for TCP.
    tcp: Vec<Option<Arc<Tcp>>>,
    filter_chains: FilterChains,
    observer: Arc<Observer>,
}

impl Listener {
    /// Its configuration.
    pub fn config(&self) -> &Arc<model::Listener> {
        &self.config
    }

    /// The filter chains, compiled for matching.
    pub fn filter_chains(&self) -> &FilterChains {
        &self.filter_chains
    }

    /// Writes the listener's own access logs: of connections, at their end.
    pub fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }

    /// What is told of the connections of a filter chain, by index, if it is TCP.
    pub fn tcp(&self, chain: usize) -> Option<&Arc<Tcp>> {
        self.tcp.get(chain)?.as_ref()
    }

    /// What requests of a filter chain, by index, are served with, if it is HTTP.
    pub fn http(&self, chain: usize) -> Option<&Arc<Http>> {
        self.http.get(chain)?.as_ref()
    }

    /// A filter chain, by index; the default chain comes last.
    pub(crate) fn chain(&self, index: usize) -> Option<&model::FilterChain> {
        let config = &self.config;
        let chains = &config.filter_chains;
        let default = config.default_filter_chain.as_ref();
        chains
            .get(index)
            .or(default.filter(|_| index == chains.len()))
    }

    /// The filter chains in order, the default chain last, each with its connection manager if it is HTTP.
    pub fn chains(&self) -> impl Iterator<Item = (&model::FilterChain, Option<&Arc<Http>>)> {
        let chains = self
            .config
            .filter_chains
            .iter()
            .chain(&self.config.default_filter_chain);
        chains.zip(self.http.iter().map(Option::as_ref))
    }
}

#[cfg(test)]
pub(crate) mod tests;
