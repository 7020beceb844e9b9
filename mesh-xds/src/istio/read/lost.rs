//! What an object protects that is refused and has no good version: told from what of it can be read.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::text::{TextOptions, parse};
use crate::istio::api::destination_rule::{ClientTlsMode, ClientTlsSettings, TrafficPolicy};
use crate::istio::api::gateway::{Server, ServerTlsMode, ServerTlsSettings};
use crate::istio::api::security::{Action, MutualTls, MutualTlsMode};
use crate::istio::api::{
    AuthorizationPolicy, DestinationRule, Gateway, Lost, Object, Origin, PeerAuthentication,
    RequestAuthentication, Spec,
};
use crate::yaml;

/// Kinds that protect traffic, wholly or by a part of them.
const PROTECTING: &[&str] = &[
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "DestinationRule",
    "Gateway",
];

/// The API group of the kinds that do nothing but protect.
const SECURITY: &str = "security.istio.io";

/// Whether a kind name is that of a protecting kind, or nearly so.
pub(super) fn protecting(kind: &str) -> Option<&'static str> {
    let exact = PROTECTING.iter().find(|own| **own == kind);
    let near = || {
        let name = yaml::nearest(kind, PROTECTING.iter().copied())?;
        PROTECTING.iter().find(|own| **own == name)
    };
    exact.or_else(near).copied()
}

/// What a refused object protects, by what its head says and `content`, the whole object as far as it can be read. `None`
/// if it protects nothing, or nothing that could be told.
pub(super) fn of_document(
    group: &str,
    kind: Option<&str>,
    namespace: Option<Arc<str>>,
    name: &str,
    origin: Origin,
    content: Option<&Value>,
) -> Option<Lost> {
    let lost = Lost {
        kind: None,
        namespace,
        name: name.into(),
        origin,
        spec: None,
    };
    let Some(kind) = kind else {
        return (group == SECURITY).then_some(lost);
    };
    let kind = protecting(kind)?;
    let empty = Map::new();
    let fields = match content.map(|content| (content, content.get("spec"))) {
        Some((_, Some(Value::Object(fields)))) => Some(fields),
        Some((content, None | Some(Value::Null))) if is_complete(content) => Some(&empty),
        _ => None,
    };
    let told = match fields {
        Some(fields) => of_fields(kind, fields)?,
        None if matches!(kind, "DestinationRule" | "Gateway") => return None,
        None => Told::Nothing,
    };
    Some(Lost {
        kind: Some(kind.into()),
        spec: match told {
            Told::Nothing => None,
            Told::Content(spec) => Some(spec),
        },
        ..lost
    })
}

/// Whether no field of an object is unknown, which might be its misspelt specification.
fn is_complete(content: &Value) -> bool {
    const KNOWN: &[&str] = &["apiVersion", "kind", "metadata", "status", "spec"];
    let fields = content.as_object();
    fields.is_some_and(|fields| fields.keys().all(|name| KNOWN.contains(&name.as_str())))
}

/// What a typed object protects that is refused for what it says.
pub(super) fn of_object(object: &Object) -> Option<Lost> {
    let spec = match &object.spec {
        Spec::AuthorizationPolicy(_) | Spec::RequestAuthentication(_) => object.spec.clone(),
        Spec::PeerAuthentication(policy) => demanded(policy, true)?,
        Spec::DestinationRule(rule) => originating(rule.as_ref().clone())?,
        Spec::Gateway(gateway) => terminating(gateway.as_ref().clone())?,
        _ => return None,
    };
    Some(Lost {
        kind: Some(Arc::clone(&object.kind)),
        namespace: Some(Arc::clone(&object.namespace)),
        name: Arc::clone(&object.name),
        origin: object.origin.clone(),
        spec: Some(spec),
    })
}

/// What can be told of the content of an object of a protecting kind.
enum Told {
    /// Nothing, so that everything which its kind can protect is closed.
    Nothing,
    /// The part that says what it protects.
    Content(Spec),
}

/// `None` if nothing is protected, or nothing that could be told.
fn of_fields(kind: &str, fields: &Map<String, Value>) -> Option<Told> {
    const REACH: &[&str] = &["selector", "targetRef", "targetRefs"];
    Some(match kind {
        "AuthorizationPolicy" => match pick::<AuthorizationPolicy>(fields, REACH) {
            Some(reach) => {
                let action = pick::<AuthorizationPolicy>(fields, &["action"]);
                let action = action.map_or(Action::Allow, |policy| policy.action);
                let policy = AuthorizationPolicy { action, ..reach };
                Told::Content(Spec::AuthorizationPolicy(Box::new(policy)))
            }
            None => Told::Nothing,
        },
        "RequestAuthentication" => match pick::<RequestAuthentication>(fields, REACH) {
            Some(reach) => Told::Content(Spec::RequestAuthentication(Box::new(reach))),
            None => Told::Nothing,
        },
        "PeerAuthentication" => match pick::<PeerAuthentication>(fields, &["selector"]) {
            Some(reach) => {
                let whole = whole::<PeerAuthentication>(fields);
                let complete = whole.is_some();
                Told::Content(demanded(&whole.unwrap_or(reach), complete)?)
            }
            None => Told::Nothing,
        },
        "DestinationRule" => Told::Content(originating(rule(fields)?)?),
        _ => Told::Content(terminating(gateway(fields)?)?),
    })
}

/// Reads the named fields alone; `None` if one of them is not what the type asks for.
fn pick<T: DeserializeOwned>(fields: &Map<String, Value>, names: &[&str]) -> Option<T> {
    let wanted = fields
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()));
    let wanted: Map<String, Value> = wanted.map(|(k, v)| (k.clone(), v.clone())).collect();
    serde_json::from_value(Value::Object(wanted)).ok()
}

fn whole<T: DeserializeOwned>(fields: &Map<String, Value>) -> Option<T> {
    serde_json::from_value(Value::Object(fields.clone())).ok()
}

/// A PeerAuthentication that demands mutual TLS on every port, unless all modes were read and none is STRICT.
fn demanded(policy: &PeerAuthentication, complete: bool) -> Option<Spec> {
    let ports = policy.port_level_mtls.values();
    let strict = |mtls: &MutualTls| mtls.mode == MutualTlsMode::Strict;
    if complete && !policy.mtls.iter().chain(ports).any(strict) {
        return None;
    }
    Some(Spec::PeerAuthentication(Box::new(PeerAuthentication {
        selector: policy.selector.clone(),
        mtls: Some(MutualTls {
            mode: MutualTlsMode::Strict,
        }),
        ..PeerAuthentication::default()
    })))
}

/// The rule, as far as its host can be read; one whose settings cannot be read, though TLS is spoken of, asks for TLS.
fn rule(fields: &Map<String, Value>) -> Option<DestinationRule> {
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

fn originated() -> ClientTlsSettings {
    ClientTlsSettings {
        mode: ClientTlsMode::Simple,
        ..ClientTlsSettings::default()
    }
}

/// What of a rule asks for TLS.
fn originating(mut rule: DestinationRule) -> Option<Spec> {
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
fn gateway(fields: &Map<String, Value>) -> Option<Gateway> {
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
    let of_tls = |name: &String| yaml::nearest(name, ["tls"]).is_some();
    let spoken_of = fields.keys().any(|name| name == "tls" || of_tls(name));
    server.tls = match pick::<Server>(fields, &["tls"]) {
        Some(Server { tls: Some(tls), .. }) => Some(tls),
        _ => spoken_of.then(terminated),
    };
    server.hosts = pick::<Server>(fields, &["hosts"]).map_or_else(Vec::new, |own| own.hosts);
    server.bind = pick::<Server>(fields, &["bind"]).map_or_else(String::new, |own| own.bind);
    Some(server)
}

fn terminated() -> ServerTlsSettings {
    ServerTlsSettings {
        mode: ServerTlsMode::Simple,
        ..ServerTlsSettings::default()
    }
}

/// The servers of a Gateway that must not be open as plain text.
fn terminating(mut gateway: Gateway) -> Option<Spec> {
    for server in &mut gateway.servers {
        let protocol = server.port.as_ref().map_or("", |port| &port.protocol);
        if server.tls.is_none() && matches!(protocol, "HTTPS" | "TLS") {
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

/// What a file protects that cannot be read as text.
pub(super) fn of_file(file: &Arc<str>, path: &Path, options: &TextOptions) -> Vec<Lost> {
    let mut bytes = Vec::new();
    let limit = options.limits.max_bytes;
    let read = File::open(path).and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes));
    match read {
        // What is gone protects nothing.
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(_) => vec![Lost::unreadable(file)],
        Ok(_) if bytes.len() as u64 > limit => vec![Lost::unreadable(file)],
        Ok(_) => of_text(file, &String::from_utf8_lossy(&bytes), options),
    }
}

/// What a text protects that is not YAML, by the documents of it that are and by the words of the others.
pub(super) fn of_text(file: &Arc<str>, text: &str, options: &TextOptions) -> Vec<Lost> {
    let parts = documents(text);
    if let [(line, only)] = parts.as_slice() {
        return of_words(file, *line, only, options);
    }
    let mut lost = Vec::new();
    for (line, part) in parts {
        let parsed = parse(file, part, options);
        let of_objects = parsed.objects.iter().filter_map(|object| of_object(object));
        for mut one in of_objects.chain(parsed.lost) {
            one.origin.line += line - 1;
            lost.push(one);
        }
    }
    lost
}

/// The parts of a text between `---`, each with the line on which it begins.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut parts = Vec::new();
    let (mut begin, mut begin_line, mut at) = (0, 1, 0);
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        if content.starts_with("---") && at > 0 {
            parts.push((begin_line, &text[begin..at]));
            (begin, begin_line) = (at, line);
        }
        at += content.len();
    }
    parts.push((begin_line, &text[begin..]));
    parts
}

/// What one broken document protects, by its words.
fn of_words(file: &Arc<str>, line: u32, text: &str, options: &TextOptions) -> Vec<Lost> {
    let namespaces = values(text, "namespace");
    let namespace = match namespaces.as_slice() {
        [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => {
            Some(Arc::from(*first))
        }
        _ => None,
    };
    let names = values(text, "name");
    let kinds = values(text, "kind");
    let lost_at = |offset: usize| {
        let before = text.get(..offset).unwrap_or_default().matches('\n').count();
        let origin = Origin {
            file: Arc::clone(file),
            line: line.saturating_add(u32::try_from(before).unwrap_or(u32::MAX)),
        };
        Lost {
            namespace: namespace.clone(),
            origin,
            ..Lost::default()
        }
    };
    let mut lost = Vec::new();
    for (offset, kind) in &kinds {
        let name = names.iter().find(|(at, _)| at > offset);
        let mut one = Lost {
            kind: protecting(kind).map(Arc::from),
            name: name.map_or("", |(_, name)| name).into(),
            ..lost_at(*offset)
        };
        match one.kind.as_deref() {
            // No port of it is open.
            None | Some("Gateway") => continue,
            Some("DestinationRule") => {
                one.spec = rule_by_words(text, *offset);
                let namespace = &options.default_namespace;
                one.namespace.get_or_insert_with(|| Arc::clone(namespace));
                lost.extend(one.spec.is_some().then_some(one));
            }
            Some(_) => lost.push(one),
        }
    }
    if let Some(offset) = text.find(SECURITY)
        && lost.is_empty()
    {
        lost.push(lost_at(offset));
    }
    lost
}

/// A rule in a broken text: its host, if TLS is spoken of anywhere near.
fn rule_by_words(text: &str, offset: usize) -> Option<Spec> {
    let hosts = values(text, "host");
    let (_, host) = hosts.iter().find(|(at, _)| *at > offset)?;
    let tls = values(text, "mode")
        .iter()
        .any(|(_, mode)| matches!(*mode, "SIMPLE" | "MUTUAL" | "ISTIO_MUTUAL"));
    let policy = TrafficPolicy {
        tls: Some(originated()),
        ..TrafficPolicy::default()
    };
    originating(DestinationRule {
        host: (*host).to_owned(),
        traffic_policy: tls.then_some(policy),
        ..DestinationRule::default()
    })
}

/// The plain words that follow `key:` in a text, in YAML's block and flow style or JSON, with their offsets.
fn values<'t>(text: &'t str, key: &str) -> Vec<(usize, &'t str)> {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '/');
    let mut found = Vec::new();
    for (at, _) in text.match_indices(key) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(word) {
            continue;
        }
        let rest = text[at + key.len()..].trim_start_matches(['"', '\'']);
        let Some(rest) = rest.trim_start_matches([' ', '\t']).strip_prefix(':') else {
            continue;
        };
        let rest = rest.trim_start_matches([' ', '\t', '"', '\'']);
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        if end > 0 {
            found.push((at, &rest[..end]));
        }
    }
    found
}
