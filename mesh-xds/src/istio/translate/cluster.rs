//! Clusters.

#![allow(deprecated)] // DNS settings by field are what istiod sends.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use cluster::cluster::{DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf as google;

use super::endpoint::Selection;
use super::traffic_policy::{self, Draft};
use super::{Env, Note, pb, stat_name, tls};
use crate::istio::api::MeshConfig;
use crate::istio::api::destination_rule::{ConnectionPoolSettings, SimpleLb, TrafficPolicy};
use crate::istio::index::{
    Interception, MergedRule, Port, Protocol, ProxyKind, Registry, Resolution, Service,
};

/// Traffic to hosts that nobody knows is passed on by this cluster.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Traffic that goes nowhere.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Clusters, and the endpoints of those that get them apart.
#[derive(Default)]
pub(super) struct Clusters {
    pub(super) clusters: Vec<cluster::Cluster>,
    pub(super) endpoints: Vec<endpoint::ClusterLoadAssignment>,
    pub(super) notes: Vec<Note>,
}

/// An outbound cluster to be built.
struct Target<'a> {
    service: &'a Service,
    port: &'a Port,
    rule: Option<&'a MergedRule>,
    subset: &'a str,
    labels: &'a BTreeMap<String, String>,
    policy: Option<TrafficPolicy>,
    /// How its endpoints are found; a subset begins with what the whole service ended with.
    kind: DiscoveryType,
}

impl Env<'_> {
    /// One cluster for each port of each service, and one for each subset.
    pub(super) fn outbound_clusters(&self) -> Clusters {
        let mut out = Clusters::default();
        let services = self
            .scope
            .services
            .iter()
            .filter(|service| service.resolution != Resolution::Alias);
        for service in services {
            let rule = self
                .scope
                .destination_rule(self.proxy, &service.hostname)
                .map(AsRef::as_ref);
            for port in service
                .ports
                .iter()
                .filter(|port| port.protocol != Protocol::Udp)
            {
                self.add_port(&mut out, service, port, rule);
            }
        }
        out.clusters.push(black_hole(&self.context.mesh));
        if self.proxy.kind == ProxyKind::Sidecar {
            out.clusters.push(self.passthrough());
        }
        out
    }

    fn add_port(
        &self,
        out: &mut Clusters,
        service: &Service,
        port: &Port,
        rule: Option<&MergedRule>,
    ) {
        let policy = rule.and_then(|rule| rule.spec.traffic_policy.as_ref());
        let policy = traffic_policy::for_port(policy, port.port);
        let general = traffic_policy::with_mesh_default(policy, &self.context.mesh);
        let none = BTreeMap::new();
        let mut target = Target {
            service,
            port,
            rule,
            subset: "",
            labels: &none,
            policy: general.clone(),
            kind: self.discovery_type(service),
        };
        let Some(kind) = self.add(out, &target) else {
            return;
        };
        for subset in rule.iter().flat_map(|rule| &rule.spec.subsets) {
            target.subset = &subset.name;
            target.labels = &subset.labels;
            let passed = |policy: &TrafficPolicy| {
                let balancer = policy.load_balancer.as_ref();
                balancer.and_then(|own| own.simple) == Some(SimpleLb::Passthrough)
            };
            target.kind = match &subset.traffic_policy {
                Some(policy) if passed(policy) => DiscoveryType::OriginalDst,
                _ => kind,
            };
            target.policy = traffic_policy::for_subset(
                general.as_ref(),
                subset.traffic_policy.as_ref(),
                port.port,
            );
            self.add(out, &target);
        }
    }

    /// Adds the cluster of `target`, and says how it finds its endpoints; nothing if there is no cluster without any.
    fn add(&self, out: &mut Clusters, target: &Target<'_>) -> Option<DiscoveryType> {
        let (service, port, kind) = (target.service, target.port, target.kind);
        let name = pb::subset_key("outbound", target.subset, &service.hostname, port.port);
        let assignment = self.load_assignment(
            &name,
            &Selection {
                service,
                port,
                labels: target.labels,
            },
        );
        let by_name = matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns);
        if by_name && assignment.endpoints.is_empty() {
            return None;
        }
        self.note_localities(&mut out.notes, target, assignment.endpoints.len());
        let mut draft = new_draft(&name, kind);
        if let Some(name) = self.outbound_stat_name(target) {
            draft.cluster.alt_stat_name = name;
        }
        set_port_override(&mut draft, service, port);
        // No share of unhealthy endpoints makes the others count again.
        draft
            .cluster
            .common_lb_config
            .get_or_insert_default()
            .healthy_panic_threshold = Some(Percent { value: 0.0 });
        if by_name {
            self.set_dns(&mut draft.cluster, service);
            draft.cluster.load_assignment = Some(assignment.clone());
        }
        if self.proxy.kind == ProxyKind::Sidecar || port.protocol.is_http() {
            traffic_policy::set_upstream_protocol(&mut draft, port.protocol);
        }
        draft.cluster.metadata = Some(outbound_metadata(service, target.subset));
        traffic_policy::apply(
            &mut draft,
            target.policy.as_ref(),
            &self.context.mesh,
            Some(port),
        );
        self.set_transport(&mut draft, target);
        if let Some(rule) = target.rule {
            pb::add_config(&mut draft.cluster.metadata, "destination-rule", &rule.meta);
        }
        if draft.is_type(DiscoveryType::Eds) {
            draft.cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(ads()),
                service_name: name,
            });
            out.endpoints.push(assignment);
        }
        let passed = draft.is_type(DiscoveryType::OriginalDst);
        out.clusters.push(draft.finish());
        Some(if passed {
            DiscoveryType::OriginalDst
        } else {
            kind
        })
    }

    /// What the mesh's settings call an outbound cluster; nothing if they say nothing.
    fn outbound_stat_name(&self, target: &Target<'_>) -> Option<String> {
        let pattern = &self.context.mesh.outbound_cluster_stat_name;
        let parts = stat_name::Parts {
            host: &target.service.hostname,
            service: Some(target.service),
            subset: target.subset,
            port: target.port,
            target_port: 0,
        };
        (!pattern.is_empty()).then(|| stat_name::of(pattern, &parts))
    }

    /// How a service's addresses are found. Where nothing intercepts traffic there is no original destination, so the
    /// endpoints of a headless Service are listed.
    fn discovery_type(&self, service: &Service) -> DiscoveryType {
        let sidecar = self.proxy.kind == ProxyKind::Sidecar;
        let intercepted = sidecar && self.proxy.interception != Interception::None;
        match service.resolution {
            Resolution::DnsLb if service.races => DiscoveryType::LogicalDns,
            Resolution::DnsLb => DiscoveryType::StrictDns,
            Resolution::DnsRoundRobinLb => DiscoveryType::LogicalDns,
            Resolution::Passthrough
                if intercepted || (sidecar && service.registry == Registry::External) =>
            {
                DiscoveryType::OriginalDst
            }
            Resolution::DynamicDns => DiscoveryType::OriginalDst,
            Resolution::Passthrough | Resolution::ClientSideLb | Resolution::Alias => {
                DiscoveryType::Eds
            }
        }
    }

    /// Names are resolved to addresses of the proxy's own family, where it has but one; to all for a race.
    fn set_dns(&self, cluster: &mut cluster::Cluster, service: &Service) {
        let addresses = &self.proxy.addresses;
        let six = |address: &String| address.parse().is_ok_and(|own: IpAddr| own.is_ipv6());
        let family = if service.races {
            DnsLookupFamily::All
        } else if !addresses.is_empty() && addresses.iter().all(six) {
            DnsLookupFamily::V6Only
        } else {
            DnsLookupFamily::V4Only
        };
        let refresh = self.context.mesh.dns_refresh_rate;
        cluster.dns_lookup_family = family.into();
        cluster.dns_refresh_rate = Some(pb::duration(refresh.unwrap_or(Duration::from_secs(60))));
        cluster.respect_dns_ttl = true;
    }

    /// Istiod gives endpoints of other localities a lower priority once outlier detection is on.
    fn note_localities(&self, notes: &mut Vec<Note>, target: &Target<'_>, localities: usize) {
        let outlier = target
            .policy
            .as_ref()
            .is_some_and(|policy| policy.outlier_detection.is_some());
        let off = self.context.mesh.locality_lb_setting.as_ref();
        let off = off.is_some_and(|setting| setting.enabled == Some(false));
        let Some(rule) = target.rule.filter(|_| outlier && !off && localities > 1) else {
            return;
        };
        if self.proxy.locality.is_empty() {
            return;
        }
        let object = format!("DestinationRule {}/{}", rule.meta.namespace, rule.meta.name);
        if notes.iter().all(|known| known.object != object) {
            notes.push(Note::ignored(
                &rule.meta.origin,
                object,
                format!(
                    "outlierDetection makes no failover between localities yet: endpoints of {} in all {localities} \
                     localities are used alike",
                    target.service.hostname
                ),
            ));
        }
    }

    fn set_transport(&self, draft: &mut Draft, target: &Target<'_>) {
        let Some(policy) = &target.policy else { return };
        if let Some(settings) = &policy.tls {
            let (port, host) = (target.port.port, &target.service.hostname);
            let sni = format!("outbound_.{port}_.{}_.{host}", target.subset);
            draft.cluster.transport_socket = tls::upstream(settings, &sni);
        }
        if let Some(header) = &policy.proxy_protocol {
            let inner = draft.cluster.transport_socket.take();
            draft.cluster.transport_socket = Some(tls::proxy_protocol(header, inner));
        }
    }

    fn passthrough(&self) -> cluster::Cluster {
        let mesh = &self.context.mesh;
        let mut draft = new_draft(PASSTHROUGH, DiscoveryType::OriginalDst);
        let policy = traffic_policy::with_mesh_default(None, mesh).unwrap_or_default();
        traffic_policy::apply_pool(&mut draft, policy.connection_pool.as_ref(), None, mesh);
        // Limits count here; how HTTP is spoken does not change.
        draft.http = None;
        draft.use_downstream_protocol();
        let options = draft.http.get_or_insert_default();
        options
            .common_http_protocol_options
            .get_or_insert_default()
            .idle_timeout = Some(pb::duration(Duration::from_secs(300)));
        draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
        draft.cluster.common_lb_config = None;
        draft.finish()
    }

    /// A cluster with the application as its one endpoint, for what comes in for those ports of services.
    pub(super) fn inbound_cluster(
        &self,
        port: &Port,
        address: core::Address,
        services: &[(&Service, &Port)],
    ) -> cluster::Cluster {
        let name = pb::subset_key("inbound", "", "", port.port);
        let mut draft = new_draft(&name, DiscoveryType::Static);
        if let Some(name) = self.inbound_stat_name(port, services) {
            draft.cluster.alt_stat_name = name;
        }
        traffic_policy::set_upstream_protocol(&mut draft, port.protocol);
        draft.cluster.load_assignment = Some(endpoint::ClusterLoadAssignment {
            cluster_name: name,
            endpoints: vec![endpoint::LocalityLbEndpoints {
                lb_endpoints: vec![super::endpoint::plain(address)],
                ..endpoint::LocalityLbEndpoints::default()
            }],
            ..endpoint::ClusterLoadAssignment::default()
        });
        // A rule's pool is for both ends of its connections; what else it says is for the callers.
        let rule = services
            .first()
            .and_then(|(service, _)| self.scope.general_rule(&service.hostname))
            .filter(|rule| rule.spec.traffic_policy.is_some());
        let of_rule = rule.zip(services.first()).and_then(|(rule, (_, port))| {
            traffic_policy::for_port(rule.spec.traffic_policy.as_ref(), port.port)
        });
        let of_rule = traffic_policy::with_mesh_default(of_rule, &self.context.mesh);
        let of_rule = of_rule.unwrap_or_default();
        let pool = self.inbound_pool(port.port).or(of_rule.connection_pool);
        let budget = of_rule.retry_budget.as_ref();
        traffic_policy::apply_pool(&mut draft, pool.as_ref(), budget, &self.context.mesh);
        if !services.is_empty() {
            let services: Vec<&Service> = services.iter().map(|(service, _)| *service).collect();
            draft.cluster.metadata = Some(pb::istio_metadata([services_field(&services)]));
        }
        if let Some(rule) = rule {
            pb::add_config(&mut draft.cluster.metadata, "destination-rule", &rule.meta);
        }
        draft.finish()
    }

    /// What the mesh's settings call the cluster of that port; nothing if they say nothing.
    fn inbound_stat_name(&self, port: &Port, services: &[(&Service, &Port)]) -> Option<String> {
        let pattern = &self.context.mesh.inbound_cluster_stat_name;
        if pattern.is_empty() {
            return None;
        }
        let of_sidecar = self.scope.sidecar.as_ref().map_or_else(String::new, |own| {
            format!("{}.{}", own.meta.name, own.meta.namespace)
        });
        let first = services.first();
        let parts = stat_name::Parts {
            host: first.map_or(&of_sidecar, |(service, _)| &service.hostname),
            service: first.map(|(service, _)| *service),
            subset: "",
            port: first.map_or(port, |(_, port)| port),
            target_port: port.port,
        };
        Some(stat_name::of(pattern, &parts))
    }

    /// The pool that a Sidecar object gives that port of the workload.
    fn inbound_pool(&self, port: u32) -> Option<ConnectionPoolSettings> {
        let sidecar = self.scope.sidecar.as_ref()?;
        let own = sidecar.spec.ingress.iter().find(|listener| {
            let number = listener.port.as_ref().map(|own| own.number);
            listener.connection_pool.is_some() && number == Some(port)
        });
        own.and_then(|listener| listener.connection_pool.clone())
            .or_else(|| sidecar.spec.inbound_connection_pool.clone())
    }
}

fn new_draft(name: &str, kind: DiscoveryType) -> Draft {
    let mut draft = Draft {
        cluster: cluster::Cluster {
            name: name.to_owned(),
            alt_stat_name: format!("{name};"),
            common_lb_config: Some(cluster::cluster::CommonLbConfig::default()),
            ..cluster::Cluster::default()
        },
        http: None,
    };
    draft.set_type(kind);
    draft
}

/// Another port at the address that the connection went to.
fn set_port_override(draft: &mut Draft, service: &Service, port: &Port) {
    let Some(target) = service.target_ports.get(&port.port) else {
        return;
    };
    if draft.is_type(DiscoveryType::OriginalDst) {
        let config = cluster::cluster::OriginalDstLbConfig {
            upstream_port_override: Some(pb::uint(*target)),
            ..Default::default()
        };
        draft.cluster.lb_config = Some(cluster::cluster::LbConfig::OriginalDstLbConfig(config));
    }
}

fn black_hole(mesh: &MeshConfig) -> cluster::Cluster {
    let mut draft = new_draft(BLACK_HOLE, DiscoveryType::Static);
    draft.cluster.common_lb_config = None;
    draft.cluster.connect_timeout = Some(traffic_policy::connect_timeout(mesh));
    draft.finish()
}

/// The source of resources that come over the one stream of the control plane.
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: Some(pb::duration(Duration::ZERO)),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..core::ConfigSource::default()
    }
}

fn outbound_metadata(service: &Service, subset: &str) -> core::Metadata {
    let mut fields = vec![services_field(&[service])];
    if !subset.is_empty() {
        fields.push(("subset".to_owned(), pb::text_value(subset)));
    }
    if service.mesh_external && subset.is_empty() {
        let value = google::Value {
            kind: Some(google::value::Kind::BoolValue(true)),
        };
        fields.push(("external".to_owned(), value));
    }
    pb::istio_metadata(fields)
}

/// The services that a cluster stands for, by which requests are counted.
fn services_field(services: &[&Service]) -> (String, google::Value) {
    let entry = |service: &&Service| {
        let fields = HashMap::from([
            ("name".to_owned(), pb::text_value(service.public_name())),
            (
                "namespace".to_owned(),
                pb::text_value(service.namespace.clone()),
            ),
            ("host".to_owned(), pb::text_value(service.hostname.clone())),
        ]);
        google::Value {
            kind: Some(google::value::Kind::StructValue(google::Struct { fields })),
        }
    };
    let list = google::ListValue {
        values: services.iter().map(entry).collect(),
    };
    let value = google::Value {
        kind: Some(google::value::Kind::ListValue(list)),
    };
    ("services".to_owned(), value)
}
