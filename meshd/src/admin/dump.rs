//! `/config_dump` and `/config_status`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::model::Address;
use serde_json::{Value, json};

use super::{Admin, Query, json_page, text};

impl Admin {
    /// Envoy's dump: one element a kind of resource. `resource` names the repeated field of which only the elements are
    /// given, `name_regex` keeps those whose names match, and endpoints come only with `include_eds`.
    pub(super) fn config_dump(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let mut configs = (self.dump)(query.has("include_eds"));
        if let Some(pattern) = query.get("name_regex") {
            let regex = match mesh_core::model::Regex::parse(&pattern) {
                Ok(regex) => regex,
                Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
            };
            for config in &mut configs {
                keep_named(config, |name| regex.program().is_match(name.as_bytes()));
            }
        }
        if query.has("mask") {
            return text(
                StatusCode::BAD_REQUEST,
                "mask is not supported; use resource and name_regex\n".into(),
            );
        }
        match query.get("resource") {
            None => json_page(&json!({ "configs": configs })),
            Some(field) => {
                let found: Vec<&Value> = configs
                    .iter()
                    .filter_map(|config| config.get(&field)?.as_array())
                    .flatten()
                    .collect();
                if found.is_empty() && !configs.iter().any(|config| config.get(&field).is_some()) {
                    return text(
                        StatusCode::NOT_FOUND,
                        format!("{field} not found in config dump\n"),
                    );
                }
                json_page(&json!({ "configs": found }))
            }
        }
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
        .find_map(|key| element.get(key))?;
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
