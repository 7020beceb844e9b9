//! What listeners and route tables refer to.

use mesh_core::model::{
    Action, ClusterChoice, FilterChain, HttpConnectionManager, Listener, MatchTree, Mirror, Name,
    Network, OnMatch, Route, RouteConfiguration, RouteRules,
};

/// The connection managers of a listener, with the paths of their filter chains.
pub(super) fn managers(
    listener: &Listener,
) -> impl Iterator<Item = (String, &HttpConnectionManager)> {
    chains(listener).filter_map(|(path, chain)| match &chain.network {
        Network::Http(manager) => Some((path, &**manager)),
        _ => None,
    })
}

fn chains(listener: &Listener) -> impl Iterator<Item = (String, &FilterChain)> {
    let chains = listener.filter_chains.iter().enumerate();
    let chains = chains.map(|(index, chain)| (format!("filter_chains[{index}]"), chain));
    let default = listener.default_filter_chain.iter();
    chains.chain(default.map(|chain| ("default_filter_chain".to_owned(), chain)))
}

/// The clusters that TCP proxies of a listener send to, of those that `wanted` holds for: the path of the filter chain, that in
/// the proxy, and the name.
pub(super) fn tcp_clusters(
    listener: &Listener,
    wanted: impl Fn(&Name) -> bool,
) -> Vec<(String, String, &Name)> {
    let mut out = Vec::new();
    for (path, chain) in chains(listener) {
        if let Network::Tcp(proxy) = &chain.network {
            let mut search = Search::new(&wanted);
            search.choice(&proxy.cluster);
            // A chain without filters has no cluster.
            let found = search
                .found
                .into_iter()
                .filter(|(_, name)| !name.is_empty());
            out.extend(found.map(|(at, name)| (path.clone(), at, name)));
        }
    }
    out
}

/// Paths and names of the clusters that a table names, of those that `wanted` holds for.
pub(super) fn clusters(
    table: &RouteConfiguration,
    wanted: impl Fn(&Name) -> bool,
) -> Vec<(String, &Name)> {
    let mut search = Search::new(&wanted);
    search.table(table);
    search.found
}

/// The same without those that only matcher trees name, which Envoy does not look for.
pub(super) fn validated(
    table: &RouteConfiguration,
    wanted: impl Fn(&Name) -> bool,
) -> Vec<(String, &Name)> {
    let mut search = Search {
        trees: false,
        ..Search::new(&wanted)
    };
    search.table(table);
    search.found
}

/// A field, and the place in it if it is a list.
type Step = (&'static str, Option<usize>);

/// A walk over all that names clusters. A path is made only for what is wanted: most tables lead to thousands of clusters, and
/// to none of those that are asked for.
struct Search<'s, 'm> {
    wanted: &'s dyn Fn(&Name) -> bool,
    /// Whether the leaves of matcher trees are looked at.
    trees: bool,
    /// The field that the walk has come to.
    at: Vec<Step>,
    found: Vec<(String, &'m Name)>,
}

impl<'s, 'm> Search<'s, 'm> {
    fn new(wanted: &'s dyn Fn(&Name) -> bool) -> Self {
        Self {
            wanted,
            trees: true,
            at: Vec::new(),
            found: Vec::new(),
        }
    }

    fn within(&mut self, step: Step, inner: impl FnOnce(&mut Self)) {
        self.at.push(step);
        inner(self);
        self.at.pop();
    }

    fn name(&mut self, name: &'m Name) {
        if (self.wanted)(name) {
            let steps = self.at.iter().map(|(field, index)| match index {
                Some(index) => format!("{field}[{index}]"),
                None => (*field).to_owned(),
            });
            let path: Vec<String> = steps.collect();
            self.found.push((path.join("."), name));
        }
    }

    fn table(&mut self, table: &'m RouteConfiguration) {
        self.mirrors(&table.mirrors);
        for (index, host) in table.virtual_hosts.iter().enumerate() {
            self.within(("virtual_hosts", Some(index)), |search| {
                search.mirrors(&host.mirrors);
                match &host.routes {
                    RouteRules::List(routes) => search.routes(routes),
                    RouteRules::Tree(tree) if search.trees => {
                        search.within(("matcher", None), |search| search.tree(tree));
                    }
                    RouteRules::Tree(_) => {}
                }
            });
        }
    }

    fn routes(&mut self, routes: &'m [Route]) {
        for (index, route) in routes.iter().enumerate() {
            self.within(("routes", Some(index)), |search| search.route(route));
        }
    }

    fn tree(&mut self, tree: &'m MatchTree) {
        for child in tree.node.children().chain(&tree.on_no_match) {
            match child {
                OnMatch::Tree(inner) => self.tree(inner),
                OnMatch::Route(route) => self.route(route),
                OnMatch::Routes(routes) => self.routes(routes),
                OnMatch::Chain(_) => {}
            }
        }
    }

    fn route(&mut self, route: &'m Route) {
        if let Action::Forward(forward) = &route.action {
            self.within(("route", None), |search| {
                search.choice(&forward.cluster);
                search.mirrors(&forward.mirrors);
            });
        }
    }

    fn mirrors(&mut self, mirrors: &'m [Mirror]) {
        for (index, mirror) in mirrors.iter().enumerate() {
            self.within(("request_mirror_policies", Some(index)), |search| {
                search.choice(&mirror.cluster);
            });
        }
    }

    fn choice(&mut self, choice: &'m ClusterChoice) {
        match choice {
            ClusterChoice::Name(name) => self.within(("cluster", None), |search| search.name(name)),
            ClusterChoice::Weighted(weighted) => {
                self.within(("weighted_clusters", None), |search| {
                    for (index, arm) in weighted.arms.iter().enumerate() {
                        // An arm without a name takes it from a header.
                        if !arm.name.is_empty() {
                            search.within(("clusters", Some(index)), |search| {
                                search.within(("name", None), |search| search.name(&arm.name));
                            });
                        }
                    }
                })
            }
            _ => {}
        }
    }
}
