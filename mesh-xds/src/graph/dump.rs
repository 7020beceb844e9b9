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
}

impl Offered {
    fn of<T>((name, entry): (&Name, &Entry<T>)) -> Self {
        Self {
            name: name.clone(),
            wire: entry.wire.clone(),
            version: entry.version.clone(),
            updated: entry.updated,
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
        let wire = {
            let state = lock(&self.state);
            match kind {
                Kind::Cluster => wire_of(&state.clusters, name),
                Kind::Endpoints => wire_of(&state.endpoints, name),
                Kind::Routes => wire_of(&state.routes, name),
                Kind::Listener => wire_of(&state.listeners, name),
            }
        }?;
        protojson::wire_to_value(kind.message(), &wire).ok()
    }

    /// The whole dump: `{"configs": […]}` with Envoy's sections.
    pub fn to_value(&self, options: DumpOptions) -> Value {
        let (dynamic, version, bootstrap, updated, inline) = {
            let state = lock(&self.state);
            let listeners = state.listeners.entries.values();
            let inline: Vec<_> = listeners.flat_map(inline_tables).collect();
            let updated = state.updated;
            (
                state.dynamic,
                state.version.clone(),
                state.bootstrap.clone(),
                updated,
                inline,
            )
        };
        let updated = text(updated.unwrap_or(UNIX_EPOCH));
        let bootstrap = protojson::wire_to_value("envoy.config.bootstrap.v3.Bootstrap", &bootstrap);
        let mut configs = vec![section(
            "BootstrapConfigDump",
            [
                ("bootstrap", bootstrap.unwrap_or_default()),
                ("last_updated", updated.into()),
            ],
        )];
        configs.push(self.clusters(dynamic, &version));
        if options.include_eds {
            configs.push(self.endpoints(dynamic));
        }
        configs.push(self.listeners(dynamic, &version));
        configs.push(self.routes(dynamic, inline));
        json!({ "configs": configs })
    }

    fn clusters(&self, dynamic: bool, version: &str) -> Value {
        let items = self.items(Kind::Cluster, "cluster", dynamic);
        let field = if dynamic {
            "dynamic_active_clusters"
        } else {
            "static_clusters"
        };
        section(
            "ClustersConfigDump",
            [("version_info", version.into()), (field, items)],
        )
    }

    fn endpoints(&self, dynamic: bool) -> Value {
        let items = self.items(Kind::Endpoints, "endpoint_config", dynamic);
        let field = if dynamic {
            "dynamic_endpoint_configs"
        } else {
            "static_endpoint_configs"
        };
        section("EndpointsConfigDump", [(field, items)])
    }

    fn listeners(&self, dynamic: bool, version: &str) -> Value {
        let (field, items) = if dynamic {
            let active = self.resources(Kind::Listener).into_iter().map(|offered| {
                let state = item(Kind::Listener, "listener", &offered, true);
                json!({ "name": &*offered.name, "active_state": state })
            });
            ("dynamic_listeners", active.collect())
        } else {
            (
                "static_listeners",
                self.items(Kind::Listener, "listener", false),
            )
        };
        section(
            "ListenersConfigDump",
            [("version_info", version.into()), (field, items)],
        )
    }

    fn routes(&self, dynamic: bool, inline: Vec<(Value, SystemTime)>) -> Value {
        let inline = inline.into_iter().map(
            |(table, updated)| json!({ "route_config": table, "last_updated": text(updated) }),
        );
        section(
            "RoutesConfigDump",
            [
                ("static_route_configs", inline.collect()),
                (
                    "dynamic_route_configs",
                    self.items(Kind::Routes, "route_config", dynamic),
                ),
            ],
        )
    }

    fn items(&self, kind: Kind, field: &str, dynamic: bool) -> Value {
        let all = self.resources(kind).into_iter();
        all.map(|offered| item(kind, field, &offered, dynamic))
            .collect()
    }
}

fn wire_of<T>(table: &Table<T>, name: &str) -> Option<Bytes> {
    table.entries.get(name).map(|entry| entry.wire.clone())
}

fn item(kind: Kind, field: &str, offered: &Offered, dynamic: bool) -> Value {
    let mut out = Map::new();
    if dynamic {
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
