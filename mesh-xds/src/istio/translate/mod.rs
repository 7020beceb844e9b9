//! The Envoy resources that istiod would send to one proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;

use super::api::destination_rule::ConsistentHashLb;
use super::api::mesh_config::MeshProxyConfig;
use super::api::virtual_service::Destination;
use super::api::{Lost, Object, Origin, Spec};
use super::index::{
    Context, Interception, Meta, ProcessSettings, Proxy, ProxyKind, Resolution, SidecarScope,
    proxy_config,
};

mod access_log;
mod cluster;
mod connection_settings;
mod domain;
mod endpoint;
mod fault;
mod gateway;
mod hash;
mod header;
mod listener;
mod pb;
mod protection;
mod proxy_headers;
mod retry;
pub mod route;
mod route_match;
mod session;
mod sidecar_route;
mod stat_name;
#[cfg(test)]
mod tests;
pub(super) mod tls;
mod traffic_policy;

pub use pb::{config_name, subset_key};
pub use protection::SKIPPABLE;

/// What all resources of one proxy are made from.
#[derive(Clone, Copy)]
struct Env<'a> {
    context: &'a Context,
    scope: &'a SidecarScope,
    proxy: &'a Proxy,
    /// The settings that count for the proxy.
    config: &'a MeshProxyConfig,
}

/// Choices of the user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Kinds (`AuthorizationPolicy`, `RequestAuthentication`, `PeerAuthentication`) that are not enforced. Without an
    /// entry here a workload that such an object protects refuses its traffic.
    pub insecure_skip: BTreeSet<String>,
}

/// Everything that one proxy gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resources {
    /// Listeners, in order of address and port.
    pub listeners: Vec<Listener>,
    /// Route configurations that listeners refer to by name.
    pub routes: Vec<RouteConfiguration>,
    /// Clusters.
    pub clusters: Vec<Cluster>,
    /// Endpoints of the clusters that get them apart.
    pub endpoints: Vec<ClusterLoadAssignment>,
    /// What the process itself is told.
    pub settings: ProcessSettings,
    /// What does not act, and what refuses traffic.
    pub notes: Vec<Note>,
    /// Where the objects were read that resources name in `metadata.filter_metadata.istio.config`.
    pub origins: BTreeMap<String, Origin>,
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoteLevel {
    /// Something written does not act.
    Ignored,
    /// Traffic is refused, since what protects it cannot be enforced.
    Refusing,
}

/// Something that the user has to know about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How much it matters.
    pub level: NoteLevel,
    /// The object, as `Gateway default/bookinfo-gateway`.
    pub object: String,
    /// Where it was read.
    pub origin: Origin,
    /// What is so.
    pub text: String,
}

impl Note {
    fn ignored(origin: &Origin, object: String, text: String) -> Self {
        let level = NoteLevel::Ignored;
        Self {
            level,
            object,
            origin: origin.clone(),
            text,
        }
    }

    fn refusing(origin: &Origin, object: String, text: String) -> Self {
        Self {
            level: NoteLevel::Refusing,
            ..Self::ignored(origin, object, text)
        }
    }
}

/// The resources that istiod would send to `proxy`.
#[must_use]
pub fn translate(context: &Context, proxy: &Proxy, options: &Options) -> Resources {
    let scope = SidecarScope::new(context, proxy);
    let config = proxy_config::effective(context, proxy);
    let env = Env {
        context,
        scope: &scope,
        proxy,
        config: &config,
    };
    let mut out = Resources {
        origins: origins(&context.objects, &context.lost),
        settings: ProcessSettings::of(&config),
        ..Resources::default()
    };
    let protection = env.protection(&options.insecure_skip, &mut out.notes);
    let clusters = env.outbound_clusters();
    out.clusters = clusters.clusters;
    out.endpoints = clusters.endpoints;
    out.notes.extend(clusters.notes);
    match proxy.kind {
        ProxyKind::Router => {
            let servers = env.gateway_servers(&mut out.notes);
            out.listeners =
                env.gateway_listeners(&servers, protection.of_gateway(), &mut out.notes);
            out.routes = servers
                .route_names()
                .into_iter()
                .map(|name| env.gateway_routes(&servers, name))
                .collect();
        }
        ProxyKind::Sidecar => {
            let (listeners, names) = env.outbound_listeners(&mut out.notes);
            let inbound = env.inbound(&protection, &mut out.notes);
            out.listeners = listeners;
            out.listeners.extend(inbound.listeners);
            out.clusters.extend(inbound.clusters);
            out.routes = names.iter().map(|name| env.outbound_routes(name)).collect();
        }
    }
    proxy_headers::on_hosts(&mut out.routes, config.proxy_headers.as_ref());
    env.note_what_does_not_act(&mut out.notes);
    note_missing_clusters(&mut out);
    out.notes.extend(context.problems.iter().map(|problem| {
        Note::ignored(
            &problem.origin,
            problem.object.clone(),
            problem.text.clone(),
        )
    }));
    out
}

/// The route configuration of that name for outbound traffic of a sidecar: the name is a port, `host:port` where the
/// protocol is detected, or the path of a Unix socket.
#[must_use]
pub fn outbound_route_config(
    context: &Context,
    scope: &SidecarScope,
    proxy: &Proxy,
    name: &str,
) -> RouteConfiguration {
    Env {
        context,
        scope,
        proxy,
        config: &proxy_config::effective(context, proxy),
    }
    .outbound_routes(name)
}

/// What requests to a destination are hashed by, as its DestinationRule says.
#[must_use]
pub fn destination_hash(
    scope: &SidecarScope,
    proxy: &Proxy,
    to: &Destination,
) -> Option<ConsistentHashLb> {
    let rule = scope.destination_rule(proxy, &to.host)?;
    hash::for_destination(&rule.spec, to)
}

/// Where the objects were read that resources name.
pub(super) fn origins(objects: &[Arc<Object>], lost: &[Lost]) -> BTreeMap<String, Origin> {
    let kind = |spec: &Spec| match spec {
        Spec::VirtualService(_) => Some("virtual-service"),
        Spec::DestinationRule(_) => Some("destination-rule"),
        Spec::Sidecar(_) => Some("sidecar"),
        Spec::Gateway(_) => Some("gateway"),
        Spec::ServiceEntry(_) => Some("service-entry"),
        _ => None,
    };
    let named = |object: &Object| {
        let name = pb::config_name(kind(&object.spec)?, &Meta::of(object));
        Some((name, object.origin.clone()))
    };
    let lost = lost.iter().filter_map(Lost::stand_in);
    let lost = lost.filter_map(|object| named(&object));
    let objects = objects.iter().filter_map(|object| named(object));
    lost.chain(objects).collect()
}

impl Env<'_> {
    /// Lists fields that are read and have no effect on the resources of this proxy.
    fn note_what_does_not_act(&self, notes: &mut Vec<Note>) {
        if self.proxy.kind == ProxyKind::Sidecar && self.proxy.interception != Interception::None {
            notes.push(Note::ignored(
                &Origin::default(),
                format!("sidecar {}/{}", self.proxy.namespace, self.proxy.name),
                "interception is not served yet: listeners are made as for interceptionMode NONE"
                    .to_owned(),
            ));
        }
        self.note_auto_mutual_tls(notes);
        for service in self
            .scope
            .services
            .iter()
            .filter(|service| service.resolution == Resolution::DynamicDns)
        {
            notes.push(Note::ignored(
                &service.origin,
                format!("ServiceEntry {}/{}", service.namespace, service.name),
                format!(
                    "resolution DYNAMIC_DNS does not act yet: requests for {} are answered 503",
                    service.hostname
                ),
            ));
        }
    }
}

/// The label of workloads that take mutual TLS of the mesh.
const TLS_MODE: &str = "security.istio.io/tlsMode";

impl Env<'_> {
    /// Names workloads to which istiod would send mutual TLS by itself: here they get plain text.
    fn note_auto_mutual_tls(&self, notes: &mut Vec<Note>) {
        let workloads = &self.context.workloads;
        let mut named = workloads.iter().filter(|workload| {
            workload
                .labels
                .get(TLS_MODE)
                .is_some_and(|mode| mode == "istio")
                && workload.name != self.proxy.name
        });
        if let Some(first) = named.next() {
            notes.push(Note::ignored(
                &Origin::default(),
                format!("workload {}/{}", first.namespace, first.name),
                format!(
                    "label {TLS_MODE}: istio does not act yet: it and {} others are sent plain text",
                    named.count()
                ),
            ));
        }
    }
}

/// Names every destination that no cluster stands for: requests that are led there are answered 503.
fn note_missing_clusters(out: &mut Resources) {
    let known: BTreeSet<&str> = out
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    let mut missing: BTreeSet<(String, String)> = BTreeSet::new();
    let hosts = out.routes.iter().flat_map(|config| &config.virtual_hosts);
    for entry in hosts.flat_map(|host| &host.routes) {
        for name in route::clusters(entry)
            .into_iter()
            .filter(|name| !known.contains(name))
        {
            missing.insert((pb::config_of(entry.metadata.as_ref()), name.to_owned()));
        }
    }
    for (config, cluster) in missing {
        let origin = out.origins.get(&config).cloned().unwrap_or_default();
        let mut parts = config.rsplit('/');
        let (name, _, namespace) = (parts.next(), parts.next(), parts.next());
        let object = format!(
            "VirtualService {}/{}",
            namespace.unwrap_or_default(),
            name.unwrap_or_default()
        );
        out.notes.push(Note::ignored(
            &origin,
            object,
            format!(
                "{}: requests that it leads there are answered 503",
                missing_text(&cluster)
            ),
        ));
    }
}

fn missing_text(cluster: &str) -> String {
    match cluster.split('|').collect::<Vec<_>>().as_slice() {
        [_, "0", "", host] => format!("no service {host} is known"),
        [_, port, "", host] => format!("no service {host} with port {port} is known"),
        [_, port, subset, host] => format!("subset {subset} of {host}:{port} does not exist"),
        _ => format!("cluster {cluster} does not exist"),
    }
}
