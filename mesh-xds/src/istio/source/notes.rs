//! What is to be said beside the configuration: notes, and what strictness refuses.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Metadata;
use mesh_core::config::Rejection;
use mesh_core::model::{Name, Note};

use crate::istio::api::gateway::ServerTlsMode;
use crate::istio::api::{Gateway, Origin};
use crate::istio::index::service_entry::selects;
use crate::istio::index::{Config, Context, Proxy, ProxyKind};
use crate::istio::read::{Finding, Level, ObjectId, Places, Scan};
use crate::istio::translate::{self, NoteLevel, Resources};
use crate::istio::validate;

/// The object that made a resource, as its metadata says.
pub(super) fn config(metadata: Option<&Metadata>) -> String {
    use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
    let istio = metadata.and_then(|m| m.filter_metadata.get("istio"));
    match istio
        .and_then(|s| s.fields.get("config"))
        .and_then(|v| v.kind.as_ref())
    {
        Some(ValueKind::StringValue(config)) => config.clone(),
        _ => String::new(),
    }
}

/// What there is to know: what has no effect, what leads nowhere, what refuses traffic, what was passed over.
pub(super) fn notes(
    findings: &[Finding],
    context: &Context,
    resources: &Resources,
    places: &mut Places,
) -> Vec<Note> {
    let mut notes = Vec::new();
    for finding in findings.iter().filter(|f| f.level != Level::Refused) {
        notes.push(note_of(finding));
    }
    let dangling = validate::dangling(&context.objects, context);
    let fields = dangling
        .iter()
        .map(|(object, problem)| (&**object, &problem.path));
    let places = places.of(fields);
    for ((object, problem), location) in dangling.into_iter().zip(places) {
        let finding = Finding {
            level: Level::Warning,
            file: Arc::clone(&object.origin.file),
            location,
            resource: Some(ObjectId::of(&object)),
            path: problem.path,
            message: problem.message,
            allowed: problem.allowed,
            nearest: problem.nearest,
        };
        notes.push(note_of(&finding));
    }
    notes.extend(
        resources
            .clusters
            .iter()
            .filter_map(|cluster| tls_origin(cluster, resources)),
    );
    for note in &resources.notes {
        let prefix = match note.level {
            NoteLevel::Ignored => "does not act",
            NoteLevel::Refusing => "REFUSES TRAFFIC",
        };
        notes.push(Note {
            resource: note.object.as_str().into(),
            path: Name::from(""),
            reason: reason(prefix, &note.text, &place(&note.origin)),
        });
    }
    notes
}

/// A cluster that asks for TLS: nothing here originates it yet, so no connection is made.
fn tls_origin(cluster: &Cluster, resources: &Resources) -> Option<Note> {
    let socket = cluster.transport_socket.as_ref()?;
    if !translate::tls::is_asked_for(socket) {
        return None;
    }
    let config = config(cluster.metadata.as_ref());
    let mut parts = config.rsplit('/');
    let (name, _, namespace) = (parts.next(), parts.next(), parts.next());
    let object = match (name, namespace) {
        (Some(name), Some(namespace)) => format!("DestinationRule {namespace}/{name}"),
        _ => format!("cluster {}", cluster.name),
    };
    let text = format!(
        "TLS to the upstream cannot be originated yet, so requests to cluster {} answer 503",
        cluster.name
    );
    let origin = resources
        .origins
        .get(&config)
        .map(place)
        .unwrap_or_default();
    Some(Note {
        resource: object.into(),
        path: Name::from(""),
        reason: reason("REFUSES TRAFFIC", &text, &origin),
    })
}

/// Gateway servers that ask for TLS: their connections are closed, never served as plain text.
pub(super) fn tls_servers(context: &Context, proxy: &Proxy) -> Vec<Note> {
    let passes = |mode| {
        matches!(
            mode,
            ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
        )
    };
    let mut notes = Vec::new();
    let served = |gateway: &&Arc<Config<Gateway>>| {
        proxy.kind == ProxyKind::Router && selects(&gateway.spec.selector, &proxy.labels)
    };
    for gateway in context.gateways.iter().filter(served) {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(tls) = server.tls.as_ref().filter(|tls| !passes(tls.mode)) else {
                continue;
            };
            let port = server.port.as_ref().map_or(0, |port| port.number);
            let text = format!(
                "TLS ({}) cannot be terminated yet, so connections to port {port} are closed",
                tls.mode.as_str()
            );
            notes.push(Note {
                resource: format!("Gateway {}/{}", gateway.meta.namespace, gateway.meta.name)
                    .into(),
                path: format!("spec.servers[{index}].tls").into(),
                reason: reason("REFUSES TRAFFIC", &text, &place(&gateway.meta.origin)),
            });
        }
    }
    notes
}

/// A gateway for which there is no Gateway.
pub(super) fn idle_gateway(context: &Context, proxy: &Proxy) -> Option<Note> {
    let mut gateways = context.gateways.iter();
    let selected = |gateway: &Arc<Config<Gateway>>| selects(&gateway.spec.selector, &proxy.labels);
    if proxy.kind != ProxyKind::Router || gateways.any(selected) {
        return None;
    }
    Some(Note {
        resource: format!("proxy {}/{}", proxy.namespace, proxy.name).into(),
        path: Name::from(""),
        reason: reason(
            "warning",
            "no Gateway selects its labels, so it serves nothing",
            "",
        ),
    })
}

/// The process runs on the settings that it started with.
pub(super) fn needs_a_start(proxy: &Proxy) -> Note {
    let text = "its ProxyConfig has changed: threads, drain times and the admin port are those of the start";
    Note {
        resource: format!("proxy {}/{}", proxy.namespace, proxy.name).into(),
        path: Name::from(""),
        reason: reason("does not act", text, ""),
    }
}

fn note_of(finding: &Finding) -> Note {
    let prefix = match finding.level {
        Level::Inactive => "does not act",
        Level::Foreign => Note::PASSED_OVER,
        Level::Warning | Level::Refused => "warning",
    };
    let resource = finding
        .resource
        .as_ref()
        .map_or_else(|| finding.file.to_string(), ToString::to_string);
    Note {
        resource: resource.into(),
        path: finding.path.to_string().into(),
        reason: reason(prefix, &finding.reason(), &finding.place()),
    }
}

fn reason(prefix: &str, text: &str, place: &str) -> Name {
    if place.is_empty() {
        format!("{prefix}: {text}").into()
    } else {
        format!("{prefix}: {text} ({place})").into()
    }
}

fn place(origin: &Origin) -> String {
    if origin.line == 0 {
        String::new()
    } else {
        origin.to_string()
    }
}

/// What strictness refuses.
pub(super) fn without_effect(scan: &Scan, resources: &Resources) -> Vec<Rejection> {
    let inactive = scan
        .findings
        .iter()
        .filter(|f| f.level == Level::Inactive)
        .map(rejection);
    let ignored = resources
        .notes
        .iter()
        .filter(|n| n.level == NoteLevel::Ignored)
        .map(|note| Rejection {
            resource: note.object.as_str().into(),
            path: Name::from(""),
            reason: note.text.as_str().into(),
            location: place(&note.origin).into(),
        });
    inactive.chain(ignored).collect()
}

pub(super) fn rejection(finding: &Finding) -> Rejection {
    let resource = finding
        .resource
        .as_ref()
        .map_or_else(|| "file".to_owned(), ToString::to_string);
    Rejection {
        resource: resource.into(),
        path: finding.path.to_string().into(),
        reason: finding.reason().into(),
        location: finding.place().into(),
    }
}
