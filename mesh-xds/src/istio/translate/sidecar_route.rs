//! Route configurations of a sidecar's outbound listeners.

#![allow(deprecated)] // `max_grpc_timeout`, as in the routes of rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use route::route::Action;
use route::route_action::ClusterSpecifier;

use super::route::{MAX_DIRECT_RESPONSE_BODY, RouteOptions};
use super::{Env, domain, hash, pb, proxy_headers, route as rules, session};
use crate::istio::api::sidecar::OutboundMode;
use crate::istio::api::virtual_service::Destination;
use crate::istio::index::{
    EgressListener, MESH_GATEWAY, Protocol, Proxy, Resolution, Semantics, Service,
    VirtualServiceRule, host,
};

/// Services by host, each with the ports that count.
type Services = BTreeMap<String, Arc<Service>>;

/// Routes with the hosts that they are for.
struct Wrapper {
    port: u32,
    services: Vec<Arc<Service>>,
    hosts: Vec<String>,
    routes: Vec<route::Route>,
}

impl Env<'_> {
    /// The route configuration of that name: a port, `host:port` where the protocol is sniffed, or a socket path.
    /// A port that no egress listener is for has no hosts but the unknown ones.
    pub(super) fn outbound_routes(&self, name: &str) -> route::RouteConfiguration {
        let unix = name.starts_with("unix:");
        let sniffed = !unix && name.contains(':');
        let port = if unix {
            0
        } else {
            let number = name.rsplit_once(':').map_or(name, |(_, number)| number);
            number.parse().unwrap_or(0)
        };
        let listener = self.scope.egress_for(port, name);
        let hosts = listener.map(|listener| self.virtual_hosts(listener, port));
        let mut hosts = hosts.unwrap_or_default();
        if sniffed {
            hosts = of_sniffed_port(hosts, name);
        }
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        if !sniffed {
            hosts.push(self.catch_all());
        }
        route::RouteConfiguration {
            name: name.to_owned(),
            virtual_hosts: hosts,
            validate_clusters: Some(pb::boolean(false)),
            max_direct_response_body_size_bytes: Some(pb::uint(MAX_DIRECT_RESPONSE_BODY)),
            ignore_port_in_host_matching: true,
            ..route::RouteConfiguration::default()
        }
    }

    fn virtual_hosts(&self, listener: &EgressListener, port: u32) -> Vec<route::VirtualHost> {
        let proxies_all = listener
            .spec
            .port
            .as_ref()
            .is_some_and(|port| Protocol::parse(&port.protocol) == Protocol::HttpProxy);
        let port = if proxies_all { 0 } else { port };
        let services = services_on(listener, port);
        let mut virtual_services = listener.virtual_services.clone();
        if port != 80 {
            // On port 80 rules count for hosts without a service too.
            let wild: Vec<String> = services
                .keys()
                .filter(|name| host::is_wildcard(name))
                .cloned()
                .collect();
            virtual_services.retain(|rule| concerns(rule, &services, &wild));
        }
        let wrappers = self.wrappers(listener, port, services, &virtual_services);
        let mut by_port = self.build(wrappers, port);
        match port {
            0 => merge_ports(by_port),
            port => by_port.remove(&port).unwrap_or_default(),
        }
    }

    fn wrappers(
        &self,
        listener: &EgressListener,
        port: u32,
        mut services: Services,
        virtual_services: &[Arc<VirtualServiceRule>],
    ) -> Vec<Wrapper> {
        let mut out = Vec::new();
        for rule in virtual_services {
            out.extend(self.of_rule(rule, listener, port, &services));
        }
        for service in out.iter().flat_map(|wrapper| &wrapper.services) {
            services.remove(&service.hostname);
        }
        for service in services
            .values()
            .filter(|service| service.resolution != Resolution::Alias)
        {
            for port in service
                .ports
                .iter()
                .filter(|port| port.protocol.is_http_or_sniffed())
            {
                out.push(Wrapper {
                    port: port.port,
                    services: vec![service.clone()],
                    hosts: Vec::new(),
                    routes: vec![self.default_route(service, port.port)],
                });
            }
        }
        out
    }

    fn default_route(&self, service: &Service, port: u32) -> route::Route {
        let cluster = pb::subset_key("outbound", "", &service.hostname, port);
        let operation = format!("{}/*", pb::host_port(&service.hostname, port));
        let retries = self.context.mesh.default_http_retry_policy.as_ref();
        let mut route = rules::default_outbound(cluster, operation, retries);
        let hash = self
            .scope
            .destination_rule(self.proxy, &service.hostname)
            .and_then(|rule| hash::for_port(&rule.spec, port));
        if let (Some(Action::Route(action)), Some(hash)) =
            (&mut route.action, hash.as_ref().and_then(hash::policy))
        {
            action.hash_policy = vec![hash];
        }
        route
    }

    fn of_rule(
        &self,
        rule: &VirtualServiceRule,
        listener: &EgressListener,
        port: u32,
        services: &Services,
    ) -> Vec<Wrapper> {
        let routes = self.rule_routes(rule, port, services);
        if routes.is_empty() {
            return Vec::new();
        }
        let (hosts, mut matched) = split_hosts(rule, listener, services);
        if rule.semantics == Semantics::Gateway {
            let allowed = |service: &Arc<Service>| {
                service.namespace == rule.meta.namespace
                    || self.proxy.namespace == rule.meta.namespace
            };
            matched.retain(allowed);
            if matched.is_empty() {
                return Vec::new();
            }
        }
        let mut by_port: BTreeMap<u32, Vec<Arc<Service>>> = BTreeMap::new();
        for service in matched {
            for port in service
                .ports
                .iter()
                .filter(|port| port.protocol.is_http_or_sniffed())
            {
                by_port.entry(port.port).or_default().push(service.clone());
            }
        }
        if by_port.is_empty() && port == 80 {
            by_port.insert(80, Vec::new());
        }
        by_port
            .into_iter()
            .map(|(port, services)| Wrapper {
                port,
                services,
                hosts: hosts.clone(),
                routes: routes.clone(),
            })
            .collect()
    }

    fn rule_routes(
        &self,
        rule: &VirtualServiceRule,
        port: u32,
        services: &Services,
    ) -> Vec<route::Route> {
        let service = |name: &str| services.get(name).map(Arc::as_ref);
        let hash = |to: &Destination| super::destination_hash(self.scope, self.proxy, to);
        let options = RouteOptions {
            proxy: self.proxy,
            port,
            gateways: &[MESH_GATEWAY],
            tls: false,
            http3: false,
            keeps_host: proxy_headers::keeps_host(self.config.proxy_headers.as_ref()),
            default_retry: self.context.mesh.default_http_retry_policy.as_ref(),
            service: &service,
            hash: &hash,
        };
        rules::build(rule, &options)
    }

    fn build(
        &self,
        wrappers: Vec<Wrapper>,
        listener_port: u32,
    ) -> BTreeMap<u32, Vec<route::VirtualHost>> {
        let mut builder = HostBuilder {
            proxy: self.proxy,
            listener_port,
            names: BTreeSet::new(),
            domains: BTreeSet::new(),
            known: BTreeSet::new(),
        };
        for wrapper in &wrappers {
            for service in &wrapper.services {
                builder
                    .known
                    .insert(pb::host_port(&service.hostname, wrapper.port));
                builder.known.insert(service.hostname.clone());
            }
        }
        let mut by_port: BTreeMap<u32, Vec<route::VirtualHost>> = BTreeMap::new();
        for wrapper in wrappers {
            let list = by_port.entry(wrapper.port).or_default();
            for name in &wrapper.hosts {
                list.extend(builder.host(&name.to_ascii_lowercase(), &wrapper, None));
            }
            for service in &wrapper.services {
                list.extend(builder.host(&service.hostname, &wrapper, Some(service)));
            }
        }
        by_port
    }

    /// What happens to hosts that nobody knows.
    fn catch_all(&self) -> route::VirtualHost {
        let forward = |cluster: String| {
            let zero = Some(pb::duration(Duration::ZERO));
            Action::Route(route::RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
                timeout: zero,
                max_grpc_timeout: zero,
                append_x_forwarded_host: proxy_headers::keeps_host(
                    self.config.proxy_headers.as_ref(),
                ),
                ..route::RouteAction::default()
            })
        };
        let outbound = &self.scope.outbound;
        let (name, action) = match outbound.mode {
            OutboundMode::RegistryOnly => (
                "block_all",
                Action::DirectResponse(route::DirectResponseAction {
                    status: 502,
                    ..route::DirectResponseAction::default()
                }),
            ),
            OutboundMode::AllowAny => {
                let proxy = outbound
                    .egress_proxy
                    .as_ref()
                    .map(|to| rules::destination_cluster(to, None, 0));
                (
                    "allow_any",
                    forward(proxy.unwrap_or_else(|| "PassthroughCluster".to_owned())),
                )
            }
            OutboundMode::AllowAnyDynamicDns => (
                "allow_any_dynamic_dns",
                forward("allow_any_dynamic_dns".to_owned()),
            ),
        };
        let route = route::Route {
            name: name.to_owned(),
            r#match: Some(super::route_match::any_path()),
            action: Some(action),
            ..route::Route::default()
        };
        route::VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            include_request_attempt_count: true,
            ..route::VirtualHost::default()
        }
    }
}

/// The services of a listener on that port, or on all ports for port 0.
fn services_on(listener: &EgressListener, port: u32) -> Services {
    let mut found = Services::new();
    for service in &listener.services {
        if port == 0 {
            found.insert(service.hostname.clone(), service.clone());
        } else if let Some(own) = service.port(port) {
            found.insert(service.hostname.clone(), Arc::new(service.with_port(own)));
        }
    }
    found
}

/// Whether a host of the rule is, or covers, one of the services; `wild` are the services with a wildcard host.
fn concerns(rule: &VirtualServiceRule, services: &Services, wild: &[String]) -> bool {
    rule.spec.hosts.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        if host::is_wildcard(&name) {
            return services.keys().any(|service| host::matches(&name, service));
        }
        services.contains_key(&name) || wild.iter().any(|service| host::matches(&name, service))
    })
}

/// The rule's hosts without a service, and the services of the others.
fn split_hosts(
    rule: &VirtualServiceRule,
    listener: &EgressListener,
    services: &Services,
) -> (Vec<String>, Vec<Arc<Service>>) {
    let mut names = Vec::new();
    let mut matched = Vec::new();
    let (wild, exact): (Vec<&String>, Vec<&String>) = rule
        .spec
        .hosts
        .iter()
        .partition(|name| host::is_wildcard(name));
    for name in exact {
        match services.get(&name.to_ascii_lowercase()) {
            Some(service) => matched.push(service.clone()),
            None => names.push(name.clone()),
        }
    }
    for name in wild {
        let lower = name.to_ascii_lowercase();
        if rule.semantics == Semantics::Gateway {
            names.push(lower);
            continue;
        }
        let covered: Vec<_> = services
            .values()
            .filter(|service| host::matches(&service.hostname, &lower))
            .collect();
        if covered.is_empty() {
            names.push(lower);
            continue;
        }
        // A service belongs to the rule that covers it most closely.
        let own = (rule.meta.namespace.clone(), rule.meta.name.clone());
        matched.extend(
            covered
                .into_iter()
                .filter(|service| listener.closest.get(&service.hostname) == Some(&own))
                .cloned(),
        );
    }
    (names, matched)
}

struct HostBuilder<'a> {
    proxy: &'a Proxy,
    listener_port: u32,
    names: BTreeSet<String>,
    domains: BTreeSet<String>,
    /// Full names of services: no short form of another service may take them.
    known: BTreeSet<String>,
}

impl HostBuilder<'_> {
    /// The virtual host of a name; nothing if others took the name or all of its domains.
    fn host(
        &mut self,
        hostname: &str,
        wrapper: &Wrapper,
        service: Option<&Service>,
    ) -> Option<route::VirtualHost> {
        let name = pb::host_port(hostname, wrapper.port);
        if !self.names.insert(name.clone()) {
            return None;
        }
        let port = (self.listener_port == 0).then_some(wrapper.port);
        let mut found = match service {
            Some(service) => domain::of_service(service, port, self.proxy),
            None => domain::Domains {
                all: vec![pb::bracketed(hostname)],
                alternative: Vec::new(),
            },
        };
        found.all.retain(|domain| {
            let taken = found.alternative.contains(domain) && self.known.contains(domain);
            !taken && self.domains.insert(domain.to_ascii_lowercase())
        });
        if found.all.is_empty() {
            return None;
        }
        let session = service.and_then(session::for_service);
        Some(route::VirtualHost {
            name,
            domains: found.all,
            routes: wrapper.routes.clone(),
            include_request_attempt_count: true,
            typed_per_filter_config: session
                .map(|config| HashMap::from([(session::FILTER.to_owned(), config)]))
                .unwrap_or_default(),
            ..route::VirtualHost::default()
        })
    }
}

/// The virtual host of the one service that the name means, for every host.
fn of_sniffed_port(hosts: Vec<route::VirtualHost>, name: &str) -> Vec<route::VirtualHost> {
    let without_port = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let mut found: Vec<_> = hosts
        .into_iter()
        .filter(|host| {
            host.domains
                .iter()
                .any(|domain| domain == name || domain == without_port)
        })
        .collect();
    if let [only] = found.as_mut_slice() {
        only.domains = vec!["*".to_owned()];
    }
    found
}

/// Virtual hosts of all ports; a domain without port means port 80.
fn merge_ports(by_port: BTreeMap<u32, Vec<route::VirtualHost>>) -> Vec<route::VirtualHost> {
    let mut out = Vec::new();
    for (port, hosts) in by_port {
        for mut host in hosts {
            if port != 80 {
                host.domains.retain(|domain| domain.contains(':'));
            }
            if !host.domains.is_empty() {
                out.push(host);
            }
        }
    }
    out
}
