//! The parts of objects that ask for TLS or limit what is reached, as far as they can be read.

use serde_json::{Map, Value};

use super::pick;
use crate::istio::api::destination_rule::{ClientTlsMode, ClientTlsSettings, TrafficPolicy};
use crate::istio::api::gateway::{Server, ServerTlsMode, ServerTlsSettings};
use crate::istio::api::mesh_config::{MeshOutboundMode, MeshOutboundTrafficPolicy};
use crate::istio::api::sidecar::{IstioIngressListener, OutboundMode, OutboundTrafficPolicy};
use crate::istio::api::{DestinationRule, Gateway, MeshConfig, Sidecar, Spec};
use crate::yaml;

/// The mode in which only known hosts are reached.
pub(super) const KNOWN_HOSTS: &str = "REGISTRY_ONLY";

/// The rule, as far as its host can be read; one whose settings cannot be read, though TLS is spoken of, asks for TLS.
pub(super) fn rule(fields: &Map<String, Value>) -> Option<DestinationRule> {
    const KNOWN: &[&str] = &[
        "host",
        "trafficPolicy",
        "traffic_policy",
        "subsets",
        "exportTo",
        "export_to",
        "workloadSelector",
        "workload_selector",
    ];
    let mut rule: DestinationRule = pick(fields, &["host"])?;
    let policy = pick::<DestinationRule>(fields, &["trafficPolicy", "traffic_policy"]);
    let hinted = fields.iter().any(|(name, value)| {
        let unread = policy.is_none() && name.starts_with("traffic");
        (unread || !KNOWN.contains(&name.as_str())) && speaks_of_tls(value)
    });
    rule.traffic_policy = policy.and_then(|rule| rule.traffic_policy);
    if hinted {
        rule.traffic_policy.get_or_insert_default().tls = Some(originated());
    }
    if let Some(to) = pick::<DestinationRule>(fields, &["exportTo", "export_to"]) {
        rule.export_to = to.export_to;
    }
    let selector = pick::<DestinationRule>(fields, &["workloadSelector", "workload_selector"]);
    rule.workload_selector = selector.and_then(|rule| rule.workload_selector);
    Some(rule)
}

/// Whether something in there is the setting of TLS towards an upstream, other than to switch it off.
fn speaks_of_tls(value: &Value) -> bool {
    const MODES: &[&str] = &["SIMPLE", "MUTUAL", "ISTIO_MUTUAL"];
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            let off = value.get("mode").is_some_and(|mode| mode == "DISABLE");
            let named = name.eq_ignore_ascii_case("tls") || yaml::nearest(name, ["tls"]).is_some();
            (named && !off)
                || value.as_str().is_some_and(|text| MODES.contains(&text))
                || speaks_of_tls(value)
        }),
        Value::Array(items) => items.iter().any(speaks_of_tls),
        _ => false,
    }
}

pub(super) fn originated() -> ClientTlsSettings {
    ClientTlsSettings {
        mode: ClientTlsMode::Simple,
        ..ClientTlsSettings::default()
    }
}

/// What of a rule asks for TLS.
pub(super) fn originating(mut rule: DestinationRule) -> Option<Spec> {
    let asks = |tls: &Option<ClientTlsSettings>| {
        tls.as_ref()
            .is_some_and(|tls| tls.mode != ClientTlsMode::Disable)
    };
    let policy = rule.traffic_policy.take()?;
    // A port that cannot be told may be any.
    let anywhere = policy
        .port_level_settings
        .iter()
        .any(|own| own.port.is_none() && asks(&own.tls));
    let tls = if anywhere {
        Some(originated())
    } else {
        policy.tls
    };
    let mut ports = policy.port_level_settings;
    ports.retain(|own| own.port.is_some());
    if rule.host.is_empty() || !(asks(&tls) || ports.iter().any(|own| asks(&own.tls))) {
        return None;
    }
    for own in &mut ports {
        (own.load_balancer, own.connection_pool) = (None, None);
        own.outlier_detection = None;
    }
    rule.traffic_policy = Some(TrafficPolicy {
        tls,
        port_level_settings: ports,
        ..TrafficPolicy::default()
    });
    rule.subsets.clear();
    Some(Spec::DestinationRule(Box::new(rule)))
}

/// The Gateway with the servers whose port can be read.
pub(super) fn gateway(fields: &Map<String, Value>) -> Option<Gateway> {
    let mut gateway: Gateway = pick(fields, &["selector"])?;
    let servers = fields.get("servers")?.as_array()?;
    gateway.servers = servers
        .iter()
        .filter_map(Value::as_object)
        .filter_map(server)
        .collect();
    Some(gateway)
}

fn server(fields: &Map<String, Value>) -> Option<Server> {
    let mut server: Server = pick(fields, &["port"])?;
    let spoken_of = has_tls(fields);
    server.tls = match pick::<Server>(fields, &["tls"]) {
        Some(Server { tls: Some(tls), .. }) => Some(tls),
        _ => spoken_of.then(terminated),
    };
    server.hosts = pick::<Server>(fields, &["hosts"]).map_or_else(Vec::new, |own| own.hosts);
    server.bind = pick::<Server>(fields, &["bind"]).map_or_else(String::new, |own| own.bind);
    Some(server)
}

pub(super) fn terminated() -> ServerTlsSettings {
    ServerTlsSettings {
        mode: ServerTlsMode::Simple,
        ..ServerTlsSettings::default()
    }
}

/// The servers of a Gateway that must not be open as plain text.
pub(super) fn terminating(mut gateway: Gateway) -> Option<Spec> {
    for server in &mut gateway.servers {
        let protocol = server
            .port
            .as_ref()
            .map_or("", |port| port.protocol.as_str());
        let protocol = protocol.to_ascii_uppercase();
        if server.tls.is_none() && matches!(protocol.as_str(), "HTTPS" | "TLS") {
            server.tls = Some(terminated());
        }
        server
            .hosts
            .retain(|host| !host.is_empty() && !host.contains(char::is_whitespace));
        if server.hosts.is_empty() {
            server.hosts.push("*".to_owned());
        }
    }
    gateway.servers.retain(|server| {
        let port = server.port.as_ref().map_or(0, |port| port.number);
        let passes = |tls: &ServerTlsSettings| {
            matches!(
                tls.mode,
                ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
            ) && !tls.https_redirect
        };
        (1..=65535).contains(&port) && server.tls.as_ref().is_some_and(|tls| !passes(tls))
    });
    (!gateway.servers.is_empty()).then(|| Spec::Gateway(Box::new(gateway)))
}

/// Whether a field is `tls`, or nearly so.
fn has_tls(fields: &Map<String, Value>) -> bool {
    let mut names = fields.keys();
    names.any(|name| name == "tls" || yaml::nearest(name, ["tls"]).is_some())
}

/// The Sidecar with what can be read of its reach; a port with TLS whose number cannot be read stands for all.
pub(super) fn sidecar(fields: &Map<String, Value>) -> Sidecar {
    const KNOWN: &[&str] = &["workloadSelector", "workload_selector", "egress"];
    let selected = pick::<Sidecar>(fields, KNOWN.get(..2).unwrap_or_default());
    let mut ingress = Vec::new();
    for (name, value) in fields {
        match value {
            Value::Array(listeners) if name == "ingress" => {
                let asking = listeners.iter().filter_map(Value::as_object);
                ingress.extend(asking.filter(|own| has_tls(own)).map(listener));
            }
            _ if speaks_of_tls(value) && !KNOWN.contains(&name.as_str()) => {
                ingress.push(listener(&Map::new()));
            }
            _ => {}
        }
    }
    let names = &["outboundTrafficPolicy", "outbound_traffic_policy"];
    let policy = pick::<Sidecar>(fields, names).map(|own| own.outbound_traffic_policy);
    Sidecar {
        workload_selector: selected.and_then(|own| own.workload_selector),
        ingress,
        outbound_traffic_policy: policy_of(policy, fields),
        ..Sidecar::default()
    }
}

fn listener(fields: &Map<String, Value>) -> IstioIngressListener {
    let port = pick::<IstioIngressListener>(fields, &["port"]);
    IstioIngressListener {
        port: port.and_then(|own| own.port),
        tls: Some(terminated()),
        ..IstioIngressListener::default()
    }
}

/// What a Sidecar limits: ports with TLS, and that only known hosts are reached.
pub(super) fn limiting(mut sidecar: Sidecar) -> Option<Spec> {
    sidecar.egress.clear();
    sidecar.inbound_connection_pool = None;
    sidecar.ingress.retain(|own| own.tls.is_some());
    let known_only = |policy: &OutboundTrafficPolicy| policy.mode == OutboundMode::RegistryOnly;
    sidecar.outbound_traffic_policy = sidecar.outbound_traffic_policy.filter(known_only);
    let limits = sidecar.outbound_traffic_policy.is_some() || !sidecar.ingress.is_empty();
    limits.then(|| Spec::Sidecar(Box::new(sidecar)))
}

/// What settings of the mesh say about unknown hosts.
pub(super) fn mesh_policy(fields: &Map<String, Value>) -> Option<MeshOutboundTrafficPolicy> {
    let names = &["outboundTrafficPolicy", "outbound_traffic_policy"];
    let policy = pick::<MeshConfig>(fields, names).map(|own| own.outbound_traffic_policy);
    policy_of(policy, fields)
}

/// The policy as it was read; one that cannot be read, or has another name, may let only known hosts be reached, as the
/// default of its mode does.
fn policy_of<P: Default>(policy: Option<Option<P>>, fields: &Map<String, Value>) -> Option<P> {
    let unread = match policy {
        Some(Some(policy)) => return Some(policy),
        Some(None) => fields.values().any(says_known_hosts),
        None => true,
    };
    unread.then(P::default)
}

fn says_known_hosts(value: &Value) -> bool {
    match value {
        Value::String(text) => text == KNOWN_HOSTS,
        Value::Object(fields) => fields.values().any(says_known_hosts),
        Value::Array(items) => items.iter().any(says_known_hosts),
        _ => false,
    }
}

/// What settings of the mesh limit.
pub(super) fn settings(policy: Option<&MeshOutboundTrafficPolicy>) -> Spec {
    let known_only = policy.filter(|policy| policy.mode == MeshOutboundMode::RegistryOnly);
    Spec::MeshConfig(Box::new(MeshConfig {
        outbound_traffic_policy: known_only.cloned(),
        ..MeshConfig::default()
    }))
}
