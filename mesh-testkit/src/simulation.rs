//! Where a call goes in one configuration, without any socket: listener, filter chain, route and cluster.
//!
//! It answers what Istio's own traffic simulation answers, by the compiled snapshot that a server works with. What the
//! first bytes of a connection are, and which listener it reaches, is told by the call.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mesh_core::config::{Change, MemorySource, Rejection, Update};
use mesh_core::model::{
    Action, Address, ClusterChoice, FilterChain, ListenerFilter, Name, Network, TransportSocket,
};
use mesh_core::route::{Decision, Head};
use mesh_core::snapshot::{ConnFacts, Http, Listener, Mesh, Snapshot};
use mesh_xds::decode;
use mesh_xds::istio::translate;
use prost::Message;
use serde::Deserialize;

/// One configuration, compiled.
#[derive(Debug)]
pub struct World {
    snapshot: Arc<Snapshot>,
    rejections: Vec<Rejection>,
}

/// Wire bytes of resources.
#[derive(Debug, Default)]
pub struct Resources {
    /// `envoy.config.listener.v3.Listener`.
    pub listeners: Vec<Vec<u8>>,
    /// `envoy.config.route.v3.RouteConfiguration`.
    pub routes: Vec<Vec<u8>>,
    /// `envoy.config.cluster.v3.Cluster`.
    pub clusters: Vec<Vec<u8>>,
}

impl From<&translate::Resources> for Resources {
    fn from(made: &translate::Resources) -> Self {
        fn wires<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
            messages.iter().map(Message::encode_to_vec).collect()
        }
        Self {
            listeners: wires(&made.listeners),
            routes: wires(&made.routes),
            clusters: wires(&made.clusters),
        }
    }
}

/// Who sends a call, and what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Call {
    /// How it reaches the proxy; `None`: as calls do that reach the kind of proxy.
    pub mode: Option<Mode>,
    /// The address that it was meant for; empty: any.
    pub address: String,
    /// The port that it was meant for.
    pub port: u16,
    /// What its bytes are.
    pub protocol: Protocol,
    /// What is around them.
    pub tls: Tls,
    /// The application protocol that the TLS hello offers; empty: what such a client offers.
    pub alpn: String,
    /// The server name of the TLS hello.
    pub sni: String,
    /// The Host header.
    pub host: String,
    /// Path; empty: `/`.
    pub path: String,
    /// Name of the server's secret that mutual TLS is about; empty: the mesh's own.
    pub mtls_secret: String,
}

/// How a call reaches the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It is sent to the address itself.
    #[default]
    Gateway,
    /// The network redirected it on its way out.
    Outbound,
    /// The network redirected it on its way in.
    Inbound,
}

/// What a call's bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Nothing that an inspector knows.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http,
    /// HTTP/2.
    Http2,
}

/// What is around a call's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// Nothing.
    #[default]
    Plaintext,
    /// TLS.
    Tls,
    /// TLS with a certificate of the mesh.
    Mtls,
}

/// Where a call went. What it did not come to is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The listener's name.
    pub listener: String,
    /// The filter chain's name.
    pub filter_chain: String,
    /// The route configuration's name, if it has one of its own.
    pub route_config: String,
    /// The virtual host's name.
    pub virtual_host: String,
    /// The route's name.
    pub route: String,
    /// The one cluster that it is sent to.
    pub cluster: String,
    /// Why it went no further, in the words of Istio's simulation.
    pub error: String,
}

impl World {
    /// Decodes and compiles. What is refused is missing, as in a proxy.
    pub fn new(resources: &Resources) -> Self {
        let mut changes = Vec::new();
        let mut rejections = Vec::new();
        for wire in &resources.clusters {
            let decoded = decode::cluster(wire);
            rejections.extend(decoded.findings.rejections);
            changes.extend(decoded.value.map(|value| Change::Cluster(Arc::new(value))));
        }
        for wire in &resources.routes {
            let decoded = decode::routes(wire);
            rejections.extend(decoded.findings.rejections);
            changes.extend(decoded.value.map(|value| Change::Routes(Arc::new(value))));
        }
        for wire in &resources.listeners {
            let decoded = decode::listener(wire);
            rejections.extend(decoded.findings.rejections);
            changes.extend(decoded.value.map(|value| Change::Listener(Arc::new(value))));
        }
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        driver.apply(Update {
            changes,
            ..Update::default()
        });
        rejections.extend(mesh.status().load().rejections.iter().cloned());
        Self {
            snapshot: mesh.snapshot(),
            rejections,
        }
    }

    /// What was refused.
    pub fn rejections(&self) -> &[Rejection] {
        &self.rejections
    }

    /// Where `call` goes.
    pub fn call(&self, call: &Call) -> Found {
        let call = call.completed();
        let mut found = Found::default();
        let Some(destination) = call.destination() else {
            "no address".clone_into(&mut found.error);
            return found;
        };
        let mode = call.mode.unwrap_or_default();
        let Some(listener) = self.listener(mode, destination) else {
            // Envoy takes no listener with two equal chains, and Istio's simulation finds both of them.
            let twice = self.has_overlapping_chains(destination.port());
            let error = if twice {
                TWO_CHAINS
            } else {
                "no listener matched"
            };
            error.clone_into(&mut found.error);
            return found;
        };
        found.listener = listener.config().name.to_string();
        let Some(index) = chain_of(listener, &call, destination) else {
            "no filter chains matched".clone_into(&mut found.error);
            return found;
        };
        if let Some((chain, http)) = listener.chains().nth(index) {
            found.filter_chain = chain.name.to_string();
            match enter(chain, http, &call, &mut found) {
                Ok(()) => {}
                Err(error) => error.clone_into(&mut found.error),
            }
        }
        found
    }

    fn listener(&self, mode: Mode, to: SocketAddr) -> Option<&Arc<Listener>> {
        let listeners = self.snapshot.listeners();
        if mode == Mode::Inbound {
            return listeners.get(VIRTUAL_INBOUND);
        }
        let at = |wanted: &dyn Fn(SocketAddr) -> bool| {
            listeners.values().find(|listener| {
                let config = listener.config();
                let mut addresses =
                    std::iter::once(&config.address).chain(&config.additional_addresses);
                addresses.any(|address| address.socket().is_some_and(wanted))
            })
        };
        at(&|address| address == to)
            .or_else(|| at(&|own| own.ip().is_unspecified() && own.port() == to.port()))
            .or_else(|| {
                listeners
                    .get(VIRTUAL_OUTBOUND)
                    .filter(|_| mode == Mode::Outbound)
            })
    }

    /// Whether a listener of that port is refused since two of its filter chains match the same connections.
    pub fn has_overlapping_chains(&self, port: u16) -> bool {
        let ending = format!("_{port}");
        let overlap = |rejection: &Rejection| {
            let reason = &rejection.reason;
            reason.starts_with("overlaps with that of filter_chains[")
        };
        let mut rejections = self
            .rejections
            .iter()
            .filter(|r| r.resource.ends_with(&ending));
        rejections.any(overlap)
    }
}

const VIRTUAL_INBOUND: &str = "virtualInbound";
const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
const TWO_CHAINS: &str = "multiple filter chains matched";

impl Call {
    /// The call with what such a client says by itself.
    fn completed(&self) -> Self {
        let mut call = self.clone();
        if call.path.is_empty() {
            "/".clone_into(&mut call.path);
        }
        if call.tls == Tls::Tls && call.sni.is_empty() {
            call.sni.clone_from(&call.host);
        }
        if call.alpn.is_empty() {
            call.alpn = match (call.tls, call.protocol) {
                (Tls::Mtls, Protocol::Http) => "istio-http/1.1",
                (Tls::Mtls, Protocol::Http2) => "istio-h2",
                (Tls::Mtls, Protocol::Tcp) => "istio",
                (Tls::Tls, Protocol::Http) => "http/1.1",
                (Tls::Tls, Protocol::Http2) => "h2",
                _ => "",
            }
            .to_owned();
        }
        if call.mtls_secret.is_empty() {
            "default".clone_into(&mut call.mtls_secret);
        }
        call
    }

    fn destination(&self) -> Option<SocketAddr> {
        let ip = match self.address.as_str() {
            // Any will do, as long as nobody listens there.
            "" => IpAddr::V4(Ipv4Addr::new(1, 3, 3, 7)),
            address => address.parse().ok()?,
        };
        Some((ip, self.port).into())
    }
}

/// The filter chain, by what the listener's inspectors see of the connection.
fn chain_of(listener: &Listener, call: &Call, destination: SocketAddr) -> Option<usize> {
    let inspects = |wanted: &ListenerFilter| {
        let mut filters = listener.config().listener_filters.iter();
        filters.any(|filter| match filter {
            ListenerFilter::Except(ports, inner) => **inner == *wanted && !ports.holds(call.port),
            filter => filter == wanted,
        })
    };
    let encrypted = call.tls != Tls::Plaintext;
    let seen = encrypted && inspects(&ListenerFilter::TlsInspector);
    let mut protocols: Vec<Name> = Vec::new();
    if seen {
        protocols.extend((!call.alpn.is_empty()).then(|| call.alpn.as_str().into()));
    } else if !encrypted && inspects(&ListenerFilter::HttpInspector) {
        match call.protocol {
            Protocol::Http => protocols.push("http/1.1".into()),
            Protocol::Http2 => protocols.push("h2c".into()),
            Protocol::Tcp => {}
        }
    }
    let destination = Address::Socket(destination);
    let source = Address::Socket((Ipv4Addr::new(1, 2, 3, 4), 1234).into());
    listener.filter_chains().find(&ConnFacts {
        server_name: if inspects(&ListenerFilter::TlsInspector) {
            &call.sni
        } else {
            ""
        },
        transport_protocol: if seen { "tls" } else { "raw_buffer" },
        application_protocols: &protocols,
        ..ConnFacts::plain(&destination, &source)
    })
}

/// Follows the call through a filter chain; the error is why it goes no further.
fn enter(
    chain: &FilterChain,
    http: Option<&Arc<Http>>,
    call: &Call,
    found: &mut Found,
) -> Result<(), &'static str> {
    if let TransportSocket::Tls(context) = &chain.transport {
        if call.tls == Tls::Plaintext {
            return Err("tls error");
        }
        let own = context.certificates.first();
        let mutual =
            context.require_client_certificate && own.is_some_and(|own| **own == *call.mtls_secret);
        if mutual != (call.tls == Tls::Mtls) {
            return Err("invalid mTLS");
        }
    }
    match (&chain.network, http) {
        (Network::Tcp(proxy), _) => {
            found.cluster = cluster(&proxy.cluster);
            Ok(())
        }
        (_, Some(http)) => {
            let bare = matches!(chain.transport, TransportSocket::RawBuffer);
            if call.protocol == Protocol::Tcp || (bare && call.tls != Tls::Plaintext) {
                return Err("protocol error");
            }
            follow(http, call, found)
        }
        _ => Err("no route matched"),
    }
}

fn follow(http: &Http, call: &Call, found: &mut Found) -> Result<(), &'static str> {
    if let mesh_core::model::RouteSource::Named(name) = &http.config().routes {
        found.route_config = name.to_string();
    }
    let headers: &[(&str, &str)] = &[];
    let scheme: &[u8] = if call.tls == Tls::Plaintext {
        b"http"
    } else {
        b"https"
    };
    let (host, path) = (call.host.as_bytes(), call.path.as_bytes());
    let head = Head::new(b"GET", scheme, host, path, headers);
    let decision = http.routes().load().decide(&head);
    let host = decision.host().ok_or("no virtual host matched")?;
    found.virtual_host = host.name().to_string();
    match (&decision, decision.route()) {
        (Decision::Redirect(_), None) => Err("tls required, sending 301"),
        (_, None) => Err("no route matched"),
        (_, Some(route)) => {
            found.route = route.name().to_string();
            if let Action::Forward(forward) = &route.config().action {
                found.cluster = cluster(&forward.cluster);
            }
            Ok(())
        }
    }
}

fn cluster(choice: &ClusterChoice) -> String {
    match choice {
        ClusterChoice::Name(name) => name.to_string(),
        _ => String::new(),
    }
}
