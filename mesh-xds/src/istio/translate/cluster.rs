//! Clusters.

#![allow(deprecated)] // DNS settings by field are what istiod sends.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use cluster::cluster::{DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::google::protobuf as google;

use super::endpoint::Selection;
use super::traffic_policy::{self, Draft};
use super::{Env, Note, pb, tls};
use crate::istio::api::destination_rule::{ClientTlsMode, TrafficPolicy};
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
        out.clusters.push(black_hole());
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
        self.set_tls(&mut draft, target);
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

    fn set_tls(&self, draft: &mut Draft, target: &Target<'_>) {
        let Some(settings) = target
            .policy
            .as_ref()
            .and_then(|policy| policy.tls.as_ref())
        else {
            return;
        };
        let service = target.service;
        let sni = format!(
            "outbound_.{}_.{}_.{}",
            target.port.port, target.subset, service.hostname
        );
        draft.cluster.transport_socket = tls::upstream(settings, &sni);
        if settings.mode == ClientTlsMode::IstioMutual
            && target.port.protocol.is_http()
            && draft.http.is_none()
        {
            draft.http = Some(HttpProtocolOptions::default());
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

    /// A cluster with the application as its one endpoint.
    pub(super) fn inbound_cluster(
        &self,
        port: &Port,
        address: core::Address,
        services: &[&Service],
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
        let pool = self.scope.sidecar.as_ref().and_then(|sidecar| {
            let own = sidecar.spec.ingress.iter().find(|listener| {
                listener.connection_pool.is_some()
                    && listener
                        .port
                        .as_ref()
                        .is_some_and(|own| own.number == port.port)
            });
            own.and_then(|listener| listener.connection_pool.clone())
                .or_else(|| sidecar.spec.inbound_connection_pool.clone())
        });
        let policy = TrafficPolicy {
            connection_pool: pool,
            ..TrafficPolicy::default()
        };
        let no_upgrade = Port {
            protocol: Protocol::Tcp,
            ..port.clone()
        };
        traffic_policy::apply(
            &mut draft,
            Some(&policy),
            &self.context.mesh,
            Some(&no_upgrade),
        );
        draft.cluster.lb_policy = LbPolicy::RoundRobin.into();
        if !services.is_empty() {
            draft.cluster.metadata = Some(pb::istio_metadata([services_field(services)]));
        }
        draft.finish()
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

fn black_hole() -> cluster::Cluster {
    let mut draft = new_draft(BLACK_HOLE, DiscoveryType::Static);
    draft.cluster.common_lb_config = None;
    draft.cluster.connect_timeout = Some(pb::duration(Duration::from_secs(10)));
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
        let name = match service.registry {
            Registry::Kubernetes => &service.name,
            Registry::External => &service.hostname,
        };
        let fields = HashMap::from([
            ("name".to_owned(), pb::text_value(name.clone())),
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
