//! What an unmodified istiod sent, and what we make of the same input (`--xds DIR`).
//!
//! `DIR/SET/input/` holds the YAML that istiod had read. Gateways are compared, and sidecars without interception: those
//! are the ones that our translation is for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mesh_xds::istio::api::gateway::ServerTlsMode;
use mesh_xds::istio::index::{Context, Interception, Proxy, ProxyKind};
use mesh_xds::istio::{Object, read, translate};
use mesh_xds::json as protobuf;
use prost::Message;
use serde_json::{Value, json};

use super::compare::{Allowed, METADATA_EXCHANGE, Uses, normalized};
use super::istio_clusters::{
    ALPN_OVERRIDE, AUTO_FIELDS, AUTO_TLS, DNS_JITTER, DNS_RESOLVER, NO_TLS, TLS_MODE,
};
use super::recorded_xds::{matching_calls, nodes, shown};
use super::{read_json, read_text};
use crate::conformance::{Ctx, SuiteResult};
use crate::simulation::{Resources, World};

const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Why failover between localities is not there.
const NO_FAILOVER: &str =
    "failover between localities does not act yet: the rule that asks for it is listed";

/// All allowed differences.
const ALLOWED: &[Allowed] = &[
    METADATA_EXCHANGE,
    TLS_MODE,
    ALPN_OVERRIDE,
    Allowed {
        path: ".typed_extension_protocol_options",
        reason: NO_TLS,
        holds: |expected, seen| {
            let options = &expected["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
            options["upstream_http_protocol_options"]["auto_sni"] == true && seen.is_null()
        },
    },
    Allowed {
        path: ".transport_socket",
        reason: "beside automatic mutual TLS the PROXY header stands in transport_socket_matches",
        holds: |expected, seen| {
            let header = "envoy.transport_sockets.upstream_proxy_protocol";
            expected.is_null() && seen["name"] == header
        },
    },
    Allowed {
        path: ".common_lb_config.locality_weighted_lb_config",
        reason: NO_FAILOVER,
        holds: |expected, seen| *expected == json!({}) && seen.is_null(),
    },
    Allowed {
        path: ".endpoints[0].load_balancing_weight",
        reason: "`distribute` does not act yet: the rule that asks for it is listed",
        holds: |expected, seen| expected.is_number() && seen.is_number(),
    },
    Allowed {
        path: ".priority",
        reason: NO_FAILOVER,
        holds: |expected, seen| expected.is_number() && seen.is_null(),
    },
    Allowed {
        path: ".health_status",
        reason: "what is not said is the same",
        holds: |expected, seen| expected == "HEALTHY" && seen.is_null(),
    },
    Allowed {
        path: ".locality.region",
        reason: "the region of a Node, and Node objects are not read",
        holds: |expected, seen| expected.is_string() && seen.is_null(),
    },
    Allowed {
        path: ".locality.zone",
        reason: "the zone of a Node, and Node objects are not read",
        holds: |expected, seen| expected.is_string() && seen.is_null(),
    },
    DNS_JITTER,
    DNS_RESOLVER,
    Allowed {
        path: ".per_connection_buffer_limit_bytes",
        reason: "made by an EnvoyFilter, which does not act yet",
        holds: |expected, seen| expected.is_number() && seen.is_null(),
    },
];

/// Plays `istiod-translation`.
pub fn run(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istiod-translation");
    let mut uses = Uses::of(ALLOWED);
    for node in nodes(ctx, &mut result) {
        let name = shown(ctx, &node);
        // A set may hold only what differs from another one.
        let input = node.join("../../input");
        let whole = super::file_count(&input) > 1;
        if !whole {
            continue;
        }
        match proxy(&node) {
            Ok(Some(proxy)) => {
                let outcome = play(&mut result, &mut uses, &name, (&node, &input, &proxy));
                if let Err(why) = outcome {
                    result.fail(&name, why);
                }
            }
            Ok(None) => {}
            Err(why) => result.fail(&name, why),
        }
    }
    uses.report(&mut result);
    result
}

/// The proxy that the node is, if we translate for its kind.
fn proxy(node: &Path) -> Result<Option<Proxy>, String> {
    let value: Value = read_json(&node.join("node.json"))?;
    let id = value["id"].as_str().unwrap_or_default();
    let parts: Vec<&str> = id.split('~').collect();
    let [kind, address, name, domain] = parts.as_slice() else {
        return Err(format!("node id {id:?} is not understood"));
    };
    let metadata = &value["metadata"];
    let kind = match *kind {
        // A gRPC client without any proxy gets other resources.
        _ if metadata["GENERATOR"] == "grpc" => return Ok(None),
        "router" => ProxyKind::Router,
        "sidecar" if metadata["INTERCEPTION_MODE"] == "NONE" => ProxyKind::Sidecar,
        _ => return Ok(None),
    };
    let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
    let labels = metadata["LABELS"].as_object().into_iter().flatten();
    let part = |key: &str| value["locality"][key].as_str().unwrap_or_default();
    let locality = [part("region"), part("zone"), part("sub_zone")].join("/");
    Ok(Some(Proxy {
        kind,
        name: name.split('.').next().unwrap_or_default().to_owned(),
        namespace: text("NAMESPACE"),
        dns_domain: (*domain).to_owned(),
        addresses: vec![(*address).to_owned()],
        labels: labels
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        service_account: text("SERVICE_ACCOUNT"),
        locality: locality.trim_end_matches('/').to_owned(),
        interception: Interception::None,
        ..Proxy::default()
    }))
}

fn objects(input: &Path) -> Result<Vec<Arc<Object>>, String> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(input).map_err(|error| error.to_string())?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name: Arc<str> = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into();
        let parsed = read::parse(&name, &read_text(&path)?, &Default::default());
        if let Some(refused) = parsed.refused.first() {
            return Err(format!(
                "{name}: {refused:?} was refused: {:?}",
                parsed.findings
            ));
        }
        found.extend(parsed.objects);
    }
    Ok(found)
}

fn play(
    result: &mut SuiteResult,
    uses: &mut Uses,
    name: &str,
    (node, input, proxy): (&Path, &Path, &Proxy),
) -> Result<(), String> {
    let context = Context::new(&objects(input)?, "cluster.local");
    let made = translate::translate(&context, proxy, &Default::default());
    let mut left_out = 0;
    let mut compare = |kind, file: &str, mut seen: BTreeMap<String, Value>| -> Result<(), String> {
        for expected in recorded(&node.join(file))? {
            let mut expected = normalized(kind, &expected)?;
            let key = key_of(&expected);
            if is_not_served(&expected) || is_closed(&context, &key) {
                left_out += 1;
                continue;
            }
            let outcome = match seen.get_mut(&key) {
                None => Err("expected it, seen nothing".to_owned()),
                Some(seen) => {
                    uses.set_aside("transport_socket", NO_TLS, (&mut expected, seen));
                    uses.excuse(&AUTO_FIELDS, AUTO_TLS, (&mut expected, seen));
                    in_order(&mut expected);
                    uses.compare(&expected, seen)
                }
            };
            result.case(format!("{name} {file} {key}"), outcome);
        }
        Ok(())
    };
    compare(ROUTES, "rds.json", by_name(ROUTES, &made.routes)?)?;
    compare(CLUSTER, "cds.json", by_name(CLUSTER, &made.clusters)?)?;
    compare(ENDPOINTS, "eds.json", by_name(ENDPOINTS, &made.endpoints)?)?;
    let world = World::new(&Resources::from(&made));
    for (n, (call, expect)) in matching_calls(node)?.iter().enumerate() {
        if passes_by_name(&context, call.port) {
            left_out += 1;
            continue;
        }
        let outcome = expect.judge(&world.call(call));
        let outcome = outcome.map_err(|why| format!("{why}; {call:?}"));
        result.case(format!("{name} call {n}"), outcome);
    }
    if left_out > 0 {
        result.note(format!(
            "{name}: {left_out} resources and calls are of AUTO_PASSTHROUGH, DYNAMIC_DNS, TLS in a Sidecar or redirected traffic, \
             which are listed as not acting"
        ));
    }
    Ok(())
}

/// Resources as they were recorded.
fn recorded(file: &Path) -> Result<Vec<Value>, String> {
    let recorded: Value = read_json(file)?;
    let resources = recorded["resources"].as_array().into_iter().flatten();
    let without_type = resources.map(|resource| {
        let mut resource = resource.clone();
        resource
            .as_object_mut()
            .map(|fields| fields.remove("@type"));
        resource
    });
    Ok(without_type.collect())
}

/// Whether a resource is of what does not act yet, and is listed as such.
fn is_not_served(resource: &Value) -> bool {
    let name = key_of(resource);
    // Clusters that AUTO_PASSTHROUGH leads to, of DYNAMIC_DNS, and of traffic that the network redirected.
    name.starts_with("outbound_.")
        || resource["cluster_type"]["name"] == "envoy.clusters.dynamic_forward_proxy"
        || name == "InboundPassthroughCluster"
}

/// Whether that is the cluster behind a port of a Sidecar object with TLS, which stays closed.
fn is_closed(context: &Context, name: &str) -> bool {
    let ingress = context
        .sidecars
        .iter()
        .flat_map(|sidecar| &sidecar.spec.ingress);
    let mut with_tls = ingress
        .filter(|own| own.tls.is_some())
        .filter_map(|own| own.port.as_ref());
    with_tls.any(|port| name == format!("inbound|{}||", port.number))
}

/// Whether a gateway's port leads on by server names alone (AUTO_PASSTHROUGH), which does not act yet.
fn passes_by_name(context: &Context, port: u16) -> bool {
    let servers = context.gateways.iter().flat_map(|g| &g.spec.servers);
    let mut ports = servers
        .filter(|server| {
            let mode = server.tls.as_ref().map(|tls| tls.mode);
            mode == Some(ServerTlsMode::AutoPassthrough)
        })
        .filter_map(|server| server.port.as_ref());
    ports.any(|own| own.number == u32::from(port))
}

/// Conditions on query parameters in order of their names: istiod keeps them in a map, and all of them have to hold.
fn in_order(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(in_order),
        Value::Object(fields) => {
            for (key, field) in fields {
                in_order(field);
                if let (true, Value::Array(items)) = (key == "query_parameters", field) {
                    items.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
                }
            }
        }
        _ => {}
    }
}

fn key_of(resource: &Value) -> String {
    let name = resource
        .get("name")
        .or_else(|| resource.get("cluster_name"));
    name.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn by_name<M: Message>(kind: &str, messages: &[M]) -> Result<BTreeMap<String, Value>, String> {
    let mut found = BTreeMap::new();
    for message in messages {
        let value = protobuf::to_value(kind, message)
            .map_err(|_| format!("{kind} cannot be written as JSON"))?;
        found.insert(key_of(&value), value);
    }
    Ok(found)
}
