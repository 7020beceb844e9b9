//! Inbound listeners of a sidecar without interception.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Address, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3 as route;

use super::{Bind, Chain, Routes, Side};
use crate::istio::api::sidecar::IstioIngressListener;
use crate::istio::index::{Meta, Port, Protocol, Service};
use crate::istio::translate::protection::{Guard, Protection};
use crate::istio::translate::{Env, Note, cluster, pb, retry, route as rules};

/// Inbound listeners with the clusters behind them.
#[derive(Default)]
pub(in crate::istio::translate) struct Inbound {
    pub(in crate::istio::translate) listeners: Vec<Listener>,
    pub(in crate::istio::translate) clusters: Vec<Cluster>,
}

/// One port that leads to the application.
struct Entrance<'a> {
    bind: Bind,
    port: Port,
    application: Address,
    /// Name in traces.
    host: String,
    origin: Option<&'a Meta>,
}

impl Env<'_> {
    /// The listeners that a Sidecar object asks for; without one, a listener for each port of the workload's services, as
    /// far as the application is known to listen elsewhere.
    pub(in crate::istio::translate) fn inbound(
        &self,
        protection: &Protection,
        notes: &mut Vec<Note>,
    ) -> Inbound {
        let mut out = Inbound::default();
        let sidecar = self
            .scope
            .sidecar
            .as_ref()
            .filter(|sidecar| !sidecar.spec.ingress.is_empty());
        let entrances = match sidecar {
            Some(sidecar) => sidecar
                .spec
                .ingress
                .iter()
                .filter_map(|ingress| self.of_ingress(ingress, &sidecar.meta, notes))
                .collect(),
            None => self.of_services(),
        };
        for entrance in entrances {
            self.add_entrance(&mut out, &entrance, protection);
        }
        out
    }

    fn of_ingress<'a>(
        &self,
        ingress: &IstioIngressListener,
        meta: &'a Meta,
        notes: &mut Vec<Note>,
    ) -> Option<Entrance<'a>> {
        let object = || format!("Sidecar {}/{}", meta.namespace, meta.name);
        let port = ingress.port.as_ref()?;
        let Some(application) = self.default_endpoint(ingress) else {
            notes.push(Note::ignored(
                &meta.origin,
                object(),
                format!(
                    "ingress port {}: defaultEndpoint `{}` is no ADDRESS:PORT and no unix:// path",
                    port.number, ingress.default_endpoint
                ),
            ));
            return None;
        };
        if ingress.tls.is_some() {
            notes.push(Note::refusing(
                &meta.origin,
                object(),
                format!(
                    "ingress port {}: TLS cannot be terminated yet, so the port stays closed",
                    port.number
                ),
            ));
            return None;
        }
        let address = if ingress.bind.is_empty() {
            self.proxy.address()
        } else {
            &ingress.bind
        };
        Some(Entrance {
            bind: Bind {
                address: address.to_owned(),
                port: port.number,
            },
            port: Port {
                name: port.name.clone(),
                port: port.number,
                protocol: Protocol::parse(&port.protocol),
            },
            application,
            host: format!("{}.{}", meta.name, self.proxy.namespace),
            origin: Some(meta),
        })
    }

    /// Where the application listens: `127.0.0.1` and `::1` are its loopback address, `0.0.0.0` and `::` the workload's own
    /// address of that family.
    fn default_endpoint(&self, ingress: &IstioIngressListener) -> Option<Address> {
        let endpoint = ingress.default_endpoint.as_str();
        if let Some(path) = endpoint.strip_prefix("unix://") {
            return Some(pb::pipe(path));
        }
        let proxy = self.proxy;
        let application = proxy.application_address.as_deref();
        let loopback = application.unwrap_or(proxy.loopback());
        if endpoint.is_empty() {
            return Some(pb::socket_address(loopback, ingress.port.as_ref()?.number));
        }
        let (address, port) = endpoint.rsplit_once(':')?;
        let address = match address.trim_matches(['[', ']']) {
            "0.0.0.0" => proxy.address_of(true).unwrap_or("127.0.0.1"),
            "::" => proxy.address_of(false).unwrap_or("::1"),
            "127.0.0.1" => loopback,
            "::1" => match proxy.address_of(false) {
                Some(_) => application.unwrap_or("::1"),
                None => loopback,
            },
            other => other,
        };
        Some(pb::socket_address(address, port.parse().ok()?))
    }

    /// Istiod makes no such listeners without interception, since application and sidecar would bind the same port; here
    /// they are made when the application is said to listen on another address.
    fn of_services(&self) -> Vec<Entrance<'static>> {
        let Some(application) = &self.proxy.application_address else {
            return Vec::new();
        };
        let mut found: Vec<Entrance<'static>> = Vec::new();
        for (service, port, target) in self.own_ports() {
            let bind = Bind {
                address: self.proxy.address().to_owned(),
                port: target,
            };
            if found.iter().any(|known| known.bind == bind) {
                continue;
            }
            found.push(Entrance {
                bind,
                port: Port {
                    port: target,
                    ..port.clone()
                },
                application: pb::socket_address(application, target),
                host: service.hostname.clone(),
                origin: None,
            });
        }
        found
    }

    /// Services whose endpoints include this proxy: the service, its port, and the port on the workload.
    pub(in crate::istio::translate) fn own_ports(&self) -> Vec<(&Service, &Port, u32)> {
        let mut found = Vec::new();
        for service in &self.context.services {
            for instance in self.context.instances_of(service) {
                if !self.proxy.addresses.contains(&instance.address) {
                    continue;
                }
                let ports = service
                    .ports
                    .iter()
                    .filter(|port| port.name == instance.port_name);
                let own = ports.map(|port| (service.as_ref(), port, instance.port));
                for (service, port, target) in own {
                    // An address may be listed several times, as in several localities.
                    let known = |(other, p, t): &(&Service, &Port, u32)| {
                        std::ptr::eq(*other, service) && *p == port && *t == target
                    };
                    if !found.iter().any(known) {
                        found.push((service, port, target));
                    }
                }
            }
        }
        found
    }

    fn add_entrance(&self, out: &mut Inbound, entrance: &Entrance<'_>, protection: &Protection) {
        let number = entrance.port.port;
        let services: Vec<(&Service, &Port)> = self
            .own_ports()
            .into_iter()
            .filter(|(_, _, target)| *target == number)
            .map(|(service, port, _)| (service, port))
            .collect();
        let cluster = pb::subset_key("inbound", "", "", number);
        let guard = protection.of_port(number);
        let protocol = entrance.port.protocol;
        let mut chains = Vec::new();
        if protocol.is_http_or_sniffed() {
            let config = self.inbound_routes(entrance, &cluster, guard);
            let prefix = format!("inbound_{};", entrance.bind.name());
            chains.push(Chain {
                plain_http: !protocol.is_http(),
                filters: vec![self.http_filter(
                    prefix,
                    Routes::Inline(Box::new(config)),
                    Side::Inbound,
                )],
                ..Chain::default()
            });
        }
        if !protocol.is_http() {
            let to = if guard == Guard::Open {
                cluster.as_str()
            } else {
                cluster::BLACK_HOLE
            };
            chains.push(Chain {
                filters: vec![self.tcp_filter(to, None)],
                ..Chain::default()
            });
        }
        for chain in &mut chains {
            chain.name = entrance.bind.name();
            chain.metadata = entrance
                .origin
                .map(|meta| pb::config_metadata("sidecar", meta));
        }
        let listener = self.listener(&entrance.bind, chains, TrafficDirection::Inbound);
        out.listeners.push(listener);
        out.clusters.push(self.inbound_cluster(
            &entrance.port,
            entrance.application.clone(),
            &services,
        ));
    }

    fn inbound_routes(
        &self,
        entrance: &Entrance<'_>,
        cluster: &str,
        guard: Guard,
    ) -> route::RouteConfiguration {
        let operation = format!("{}/*", pb::host_port(&entrance.host, entrance.port.port));
        let route = match guard {
            Guard::Open => {
                // A stream may be reset long after it began, which the default condition does not tell apart.
                let policy = self.context.mesh.default_inbound_http_retry_policy.as_ref();
                let retries = match entrance.port.protocol.is_grpc() {
                    true => None,
                    false => retry::inbound(policy),
                };
                rules::default_inbound(cluster.to_owned(), operation, retries)
            }
            Guard::Refuse => rules::refuse(),
        };
        route::RouteConfiguration {
            name: cluster.to_owned(),
            virtual_hosts: vec![route::VirtualHost {
                name: format!("inbound|http|{}", entrance.port.port),
                domains: vec!["*".to_owned()],
                routes: vec![route],
                ..route::VirtualHost::default()
            }],
            validate_clusters: Some(pb::boolean(false)),
            ..route::RouteConfiguration::default()
        }
    }
}
