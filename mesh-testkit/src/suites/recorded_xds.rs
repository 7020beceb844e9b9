//! What an unmodified istiod sent, decoded and routed (`--xds DIR`).
//!
//! `DIR/SET/responses/NODE/` holds recorded discovery responses; where it holds `routing.json`, that says for one route configuration
//! and one request what Envoy itself matched, and `matching.json` for one call what Istio's simulation matched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use mesh_core::config::Rejection;
use mesh_core::model::{Action, ClusterChoice, RouteConfiguration};
use mesh_core::route::{Decision, Head, RouteEntry, RouteTable};
use mesh_core::snapshot::Clusters;
use mesh_xds::decode;
use prost::Message;
use serde::Deserialize;
use serde_json::Value;

use super::istio_simulation::Expect;
use super::read_json;
use crate::conformance::{Ctx, SuiteResult};
use crate::simulation::{Call, Mode, Resources, World};

/// Resources that are refused because what they ask for comes with later work.
struct Later {
    /// In the path of the refused field.
    path: &'static str,
    /// In the reason of the refusal.
    reason: &'static str,
    /// What is missing.
    why: &'static str,
    /// How many there are: one more is a fault.
    most: usize,
}

const LATER: &[Later] = &[
    Later {
        path: "cluster_type",
        reason: "envoy.clusters.dynamic_forward_proxy",
        why: "clusters that lead to the host that a request names (DYNAMIC_DNS)",
        most: 26,
    },
    Later {
        path: "config_discovery",
        reason: "filters from a control plane",
        why: "filters that a control plane sends by themselves (ECDS)",
        most: 12,
    },
    Later {
        path: "internal_listener",
        reason: "not supported",
        why: "listeners within the process, through which HBONE goes",
        most: 2,
    },
    Later {
        path: "envoy_internal_address",
        reason: "not supported",
        why: "clusters of listeners within the process",
        most: 1,
    },
    Later {
        path: "original_dst_lb_config.metadata_key",
        reason: "not supported",
        why: "original destinations in metadata, by which HBONE finds its way",
        most: 1,
    },
    Later {
        path: "listener_filters",
        reason: "envoy.filters.listener.original_src",
        why: "connections under the address of the caller (TPROXY)",
        most: 1,
    },
    Later {
        path: "api_listener",
        reason: "must not be empty",
        why: "listeners of gRPC libraries, which are no proxies",
        most: 5,
    },
    Later {
        path: "combined_validation_context.validation_context_sds_secret_config",
        reason: "must be set",
        why: "clusters of gRPC libraries, whose certificates come from the process",
        most: 3,
    },
];

/// Calls that come to a listener which is refused for one of these reasons, at most.
const CALLS_OF_LATER: usize = 259;

/// What is missing, if that is all that is wrong.
fn later(refused: &[Rejection]) -> Option<&'static Later> {
    let missing = |rejection: &Rejection| {
        LATER.iter().find(|later| {
            rejection.path.contains(later.path) && rejection.reason.contains(later.reason)
        })
    };
    let all: Option<Vec<_>> = refused.iter().map(missing).collect();
    all?.first().copied()
}

/// Every recorded cluster, endpoint set, listener and route configuration is taken, but for what comes with later work.
pub fn decoding(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istiod-responses");
    let mut notes = BTreeMap::<String, usize>::new();
    let mut apart: BTreeMap<_, _> = LATER.iter().map(|l| (l.why, (0, l.most))).collect();
    for node in nodes(ctx, &mut result) {
        for kind in ["cds", "eds", "lds", "rds"] {
            let Some(response) = response(&node, kind, &mut result) else {
                continue;
            };
            for resource in response.resources {
                let outcome = take(&resource.type_url, &resource.value, &mut notes);
                let (name, outcome) = match outcome {
                    Ok(name) => (name, Ok(())),
                    Err((name, refused)) => match later(&refused) {
                        Some(later) => {
                            apart.entry(later.why).or_default().0 += 1;
                            continue;
                        }
                        None => (name, Err(format!("refused: {refused:?}"))),
                    },
                };
                result.case(format!("{} {kind} {name}", shown(ctx, &node)), outcome);
            }
        }
    }
    for (why, (count, most)) in apart {
        result.allow("a resource", count, why);
        if count > most {
            result.fail(why, format!("expected at most {most}, seen {count}"));
        }
    }
    for (reason, count) in notes {
        result.note(format!("without effect, {count} times: {reason}"));
    }
    result
}

/// Every recorded request finds the virtual host, the route and the clusters that Envoy found.
pub fn routing(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istiod-routing");
    for node in nodes(ctx, &mut result) {
        let file = node.join("routing.json");
        if !file.is_file() {
            continue;
        }
        let tables = tables(&node, &mut result);
        let cases: Vec<Value> = match read_json(&file) {
            Ok(cases) => cases,
            Err(why) => {
                result.fail(shown(ctx, &file), why);
                continue;
            }
        };
        for (n, case) in cases.iter().enumerate() {
            let outcome =
                route(&tables, case).map_err(|why| format!("{why}; request {}", case["request"]));
            result.case(format!("{} #{n}", shown(ctx, &node)), outcome);
        }
    }
    result
}

/// Every recorded call comes to the listener, filter chain, route configuration, virtual host and cluster to which Istio's own
/// simulation sent it.
pub fn matching(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istiod-matching");
    let mut apart = 0;
    for node in nodes(ctx, &mut result) {
        let calls = match matching_calls(&node) {
            Ok(calls) => calls,
            Err(why) => {
                result.fail(shown(ctx, &node), why);
                continue;
            }
        };
        let mut wires = |kind| {
            let response = response(&node, kind, &mut result).unwrap_or_default();
            response
                .resources
                .into_iter()
                .map(|any| any.value)
                .collect()
        };
        let listeners: Vec<Vec<u8>> = wires("lds");
        let missing = listeners_of_later(&listeners);
        let world = World::new(&Resources {
            listeners,
            routes: wires("rds"),
            clusters: wires("cds"),
        });
        for (n, (call, expect)) in calls.iter().enumerate() {
            let outcome = expect.judge(&world.call(call));
            let entrance = match call.mode {
                Some(Mode::Inbound) => "virtualInbound",
                Some(Mode::Outbound) => "virtualOutbound",
                Some(Mode::Gateway) | None => "",
            };
            if outcome.is_err()
                && (missing.contains(entrance) || missing.contains(expect.listener()))
            {
                apart += 1;
                continue;
            }
            let outcome = outcome.map_err(|why| format!("{why}; {call:?}"));
            result.case(format!("{} #{n}", shown(ctx, &node)), outcome);
        }
    }
    let why = "its listener is refused, for what comes with later work";
    result.allow("a call", apart, why);
    if apart > CALLS_OF_LATER {
        let seen = format!("expected at most {CALLS_OF_LATER}, seen {apart}");
        result.fail("calls of refused listeners", seen);
    }
    result
}

/// Names of the listeners that are refused for what comes with later work.
fn listeners_of_later(wires: &[Vec<u8>]) -> BTreeSet<String> {
    let decoded = wires.iter().map(|wire| decode::listener(wire));
    decoded
        .filter(|decoded| later(&decoded.findings.rejections).is_some())
        .map(|decoded| decoded.name.to_string())
        .collect()
}

/// The calls of a node's `matching.json`; none if it has no such file.
pub(super) fn matching_calls(node: &Path) -> Result<Vec<(Call, Expect)>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Matching {
        call: Call,
        expect: Expect,
    }
    let file = node.join("matching.json");
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let calls: Vec<Matching> = read_json(&file)?;
    Ok(calls
        .into_iter()
        .map(|case| (case.call, case.expect))
        .collect())
}

/// A resource that was refused: its name, and why.
type Refused = (String, Vec<Rejection>);

/// Decodes one resource; its name.
fn take(kind: &str, wire: &[u8], notes: &mut BTreeMap<String, usize>) -> Result<String, Refused> {
    fn done<T>(
        decoded: decode::Decoded<T>,
        notes: &mut BTreeMap<String, usize>,
    ) -> Result<String, Refused> {
        let name = decoded.name.to_string();
        for note in &decoded.findings.notes {
            *notes
                .entry(format!("{}: {}", last(&note.path), note.reason))
                .or_default() += 1;
        }
        match decoded.value {
            Some(_) => Ok(name),
            None => Err((name, decoded.findings.rejections)),
        }
    }
    match kind.rsplit('.').next().unwrap_or_default() {
        "Cluster" => done(decode::cluster(wire), notes),
        "ClusterLoadAssignment" => done(decode::endpoints(wire), notes),
        "Listener" => done(decode::listener(wire), notes),
        "RouteConfiguration" => done(decode::routes(wire), notes),
        other => {
            let mut cx = decode::Context::new(other);
            cx.reject("", "is of a type that nobody asked for");
            Err((other.to_owned(), cx.finish().rejections))
        }
    }
}

/// A field's own name, so that notes on many resources are counted together.
fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// A compiled route configuration and the model that it was made of.
type Tables = BTreeMap<String, (RouteConfiguration, RouteTable)>;

fn tables(node: &Path, result: &mut SuiteResult) -> Tables {
    let mut out = Tables::new();
    let Some(response) = response(node, "rds", result) else {
        return out;
    };
    for resource in response.resources {
        let Some(config) = decode::routes(&resource.value).value else {
            continue;
        };
        match RouteTable::compile(&config, &Clusters::default()) {
            Ok(table) => {
                out.insert(config.name.to_string(), (config, table));
            }
            Err(why) => result.fail(
                format!("{} {}", node.display(), config.name),
                format!("{why:?}"),
            ),
        }
    }
    out
}

fn route(tables: &Tables, case: &Value) -> Result<(), String> {
    let name = case["route_config"].as_str().unwrap_or_default();
    let (_, table) = tables
        .get(name)
        .ok_or_else(|| format!("no route configuration {name}"))?;
    let request = &case["request"];
    let text = |key: &str| request[key].as_str().unwrap_or_default().as_bytes();
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    let head = Head::new(
        text("method"),
        b"http",
        text("host"),
        text("path"),
        &headers,
    );
    let decision = table.decide(&head);
    let expect = &case["expect"];
    for (key, wanted) in expect.as_object().ok_or("no expectations")? {
        let seen = fact(key, table, &decision)?;
        if seen != *wanted {
            return Err(format!("{key}: expected {wanted}, seen {seen}"));
        }
    }
    Ok(())
}

/// What the decision says of one key of `expect`.
fn fact(key: &str, table: &RouteTable, decision: &Decision) -> Result<Value, String> {
    let route = decision.route();
    let action = route.map(|route| &route.config().action);
    let choice = match action {
        Some(Action::Forward(forward)) => Some(&forward.cluster),
        _ => None,
    };
    Ok(match key {
        "no_match" => Value::Bool(matches!(decision, Decision::NotFound(_))),
        "tls_redirect" => match decision {
            Decision::Redirect(to) if route.is_none() => {
                String::from_utf8_lossy(to.location()).into()
            }
            _ => Value::Null,
        },
        "virtual_host" => decision
            .host()
            .map_or(Value::Null, |host| (**host.name()).into()),
        "route" => route
            .and_then(|route| place(table, route))
            .map_or(Value::Null, Value::from),
        "name" => route.map_or(Value::Null, |route| (**route.name()).into()),
        "action" => match action {
            Some(Action::Forward(_)) => "route".into(),
            Some(Action::Redirect(_)) => "redirect".into(),
            Some(Action::DirectResponse(_)) => "direct_response".into(),
            Some(Action::NonForwarding) => "non_forwarding_action".into(),
            _ => Value::Null,
        },
        "cluster" => match choice {
            Some(ClusterChoice::Name(name)) => (**name).into(),
            _ => Value::Null,
        },
        "weighted" => match choice {
            Some(ClusterChoice::Weighted(weighted)) => weighted
                .arms
                .iter()
                .map(|arm| (arm.name.to_string(), Value::from(arm.weight)))
                .collect(),
            _ => Value::Null,
        },
        other => return Err(format!("the key {other} is not understood")),
    })
}

/// The index of a route in its virtual host.
fn place(table: &RouteTable, route: &std::sync::Arc<RouteEntry>) -> Option<usize> {
    let host = route.host();
    let mut siblings = table
        .routes()
        .filter(|other| std::sync::Arc::ptr_eq(other.host(), host));
    siblings.position(|other| std::sync::Arc::ptr_eq(other, route))
}

/// The folders of recorded nodes.
pub(super) fn nodes(ctx: &Ctx, result: &mut SuiteResult) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for set in children(&ctx.root) {
        out.extend(
            children(&set.join("responses"))
                .into_iter()
                .filter(|node| node.join("cds.pb").is_file()),
        );
    }
    if out.is_empty() {
        result.fail(
            "suite",
            format!("no recorded responses below {}", ctx.root.display()),
        );
    }
    out
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    out.sort();
    out
}

fn response(node: &Path, kind: &str, result: &mut SuiteResult) -> Option<DiscoveryResponse> {
    let file = node.join(format!("{kind}.pb"));
    // A node asks only for what it needs.
    let bytes = fs::read(&file).ok()?;
    match DiscoveryResponse::decode(bytes.as_slice()) {
        Ok(response) => Some(response),
        Err(error) => {
            result.fail(file.display(), error);
            None
        }
    }
}

pub(super) fn shown(ctx: &Ctx, path: &Path) -> String {
    path.strip_prefix(&ctx.root)
        .unwrap_or(path)
        .display()
        .to_string()
}
