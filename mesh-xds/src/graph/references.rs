//! What listeners and route tables refer to.

use mesh_core::model::{
    Action, ClusterChoice, HttpConnectionManager, Listener, MatchTree, Name, Network, OnMatch,
    Route, RouteConfiguration, RouteRules, VirtualHost,
};

/// The connection managers of a listener, with the paths of their filter chains.
pub(super) fn managers(
    listener: &Listener,
) -> impl Iterator<Item = (String, &HttpConnectionManager)> {
    let chains = listener.filter_chains.iter().enumerate();
    let chains = chains.map(|(index, chain)| (format!("filter_chains[{index}]"), chain));
    let default = listener.default_filter_chain.iter();
    let default = default.map(|chain| ("default_filter_chain".to_owned(), chain));
    chains
        .chain(default)
        .filter_map(|(path, chain)| match &chain.network {
            Network::Http(manager) => Some((path, &**manager)),
            _ => None,
        })
}

/// Paths and names of the clusters that TCP proxies of a listener send to.
pub(super) fn tcp_clusters(listener: &Listener) -> Vec<(String, &Name)> {
    let mut out = Vec::new();
    for (index, chain) in listener.filter_chains.iter().enumerate() {
        if let Network::Tcp(proxy) = &chain.network {
            choice(&proxy.cluster, &format!("filter_chains[{index}]"), &mut out);
        }
    }
    if let Some(chain) = &listener.default_filter_chain
        && let Network::Tcp(proxy) = &chain.network
    {
        choice(&proxy.cluster, "default_filter_chain", &mut out);
    }
    out
}

/// Paths and names of the clusters that a table names.
pub(super) fn clusters(table: &RouteConfiguration) -> impl Iterator<Item = (String, &Name)> {
    let mut out = Vec::new();
    for mirror in &table.mirrors {
        choice(&mirror.cluster, "request_mirror_policies", &mut out);
    }
    for (index, host) in table.virtual_hosts.iter().enumerate() {
        virtual_host(host, &format!("virtual_hosts[{index}]"), &mut out);
    }
    out.into_iter()
}

fn virtual_host<'m>(host: &'m VirtualHost, path: &str, out: &mut Vec<(String, &'m Name)>) {
    for mirror in &host.mirrors {
        choice(
            &mirror.cluster,
            &format!("{path}.request_mirror_policies"),
            out,
        );
    }
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
        choice(&forward.cluster, &format!("{path}.route"), out);
        for mirror in &forward.mirrors {
            choice(
                &mirror.cluster,
                &format!("{path}.route.request_mirror_policies"),
                out,
            );
        }
    }
}

fn choice<'m>(choice: &'m ClusterChoice, path: &str, out: &mut Vec<(String, &'m Name)>) {
    match choice {
        ClusterChoice::Name(name) => out.push((format!("{path}.cluster"), name)),
        ClusterChoice::Weighted(weighted) => {
            for (index, arm) in weighted.arms.iter().enumerate() {
                // An arm without a name takes it from a header.
                if !arm.name.is_empty() {
                    out.push((
                        format!("{path}.weighted_clusters.clusters[{index}].name"),
                        &arm.name,
                    ));
                }
            }
        }
        _ => {}
    }
}
