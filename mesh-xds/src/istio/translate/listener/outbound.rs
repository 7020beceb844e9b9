//! Outbound listeners of a sidecar without interception: each binds its own address and port.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::Listener;

use super::{Bind, Chain, Routes, Side};
use crate::istio::api::virtual_service::{L4MatchAttributes, TlsMatchAttributes};
use crate::istio::index::{
    EgressListener, MESH_GATEWAY, Port, Protocol, Resolution, Service, VirtualServiceRule, host,
    service_entry,
};
use crate::istio::translate::{Env, Note, pb};

/// A listener while services are added to it.
struct Entry {
    protocol: Protocol,
    /// Whether HTTP services share it: the Host header tells them apart.
    shared: bool,
    chains: Vec<Chain>,
    /// Whether it was asked for by port: other services on the port then do not count.
    locked: bool,
    service: String,
}

impl Entry {
    /// Whether a service of that protocol may add its chains.
    fn may_be_joined(&self, protocol: Protocol) -> bool {
        // What turns out to be HTTP is for the services that declared it.
        if self.shared && protocol == Protocol::Unsupported {
            return false;
        }
        // Where a server speaks first, no inspector may wait for the client.
        let speaks_first = |protocol| matches!(protocol, Protocol::Mongo | Protocol::MySql);
        self.protocol == protocol || !(speaks_first(self.protocol) || speaks_first(protocol))
    }

    /// Adds the chains that no other one stands against; false if that were not all of them.
    fn join(&mut self, chains: Vec<Chain>, service: &Service, protocol: Protocol) -> bool {
        let mut all = true;
        for mut chain in chains {
            let clashes = |chain: &Chain| self.chains.iter().any(|own| own.conflicts_with(chain));
            if protocol.is_tls() && chain.sni.is_empty() && clashes(&chain) {
                chain.sni = vec![service.hostname.clone()];
            }
            if clashes(&chain) {
                all = false;
                continue;
            }
            self.shared |= protocol.is_http();
            self.chains.push(chain);
        }
        all
    }
}

impl Env<'_> {
    /// All outbound listeners, with the names of the route configurations that they use.
    pub(in crate::istio::translate) fn outbound_listeners(
        &self,
        notes: &mut Vec<Note>,
    ) -> (Vec<Listener>, Vec<String>) {
        let mut entries: BTreeMap<Bind, Entry> = BTreeMap::new();
        for egress in &self.scope.egress {
            match &egress.spec.port {
                Some(port) => {
                    let port = Port {
                        name: port.name.clone(),
                        port: port.number,
                        protocol: Protocol::parse(&port.protocol),
                    };
                    for service in &egress.services {
                        self.add_service(&mut entries, egress, (service, &port), notes);
                    }
                }
                None => {
                    entries.values_mut().for_each(|entry| entry.locked = true);
                    for service in &egress.services {
                        for port in &service.ports {
                            self.add_service(&mut entries, egress, (service, port), notes);
                        }
                    }
                }
            }
        }
        self.add_http_proxy(&mut entries);
        let chains = entries.values().flat_map(|entry| &entry.chains);
        let mut names: Vec<String> = chains.filter_map(|chain| chain.routes.clone()).collect();
        names.sort();
        names.dedup();
        let listeners = entries
            .into_iter()
            .map(|(bind, entry)| self.listener(&bind, entry.chains, TrafficDirection::Outbound));
        (listeners.collect(), names)
    }

    fn bind(&self, egress: &EgressListener, port: u32) -> Bind {
        let address = match (egress.spec.bind.as_str(), &self.proxy.bind) {
            ("", Some(own)) => own.clone(),
            ("", None) => self.proxy.loopback().to_owned(),
            (address, _) => address.to_owned(),
        };
        Bind { address, port }
    }

    fn add_service(
        &self,
        entries: &mut BTreeMap<Bind, Entry>,
        egress: &EgressListener,
        (service, port): (&Service, &Port),
        notes: &mut Vec<Note>,
    ) {
        if service.resolution == Resolution::Alias || port.protocol == Protocol::Udp {
            return;
        }
        let bind = self.bind(egress, port.port);
        let Some(known) = entries.get_mut(&bind) else {
            let entry = Entry {
                protocol: port.protocol,
                shared: port.protocol.is_http(),
                chains: self.service_chains(&bind, egress, service, port),
                locked: false,
                service: service.hostname.clone(),
            };
            entries.insert(bind, entry);
            return;
        };
        if known.locked || (known.shared && port.protocol.is_http()) {
            return;
        }
        let all = known.may_be_joined(port.protocol) && {
            let chains = self.service_chains(&bind, egress, service, port);
            known.join(chains, service, port.protocol)
        };
        if !all {
            notes.push(Note::ignored(
                &service.origin,
                format!("service {}", service.hostname),
                format!(
                    "port {} is already taken by {}: without interception only HTTP services, or TLS services with other \
                     names, share a port",
                    port.port, known.service
                ),
            ));
        }
    }

    fn service_chains(
        &self,
        bind: &Bind,
        egress: &EgressListener,
        service: &Service,
        port: &Port,
    ) -> Vec<Chain> {
        let http = |name: String, plain_http: bool| {
            let prefix = format!("outbound_{};", bind.name());
            Chain {
                plain_http,
                routes: Some(name.clone()),
                filters: vec![self.http_filter(prefix, Routes::Named(name), Side::Outbound)],
                ..Chain::default()
            }
        };
        if port.protocol.is_http() {
            let name = if port.port == 0 {
                bind.address.clone()
            } else {
                port.port.to_string()
            };
            return vec![http(name, false)];
        }
        let mut chains = self.tcp_chains(&egress.virtual_services, service, port);
        if port.protocol == Protocol::Unsupported {
            chains.push(http(pb::host_port(&service.hostname, port.port), true));
        }
        chains
    }

    /// The chains of a service whose connections are carried as bytes.
    fn tcp_chains(
        &self,
        rules: &[std::sync::Arc<VirtualServiceRule>],
        service: &Service,
        port: &Port,
    ) -> Vec<Chain> {
        let mut chains = Vec::new();
        for rule in rules.iter().filter(|rule| concerns(rule, service)) {
            if port.protocol.is_tls() {
                self.add_tls_rules(&mut chains, rule, port);
            } else if self.add_tcp_rules(&mut chains, rule, port) {
                return chains;
            }
        }
        if chains.is_empty() || !port.protocol.is_tls() {
            chains.push(self.default_chain(service, port));
        }
        chains
    }

    fn default_chain(&self, service: &Service, port: &Port) -> Chain {
        let number = match service.ports.as_slice() {
            [only] => only.port,
            _ => port.port,
        };
        let cluster = pb::subset_key("outbound", "", &service.hostname, number);
        // Without interception the destination address says nothing, so that only the server name tells services apart.
        let network = service
            .addresses
            .iter()
            .any(|address| address.contains('/'));
        let dynamic =
            host::is_wildcard(&service.hostname) && service.resolution == Resolution::DynamicDns;
        let by_name = port.protocol.is_tls() && (network || dynamic);
        Chain {
            sni: if by_name {
                vec![service.hostname.clone()]
            } else {
                Vec::new()
            },
            filters: vec![self.tcp_filter(&cluster, Some(&service.hostname))],
            ..Chain::default()
        }
    }

    fn add_tls_rules(&self, chains: &mut Vec<Chain>, rule: &VirtualServiceRule, port: &Port) {
        for tls in &rule.spec.tls {
            for condition in tls
                .matches
                .iter()
                .filter(|condition| self.tls_applies(condition, port))
            {
                let Some(filter) = self.tcp_route_filter(&tls.route, port.port, &rule.meta) else {
                    continue;
                };
                // A Unix socket, which has port 0, is no network.
                let networks = match port.port {
                    0 => Vec::new(),
                    _ => condition.destination_subnets.clone(),
                };
                let chain = Chain {
                    sni: condition.sni_hosts.clone(),
                    networks,
                    filters: vec![filter],
                    metadata: Some(pb::config_metadata("virtual-service", &rule.meta)),
                    ..Chain::default()
                };
                // Of equal conditions the first one counts.
                if !chains
                    .iter()
                    .any(|known| known.sni == chain.sni && known.networks == chain.networks)
                {
                    chains.push(chain);
                }
            }
        }
    }

    /// Adds the chains of TCP rules; true if one of them takes every connection.
    fn add_tcp_rules(
        &self,
        chains: &mut Vec<Chain>,
        rule: &VirtualServiceRule,
        port: &Port,
    ) -> bool {
        for tcp in &rule.spec.tcp {
            let Some(filter) = self.tcp_route_filter(&tcp.route, port.port, &rule.meta) else {
                continue;
            };
            let mut chain = Chain {
                filters: vec![filter],
                metadata: Some(pb::config_metadata("virtual-service", &rule.meta)),
                ..Chain::default()
            };
            let conditions: Vec<_> = tcp
                .matches
                .iter()
                .filter(|condition| self.tcp_applies(condition, port))
                .collect();
            let all = tcp.matches.is_empty()
                || conditions
                    .iter()
                    .any(|condition| condition.destination_subnets.is_empty() || port.port == 0);
            if all {
                chains.push(chain);
                return true;
            }
            chain.networks = conditions
                .iter()
                .flat_map(|condition| condition.destination_subnets.clone())
                .collect();
            if !chain.networks.is_empty() {
                chains.push(chain);
            }
        }
        false
    }

    /// Whether a condition is for sidecars, and for this one.
    fn is_meant(
        &self,
        gateways: &[String],
        labels: &BTreeMap<String, String>,
        namespace: &str,
    ) -> bool {
        (gateways.is_empty() || gateways.iter().any(|name| name == MESH_GATEWAY))
            && service_entry::selects(labels, &self.proxy.labels)
            && (namespace.is_empty() || *namespace == *self.proxy.namespace)
    }

    fn tls_applies(&self, condition: &TlsMatchAttributes, port: &Port) -> bool {
        let TlsMatchAttributes {
            gateways,
            source_labels,
            source_namespace,
            ..
        } = condition;
        (condition.port == 0 || condition.port == port.port)
            && self.is_meant(gateways, source_labels, source_namespace)
    }

    fn tcp_applies(&self, condition: &L4MatchAttributes, port: &Port) -> bool {
        let L4MatchAttributes {
            gateways,
            source_labels,
            source_namespace,
            ..
        } = condition;
        (condition.port == 0 || condition.port == port.port)
            && self.is_meant(gateways, source_labels, source_namespace)
    }

    /// MeshConfig's `proxyHttpPort`: a port on which every HTTP host of the mesh can be asked for.
    fn add_http_proxy(&self, entries: &mut BTreeMap<Bind, Entry>) {
        let Some(port) = u32::try_from(self.context.mesh.proxy_http_port)
            .ok()
            .filter(|port| *port > 0)
        else {
            return;
        };
        let bind = Bind {
            address: self
                .proxy
                .bind
                .clone()
                .unwrap_or_else(|| self.proxy.loopback().to_owned()),
            port,
        };
        let name = "http_proxy".to_owned();
        let filter = self.http_filter(
            format!("outbound_{};", bind.name()),
            Routes::Named(name.clone()),
            Side::Outbound,
        );
        entries.entry(bind).or_insert_with(|| Entry {
            protocol: Protocol::HttpProxy,
            shared: true,
            chains: vec![Chain {
                routes: Some(name),
                filters: vec![filter],
                ..Chain::default()
            }],
            locked: true,
            service: "proxyHttpPort".to_owned(),
        });
    }
}

fn concerns(rule: &VirtualServiceRule, service: &Service) -> bool {
    rule.spec
        .hosts
        .iter()
        .any(|name| host::matches(name, &service.hostname))
}
