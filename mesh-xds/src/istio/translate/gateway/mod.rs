//! Gateways: the Gateway objects of one workload, merged by the ports that they open.

use std::collections::{BTreeMap, BTreeSet};

use super::listener::Bind;
use super::{Env, Note};
use crate::istio::api::gateway::{Server, ServerTlsMode};
use crate::istio::index::{Meta, Protocol, host, service_entry};

mod listener;
mod route;

/// The label of a Service whose ports say nothing about the ports of a gateway.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// One server of a Gateway object on the port that it really opens.
struct OpenServer<'a> {
    /// `namespace/name` of the object.
    gateway: String,
    meta: &'a Meta,
    server: &'a Server,
    /// Hosts as `namespace/host`, or a host alone for rules of any namespace.
    hosts: Vec<String>,
    protocol: Protocol,
    /// The number in the object.
    number: u32,
    /// Name of its route configuration; none for servers that carry bytes.
    routes: Option<String>,
}

impl OpenServer<'_> {
    fn mode(&self) -> Option<ServerTlsMode> {
        self.server.tls.as_ref().map(|tls| tls.mode)
    }

    fn passes_tls_through(&self) -> bool {
        matches!(
            self.mode(),
            Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
        )
    }

    /// Whether TLS comes in, be it terminated or passed through.
    fn is_tls(&self) -> bool {
        self.server.tls.is_some() && !self.protocol.is_http()
    }

    fn redirects_to_https(&self) -> bool {
        self.server
            .tls
            .as_ref()
            .is_some_and(|tls| tls.https_redirect)
    }

    /// Hosts without their namespace, each once.
    fn server_names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self
            .hosts
            .iter()
            .map(|name| host::split_namespace(name).1)
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The hosts that a rule of `namespace` may use.
    fn hosts_for<'h>(&'h self, namespace: &'h str) -> impl Iterator<Item = &'h str> {
        self.hosts
            .iter()
            .filter_map(move |name| match name.split_once('/') {
                None => Some(name.as_str()),
                Some((own, name)) => (own == namespace).then_some(name),
            })
    }
}

/// All servers of one proxy.
#[derive(Default)]
pub(super) struct Servers<'a> {
    by_bind: BTreeMap<Bind, Vec<OpenServer<'a>>>,
}

impl Servers<'_> {
    /// The names of all route configurations.
    pub(super) fn route_names(&self) -> BTreeSet<&str> {
        self.by_bind
            .values()
            .flatten()
            .filter_map(|server| server.routes.as_deref())
            .collect()
    }
}

impl<'a> Env<'a> {
    /// The servers of all Gateway objects that select this proxy, the oldest first.
    pub(super) fn gateway_servers(&self, notes: &mut Vec<Note>) -> Servers<'a> {
        let mut servers = Servers::default();
        let context = self.context;
        for gateway in &context.gateways {
            if !service_entry::selects(&gateway.spec.selector, &self.proxy.labels) {
                continue;
            }
            for server in &gateway.spec.servers {
                self.open(&mut servers, &gateway.meta, server, notes);
            }
        }
        servers
    }

    fn open(
        &self,
        servers: &mut Servers<'a>,
        meta: &'a Meta,
        server: &'a Server,
        notes: &mut Vec<Note>,
    ) {
        let Some(port) = &server.port else { return };
        let resolved = self.listening_port(port.number);
        let open = OpenServer {
            gateway: format!("{}/{}", meta.namespace, meta.name),
            meta,
            server,
            hosts: server
                .hosts
                .iter()
                .map(|name| qualified(name, &meta.namespace))
                .collect(),
            protocol: Protocol::parse(&port.protocol),
            number: port.number,
            routes: route_name(server, meta, resolved),
        };
        let bind = Bind {
            address: match (server.bind.as_str(), &self.proxy.bind) {
                ("", None) => self.proxy.wildcard().to_owned(),
                ("", Some(own)) => own.clone(),
                (address, _) => address.to_owned(),
            },
            port: resolved,
        };
        let list = servers.by_bind.entry(bind).or_default();
        match conflict(list, &open) {
            None => list.push(open),
            Some(text) => notes.push(Note::ignored(
                &meta.origin,
                format!("Gateway {}", open.gateway),
                format!("server on port {}: {text}", open.number),
            )),
        }
    }

    /// The port of the workload behind a port of its Service; a port that no Service has is meant as it is. A Service may
    /// stay out of this by its label.
    fn listening_port(&self, number: u32) -> u32 {
        let own = self.own_ports();
        own.into_iter()
            .filter(|(service, ..)| !service.labels.contains_key(NO_TRANSLATION))
            .find(|(_, port, _)| port.port == number)
            .map_or(number, |(.., target)| target)
    }
}

/// `namespace/host` with the namespace spelt out; a host alone where any namespace is meant.
fn qualified(name: &str, namespace: &str) -> String {
    match name.split_once('/') {
        Some((".", host)) => format!("{namespace}/{host}"),
        Some(("*", host)) => host.to_owned(),
        _ => name.to_owned(),
    }
}

fn route_name(server: &Server, meta: &Meta, resolved: u32) -> Option<String> {
    let port = server.port.as_ref()?;
    let protocol = Protocol::parse(&port.protocol);
    let bind = if server.bind.is_empty() {
        String::new()
    } else {
        format!(".{}", server.bind)
    };
    if protocol.is_http() {
        return Some(format!("http.{resolved}{bind}"));
    }
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    let passes = matches!(
        mode,
        Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
    );
    (protocol == Protocol::Https && !passes).then(|| {
        format!(
            "https.{}.{}.{}.{}{bind}",
            port.number, port.name, meta.name, meta.namespace
        )
    })
}

/// Why a server cannot stand beside the ones that opened its port before.
fn conflict(known: &[OpenServer<'_>], new: &OpenServer<'_>) -> Option<String> {
    let first = known.first()?;
    let shares = match new.is_tls() {
        true => first.is_tls(),
        false => first.protocol.is_http() && new.protocol.is_http(),
    };
    if !shares {
        return Some(format!(
            "the port is opened by Gateway {} for {:?}",
            first.gateway, first.protocol
        ));
    }
    // One of two servers with settings of TLS counts for a host, also where these only ask for a redirect. Hosts of several
    // namespaces may have the same name: what clashes then is seen where chains are made.
    new.server.tls.as_ref()?;
    let taken = known.iter().find(|other| {
        other.server.tls.is_some() && other.hosts.iter().any(|name| new.hosts.contains(name))
    });
    taken.map(|other| format!("its hosts are taken by Gateway {}", other.gateway))
}
