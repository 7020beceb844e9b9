//! Where the objects were read that resources are made of.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use mesh_core::model::Name;

use super::notes::config;
use crate::istio::api::Origin;

/// The place of each path; empty if nothing is known of it. The path of a resource begins with the name of the object that made
/// it; that of a route configuration, which many objects make, with its own name.
pub(super) fn all(
    origins: &BTreeMap<String, Origin>,
    tables: &[RouteConfiguration],
    paths: &[String],
) -> Vec<Name> {
    let one = |path: &String| {
        let of_rule = || origins.get(&rule(tables, path)?);
        let origin = of_resource(origins, path).or_else(of_rule);
        origin.map_or_else(|| Name::from(""), |origin| origin.to_string().into())
    };
    paths.iter().map(one).collect()
}

fn of_resource<'o>(origins: &'o BTreeMap<String, Origin>, path: &str) -> Option<&'o Origin> {
    let mut config = path;
    loop {
        if let Some(origin) = origins.get(config) {
            return Some(origin);
        }
        config = &config[..config.rfind('.')?];
    }
}

/// The object that made the route at `path`, or the first route of its virtual host.
fn rule(tables: &[RouteConfiguration], path: &str) -> Option<String> {
    let (table, below) = path.split_once(".virtual_hosts[")?;
    let table = tables.iter().find(|known| known.name == table)?;
    let (host, below) = below.split_once(']')?;
    let host = table.virtual_hosts.get(host.parse::<usize>().ok()?)?;
    let index = below.strip_prefix(".routes[");
    let index = index.and_then(|below| below.split_once(']'));
    let index = index.map_or(Some(0), |(index, _)| index.parse::<usize>().ok());
    Some(config(host.routes.get(index?)?.metadata.as_ref()))
}
