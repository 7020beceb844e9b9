//! Model to snapshot, incrementally: only what changed, and what names it, is compiled again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    ChainConflict, Clusters, FilterChains, Http, Listener, RouteCell, Snapshot, Stage, Status,
    StatusReport, Tcp, routes::cluster_names, tcp::logs,
};
use crate::{
    cluster::{Cluster, Monitor},
    config::{Change, Outcome, Rejection, Update},
    model::{
        self, ClusterLoadAssignment, Discovery, HttpConnectionManager, Name, Network,
        RouteConfiguration, RouteSource,
    },
    route::RouteTable,
    telemetry::metrics::Metrics,
};

/// Holds the configuration in force and makes the next snapshot of it. One a mesh, off the request path.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    generation: u64,
    metrics: Metrics,
    own: Own,
    clusters: Clusters,
    /// EDS service name to the clusters that use it.
    services: HashMap<Name, HashSet<Name>>,
    assignments: HashMap<Name, Arc<ClusterLoadAssignment>>,
    tables: HashMap<TableKey, Table>,
    listeners: BTreeMap<Name, Arc<Listener>>,
    /// What is refused; an entry goes when the resource is accepted or removed.
    refused: BTreeMap<Resource, Vec<Rejection>>,
    rejected_updates: u64,
}

/// What the program brings of its own.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Who is told of attempts at endpoints.
    pub(crate) monitor: Option<Arc<dyn Monitor>>,
    /// Who understands further HTTP filters.
    pub(crate) stages: Vec<Arc<dyn Stage>>,
}

/// What can be refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Listener(Name),
    Table(TableKey),
}

/// Where a route configuration stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum TableKey {
    /// In a filter chain of a listener.
    Inline(Name, usize),
    /// By itself (RDS).
    Named(Name),
}

#[derive(Debug)]
struct Table {
    /// `None` as long as it is awaited.
    config: Option<Arc<RouteConfiguration>>,
    /// What it refers to, known to exist or not.
    clusters: HashSet<Name>,
    cell: Arc<RouteCell>,
}

/// A table in a filter chain of a listener that is not in force yet.
#[derive(Debug)]
struct Inline {
    chain: usize,
    cell: Arc<RouteCell>,
    config: Arc<RouteConfiguration>,
}

impl Table {
    /// A table that is to come into `cell`.
    fn awaited(cell: Arc<RouteCell>) -> Self {
        Self {
            config: None,
            clusters: HashSet::new(),
            cell,
        }
    }
}

impl Compiler {
    /// A compiler without configuration, whose listeners count into `metrics`.
    pub(crate) fn new(metrics: Metrics, own: Own) -> Self {
        Self {
            metrics,
            own,
            ..Self::default()
        }
    }

    /// Applies an update. What is refused keeps its last good version; all else takes effect.
    pub(crate) fn apply(&mut self, update: Update) -> (Snapshot, Outcome) {
        let mut round = Round::default();
        let changes = update.changes;
        self.clusters(&changes, &mut round);
        self.endpoints(&changes);
        self.routes(&changes, &mut round);
        self.listeners(&changes, &mut round);
        self.recompile(&mut round);
        self.removals(&changes);
        self.forget_awaited(&changes);
        self.generation += 1;

        let mut rejections = update.rejections;
        rejections.extend(self.refused.values().flatten().cloned());
        if !rejections.is_empty() {
            self.rejected_updates += 1;
        }
        (
            self.snapshot(),
            Outcome {
                version: update.version,
                rejections,
            },
        )
    }

    /// Publishes what became of an update.
    pub(crate) fn report(&self, status: &Status, outcome: &Outcome, notes: Vec<model::Note>) {
        status.store(StatusReport {
            generation: self.generation,
            version: outcome.version.clone(),
            rejections: outcome.rejections.clone(),
            notes,
            rejected_updates: self.rejected_updates,
        });
    }

    /// The directory of clusters, which stays the same over all snapshots.
    pub(crate) fn directory(&self) -> &Clusters {
        &self.clusters
    }

    fn snapshot(&self) -> Snapshot {
        let routes = self.tables.iter().filter_map(|(key, table)| match key {
            TableKey::Named(name) => Some((name.clone(), table.cell.clone())),
            TableKey::Inline(..) => None,
        });
        Snapshot {
            generation: self.generation,
            clusters: self.clusters.clone(),
            routes: routes.collect(),
            listeners: self.listeners.clone(),
        }
    }

    fn clusters(&mut self, changes: &[Change], round: &mut Round) {
        let mut map = None;
        for change in changes {
            let Change::Cluster(config) = change else {
                continue;
            };
            let map = map.get_or_insert_with(|| (*self.clusters.all()).clone());
            let previous = map.get(&config.name);
            if previous.is_some_and(|previous| **previous.config() == **config) {
                continue;
            }
            let cluster = Cluster::new(config.clone(), previous.map(|previous| &**previous));
            let cluster = Arc::new(cluster.monitored(self.own.monitor.clone()));
            let before = previous.and_then(|previous| service(previous.config()));
            let now = service(config);
            if before != now {
                if let Some(users) = before.and_then(|before| self.services.get_mut(before)) {
                    users.remove(&config.name);
                }
                if let Some(now) = now {
                    let users = self.services.entry(now.clone()).or_default();
                    users.insert(config.name.clone());
                }
                if let Some(assignment) = now.and_then(|now| self.assignments.get(now)) {
                    cluster.set_endpoints(assignment);
                }
            }
            round.clusters.insert(config.name.clone());
            map.insert(config.name.clone(), cluster);
        }
        if let Some(map) = map {
            self.clusters.store(map);
        }
    }

    fn endpoints(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Endpoints(assignment) = change else {
                continue;
            };
            let unchanged = self
                .assignments
                .insert(assignment.cluster.clone(), assignment.clone());
            if unchanged.is_some_and(|old| *old == **assignment) {
                continue;
            }
            for name in self.services.get(&assignment.cluster).into_iter().flatten() {
                if let Some(cluster) = self.clusters.get(name) {
                    cluster.set_endpoints(assignment);
                }
            }
        }
    }

    fn routes(&mut self, changes: &[Change], round: &mut Round) {
        for change in changes {
            if let Change::Routes(config) = change {
                self.set_table(TableKey::Named(config.name.clone()), config.clone(), round);
            }
        }
    }

    /// Compiles a table into its cell; on a refusal the cell keeps what it has.
    fn set_table(&mut self, key: TableKey, config: Arc<RouteConfiguration>, round: &mut Round) {
        let awaited = || Table::awaited(Arc::new(RouteCell::awaited(config.name.clone())));
        let table = self.tables.entry(key.clone()).or_insert_with(awaited);
        if table.config.as_ref() == Some(&config) && !round.stale(&table.clusters) {
            return;
        }
        round.compiled.insert(key.clone());
        let resource = Resource::Table(key.clone());
        match RouteTable::staged(&config, &self.clusters, &self.own.stages) {
            Ok(compiled) => {
                table.clusters = cluster_names(&config);
                table.config = Some(config);
                table.cell.store(Arc::new(compiled));
                self.refused.remove(&resource);
            }
            Err(found) => {
                let found = match &key {
                    TableKey::Named(_) => found,
                    TableKey::Inline(name, chain) => of_chain(name, *chain, "route_config", found),
                };
                self.refused.insert(resource, found);
            }
        }
    }

    fn listeners(&mut self, changes: &[Change], round: &mut Round) {
        for change in changes {
            let Change::Listener(config) = change else {
                continue;
            };
            let known = self.listeners.get(&config.name);
            if known.is_none_or(|known| *known.config != **config) {
                self.listener(config, round);
            }
        }
    }

    /// Takes a listener that is new or changed. Of a refused one nothing acts, and its last good version stays in force.
    fn listener(&mut self, config: &Arc<model::Listener>, round: &mut Round) {
        let name = &config.name;
        let mut inline = Vec::new();
        match self.compile_listener(config, &mut inline) {
            Ok(listener) => {
                self.refused.remove(&Resource::Listener(name.clone()));
                self.set_inline(name, inline, round);
                self.listeners.insert(name.clone(), Arc::new(listener));
            }
            Err(mut rejections) => {
                let tables = inline.iter().filter_map(|table| {
                    let stages = &self.own.stages;
                    let found = RouteTable::staged(&table.config, &self.clusters, stages).err()?;
                    Some(of_chain(name, table.chain, "route_config", found))
                });
                rejections.extend(tables.flatten());
                let resource = Resource::Listener(name.clone());
                self.refused.insert(resource, rejections);
            }
        }
    }

    fn compile_listener(
        &mut self,
        config: &Arc<model::Listener>,
        inline: &mut Vec<Inline>,
    ) -> Result<Listener, Vec<Rejection>> {
        let filter_chains = filter_chains(config).map_err(|rejection| vec![rejection])?;
        let chains = config
            .filter_chains
            .iter()
            .chain(&config.default_filter_chain);
        let routes: Vec<_> = chains
            .clone()
            .enumerate()
            .map(|(index, chain)| self.chain_routes(&config.name, index, chain, inline))
            .collect();
        let http = chains
            .zip(routes)
            .enumerate()
            .map(|(index, (chain, routes))| self.chain(config, index, chain, routes))
            .collect::<Result<_, _>>()?;
        let resource: Name = format!("listener {}", config.name).into();
        Ok(Listener {
            config: config.clone(),
            http,
            tcp: self.tcp(config)?,
            filter_chains,
            observer: Arc::new(logs(&config.access_log, &resource)?),
        })
    }

    /// Puts the tables in the filter chains of a listener into force; all that it had before, and has no longer, goes.
    fn set_inline(&mut self, listener: &Name, inline: Vec<Inline>, round: &mut Round) {
        let is_own = |key: &TableKey| matches!(key, TableKey::Inline(name, _) if name == listener);
        let mut old: Vec<Table> = self
            .tables
            .extract_if(|key, _| is_own(key))
            .map(|(_, table)| table)
            .collect();
        self.forget_tables(listener);
        for Inline {
            chain,
            cell,
            config,
        } in inline
        {
            let key = TableKey::Inline(listener.clone(), chain);
            let kept = old.iter().position(|old| Arc::ptr_eq(&old.cell, &cell));
            let table = kept.map_or_else(|| Table::awaited(cell), |at| old.swap_remove(at));
            self.tables.insert(key.clone(), table);
            self.set_table(key, config, round);
        }
    }

    /// The cell of a chain's routes. A chain that the version in force has too, at whatever place, keeps its own, into which
    /// its new table comes with the listener.
    fn chain_routes(
        &mut self,
        listener: &Name,
        index: usize,
        chain: &model::FilterChain,
        inline: &mut Vec<Inline>,
    ) -> Option<Arc<RouteCell>> {
        let Network::Http(manager) = &chain.network else {
            return None;
        };
        let config = match &manager.routes {
            RouteSource::Named(name) => return Some(self.awaited(name)),
            RouteSource::Inline(config) => config.clone(),
        };
        let known = self.known_chain(listener, index, chain);
        let key = known.map(|known| TableKey::Inline(listener.clone(), known));
        let cell = match key.and_then(|key| self.tables.get(&key)) {
            Some(table) => table.cell.clone(),
            None => Arc::new(RouteCell::awaited(config.name.clone())),
        };
        inline.push(Inline {
            chain: index,
            cell: cell.clone(),
            config,
        });
        Some(cell)
    }

    /// Where the version of a listener in force has `chain`: the one of the same name and match, mostly at the same place.
    fn known_chain(
        &self,
        listener: &Name,
        index: usize,
        chain: &model::FilterChain,
    ) -> Option<usize> {
        let known = self.listeners.get(listener)?;
        let same =
            |other: &model::FilterChain| other.name == chain.name && other.matches == chain.matches;
        match known.chain(index) {
            Some(other) if same(other) => Some(index),
            _ => known.chains().position(|(other, _)| same(other)),
        }
    }

    /// Lets go of the tables in the filter chains of a listener, and of what was refused of them.
    fn forget_tables(&mut self, listener: &Name) {
        let own = |key: &TableKey| matches!(key, TableKey::Inline(name, _) if name == listener);
        self.tables.retain(|key, _| !own(key));
        self.refused
            .retain(|resource, _| !matches!(resource, Resource::Table(key) if own(key)));
    }

    /// The manager of a chain whose table is in `routes`; `None`: it is no HTTP chain.
    fn chain(
        &self,
        listener: &model::Listener,
        index: usize,
        chain: &model::FilterChain,
        routes: Option<Arc<RouteCell>>,
    ) -> Result<Option<Arc<Http>>, Vec<Rejection>> {
        let (Network::Http(manager), Some(routes)) = (&chain.network, routes) else {
            return Ok(None);
        };
        let manager: &HttpConnectionManager = manager;
        let resource = format!("listener {}", listener.name).into();
        // An unchanged manager is kept, so that its connections need not be drained.
        let known = self
            .known_chain(&listener.name, index, chain)
            .and_then(|known| self.listeners.get(&listener.name)?.http(known));
        if let Some(known) = known.filter(|known| {
            **known.config() == *manager
                && known.direction() == listener.direction
                && Arc::ptr_eq(known.routes(), &routes)
        }) {
            return Ok(Some(known.clone()));
        }
        let manager = Arc::new(manager.clone());
        Http::with_stages(
            manager,
            routes,
            listener.direction,
            &self.metrics,
            &resource,
            &self.own.stages,
        )
        .map(|http| Some(Arc::new(http)))
        .map_err(|found| of_chain(&listener.name, index, "", found))
    }

    /// What is told of the connections of TCP chains.
    fn tcp(&self, listener: &model::Listener) -> Result<Vec<Option<Arc<Tcp>>>, Vec<Rejection>> {
        let chains = listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain);
        let compile = |(index, chain): (usize, &model::FilterChain)| match &chain.network {
            Network::Tcp(proxy) => {
                let resource = format!("listener {}", listener.name).into();
                Tcp::new(proxy, listener.direction, &self.metrics, &resource)
                    .map(|tcp| Some(Arc::new(tcp)))
                    .map_err(|found| of_chain(&listener.name, index, "", found))
            }
            Network::Http(_) | Network::Answer(_) => Ok(None),
        };
        chains.enumerate().map(compile).collect()
    }

    /// The cell of a named table, which may still be awaited.
    fn awaited(&mut self, name: &Name) -> Arc<RouteCell> {
        let awaited = || Table::awaited(Arc::new(RouteCell::awaited(name.clone())));
        let key = TableKey::Named(name.clone());
        self.tables.entry(key).or_insert_with(awaited).cell.clone()
    }

    /// Tables that refer to a cluster whose handle changed.
    fn recompile(&mut self, round: &mut Round) {
        let stale: Vec<_> = self
            .tables
            .iter()
            .filter(|(key, table)| !round.compiled.contains(*key) && round.stale(&table.clusters))
            .filter_map(|(key, table)| Some((key.clone(), table.config.clone()?)))
            .collect();
        for (key, config) in stale {
            self.set_table(key, config, round);
        }
    }

    fn removals(&mut self, changes: &[Change]) {
        let mut gone = HashSet::new();
        for change in changes {
            match change {
                Change::RemoveListener(name) => {
                    self.listeners.remove(name);
                    self.forget_tables(name);
                    self.refused.remove(&Resource::Listener(name.clone()));
                }
                Change::RemoveRoutes(name) => {
                    self.remove_routes(TableKey::Named(name.clone()));
                }
                Change::RemoveEndpoints(name) => self.remove_endpoints(name),
                Change::RemoveCluster(name) => drop(gone.insert(name.clone())),
                _ => {}
            }
        }
        if gone.is_empty() {
            return;
        }
        let mut map = (*self.clusters.all()).clone();
        map.retain(|name, _| !gone.contains(name));
        self.clusters.store(map);
        self.services
            .values_mut()
            .for_each(|users| users.retain(|name| !gone.contains(name)));
        self.services.retain(|_, users| !users.is_empty());
        let mut round = Round {
            clusters: gone,
            ..Round::default()
        };
        self.recompile(&mut round);
    }

    /// A table that is gone leaves an empty one. A listener that still names it keeps its cell, into which it may come back.
    fn remove_routes(&mut self, key: TableKey) {
        if let Some(table) = self.tables.remove(&key) {
            table.cell.store(Arc::new(RouteTable::empty()));
            if cells(&self.listeners).any(|cell| Arc::ptr_eq(cell, &table.cell)) {
                self.tables.insert(key.clone(), Table::awaited(table.cell));
            }
        }
        self.refused.remove(&Resource::Table(key));
    }

    /// Lets go of tables that nobody awaits any more, once listeners have changed.
    fn forget_awaited(&mut self, changes: &[Change]) {
        let of_listener =
            |change: &Change| matches!(change, Change::Listener(_) | Change::RemoveListener(_));
        if !changes.iter().any(of_listener) {
            return;
        }
        let named: HashSet<_> = cells(&self.listeners).map(Arc::as_ptr).collect();
        self.tables
            .retain(|_, table| table.config.is_some() || named.contains(&Arc::as_ptr(&table.cell)));
    }

    fn remove_endpoints(&mut self, name: &Name) {
        self.assignments.remove(name);
        for user in self.services.get(name).into_iter().flatten() {
            if let Some(cluster) = self.clusters.get(user) {
                cluster.set_endpoints(&ClusterLoadAssignment::default());
            }
        }
    }
}

/// The cells of all routes that listeners have.
fn cells(listeners: &BTreeMap<Name, Arc<Listener>>) -> impl Iterator<Item = &Arc<RouteCell>> {
    let managers = listeners.values().flat_map(|listener| &listener.http);
    managers.flatten().map(|http| http.routes())
}

/// The EDS service whose endpoints a cluster has.
fn service(cluster: &model::Cluster) -> Option<&Name> {
    match &cluster.discovery {
        Discovery::Eds(service) => Some(service),
        _ => None,
    }
}

fn filter_chains(config: &model::Listener) -> Result<FilterChains, Rejection> {
    let default = config.default_filter_chain.is_some();
    match &config.filter_chain_matcher {
        None => FilterChains::compile(&config.filter_chains, default)
            .map_err(|conflict| chain_rejection(&config.name, &conflict)),
        Some(tree) => {
            FilterChains::with_tree(&config.filter_chains, tree, default).map_err(|reason| {
                let resource = format!("listener {}", config.name);
                Rejection::new(resource, "filter_chain_matcher", reason)
            })
        }
    }
}

/// What was found in the terminal filter of a listener's chain, below `field`; the default chain counts as the last.
fn of_chain(listener: &Name, chain: usize, field: &str, found: Vec<Rejection>) -> Vec<Rejection> {
    let below = |rejection: Rejection| {
        let chain = format!("filter_chains[{chain}]");
        let steps = [&*chain, field, &*rejection.path];
        let steps: Vec<&str> = steps.into_iter().filter(|step| !step.is_empty()).collect();
        Rejection {
            resource: format!("listener {listener}").into(),
            path: steps.join(".").into(),
            ..rejection
        }
    };
    found.into_iter().map(below).collect()
}

fn chain_rejection(listener: &Name, conflict: &ChainConflict) -> Rejection {
    let resource = format!("listener {listener}");
    let path = format!("filter_chains[{}].filter_chain_match", conflict.chain());
    Rejection::new(resource, path, conflict.to_string())
}

/// What one update touched.
#[derive(Debug, Default)]
struct Round {
    /// Clusters with a new handle, or without one from now on.
    clusters: HashSet<Name>,
    compiled: HashSet<TableKey>,
}

impl Round {
    fn stale(&self, clusters: &HashSet<Name>) -> bool {
        !self.clusters.is_disjoint(clusters)
    }
}
