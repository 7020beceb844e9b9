//! `envoy-route-config`: requests against route configurations, facts of Envoy's own unit tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as proto;
use http::{HeaderName, HeaderValue};
use mesh_core::model::{Action, ClusterChoice};
use mesh_core::route::{
    ConnectionFacts, Decision, Field, Head, HeadBuf, HeadContext, HeadMut, RouteEntry, RouteTable,
};
use mesh_core::snapshot::Clusters;
use mesh_xds::{decode, json, yaml};
use serde_json::Value;

use super::{read_json, read_text};
use crate::conformance::{Ctx, SuiteResult};

/// The route timeout that Envoy uses where none is set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// Plays all requests.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("envoy-route-config");
    let dir = ctx.dir("envoy-route-config");
    let Some(cases) = cases(&dir, &mut result) else {
        return result;
    };
    let mut by_runtime = 0;
    for case in &cases {
        let table = only(case, &["id", "config", "requests"])
            .and_then(|()| message(&dir.join(text(&case["config"]))))
            .and_then(|message| compile(&message));
        for request in case["requests"].as_array().into_iter().flatten() {
            let outcome = match &table {
                Ok(table) => play(table, request),
                Err(error) => Err(error.clone()),
            };
            let failed = outcome.is_err();
            by_runtime +=
                usize::from(failed && table.as_ref().is_ok_and(|table| rolls(table, request)));
            result.case(text(&request["id"]), outcome);
        }
    }
    if by_runtime > 0 {
        result.note(format!(
            "{by_runtime} of the failures are decided by runtime weights (runtime_key_prefix), whose values the cases do not give"
        ));
    }
    result
}

/// The list in `cases.json`; without one the suite has failed.
pub(super) fn cases(dir: &Path, result: &mut SuiteResult) -> Option<Vec<Value>> {
    read_json(&dir.join("cases.json"))
        .map_err(|error| result.fail("cases.json", error))
        .ok()
}

/// Whether the request's route takes its weights from the runtime.
fn rolls(table: &RouteTable, request: &Value) -> bool {
    let decided = head(&request["headers"]).map(|head| table.decide(&head.head()));
    let Ok(Decision::Forward(forwarding)) = decided else {
        return false;
    };
    match &forwarding.forward().config().cluster {
        ClusterChoice::Weighted(weighted) => !weighted.runtime_key_prefix.is_empty(),
        _ => false,
    }
}

fn play(table: &RouteTable, request: &Value) -> Result<(), String> {
    let known = ["id", "headers", "random_value", "expect"];
    only(request, &known)?;
    let head = head(&request["headers"])?;
    let connection = loopback();
    let borrowed = Head {
        connection: &connection,
        random: request["random_value"].as_u64().ok_or("no random_value")?,
        ..head.head()
    };
    let decision = table.decide(&borrowed);
    let upstream = finalized(&decision, &head, &borrowed);
    for (key, wanted) in request["expect"].as_object().ok_or("no expectations")? {
        check(key, wanted, &decision, &borrowed, &upstream)?;
    }
    Ok(())
}

fn check(
    key: &str,
    wanted: &Value,
    decision: &Decision,
    head: &Head<'_, http::HeaderMap>,
    upstream: &HeadBuf,
) -> Result<(), String> {
    match key {
        "cluster" => same(key, text(wanted), &cluster(decision)),
        "path_after_rewrite" => same(key, text(wanted), &lossy(&upstream.path)),
        "redirect_location" => same(key, text(wanted), &location(decision)),
        "virtual_host" => same(key, text(wanted), &virtual_host(decision)),
        "virtual_cluster" => {
            let host = decision.host().ok_or("no virtual host")?;
            same(key, text(wanted), host.virtual_cluster(head).unwrap_or(""))
        }
        "timeout_ms" => {
            let wanted = wanted.as_u64().ok_or("timeout_ms is no number")?;
            let seen = timeout(decision.route().ok_or("no route")?).as_millis();
            same(key, &wanted.to_string(), &seen.to_string())
        }
        "no_route" => {
            let seen = matches!(decision, Decision::NotFound(_));
            same(key, &wanted.to_string(), &seen.to_string())
        }
        "direct_response_code" => {
            // Named as Envoy's enumeration names it: the reason phrase without spaces.
            let reason = status(decision).and_then(|status| status.canonical_reason());
            same(key, text(wanted), &reason.unwrap_or("").replace(' ', ""))
        }
        "upstream_headers" => {
            for (name, wanted) in wanted.as_object().ok_or("upstream_headers is no object")? {
                same(name, text(wanted), &first_value(upstream, name)?)?;
            }
            Ok(())
        }
        _ => Err(format!("expectation {key:?} is not understood")),
    }
}

/// The first value of a header, empty if it is absent.
fn first_value(head: &HeadBuf, name: &str) -> Result<String, String> {
    let field = Field::parse(name).ok_or_else(|| format!("{name:?} is no header"))?;
    Ok(lossy(head.head().first(&field).unwrap_or_default()))
}

/// Reads a route configuration.
pub(super) fn message(path: &Path) -> Result<proto::RouteConfiguration, String> {
    let value: Value = yaml::from_str(&read_text(path)?).map_err(|error| error.to_string())?;
    json::from_deserializer("envoy.config.route.v3.RouteConfiguration", value)
        .map_err(|error| error.to_string())
}

/// Decodes and compiles a route configuration; no cluster exists.
pub(super) fn compile(message: &proto::RouteConfiguration) -> Result<RouteTable, String> {
    let refused = |list: Vec<mesh_core::config::Rejection>| {
        let list: Vec<String> = list.iter().map(ToString::to_string).collect();
        format!("refused: {}", list.join("; "))
    };
    let config = decode::route_configuration(message, &mut Vec::new()).map_err(refused)?;
    RouteTable::compile(&config, &Clusters::default()).map_err(refused)
}

/// The head that the upstream sees; the request's own if it is not sent on.
pub(super) fn finalized(
    decision: &Decision,
    head: &HeadBuf,
    borrowed: &Head<'_, http::HeaderMap>,
) -> HeadBuf {
    let mut upstream = head.clone();
    if let Decision::Forward(forwarding) = decision {
        forwarding.finalize_request(&mut upstream, &HeadContext(*borrowed), true);
    }
    upstream
}

/// A connection from loopback, as Envoy's tests have it.
pub(super) fn loopback() -> ConnectionFacts {
    ConnectionFacts {
        source: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        ..ConnectionFacts::default()
    }
}

/// Name of the cluster, empty if the request is not sent on.
pub(super) fn cluster(decision: &Decision) -> String {
    match decision {
        Decision::Forward(forwarding) => forwarding.cluster_name().to_string(),
        _ => String::new(),
    }
}

/// Name of the virtual host, empty if no route matched.
pub(super) fn virtual_host(decision: &Decision) -> String {
    decision
        .route()
        .map(|route| route.host().name().to_string())
        .unwrap_or_default()
}

fn location(decision: &Decision) -> String {
    match decision {
        Decision::Redirect(redirection) => lossy(redirection.location()),
        _ => String::new(),
    }
}

/// Status of an answer that the route itself gives.
pub(super) fn status(decision: &Decision) -> Option<http::StatusCode> {
    match decision {
        Decision::Redirect(redirection) => Some(redirection.status()),
        Decision::DirectResponse(route) => match &route.config().action {
            Action::DirectResponse(config) => Some(config.status),
            _ => None,
        },
        _ => None,
    }
}

/// The route's timeout.
pub(super) fn timeout(route: &RouteEntry) -> Duration {
    route
        .forward()
        .and_then(|forward| forward.config().timeout)
        .unwrap_or(DEFAULT_TIMEOUT)
}

/// Builds a head from pairs of names and values, pseudo headers among them.
fn head(pairs: &Value) -> Result<HeadBuf, String> {
    let mut head = HeadBuf::default();
    for pair in pairs.as_array().ok_or("headers are no list")? {
        set(&mut head, text(&pair[0]), text(&pair[1]))?;
    }
    Ok(head)
}

/// Adds one header or pseudo header.
pub(super) fn set(head: &mut HeadBuf, name: &str, value: &str) -> Result<(), String> {
    match name {
        ":method" => head.method = value.into(),
        ":scheme" => head.scheme = value.into(),
        ":authority" => head.set_authority(value.as_bytes()),
        ":path" => head.set_path(value.as_bytes()),
        _ => {
            let name = HeaderName::try_from(name).map_err(|error| format!("{name}: {error}"))?;
            let value = HeaderValue::try_from(value).map_err(|error| format!("{name}: {error}"))?;
            head.headers.append(name, value);
        }
    }
    Ok(())
}

/// Refuses members that the player does not know.
pub(super) fn only(value: &Value, known: &[&str]) -> Result<(), String> {
    let members = value.as_object().ok_or("no object")?;
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{key:?} is not understood")),
        None => Ok(()),
    }
}

/// Compares texts.
pub(super) fn same(what: &str, expected: &str, seen: &str) -> Result<(), String> {
    if expected == seen {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, seen {seen:?}"))
}

/// The text of a value; other values have one that cannot pass for an empty text.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("<no text>")
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
