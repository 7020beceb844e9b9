//! What is in force, in the form of Envoy's `/config_dump`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use mesh_core::model::{Listener, Name, RouteSource};
use serde_json::{Map, Value, json};

use super::{Entry, Kind, State, Table, lock};
use crate::json as protojson;

/// Reads the wire form of the resources in force. Cheap to clone; does not hold up an update for long.
#[derive(Clone, Debug)]
pub struct Dump {
    state: Arc<Mutex<State>>,
}

/// What a dump holds besides bootstrap, clusters, listeners and routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Endpoints of EDS clusters too (`?include_eds`).
    pub include_eds: bool,
}

/// A resource as it was offered.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Its name.
    pub name: Name,
    /// Its wire bytes.
    pub wire: Bytes,
    /// The version of the update that brought it.
    pub version: Name,
    /// When that was.
    pub updated: SystemTime,
    /// Whether it may come and go; otherwise it belongs to the program's start file.
    pub dynamic: bool,
}

impl Offered {
    fn of<T>((name, entry): (&Name, &Entry<T>)) -> Self {
        Self {
            name: name.clone(),
            wire: entry.wire.clone(),
            version: entry.version.clone(),
            updated: entry.updated,
            dynamic: entry.dynamic,
        }
    }
}

impl Dump {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self { state }
    }

    /// The resources of one kind, by name.
    pub fn resources(&self, kind: Kind) -> Vec<Offered> {
        fn all<T>(table: &Table<T>) -> Vec<Offered> {
            table.entries.iter().map(Offered::of).collect()
        }
        let state = lock(&self.state);
        match kind {
            Kind::Cluster => all(&state.clusters),
            Kind::Endpoints => all(&state.endpoints),
            Kind::Routes => all(&state.routes),
            Kind::Listener => all(&state.listeners),
        }
    }

    /// The JSON form of one resource.
    pub fn resource(&self, kind: Kind, name: &str) -> Option<Value> {
        let (wire, _) = lock(&self.state).wire_of(kind, name)?;
        protojson::wire_to_value(kind.message(), &wire).ok()
    }

    /// Who the proxy is: the bootstrap's `node`.
    pub fn node(&self) -> Value {
        let mut bootstrap = self.bootstrap();
        bootstrap["node"].take()
    }

    fn bootstrap(&self) -> Value {
        let wire = lock(&self.state).bootstrap.clone();
        protojson::wire_to_value("envoy.config.bootstrap.v3.Bootstrap", &wire).unwrap_or_default()
    }

    /// The whole dump: `{"configs": […]}` with Envoy's sections.
    pub fn to_value(&self, options: DumpOptions) -> Value {
        let (version, updated, inline) = {
            let state = lock(&self.state);
            let listeners = state.listeners.entries.values();
            let inline: Vec<_> = listeners.flat_map(inline_tables).collect();
            let updated = state.updated.unwrap_or(UNIX_EPOCH);
            (state.version.clone(), updated, inline)
        };
        let clusters = self.items(Kind::Cluster, "cluster");
        let listeners = self.items(Kind::Listener, "listener");
        let mut bootstrap = self.bootstrap();
        for (field, key, list) in [
            ("clusters", "cluster", &clusters.fixed),
            ("listeners", "listener", &listeners.fixed),
        ] {
            let plain: Vec<Value> = list.iter().map(|item| untyped(&item[key])).collect();
            if !plain.is_empty() {
                bootstrap["static_resources"][field] = plain.into();
            }
        }
        let mut configs = vec![section(
            "BootstrapConfigDump",
            [
                ("bootstrap", bootstrap),
                ("last_updated", text(updated).into()),
            ],
        )];
        let endpoints = options.include_eds.then(|| self.endpoints(&clusters));
        configs.push(section(
            "ClustersConfigDump",
            [
                ("version_info", clusters.version(&version)),
                ("static_clusters", clusters.fixed.into()),
                ("dynamic_active_clusters", clusters.dynamic.into()),
            ],
        ));
        configs.extend(endpoints);
        configs.push(listeners_section(listeners, &version));
        configs.push(section("ScopedRoutesConfigDump", []));
        configs.push(self.routes(inline));
        configs.push(section("SecretsConfigDump", []));
        json!({ "configs": configs })
    }

    /// Endpoints as they came by themselves, and as they stand in the clusters.
    fn endpoints(&self, clusters: &Items) -> Value {
        let items = self.items(Kind::Endpoints, "endpoint_config");
        let mut fixed = items.fixed;
        let all = clusters.fixed.iter().chain(&clusters.dynamic);
        fixed.extend(all.filter_map(|item| own_endpoints(&item["cluster"])));
        section(
            "EndpointsConfigDump",
            [
                ("static_endpoint_configs", fixed.into()),
                ("dynamic_endpoint_configs", items.dynamic.into()),
            ],
        )
    }

    fn routes(&self, inline: Vec<(Value, SystemTime)>) -> Value {
        let inline = inline.into_iter().map(
            |(table, updated)| json!({ "route_config": table, "last_updated": text(updated) }),
        );
        let items = self.items(Kind::Routes, "route_config");
        let dynamic: Vec<Value> = items.fixed.into_iter().chain(items.dynamic).collect();
        section(
            "RoutesConfigDump",
            [
                ("static_route_configs", inline.collect()),
                ("dynamic_route_configs", dynamic.into()),
            ],
        )
    }

    fn items(&self, kind: Kind, field: &str) -> Items {
        let mut items = Items::default();
        for offered in self.resources(kind) {
            let list = match offered.dynamic {
                true => &mut items.dynamic,
                false => &mut items.fixed,
            };
            list.push(item(kind, field, &offered));
        }
        items
    }
}

/// Resources of one kind: those of the start file, and those that may come and go.
#[derive(Debug, Default)]
struct Items {
    fixed: Vec<Value>,
    dynamic: Vec<Value>,
}

impl Items {
    /// The version of the kind, which only resources have that may change.
    fn version(&self, version: &str) -> Value {
        match self.dynamic.is_empty() {
            true => Value::Null,
            false => version.into(),
        }
    }
}

fn listeners_section(mut listeners: Items, version: &str) -> Value {
    let version = listeners.version(version);
    let dynamic = listeners.dynamic.drain(..).map(|state| {
        let name = state["listener"]["name"].clone();
        json!({ "name": name, "active_state": state })
    });
    let dynamic: Value = dynamic.collect();
    section(
        "ListenersConfigDump",
        [
            ("version_info", version),
            ("static_listeners", listeners.fixed.into()),
            ("dynamic_listeners", dynamic),
        ],
    )
}

/// The endpoints that stand in a cluster, with what Envoy says of each.
fn own_endpoints(cluster: &Value) -> Option<Value> {
    let mut assignment = untyped(cluster.get("load_assignment")?);
    assignment["@type"] = format!("type.googleapis.com/{}", Kind::Endpoints.message()).into();
    assignment["cluster_name"] = cluster["name"].clone();
    if assignment["policy"]["overprovisioning_factor"].is_null() {
        assignment["policy"]["overprovisioning_factor"] = 140.into();
    }
    let groups = assignment
        .get_mut("endpoints")
        .and_then(Value::as_array_mut);
    for endpoint in groups
        .into_iter()
        .flatten()
        .filter_map(|group| group.get_mut("lb_endpoints")?.as_array_mut())
        .flatten()
    {
        for (field, default) in [
            ("health_status", Value::from("HEALTHY")),
            ("load_balancing_weight", Value::from(1)),
        ] {
            if endpoint.get(field).is_none() {
                endpoint[field] = default;
            }
        }
    }
    Some(json!({ "endpoint_config": assignment }))
}

/// A resource without its `@type`.
fn untyped(value: &Value) -> Value {
    let mut value = value.clone();
    if let Value::Object(fields) = &mut value {
        fields.remove("@type");
    }
    value
}

fn item(kind: Kind, field: &str, offered: &Offered) -> Value {
    let mut out = Map::new();
    if offered.dynamic {
        out.insert("version_info".to_owned(), Value::from(&*offered.version));
    }
    out.insert(field.to_owned(), typed(kind.message(), &offered.wire));
    out.insert("last_updated".to_owned(), text(offered.updated).into());
    Value::Object(out)
}

/// A resource with its `@type`, as in an `Any`.
fn typed(message: &str, wire: &[u8]) -> Value {
    let mut value = protojson::wire_to_value(message, wire).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        fields.insert(
            "@type".to_owned(),
            format!("type.googleapis.com/{message}").into(),
        );
    }
    value
}

fn section<const N: usize>(message: &str, fields: [(&str, Value); N]) -> Value {
    let mut out: BTreeMap<_, _> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .filter(|(_, value)| !matches!(value, Value::Null) && value != &Value::Array(Vec::new()))
        .collect();
    let url = format!("type.googleapis.com/envoy.admin.v3.{message}");
    out.insert("@type".to_owned(), url.into());
    out.into_iter().collect()
}

fn text(time: SystemTime) -> String {
    protojson::timestamp_text_of(time)
}

/// The route tables that stand in a listener, which Envoy lists as static.
fn inline_tables(entry: &Entry<Listener>) -> Vec<(Value, SystemTime)> {
    let inline = super::references::managers(&entry.model)
        .any(|(_, manager)| matches!(manager.routes, RouteSource::Inline(_)));
    let Some(listener) = inline
        .then(|| protojson::wire_to_value(Kind::Listener.message(), &entry.wire).ok())
        .flatten()
    else {
        return Vec::new();
    };
    let mut chains: Vec<Value> = listener["filter_chains"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    chains.push(listener["default_filter_chain"].clone());
    let mut out = Vec::new();
    for filter in chains
        .iter()
        .flat_map(|chain| chain["filters"].as_array().into_iter().flatten())
    {
        if let Value::Object(table) = &filter["typed_config"]["route_config"] {
            let mut table = table.clone();
            let url = format!("type.googleapis.com/{}", Kind::Routes.message());
            table.insert("@type".to_owned(), url.into());
            out.push((Value::Object(table), entry.updated));
        }
    }
    out
}
