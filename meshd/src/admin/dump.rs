//! `/config_dump` and `/config_status`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::model::Address;
use mesh_xds::graph::DumpOptions;
use serde_json::{Value, json};

use super::{Admin, Query, json_page, mask, page};

/// The repeated fields of Envoy's dumps, and what their elements are.
const REPEATED: &[(&str, &str)] = &[
    ("static_clusters", "ClustersConfigDump.StaticCluster"),
    (
        "dynamic_active_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    (
        "dynamic_warming_clusters",
        "ClustersConfigDump.DynamicCluster",
    ),
    ("static_listeners", "ListenersConfigDump.StaticListener"),
    ("dynamic_listeners", "ListenersConfigDump.DynamicListener"),
    ("static_route_configs", "RoutesConfigDump.StaticRouteConfig"),
    (
        "dynamic_route_configs",
        "RoutesConfigDump.DynamicRouteConfig",
    ),
    (
        "static_endpoint_configs",
        "EndpointsConfigDump.StaticEndpointConfig",
    ),
    (
        "dynamic_endpoint_configs",
        "EndpointsConfigDump.DynamicEndpointConfig",
    ),
    (
        "inline_scoped_route_configs",
        "ScopedRoutesConfigDump.InlineScopedRouteConfigs",
    ),
    (
        "dynamic_scoped_route_configs",
        "ScopedRoutesConfigDump.DynamicScopedRouteConfigs",
    ),
    ("static_secrets", "SecretsConfigDump.StaticSecret"),
    ("dynamic_active_secrets", "SecretsConfigDump.DynamicSecret"),
    ("dynamic_warming_secrets", "SecretsConfigDump.DynamicSecret"),
];

impl Admin {
    /// Envoy's dump: one element a kind of resource. `resource` names the repeated field of which only the elements are
    /// given, `mask` the fields to keep, `name_regex` keeps those whose names match, and endpoints come only with
    /// `include_eds`.
    pub(super) fn config_dump(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        // Envoy's errors here have this type.
        let refuse = |status, reason| page(status, "text/plain", reason);
        let names = match query.whole("name_regex") {
            Ok(names) => names,
            Err(error) => return refuse(StatusCode::BAD_REQUEST, error),
        };
        let options = DumpOptions {
            include_eds: query.has("include_eds"),
        };
        let mut dump = self.dump.to_value(options);
        let mut configs: Vec<Value> = match dump["configs"].take() {
            Value::Array(configs) => configs,
            _ => Vec::new(),
        };
        if query.has("name_regex") {
            configs
                .iter_mut()
                .for_each(|config| keep_named(config, |name| names.takes(name)));
        }
        let field = query.get("resource").filter(|field| !field.is_empty());
        if let Some(field) = &field {
            configs = match elements(&configs, field) {
                Ok(elements) => elements,
                Err((status, reason)) => return refuse(status, reason),
            };
        }
        if let Some(mask) = query.get("mask").filter(|mask| !mask.is_empty()) {
            let any = !configs.is_empty();
            configs = configs
                .iter()
                .filter_map(|config| mask::apply(config, &mask))
                .collect();
            if any && configs.is_empty() {
                let reason =
                    format!("FieldMask {mask} could not be successfully applied to any configs.");
                return refuse(StatusCode::BAD_REQUEST, reason);
            }
        }
        json_page(&match configs.is_empty() {
            true => json!({}),
            false => json!({ "configs": configs }),
        })
    }

    pub(super) fn config_status(&self) -> Value {
        let report = self.mesh.status().load();
        let rejections: Vec<Value> = report
            .rejections
            .iter()
            .map(|one| json!({"resource": &*one.resource, "path": &*one.path, "reason": &*one.reason, "location": &*one.location}))
            .collect();
        let notes: Vec<Value> = report
            .notes
            .iter()
            .map(|note| json!({"resource": &*note.resource, "path": &*note.path, "reason": &*note.reason}))
            .collect();
        json!({
            "generation": report.generation,
            "version": &*report.version,
            "ready": report.generation > 0,
            "rejections": rejections,
            "not_acting": notes,
        })
    }
}

/// The elements of the repeated field `field`, each with its type.
fn elements(configs: &[Value], field: &str) -> Result<Vec<Value>, (StatusCode, String)> {
    let is_there = |kind: &str| {
        let section = kind.split('.').next().unwrap_or_default();
        let kinds = configs.iter().filter_map(|config| config["@type"].as_str());
        kinds.into_iter().any(|one| one.ends_with(section))
    };
    let known = REPEATED.iter().find(|(name, _)| *name == field);
    let Some((_, kind)) = known.filter(|(_, kind)| is_there(kind)) else {
        let single = configs.iter().any(|config| config.get(field).is_some());
        return Err(match single {
            true => (
                StatusCode::BAD_REQUEST,
                format!(
                    "{field} is not a repeated field. Use ?mask={field} to get only this field"
                ),
            ),
            false => (
                StatusCode::NOT_FOUND,
                format!("{field} not found in config dump"),
            ),
        });
    };
    let lists = configs
        .iter()
        .filter_map(|config| config.get(field)?.as_array());
    let typed = |element: &Value| {
        let mut element = element.clone();
        element["@type"] = format!("type.googleapis.com/envoy.admin.v3.{kind}").into();
        element
    };
    Ok(lists.flatten().map(typed).collect())
}

/// Keeps the elements of each list in `config` whose resource has a wanted name.
fn keep_named(config: &mut Value, wanted: impl Fn(&str) -> bool) {
    let Some(members) = config.as_object_mut() else {
        return;
    };
    for list in members.values_mut().filter_map(Value::as_array_mut) {
        list.retain(|element| name_of(element).is_none_or(&wanted));
    }
}

fn name_of(element: &Value) -> Option<&str> {
    let inner = ["cluster", "listener", "route_config", "endpoint_config"]
        .iter()
        .find_map(|key| {
            let state = element.get("active_state");
            element.get(key).or_else(|| state?.get(key))
        })?;
    inner
        .get("name")
        .or_else(|| inner.get("cluster_name"))?
        .as_str()
}

/// An address in protobuf JSON.
pub(super) fn address(address: &Address) -> Value {
    match address {
        Address::Socket(addr) => {
            json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}})
        }
        Address::Host(host, port) => {
            json!({"socket_address": {"address": &**host, "port_value": port}})
        }
        Address::Pipe(path) => json!({"pipe": {"path": path.display().to_string()}}),
        _ => Value::Null,
    }
}
