//! Clusters.

#![allow(deprecated)] // DNS settings by field are what istiod sends.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cluster::cluster::{DiscoveryType, DnsLookupFamily, EdsClusterConfig};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf as google;

use super::endpoint::Selection;
use super::traffic_policy::{self, Draft};
use super::{Env, Note, pb, tls};
use crate::istio::api::MeshConfig;
use crate::istio::api::destination_rule::{ConnectionPoolSettings, TrafficPolicy};
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
        let general = traffic_policy::for_port(
            rule.and_then(|rule| rule.spec.traffic_policy.as_ref()),
            port.port,
        );
        let none = BTreeMap::new();
        let mut target = Target {
            service,
            port,
            rule,
            subset: "",
            labels: &none,
            policy: general.clone(),
        };
        self.add(out, &target);
        for subset in rule.iter().flat_map(|rule| &rule.spec.subsets) {
            target.subset = &subset.name;
            target.labels = &subset.labels;
            target.policy = traffic_policy::for_subset(
                general.as_ref(),
                subset.traffic_policy.as_ref(),
                port.port,
            );
            self.add(out, &target);
        }
    }

    fn add(&self, out: &mut Clusters, target: &Target<'_>) {
        let (service, port) = (target.service, target.port);
        let name = pb::subset_key("outbound", target.subset, &service.hostname, port.port);
        let assignment = self.load_assignment(
            &name,
            &Selection {
                service,
                port,
                labels: target.labels,
            },
        );
        let kind = self.discovery_type(service);
        let by_name = matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns);
        if by_name && assignment.endpoints.is_empty() {
            return;
        }
        self.note_localities(&mut out.notes, target, assignment.endpoints.len());
        let mut draft = new_draft(&name, kind);
        // No share of unhealthy endpoints makes the others count again.
        draft
            .cluster
            .common_lb_config
            .get_or_insert_default()
            .healthy_panic_threshold = Some(Percent { value: 0.0 });
        if by_name {
            set_dns(&mut draft.cluster, self.context.mesh.dns_refresh_rate);
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
        out.clusters.push(draft.finish());
    }

    /// How a service's addresses are found. Where nothing intercepts traffic there is no original destination, so the
    /// endpoints of a headless Service are listed.
    fn discovery_type(&self, service: &Service) -> DiscoveryType {
        let sidecar = self.proxy.kind == ProxyKind::Sidecar;
        let intercepted = sidecar && self.proxy.interception != Interception::None;
        match service.resolution {
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
        let mut draft = new_draft(PASSTHROUGH, DiscoveryType::OriginalDst);
        draft.use_downstream_protocol();
        traffic_policy::apply(&mut draft, None, &self.context.mesh, None);
        let options = draft.http.get_or_insert_default();
        options
            .common_http_protocol_options
            .get_or_insert_default()
            .idle_timeout = Some(pb::duration(Duration::from_secs(300)));
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

fn black_hole(mesh: &MeshConfig) -> cluster::Cluster {
    let mut draft = new_draft(BLACK_HOLE, DiscoveryType::Static);
    draft.cluster.common_lb_config = None;
    draft.cluster.connect_timeout = Some(traffic_policy::connect_timeout(mesh));
    draft.finish()
}

fn set_dns(cluster: &mut cluster::Cluster, refresh: Option<Duration>) {
    cluster.dns_lookup_family = DnsLookupFamily::V4Only.into();
    cluster.dns_refresh_rate = Some(pb::duration(refresh.unwrap_or(Duration::from_secs(60))));
    cluster.respect_dns_ttl = true;
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
    if service.mesh_external {
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
