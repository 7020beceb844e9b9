//! Route configurations of a gateway.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::Any;
use route::virtual_host::TlsRequirementType;

use super::{OpenServer, Servers};
use crate::istio::api::virtual_service::Destination;
use crate::istio::index::{Service, VirtualServiceRule, host};
use crate::istio::translate::route::{self as rules, MAX_DIRECT_RESPONSE_BODY, RouteOptions};
use crate::istio::translate::{Env, destination_hash, pb, proxy_headers, session};

/// The routes of rules at gateways. A rule has the same ones on all servers of a gateway that share a route configuration:
/// those of the first server.
type Built = BTreeMap<Source, Vec<route::Route>>;

/// Gateway, and namespace and name of a rule.
type Source = (String, String, String);

/// A virtual host while rules are added to it.
#[derive(Default)]
struct Host {
    /// Port in its name.
    port: u32,
    routes: Vec<route::Route>,
    /// Gateway and rule of each group of routes: hosts with the same ones are merged.
    sources: Vec<Source>,
    https_only: bool,
    /// Settings of sessions, if the host is a service that asks for them.
    session: Option<Any>,
}

impl Env<'_> {
    /// The route configuration of that name.
    pub(in crate::istio::translate) fn gateway_routes(
        &self,
        servers: &Servers<'_>,
        name: &str,
    ) -> route::RouteConfiguration {
        let own: Vec<&OpenServer<'_>> = servers
            .by_bind
            .values()
            .flatten()
            .filter(|server| server.routes.as_deref() == Some(name))
            .collect();
        let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
        let mut built = Built::new();
        for server in &own {
            self.add_rules(&mut hosts, &mut built, server);
            if server.redirects_to_https() {
                for name in &server.hosts {
                    let host = hosts
                        .entry(name.to_ascii_lowercase())
                        .or_insert_with(|| Host {
                            port: server.number,
                            ..Host::default()
                        });
                    host.https_only = true;
                }
            }
        }
        let mut virtual_hosts = merge_equal(hosts);
        if virtual_hosts.is_empty() {
            // A virtual host without routes answers 404.
            virtual_hosts.push(route::VirtualHost {
                name: pb::host_port("blackhole", own.first().map_or(0, |server| server.number)),
                domains: vec!["*".to_owned()],
                ..route::VirtualHost::default()
            });
        }
        virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
        route::RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts,
            validate_clusters: Some(pb::boolean(false)),
            ignore_port_in_host_matching: true,
            max_direct_response_body_size_bytes: Some(pb::uint(MAX_DIRECT_RESPONSE_BODY)),
            ..route::RouteConfiguration::default()
        }
    }

    fn add_rules(
        &self,
        hosts: &mut BTreeMap<String, Host>,
        built: &mut Built,
        server: &OpenServer<'_>,
    ) {
        for rule in self
            .context
            .virtual_services_for(&self.proxy.namespace, &server.gateway)
        {
            let names = intersection(server, &rule);
            if names.is_empty() {
                continue;
            }
            let source = (
                server.gateway.clone(),
                rule.meta.namespace.clone(),
                rule.meta.name.clone(),
            );
            let routes = built.entry(source.clone()).or_default();
            if routes.is_empty() {
                *routes = self.rule_routes_for(&rule, server);
            }
            if routes.is_empty() {
                continue;
            }
            for name in names {
                let name = name.to_ascii_lowercase();
                let host = hosts.entry(name.clone()).or_insert_with(|| Host {
                    port: server.number,
                    session: self.session(&rule, &name),
                    ..Host::default()
                });
                host.routes.extend(routes.iter().cloned());
                host.sources.push(source.clone());
                host.https_only |= server.redirects_to_https();
            }
        }
    }

    fn rule_routes_for(
        &self,
        rule: &VirtualServiceRule,
        server: &OpenServer<'_>,
    ) -> Vec<route::Route> {
        let service = |name: &str| self.service_for_rule(rule, name);
        let hash = |to: &Destination| destination_hash(self.scope, self.proxy, to);
        rules::build(
            rule,
            &RouteOptions {
                proxy: self.proxy,
                port: server.number,
                gateways: &[&server.gateway],
                tls: server.server.tls.is_some(),
                http3: false,
                keeps_host: proxy_headers::keeps_host(self.config.proxy_headers.as_ref()),
                default_retry: self.context.mesh.default_http_retry_policy.as_ref(),
                service: &service,
                hash: &hash,
            },
        )
    }

    /// What a host asks for that is itself a destination of its rule.
    fn session(&self, rule: &VirtualServiceRule, name: &str) -> Option<Any> {
        let destinations = rule.spec.http.iter().flat_map(|http| {
            let arms = http.route.iter().map(|arm| &arm.destination);
            let mirrors = http.mirrors.iter().map(|mirror| &mirror.destination);
            arms.chain(mirrors).chain([&http.mirror]).flatten()
        });
        let mut named = destinations.filter(|to| to.host == name);
        session::for_service(self.service_for_rule(rule, &named.next()?.host)?)
    }

    /// The service that a rule means: the one of its own namespace if the gateway may see it, else any that it may see.
    fn service_for_rule(&self, rule: &VirtualServiceRule, name: &str) -> Option<&Service> {
        let by_namespace = self.context.services_by_host(name);
        let own = by_namespace.get(rule.meta.namespace.as_str()).copied();
        let own = own.filter(|service| self.context.is_visible(service, &self.proxy.namespace));
        own.or_else(|| self.scope.service(name)).map(AsRef::as_ref)
    }
}

/// Hosts that are of the server and of the rule: of each pair the one that the other covers.
fn intersection(server: &OpenServer<'_>, rule: &VirtualServiceRule) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for own in server.hosts_for(&rule.meta.namespace) {
        for other in &rule.spec.hosts {
            let both = if host::subset_of(own, other) {
                own
            } else if host::subset_of(other, own) {
                other
            } else {
                continue;
            };
            if !found.iter().any(|known| known == both) {
                found.push(both.to_owned());
            }
        }
    }
    found
}

/// Virtual hosts, with those of the same rules made one.
fn merge_equal(hosts: BTreeMap<String, Host>) -> Vec<route::VirtualHost> {
    let mut ordered: Vec<(String, Host)> = hosts.into_iter().collect();
    ordered.sort_by(|(a, _), (b, _)| {
        if a == b {
            std::cmp::Ordering::Equal
        } else if host::more_specific(a, b) {
            std::cmp::Ordering::Less
        } else {
            std::cmp::Ordering::Greater
        }
    });
    let mut out: Vec<(Host, route::VirtualHost)> = Vec::new();
    for (name, mut host) in ordered {
        let same = out.iter_mut().find(|(known, _)| {
            known.sources == host.sources && known.https_only == host.https_only
        });
        if let Some((_, merged)) = same {
            merged.domains.push(name);
            continue;
        }
        let built = route::VirtualHost {
            name: pb::host_port(&name, host.port),
            domains: vec![name],
            routes: rules::sort_catch_all(std::mem::take(&mut host.routes)),
            include_request_attempt_count: true,
            require_tls: if host.https_only {
                TlsRequirementType::All.into()
            } else {
                0
            },
            typed_per_filter_config: host
                .session
                .take()
                .map(|config| HashMap::from([(session::FILTER.to_owned(), config)]))
                .unwrap_or_default(),
            ..route::VirtualHost::default()
        };
        out.push((host, built));
    }
    out.into_iter().map(|(_, built)| built).collect()
}
