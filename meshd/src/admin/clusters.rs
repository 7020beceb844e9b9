//! `/clusters`, as text and JSON.

use std::{collections::BTreeSet, fmt::Write as _};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use mesh_core::{
    cluster::{Cluster, Endpoint},
    model::{Discovery, HealthStatus, Priority},
};
use mesh_xds::graph::Kind;
use serde_json::{Value, json};

use super::{Admin, Query, dump, json_page, text};

impl Admin {
    pub(super) fn clusters(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let filter = match query.filter("filter") {
            Ok(filter) => filter,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let all = self.mesh.clusters().all();
        let mut clusters: Vec<_> = all
            .values()
            .filter(|cluster| filter.takes(cluster.name()))
            .collect();
        clusters.sort_by(|a, b| a.name().cmp(b.name()));
        let dynamic: BTreeSet<_> = self
            .dump
            .resources(Kind::Cluster)
            .into_iter()
            .filter_map(|offered| offered.dynamic.then_some(offered.name))
            .collect();
        let dynamic = |cluster: &Cluster| dynamic.contains(cluster.name());
        if query.get("format").as_deref() == Some("json") {
            let list: Vec<Value> = clusters
                .iter()
                .map(|cluster| json_status(cluster, dynamic(cluster)))
                .collect();
            return json_page(&json!({ "cluster_statuses": list }));
        }
        let mut out = String::new();
        for cluster in clusters {
            lines(cluster, dynamic(cluster), &mut out);
        }
        text(StatusCode::OK, out)
    }
}

fn lines(cluster: &Cluster, dynamic: bool, out: &mut String) {
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
    let _ = writeln!(out, "{name}::added_via_api::{dynamic}");
    for endpoint in cluster.endpoints().all() {
        let at = format!("{name}::{}", endpoint.address());
        let mut numbers: Vec<_> = counters(endpoint)
            .into_iter()
            .chain(gauges(endpoint))
            .collect();
        numbers.sort_unstable();
        for (field, value) in numbers {
            let _ = writeln!(out, "{at}::{field}::{value}");
        }
        let locality = endpoint.locality();
        let _ = writeln!(out, "{at}::hostname::{}", endpoint.hostname());
        let _ = writeln!(out, "{at}::health_flags::{}", health_flags(endpoint));
        let _ = writeln!(out, "{at}::weight::{}", endpoint.weight());
        let _ = writeln!(out, "{at}::region::{}", locality.region);
        let _ = writeln!(out, "{at}::zone::{}", locality.zone);
        let _ = writeln!(out, "{at}::sub_zone::{}", locality.sub_zone);
        let _ = writeln!(out, "{at}::canary::{}", endpoint.is_canary());
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

fn gauges(endpoint: &Endpoint) -> [(&'static str, u64); 3] {
    let pending = endpoint.stats().rq_pending_active.get();
    [
        ("cx_active", endpoint.stats().cx_active.get()),
        (
            "rq_active",
            u64::from(endpoint.active()).saturating_sub(pending),
        ),
        ("rq_pending_active", pending),
    ]
}

/// What the control plane says of an endpoint's health: Envoy's status, and its flag.
fn eds_health(endpoint: &Endpoint) -> (&'static str, &'static str) {
    match endpoint.health() {
        HealthStatus::Unknown | HealthStatus::Healthy => ("HEALTHY", ""),
        HealthStatus::Degraded => ("DEGRADED", "/degraded_eds_health"),
        HealthStatus::Draining => ("DRAINING", "/eds_status_draining"),
        _ => ("UNHEALTHY", "/failed_eds_health"),
    }
}

/// Envoy's flags, each behind a `/`.
fn health_flags(endpoint: &Endpoint) -> String {
    let flag = |on: bool, flag| if on { flag } else { "" };
    let flags = [
        flag(endpoint.is_failed(), "/failed_active_hc"),
        flag(endpoint.is_ejected(), "/failed_outlier_check"),
        eds_health(endpoint).1,
    ];
    match flags.concat() {
        none if none.is_empty() => "healthy".to_owned(),
        flags => flags,
    }
}

/// A `ClusterStatus` in protobuf JSON, which leaves out what has its default.
fn json_status(cluster: &Cluster, dynamic: bool) -> Value {
    let hosts: Vec<Value> = cluster
        .endpoints()
        .all()
        .iter()
        .map(|endpoint| host(endpoint))
        .collect();
    let thresholds = [Priority::Default, Priority::High].map(|priority| {
        let (limits, _) = cluster.limits(priority);
        let mut threshold = json!({
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        });
        if priority == Priority::High {
            threshold["priority"] = "HIGH".into();
        }
        threshold
    });
    let stat_name = cluster.config().alt_stat_name.as_ref();
    let mut status = json!({
        "name": &**cluster.name(),
        "observability_name": &**stat_name.unwrap_or(cluster.name()),
        "circuit_breakers": {"thresholds": thresholds},
    });
    if dynamic {
        status["added_via_api"] = true.into();
    }
    if !hosts.is_empty() {
        status["host_statuses"] = hosts.into();
    }
    if let Discovery::Eds(service) = &cluster.config().discovery
        && service != cluster.name()
    {
        status["eds_service_name"] = (**service).into();
    }
    status
}

/// A `HostStatus` in protobuf JSON.
fn host(endpoint: &Endpoint) -> Value {
    let metric = |name: &str, value: u64, gauge: bool| {
        let mut metric = json!({ "name": name });
        if value > 0 {
            metric["value"] = value.to_string().into();
        }
        if gauge {
            metric["type"] = "GAUGE".into();
        }
        metric
    };
    let counters = counters(endpoint).map(|(name, value)| metric(name, value, false));
    let gauges = gauges(endpoint).map(|(name, value)| metric(name, value, true));
    let stats: Vec<Value> = counters.into_iter().chain(gauges).collect();
    let mut health = json!({"eds_health_status": eds_health(endpoint).0});
    if endpoint.is_failed() {
        health["failed_active_health_check"] = json!(true);
    }
    if endpoint.is_ejected() {
        health["failed_outlier_check"] = json!(true);
    }
    let mut place = json!({});
    let locality = endpoint.locality();
    for (field, value) in [
        ("region", &locality.region),
        ("zone", &locality.zone),
        ("sub_zone", &locality.sub_zone),
    ] {
        if !value.is_empty() {
            place[field] = (**value).into();
        }
    }
    let mut status = json!({
        "address": dump::address(endpoint.address()),
        "stats": stats,
        "health_status": health,
        "weight": endpoint.weight(),
        "locality": place,
    });
    if !endpoint.hostname().is_empty() {
        status["hostname"] = (**endpoint.hostname()).into();
    }
    if endpoint.priority() > 0 {
        status["priority"] = endpoint.priority().into();
    }
    status
}
