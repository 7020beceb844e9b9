//! Model to snapshot, incrementally: only what changed, and what names it, is compiled again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    ChainConflict, Clusters, FilterChains, Http, Listener, RouteCell, Snapshot, Status,
    StatusReport, Tcp, routes::cluster_names, tcp::logs,
};
use crate::{
    cluster::Cluster,
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
pub struct Compiler {
    generation: u64,
    metrics: Metrics,
    clusters: Clusters,
    /// EDS service name to the clusters that use it.
    services: HashMap<Name, HashSet<Name>>,
    assignments: HashMap<Name, Arc<ClusterLoadAssignment>>,
    tables: HashMap<TableKey, Table>,
    listeners: BTreeMap<Name, Arc<Listener>>,
    /// Refused resources by type and name; an entry goes when the resource is accepted or removed.
    refused: BTreeMap<Name, Vec<Rejection>>,
    rejected_updates: u64,
}

/// Where a route configuration stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TableKey {
    /// By itself (RDS).
    Named(Name),
    /// In a filter chain of a listener.
    Inline(Name, usize),
}

#[derive(Debug)]
struct Table {
    /// `None` as long as it is awaited.
    config: Option<Arc<RouteConfiguration>>,
    /// What it refers to, known to exist or not.
    clusters: HashSet<Name>,
    cell: Arc<RouteCell>,
}

impl Compiler {
    /// A compiler without configuration, whose listeners count into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Applies an update. What is refused keeps its last good version; all else takes effect.
    pub fn apply(&mut self, update: Update) -> (Snapshot, Outcome) {
        let before: HashMap<Name, usize> = self
            .refused
            .iter()
            .map(|(name, list)| (name.clone(), list.len()))
            .collect();
        let mut round = Round::default();
        let changes = update.changes;
        self.clusters(&changes, &mut round);
        self.endpoints(&changes);
        self.routes(&changes, &mut round);
        self.listeners(&changes, &mut round);
        self.recompile(&mut round);
        self.removals(&changes);
        self.generation += 1;

        let mut rejections = update.rejections;
        rejections.extend(
            self.refused
                .iter()
                .filter(|(name, _)| round.refused.contains(*name) || before.contains_key(*name))
                .flat_map(|(_, list)| list.iter().cloned()),
        );
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
    pub fn report(&self, status: &Status, outcome: &Outcome, notes: Vec<model::Note>) {
        status.store(StatusReport {
            generation: self.generation,
            version: outcome.version.clone(),
            rejections: outcome.rejections.clone(),
            notes,
            rejected_updates: self.rejected_updates,
        });
    }

    /// The directory of clusters, which stays the same over all snapshots.
    pub fn directory(&self) -> &Clusters {
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
            let cluster = Arc::new(Cluster::new(
                config.clone(),
                previous.map(|previous| &**previous),
            ));
            if let Discovery::Eds(service) = &config.discovery {
                let first = self
                    .services
                    .entry(service.clone())
                    .or_default()
                    .insert(config.name.clone());
                if let Some(assignment) = self
                    .assignments
                    .get(service)
                    .filter(|_| first || previous.is_none())
                {
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
    fn set_table(
        &mut self,
        key: TableKey,
        config: Arc<RouteConfiguration>,
        round: &mut Round,
    ) -> Arc<RouteCell> {
        let resource: Name = match &key {
            TableKey::Named(name) => format!("route configuration {name}").into(),
            TableKey::Inline(listener, chain) => {
                format!("listener {listener} filter_chains[{chain}] route_config").into()
            }
        };
        let table = self.tables.entry(key.clone()).or_insert_with(|| Table {
            config: None,
            clusters: HashSet::new(),
            cell: Arc::new(RouteCell::awaited(config.name.clone())),
        });
        let cell = table.cell.clone();
        if table.config.as_ref() == Some(&config) && !round.stale(&table.clusters) {
            return cell;
        }
        round.compiled.insert(key);
        match RouteTable::compile(&config, &self.clusters) {
            Ok(compiled) => {
                table.clusters = cluster_names(&config);
                table.config = Some(config);
                cell.store(Arc::new(compiled));
                self.refused.remove(&resource);
            }
            Err(rejections) => self.refuse(resource, rejections, round),
        }
        cell
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

    /// Compiles a listener that is new or changed; a refused one leaves its last good version in force.
    fn listener(&mut self, config: &Arc<model::Listener>, round: &mut Round) {
        let resource: Name = format!("listener {} filter_chains", config.name).into();
        let filter_chains = match filter_chains(config) {
            Ok(filter_chains) => filter_chains,
            Err(rejection) => {
                self.refuse(resource, vec![rejection], round);
                return;
            }
        };
        self.refused.remove(&resource);
        let resource: Name = format!("listener {}", config.name).into();
        let chains = config
            .filter_chains
            .iter()
            .chain(&config.default_filter_chain);
        let compiled: Result<Vec<_>, _> = chains
            .enumerate()
            .map(|(index, chain)| self.chain(config, index, chain, round))
            .collect();
        let told = compiled.and_then(|http| {
            Ok((
                http,
                self.tcp(config)?,
                logs(&config.access_log, &resource)?,
            ))
        });
        let (http, tcp, observer) = match told {
            Ok(told) => told,
            Err(rejections) => {
                self.refuse(resource, rejections, round);
                return;
            }
        };
        self.refused.remove(&resource);
        let gone = http.len()..;
        self.tables.retain(|key, _| !matches!(key, TableKey::Inline(name, index) if *name == config.name && gone.contains(index)));
        self.listeners.insert(
            config.name.clone(),
            Arc::new(Listener {
                config: config.clone(),
                http,
                tcp,
                filter_chains,
                observer: Arc::new(observer),
            }),
        );
    }

    fn chain(
        &mut self,
        listener: &model::Listener,
        index: usize,
        chain: &model::FilterChain,
        round: &mut Round,
    ) -> Result<Option<Arc<Http>>, Vec<Rejection>> {
        let Network::Http(manager) = &chain.network else {
            return Ok(None);
        };
        let manager: &HttpConnectionManager = manager;
        let routes = match &manager.routes {
            RouteSource::Inline(config) => self.set_table(
                TableKey::Inline(listener.name.clone(), index),
                config.clone(),
                round,
            ),
            RouteSource::Named(name) => self.awaited(name),
        };
        let resource = format!("listener {} filter_chains[{index}]", listener.name).into();
        // An unchanged manager is kept, so that its connections need not be drained.
        let known = self
            .listeners
            .get(&listener.name)
            .and_then(|known| known.http.get(index)?.clone());
        if let Some(known) = known.filter(|known| {
            **known.config() == *manager
                && known.direction() == listener.direction
                && Arc::ptr_eq(known.routes(), &routes)
        }) {
            return Ok(Some(known));
        }
        let manager = Arc::new(manager.clone());
        Http::new(
            manager,
            routes,
            listener.direction,
            &self.metrics,
            &resource,
        )
        .map(|http| Some(Arc::new(http)))
    }

    /// What is told of the connections of TCP chains.
    fn tcp(&self, listener: &model::Listener) -> Result<Vec<Option<Arc<Tcp>>>, Vec<Rejection>> {
        let chains = listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain);
        let compile = |(index, chain): (usize, &model::FilterChain)| match &chain.network {
            Network::Tcp(proxy) => {
                let resource = format!("listener {} filter_chains[{index}]", listener.name).into();
                let tcp = Tcp::new(proxy, listener.direction, &self.metrics, &resource)?;
                Ok(Some(Arc::new(tcp)))
            }
            Network::Http(_) => Ok(None),
        };
        chains.enumerate().map(compile).collect()
    }

    /// The cell of a named table, which may still be awaited.
    fn awaited(&mut self, name: &Name) -> Arc<RouteCell> {
        let table = self
            .tables
            .entry(TableKey::Named(name.clone()))
            .or_insert_with(|| Table {
                config: None,
                clusters: HashSet::new(),
                cell: Arc::new(RouteCell::awaited(name.clone())),
            });
        table.cell.clone()
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
                    self.tables.retain(
                        |key, _| !matches!(key, TableKey::Inline(listener, _) if listener == name),
                    );
                    self.refused
                        .retain(|resource, _| !resource.starts_with(&*format!("listener {name} ")));
                }
                Change::RemoveRoutes(name) => {
                    if let Some(table) = self.tables.remove(&TableKey::Named(name.clone())) {
                        table.cell.store(Arc::new(RouteTable::empty()));
                    }
                    self.refused.remove(&*format!("route configuration {name}"));
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

    fn remove_endpoints(&mut self, name: &Name) {
        self.assignments.remove(name);
        for user in self.services.get(name).into_iter().flatten() {
            if let Some(cluster) = self.clusters.get(user) {
                cluster.set_endpoints(&ClusterLoadAssignment::default());
            }
        }
    }

    fn refuse(&mut self, resource: Name, rejections: Vec<Rejection>, round: &mut Round) {
        round.refused.insert(resource.clone());
        self.refused.insert(resource, rejections);
    }
}

fn filter_chains(config: &model::Listener) -> Result<FilterChains, Rejection> {
    let default = config.default_filter_chain.is_some();
    match &config.filter_chain_matcher {
        None => FilterChains::compile(&config.filter_chains, default)
            .map_err(|conflict| chain_rejection(&config.name, &conflict)),
        Some(tree) => {
            FilterChains::with_tree(&config.filter_chains, tree, default).map_err(|reason| {
                Rejection {
                    resource: format!("listener {}", config.name).into(),
                    path: "filter_chain_matcher".into(),
                    reason: reason.into(),
                    location: "".into(),
                }
            })
        }
    }
}

fn chain_rejection(listener: &Name, conflict: &ChainConflict) -> Rejection {
    Rejection {
        resource: format!("listener {listener}").into(),
        path: format!("filter_chains[{}].filter_chain_match", conflict.chain()).into(),
        reason: conflict.to_string().into(),
        location: "".into(),
    }
}

/// What one update touched.
#[derive(Debug, Default)]
struct Round {
    /// Clusters with a new handle, or without one from now on.
    clusters: HashSet<Name>,
    compiled: HashSet<TableKey>,
    refused: HashSet<Name>,
}

impl Round {
    fn stale(&self, clusters: &HashSet<Name>) -> bool {
        !self.clusters.is_disjoint(clusters)
    }
}
