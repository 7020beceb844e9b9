//! The cell that holds the newest table of one route configuration.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    model::{Name, RouteConfiguration},
    route::RouteTable,
};

/// A route table that is replaced while connections use it: each request reads the newest.
#[derive(Debug)]
pub struct RouteCell {
    name: Name,
    table: ArcSwap<RouteTable>,
}

impl RouteCell {
    /// A cell with a table.
    pub fn new(name: Name, table: RouteTable) -> Self {
        Self {
            name,
            table: ArcSwap::from_pointee(table),
        }
    }

    /// A cell whose table is still awaited: requests find no route.
    pub(super) fn awaited(name: Name) -> Self {
        Self {
            name,
            table: ArcSwap::from_pointee(RouteTable::empty()),
        }
    }

    /// Name of the route configuration, or of the listener that holds it.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The newest table. A worker that asks often keeps an [`arc_swap::Cache`] over [`RouteCell::swap`].
    pub fn load(&self) -> Arc<RouteTable> {
        self.table.load_full()
    }

    /// The cell itself, for caches.
    pub fn swap(&self) -> &ArcSwap<RouteTable> {
        &self.table
    }

    pub(super) fn store(&self, table: Arc<RouteTable>) {
        self.table.store(table);
    }
}

/// Names of the clusters that a route configuration refers to, each once.
pub(super) fn cluster_names(config: &RouteConfiguration) -> std::collections::HashSet<Name> {
    use crate::model::{Action, ClusterChoice, MatchTree, Mirror, OnMatch, Route, RouteRules};

    fn choice(choice: &ClusterChoice, names: &mut std::collections::HashSet<Name>) {
        match choice {
            ClusterChoice::Name(name) => drop(names.insert(name.clone())),
            ClusterChoice::Weighted(weighted) => {
                names.extend(weighted.arms.iter().map(|arm| arm.name.clone()))
            }
            ClusterChoice::Header(_) => {}
        }
    }
    fn mirrors(mirrors: &[Mirror], names: &mut std::collections::HashSet<Name>) {
        mirrors
            .iter()
            .for_each(|mirror| choice(&mirror.cluster, names));
    }
    fn route(route: &Route, names: &mut std::collections::HashSet<Name>) {
        if let Action::Forward(forward) = &route.action {
            choice(&forward.cluster, names);
            mirrors(&forward.mirrors, names);
        }
    }
    fn on_match(on: &OnMatch, names: &mut std::collections::HashSet<Name>) {
        match on {
            OnMatch::Tree(inner) => tree(inner, names),
            OnMatch::Route(one) => route(one, names),
            OnMatch::Routes(list) => list.iter().for_each(|one| route(one, names)),
            OnMatch::Chain(_) => {}
        }
    }
    fn tree(tree: &MatchTree, names: &mut std::collections::HashSet<Name>) {
        let children = tree.node.children().chain(&tree.on_no_match);
        children.for_each(|on| on_match(on, names));
    }

    let mut names = std::collections::HashSet::new();
    mirrors(&config.mirrors, &mut names);
    for host in &config.virtual_hosts {
        mirrors(&host.mirrors, &mut names);
        match &host.routes {
            RouteRules::List(routes) => routes.iter().for_each(|one| route(one, &mut names)),
            RouteRules::Tree(inner) => tree(inner, &mut names),
        }
    }
    names
}
