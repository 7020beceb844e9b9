//! What listeners and route tables refer to.

use mesh_core::model::{
    Action, ClusterChoice, FilterChain, HttpConnectionManager, Listener, MatchTree, Mirror, Name,
    Network, OnMatch, Route, RouteConfiguration, RouteRules, VirtualHost,
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

/// The clusters that TCP proxies of a listener send to: the path of the filter chain, that in the proxy, and the name.
pub(super) fn tcp_clusters(listener: &Listener) -> Vec<(String, String, &Name)> {
    let mut out = Vec::new();
    for (path, chain) in chains(listener) {
        if let Network::Tcp(proxy) = &chain.network {
            let mut names = Vec::new();
            choice(&proxy.cluster, "", &mut names);
            let names = names.into_iter();
            out.extend(names.map(|(at, name)| (path.clone(), at, name)));
        }
    }
    out
}

/// Paths and names of the clusters that a table names.
pub(super) fn clusters(table: &RouteConfiguration) -> impl Iterator<Item = (String, &Name)> {
    let mut out = Vec::new();
    mirrors(&table.mirrors, "", &mut out);
    for (index, host) in table.virtual_hosts.iter().enumerate() {
        virtual_host(host, &format!("virtual_hosts[{index}]"), &mut out);
    }
    out.into_iter()
}

/// The same without those that only matcher trees name, which Envoy does not look for.
pub(super) fn validated(table: &RouteConfiguration) -> impl Iterator<Item = (String, &Name)> {
    let hosts = table.virtual_hosts.iter().enumerate();
    let trees: Vec<_> = hosts
        .filter(|(_, host)| matches!(host.routes, RouteRules::Tree(_)))
        .map(|(index, _)| format!("virtual_hosts[{index}].matcher"))
        .collect();
    let of_tree = move |path: &str| trees.iter().any(|tree| path.starts_with(tree));
    clusters(table).filter(move |(path, _)| !of_tree(path))
}

fn virtual_host<'m>(host: &'m VirtualHost, path: &str, out: &mut Vec<(String, &'m Name)>) {
    mirrors(&host.mirrors, &format!("{path}."), out);
    match &host.routes {
        RouteRules::List(routes) => list(routes, path, out),
        RouteRules::Tree(node) => tree(node, &format!("{path}.matcher"), out),
    }
}

fn list<'m>(routes: &'m [Route], path: &str, out: &mut Vec<(String, &'m Name)>) {
    for (index, one) in routes.iter().enumerate() {
        route(one, &format!("{path}.routes[{index}]"), out);
    }
}

fn tree<'m>(node: &'m MatchTree, path: &str, out: &mut Vec<(String, &'m Name)>) {
    for child in node.node.children().chain(&node.on_no_match) {
        match child {
            OnMatch::Tree(inner) => tree(inner, path, out),
            OnMatch::Route(one) => route(one, path, out),
            OnMatch::Routes(routes) => list(routes, path, out),
            OnMatch::Chain(_) => {}
        }
    }
}

fn route<'m>(route: &'m Route, path: &str, out: &mut Vec<(String, &'m Name)>) {
    if let Action::Forward(forward) = &route.action {
        let path = format!("{path}.route.");
        choice(&forward.cluster, &path, out);
        mirrors(&forward.mirrors, &path, out);
    }
}

fn mirrors<'m>(mirrors: &'m [Mirror], path: &str, out: &mut Vec<(String, &'m Name)>) {
    for (index, mirror) in mirrors.iter().enumerate() {
        let path = format!("{path}request_mirror_policies[{index}].");
        choice(&mirror.cluster, &path, out);
    }
}

/// `path` is empty or ends with a dot.
fn choice<'m>(choice: &'m ClusterChoice, path: &str, out: &mut Vec<(String, &'m Name)>) {
    match choice {
        ClusterChoice::Name(name) => out.push((format!("{path}cluster"), name)),
        ClusterChoice::Weighted(weighted) => {
            for (index, arm) in weighted.arms.iter().enumerate() {
                // An arm without a name takes it from a header.
                if !arm.name.is_empty() {
                    out.push((
                        format!("{path}weighted_clusters.clusters[{index}].name"),
                        &arm.name,
                    ));
                }
            }
        }
        _ => {}
    }
}
