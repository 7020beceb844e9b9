//! `/clusters`, as text and JSON.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::{
    cluster::{Cluster, Endpoint},
    model::Priority,
};
use serde_json::{Value, json};

use super::{Admin, Query, dump, json_page, text};

impl Admin {
    pub(super) fn clusters(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let filter = match query.filter() {
            Ok(filter) => filter,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let all = self.mesh.clusters().all();
        let mut clusters: Vec<_> = all
            .values()
            .filter(|cluster| {
                filter
                    .as_ref()
                    .is_none_or(|regex| regex.program().is_match(cluster.name().as_bytes()))
            })
            .collect();
        clusters.sort_by(|a, b| a.name().cmp(b.name()));
        if query.get("format").as_deref() == Some("json") {
            let list: Vec<Value> = clusters
                .iter()
                .map(|cluster| json_status(cluster))
                .collect();
            return json_page(&json!({ "cluster_statuses": list }));
        }
        let mut out = String::new();
        for cluster in clusters {
            lines(cluster, &mut out);
        }
        text(StatusCode::OK, out)
    }
}

fn lines(cluster: &Cluster, out: &mut String) {
    let name = cluster.name();
    let stat_name = cluster.config().alt_stat_name.as_ref().unwrap_or(name);
    let _ = writeln!(out, "{name}::observability_name::{stat_name}");
    for (priority, word) in [
        (Priority::Default, "default_priority"),
        (Priority::High, "high_priority"),
    ] {
        let (limits, _) = cluster.limits(priority);
        let _ = writeln!(
            out,
            "{name}::{word}::max_connections::{}",
            limits.max_connections
        );
        let _ = writeln!(
            out,
            "{name}::{word}::max_pending_requests::{}",
            limits.max_pending_requests
        );
        let _ = writeln!(out, "{name}::{word}::max_requests::{}", limits.max_requests);
        let _ = writeln!(out, "{name}::{word}::max_retries::{}", limits.max_retries);
    }
    let _ = writeln!(out, "{name}::added_via_api::false");
    for endpoint in cluster.endpoints().all() {
        let at = format!("{name}::{}", endpoint.address());
        for (field, value) in counters(endpoint).into_iter().chain(gauges(endpoint)) {
            let _ = writeln!(out, "{at}::{field}::{value}");
        }
        let locality = endpoint.locality();
        let _ = writeln!(out, "{at}::hostname::{}", endpoint.hostname());
        let _ = writeln!(out, "{at}::health_flags::{}", health_flags(endpoint));
        let _ = writeln!(out, "{at}::weight::{}", endpoint.weight());
        let _ = writeln!(out, "{at}::region::{}", locality.region);
        let _ = writeln!(out, "{at}::zone::{}", locality.zone);
        let _ = writeln!(out, "{at}::sub_zone::{}", locality.sub_zone);
        let _ = writeln!(out, "{at}::canary::false");
        let _ = writeln!(out, "{at}::priority::{}", endpoint.priority());
        let _ = writeln!(out, "{at}::success_rate::-1");
        let _ = writeln!(out, "{at}::local_origin_success_rate::-1");
    }
}

fn counters(endpoint: &Endpoint) -> [(&'static str, u64); 6] {
    let stats = endpoint.stats();
    [
        ("cx_connect_fail", stats.cx_connect_fail.get()),
        ("cx_total", stats.cx_total.get()),
        ("rq_error", stats.rq_error.get()),
        ("rq_success", stats.rq_success.get()),
        ("rq_timeout", stats.rq_timeout.get()),
        ("rq_total", stats.rq_total.get()),
    ]
}

fn gauges(endpoint: &Endpoint) -> [(&'static str, u64); 2] {
    [
        ("cx_active", endpoint.stats().cx_active.get()),
        ("rq_active", u64::from(endpoint.active())),
    ]
}

/// Envoy's flags, joined by `/`.
fn health_flags(endpoint: &Endpoint) -> &'static str {
    match (
        endpoint.is_ejected(),
        endpoint.is_healthy(),
        endpoint.is_degraded(),
    ) {
        (true, ..) => "/failed_outlier_check",
        (_, true, _) => "healthy",
        (_, _, true) => "/degraded_eds_health",
        _ => "/failed_eds_health",
    }
}

fn json_status(cluster: &Cluster) -> Value {
    let hosts: Vec<Value> = cluster
        .endpoints()
        .all()
        .iter()
        .map(|endpoint| host(endpoint))
        .collect();
    let thresholds: Vec<Value> = [(Priority::Default, "DEFAULT"), (Priority::High, "HIGH")]
        .into_iter()
        .map(|(priority, word)| {
            let (limits, _) = cluster.limits(priority);
            json!({
                "priority": word,
                "max_connections": limits.max_connections,
                "max_pending_requests": limits.max_pending_requests,
                "max_requests": limits.max_requests,
                "max_retries": limits.max_retries,
            })
        })
        .collect();
    json!({
        "name": &**cluster.name(),
        "observability_name": &**cluster.config().alt_stat_name.as_ref().unwrap_or(cluster.name()),
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": thresholds},
    })
}

fn host(endpoint: &Endpoint) -> Value {
    let counters =
        counters(endpoint).map(|(name, value)| json!({"name": name, "value": value.to_string()}));
    let gauges = gauges(endpoint)
        .map(|(name, value)| json!({"type": "GAUGE", "name": name, "value": value.to_string()}));
    let stats: Vec<Value> = counters.into_iter().chain(gauges).collect();
    let locality = endpoint.locality();
    let mut health = json!({"eds_health_status": if endpoint.is_healthy() || endpoint.is_ejected() { "HEALTHY" } else { "UNHEALTHY" }});
    if endpoint.is_ejected() {
        health["failed_outlier_check"] = json!(true);
    }
    json!({
        "address": dump::address(endpoint.address()),
        "hostname": &**endpoint.hostname(),
        "stats": stats,
        "health_status": health,
        "weight": endpoint.weight(),
        "priority": endpoint.priority(),
        "locality": {"region": &*locality.region, "zone": &*locality.zone, "sub_zone": &*locality.sub_zone},
    })
}
