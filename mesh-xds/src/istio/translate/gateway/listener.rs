//! Listeners of a gateway.

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::{OpenServer, Servers};
use crate::istio::api::gateway::ServerTlsMode;
use crate::istio::index::{VirtualServiceRule, host};
use crate::istio::translate::listener::{Bind, Chain, Routes, Side};
use crate::istio::translate::protection::Guard;
use crate::istio::translate::{Env, Note, cluster, connection_settings, pb, route as rules, tls};

impl Env<'_> {
    /// One listener for each address and port.
    pub(in crate::istio::translate) fn gateway_listeners(
        &self,
        servers: &Servers<'_>,
        guard: Guard,
        notes: &mut Vec<Note>,
    ) -> Vec<Listener> {
        let mut out = Vec::new();
        for (bind, list) in &servers.by_bind {
            let mut chains: Vec<Chain> = Vec::new();
            for server in list {
                for chain in self.chains_of(bind, server, guard, notes) {
                    if !chains.iter().any(|known| known.conflicts_with(&chain)) {
                        chains.push(chain);
                    } else if server.is_tls() {
                        let text = format!(
                            "server on port {}: older servers or rules have some of the names {:?}",
                            server.number, chain.sni
                        );
                        notes.push(Note::ignored(
                            &server.meta.origin,
                            format!("Gateway {}", server.gateway),
                            text,
                        ));
                    }
                }
            }
            if !chains.is_empty() {
                let mut listener = self.listener(bind, chains, TrafficDirection::Outbound);
                if let Some(settings) = connection_settings::of(self.config, self.proxy) {
                    connection_settings::on_listener(&mut listener, &settings);
                }
                out.push(listener);
            }
        }
        out
    }

    fn chains_of(
        &self,
        bind: &Bind,
        server: &OpenServer<'_>,
        guard: Guard,
        notes: &mut Vec<Note>,
    ) -> Vec<Chain> {
        if let Some(name) = &server.routes {
            let routes = match guard {
                Guard::Open => Routes::Named(name.clone()),
                Guard::Refuse => Routes::Inline(Box::new(refusing(name))),
            };
            let terminates = server.is_tls();
            return vec![Chain {
                sni: if terminates {
                    server.server_names()
                } else {
                    Vec::new()
                },
                tls: server
                    .server
                    .tls
                    .as_ref()
                    .filter(|_| terminates)
                    .map(tls::downstream),
                filters: vec![self.http_filter(
                    format!("outbound_{};", bind.name()),
                    routes,
                    Side::Gateway,
                )],
                ..Chain::default()
            }];
        }
        let mut chains = if server.passes_tls_through() {
            self.passthrough_chains(server, notes)
        } else {
            self.tcp_server_chain(server).into_iter().collect()
        };
        if guard == Guard::Refuse {
            for chain in &mut chains {
                chain.filters = vec![self.tcp_filter(cluster::BLACK_HOLE, None)];
            }
        }
        if chains.is_empty() {
            let text = format!(
                "no rule leads anywhere from the server on port {}: the port stays closed",
                server.number
            );
            notes.push(Note::ignored(
                &server.meta.origin,
                format!("Gateway {}", server.gateway),
                text,
            ));
        }
        chains
    }

    fn tcp_server_chain(&self, server: &OpenServer<'_>) -> Option<Chain> {
        for rule in self
            .context
            .virtual_services_for(&self.proxy.namespace, &server.gateway)
        {
            if !shares_host(server, &rule) {
                continue;
            }
            for tcp in &rule.spec.tcp {
                let applies = tcp.matches.is_empty()
                    || tcp.matches.iter().any(|condition| {
                        self.at_gateway(server, &condition.gateways, condition.port)
                    });
                if applies
                    && let Some(filter) =
                        self.tcp_route_filter(&tcp.route, server.number, &rule.meta)
                {
                    return Some(Chain {
                        sni: if server.is_tls() {
                            server.server_names()
                        } else {
                            Vec::new()
                        },
                        tls: server.server.tls.as_ref().map(tls::downstream),
                        filters: vec![filter],
                        ..Chain::default()
                    });
                }
            }
        }
        None
    }

    fn passthrough_chains(&self, server: &OpenServer<'_>, notes: &mut Vec<Note>) -> Vec<Chain> {
        if server.mode() == Some(ServerTlsMode::AutoPassthrough) {
            let text = format!(
                "server on port {}: AUTO_PASSTHROUGH does not act yet",
                server.number
            );
            notes.push(Note::ignored(
                &server.meta.origin,
                format!("Gateway {}", server.gateway),
                text,
            ));
            return Vec::new();
        }
        let mut chains = Vec::new();
        for rule in self
            .context
            .virtual_services_for(&self.proxy.namespace, &server.gateway)
        {
            if !shares_host(server, &rule) {
                continue;
            }
            for tls in &rule.spec.tls {
                for condition in &tls.matches {
                    if !self.at_gateway(server, &condition.gateways, condition.port) {
                        continue;
                    }
                    chains.extend(
                        self.tcp_route_filter(&tls.route, server.number, &rule.meta)
                            .map(|filter| Chain {
                                sni: condition.sni_hosts.clone(),
                                filters: vec![filter],
                                metadata: Some(pb::config_metadata("virtual-service", &rule.meta)),
                                ..Chain::default()
                            }),
                    );
                }
            }
        }
        chains
    }

    fn at_gateway(&self, server: &OpenServer<'_>, gateways: &[String], port: u32) -> bool {
        (gateways.is_empty() || gateways.contains(&server.gateway))
            && (port == 0 || port == server.number)
    }
}

fn shares_host(server: &OpenServer<'_>, rule: &VirtualServiceRule) -> bool {
    let mut own = server.hosts_for(&rule.meta.namespace);
    own.any(|own| {
        rule.spec
            .hosts
            .iter()
            .any(|other| host::matches(own, other))
    })
}

fn refusing(name: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "refuse".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![rules::refuse()],
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    }
}
