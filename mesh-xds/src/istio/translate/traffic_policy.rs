//! Traffic policies of DestinationRule objects on clusters.

#![allow(deprecated)] // Balancing policies by enum are what istiod sends.

use std::time::Duration;

use cluster::circuit_breakers::{Thresholds, thresholds::RetryBudget};
use cluster::cluster::{DiscoveryType, LbConfig, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::common::matcher::v3::{
    HttpHeadersMatch, MatchPredicate, match_predicate,
};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{self as google, UInt64Value};
use http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config,
};

use match_predicate::{MatchSet, Rule};
use route::header_matcher::HeaderMatchSpecifier;

use super::pb;
use crate::istio::api::MeshConfig;
use crate::istio::api::destination_rule as api;
use crate::istio::api::json::StringMatch;
use crate::istio::api::mesh_config::MeshH2Upgrade;
use crate::istio::index::{Port, Protocol};

/// A cluster while it is built: its HTTP options are packed at the end.
pub(super) struct Draft {
    pub(super) cluster: cluster::Cluster,
    pub(super) http: Option<HttpProtocolOptions>,
}

impl Draft {
    pub(super) fn finish(mut self) -> cluster::Cluster {
        if let Some(mut http) = self.http {
            let explicit = || {
                UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                    protocol_config: Some(
                        explicit_http_config::ProtocolConfig::HttpProtocolOptions(
                            Default::default(),
                        ),
                    ),
                })
            };
            http.upstream_protocol_options.get_or_insert_with(explicit);
            let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
            self.cluster
                .typed_extension_protocol_options
                .insert(name, pb::any(&http));
        }
        self.cluster
    }

    pub(super) fn set_type(&mut self, kind: DiscoveryType) {
        self.cluster.cluster_discovery_type =
            Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()));
    }

    pub(super) fn is_type(&self, kind: DiscoveryType) -> bool {
        self.cluster.cluster_discovery_type
            == Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()))
    }

    /// Asks for HTTP/2, unless something was asked for before: where the first bytes decide they go on deciding.
    pub(super) fn use_http2(&mut self) {
        if self
            .http
            .as_ref()
            .is_some_and(|options| options.upstream_protocol_options.is_some())
        {
            return;
        }
        let config = explicit_http_config::ProtocolConfig::Http2ProtocolOptions(
            core::Http2ProtocolOptions::default(),
        );
        self.set_protocol(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(config),
            },
        ));
    }

    pub(super) fn use_downstream_protocol(&mut self) {
        self.set_protocol(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(core::Http1ProtocolOptions::default()),
                http2_protocol_options: Some(core::Http2ProtocolOptions::default()),
                http3_protocol_options: None,
            },
        ));
    }

    fn set_protocol(&mut self, protocol: UpstreamProtocolOptions) {
        self.http.get_or_insert_default().upstream_protocol_options = Some(protocol);
    }
}

/// The policy for one port: a port's settings stand alone, what they omit takes its default, also what only the whole
/// policy can say.
pub(super) fn for_port(
    policy: Option<&api::TrafficPolicy>,
    port: u32,
) -> Option<api::TrafficPolicy> {
    let policy = policy?;
    let own = |setting: &&api::PortTrafficPolicy| {
        setting.port.as_ref().is_some_and(|own| own.number == port)
    };
    let Some(setting) = policy.port_level_settings.iter().find(own) else {
        return Some(policy.clone());
    };
    Some(api::TrafficPolicy {
        load_balancer: setting.load_balancer.clone(),
        connection_pool: setting.connection_pool.clone(),
        outlier_detection: setting.outlier_detection.clone(),
        tls: setting.tls.clone(),
        ..api::TrafficPolicy::default()
    })
}

/// The mesh's own pool and outlier detection where `policy` says nothing of them.
pub(super) fn with_mesh_default(
    policy: Option<api::TrafficPolicy>,
    mesh: &MeshConfig,
) -> Option<api::TrafficPolicy> {
    let Some(default) = &mesh.default_traffic_policy else {
        return policy;
    };
    let mut policy = policy.unwrap_or_default();
    let pool = || default.connection_pool.clone();
    policy.connection_pool = policy.connection_pool.or_else(pool);
    let outlier = || default.outlier_detection.clone();
    policy.outlier_detection = policy.outlier_detection.or_else(outlier);
    Some(policy)
}

/// The subset's policy over the service's, section by section.
pub(super) fn for_subset(
    general: Option<&api::TrafficPolicy>,
    subset: Option<&api::TrafficPolicy>,
    port: u32,
) -> Option<api::TrafficPolicy> {
    let Some(subset) = subset else {
        return general.cloned();
    };
    let own = |setting: &api::PortTrafficPolicy| {
        setting.port.as_ref().is_some_and(|own| own.number == port)
    };
    let by_port = subset.port_level_settings.iter().any(own);
    let top = for_port(Some(subset), port)?;
    let mut merged = general.cloned().unwrap_or_default();
    fn over<T>(merged: &mut Option<T>, top: Option<T>, always: bool) {
        if always || top.is_some() {
            *merged = top;
        }
    }
    over(&mut merged.connection_pool, top.connection_pool, by_port);
    over(
        &mut merged.outlier_detection,
        top.outlier_detection,
        by_port,
    );
    over(&mut merged.load_balancer, top.load_balancer, by_port);
    over(&mut merged.tls, top.tls, by_port);
    over(&mut merged.tunnel, top.tunnel, false);
    over(&mut merged.proxy_protocol, top.proxy_protocol, false);
    over(&mut merged.retry_budget, top.retry_budget, false);
    Some(merged)
}

/// Istio's limits: none, unlike Envoy's own defaults.
fn default_thresholds() -> Thresholds {
    let unlimited = Some(pb::uint(u32::MAX));
    Thresholds {
        max_connections: unlimited,
        max_pending_requests: unlimited,
        max_requests: unlimited,
        max_retries: unlimited,
        ..Thresholds::default()
    }
}

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

/// Applies pool, outlier and balancing settings to an outbound cluster.
pub(super) fn apply(
    draft: &mut Draft,
    policy: Option<&api::TrafficPolicy>,
    mesh: &MeshConfig,
    port: Option<&Port>,
) {
    let default = api::TrafficPolicy::default();
    let policy = policy.unwrap_or(&default);
    let pool = policy.connection_pool.as_ref();
    if upgrades_to_http2(mesh, pool, port) {
        draft.use_http2();
    }
    apply_pool(draft, pool, policy.retry_budget.as_ref(), mesh);
    apply_outlier_detection(draft, policy.outlier_detection.as_ref());
    // Where the connection went decides by itself.
    if !draft.is_type(DiscoveryType::OriginalDst) {
        apply_balancer(draft, policy.load_balancer.as_ref());
    }
    if draft.is_type(DiscoveryType::OriginalDst) {
        draft.cluster.lb_policy = LbPolicy::ClusterProvided.into();
    }
}

fn upgrades_to_http2(
    mesh: &MeshConfig,
    pool: Option<&api::ConnectionPoolSettings>,
    port: Option<&Port>,
) -> bool {
    if let Some(http) = pool.and_then(|pool| pool.http.as_ref()) {
        match http.h2_upgrade_policy {
            _ if http.use_client_protocol => return false,
            api::H2UpgradePolicy::Upgrade => return true,
            api::H2UpgradePolicy::DoNotUpgrade => return false,
            api::H2UpgradePolicy::Default => {}
        }
    }
    port.is_none_or(|port| port.protocol.is_http())
        && mesh.h2_upgrade_policy == MeshH2Upgrade::Upgrade
}

/// Applies limits, times and the protocol of connections.
pub(super) fn apply_pool(
    draft: &mut Draft,
    pool: Option<&api::ConnectionPoolSettings>,
    budget: Option<&api::RetryBudget>,
    mesh: &MeshConfig,
) {
    let mut thresholds = default_thresholds();
    thresholds.retry_budget = budget.map(retry_budget);
    let http = pool.and_then(|pool| pool.http.clone()).unwrap_or_default();
    let tcp = pool.and_then(|pool| pool.tcp.clone()).unwrap_or_default();
    let set = |limit: &mut Option<_>, value| {
        if let Some(value) = positive(value) {
            *limit = Some(pb::uint(value));
        }
    };
    set(&mut thresholds.max_requests, http.http2_max_requests);
    set(
        &mut thresholds.max_pending_requests,
        http.http1_max_pending_requests,
    );
    set(&mut thresholds.max_retries, http.max_retries);
    set(&mut thresholds.max_connections, tcp.max_connections);
    let timeout = tcp.connect_timeout.map(pb::duration);
    draft.cluster.connect_timeout = timeout.or_else(|| Some(connect_timeout(mesh)));
    draft.cluster.circuit_breakers = Some(cluster::CircuitBreakers {
        thresholds: vec![thresholds],
        ..cluster::CircuitBreakers::default()
    });
    draft.cluster.upstream_connection_options =
        keepalive(tcp.tcp_keepalive.as_ref(), mesh.tcp_keepalive.as_ref()).map(|keepalive| {
            cluster::UpstreamConnectionOptions {
                tcp_keepalive: Some(keepalive),
                ..cluster::UpstreamConnectionOptions::default()
            }
        });
    apply_http_pool(draft, &http, &tcp);
}

/// Probes of idle connections: each setting of the rule, else of the mesh.
fn keepalive(
    rule: Option<&api::TcpKeepalive>,
    mesh: Option<&api::TcpKeepalive>,
) -> Option<core::TcpKeepalive> {
    rule.or(mesh)?;
    let both = || rule.into_iter().chain(mesh);
    let seconds = |value: Option<Duration>| {
        value.map(|value| pb::uint(u32::try_from(value.as_secs()).unwrap_or(u32::MAX)))
    };
    let probes = both().map(|own| own.probes).find(|probes| *probes > 0);
    Some(core::TcpKeepalive {
        keepalive_probes: probes.map(pb::uint),
        keepalive_time: seconds(both().find_map(|own| own.time)),
        keepalive_interval: seconds(both().find_map(|own| own.interval)),
    })
}

/// The mesh's limit for connecting to an endpoint.
pub(super) fn connect_timeout(mesh: &MeshConfig) -> google::Duration {
    pb::duration(mesh.connect_timeout.unwrap_or(Duration::from_secs(10)))
}

fn retry_budget(budget: &api::RetryBudget) -> RetryBudget {
    RetryBudget {
        budget_percent: Some(Percent {
            value: budget.percent.map_or(20.0, |percent| percent.0),
        }),
        budget_interval: budget.budget_interval.map(pb::duration),
        min_retry_concurrency: Some(pb::uint(match budget.min_retry_concurrency {
            0 => 3,
            own => own,
        })),
    }
}

fn apply_http_pool(draft: &mut Draft, http: &api::HttpSettings, tcp: &api::TcpSettings) {
    use explicit_http_config::ProtocolConfig::Http2ProtocolOptions;
    let idle = http.idle_timeout.or(tcp.idle_timeout);
    let streams = positive(http.max_concurrent_streams);
    let requests = positive(http.max_requests_per_connection);
    let keepalive = http.http2_keep_alive.as_ref();
    let any = idle.is_some() || streams.is_some() || requests.is_some() || keepalive.is_some();
    if any || tcp.max_connection_duration.is_some() {
        let options = draft.http.get_or_insert_default();
        let common = options.common_http_protocol_options.get_or_insert_default();
        common.idle_timeout = idle.map(pb::duration);
        common.max_requests_per_connection = requests.map(pb::uint);
        common.max_connection_duration = tcp.max_connection_duration.map(pb::duration);
        if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(Http2ProtocolOptions(http2)),
        })) = &mut options.upstream_protocol_options
        {
            http2.max_concurrent_streams = streams.map(pb::uint);
            http2.connection_keepalive = keepalive.map(|keepalive| core::KeepaliveSettings {
                interval: keepalive.interval.map(pb::duration),
                timeout: keepalive.timeout.map(pb::duration),
                ..core::KeepaliveSettings::default()
            });
        }
    }
    if http.use_client_protocol {
        draft.use_downstream_protocol();
    }
}

fn apply_outlier_detection(draft: &mut Draft, outlier: Option<&api::OutlierDetection>) {
    let Some(outlier) = outlier else { return };
    if let Some(errors) = error_matcher(&outlier.outlier_detection_http_error_codes) {
        draft.http.get_or_insert_default().outlier_detection =
            Some(http_protocol_options::OutlierDetection {
                error_matcher: Some(errors),
            });
    }
    let cluster = &mut draft.cluster;
    let enforcing =
        |errors: Option<u32>| errors.map(|errors| pb::uint(if errors > 0 { 100 } else { 0 }));
    let split = outlier.split_external_local_origin_errors;
    let local = outlier
        .consecutive_local_origin_failures
        .filter(|failures| split && *failures > 0);
    cluster.outlier_detection = Some(cluster::OutlierDetection {
        enforcing_success_rate: Some(pb::uint(0)),
        consecutive_5xx: outlier.consecutive_5xx_errors.map(pb::uint),
        enforcing_consecutive_5xx: enforcing(outlier.consecutive_5xx_errors),
        consecutive_gateway_failure: outlier.consecutive_gateway_errors.map(pb::uint),
        enforcing_consecutive_gateway_failure: enforcing(outlier.consecutive_gateway_errors),
        interval: outlier.interval.map(pb::duration),
        base_ejection_time: outlier.base_ejection_time.map(pb::duration),
        max_ejection_percent: positive(outlier.max_ejection_percent).map(pb::uint),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local.map(pb::uint),
        enforcing_consecutive_local_origin_failure: enforcing(local),
        enforcing_local_origin_success_rate: split.then(|| pb::uint(0)),
        ..cluster::OutlierDetection::default()
    });
    // Without a minimum every endpoint may be ejected: Envoy's own panic threshold of 50 % suits few endpoints badly.
    cluster
        .common_lb_config
        .get_or_insert_default()
        .healthy_panic_threshold = Some(Percent {
        value: f64::from(outlier.min_health_percent.max(0)),
    });
}

/// What matches answers with one of `codes`; nothing without any code.
fn error_matcher(codes: &[u32]) -> Option<MatchPredicate> {
    let one = |code: &u32| MatchPredicate {
        rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![route::HeaderMatcher {
                name: ":status".to_owned(),
                header_match_specifier: pb::string_match(&StringMatch::Exact(code.to_string()))
                    .map(HeaderMatchSpecifier::StringMatch),
                ..route::HeaderMatcher::default()
            }],
        })),
    };
    match codes {
        [] => None,
        [code] => Some(one(code)),
        codes => Some(MatchPredicate {
            rule: Some(Rule::OrMatch(MatchSet {
                rules: codes.iter().map(one).collect(),
            })),
        }),
    }
}

fn apply_balancer(draft: &mut Draft, settings: Option<&api::LoadBalancerSettings>) {
    let default = api::LoadBalancerSettings::default();
    let settings = settings.unwrap_or(&default);
    let cluster = &mut draft.cluster;
    match settings.simple.unwrap_or_default() {
        api::SimpleLb::Unspecified | api::SimpleLb::LeastConn | api::SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.lb_config = warmup(settings).map(|slow_start| {
                LbConfig::LeastRequestLbConfig(cluster::cluster::LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..Default::default()
                })
            });
        }
        api::SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            cluster.lb_config = warmup(settings).map(|slow_start| {
                LbConfig::RoundRobinLbConfig(cluster::cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow_start),
                })
            });
        }
        api::SimpleLb::Random => cluster.lb_policy = LbPolicy::Random.into(),
        api::SimpleLb::Passthrough => {
            cluster.load_assignment = None;
            draft.set_type(DiscoveryType::OriginalDst);
        }
    }
    if let Some(hash) = &settings.consistent_hash {
        apply_hash(&mut draft.cluster, hash);
    }
}

fn warmup(settings: &api::LoadBalancerSettings) -> Option<cluster::cluster::SlowStartConfig> {
    if let Some(warmup) = &settings.warmup {
        return Some(cluster::cluster::SlowStartConfig {
            slow_start_window: warmup.duration.map(pb::duration),
            aggression: Some(core::RuntimeDouble {
                default_value: warmup.aggression.map_or(1.0, |value| value.0),
                runtime_key: "(".to_owned(),
            }),
            min_weight_percent: Some(Percent {
                value: warmup.minimum_percent.map_or(10.0, |value| value.0),
            }),
        });
    }
    settings
        .warmup_duration_secs
        .map(|window| cluster::cluster::SlowStartConfig {
            slow_start_window: Some(pb::duration(window)),
            ..Default::default()
        })
}

fn apply_hash(cluster: &mut cluster::Cluster, hash: &api::ConsistentHashLb) {
    let wide = |value: u64| UInt64Value { value };
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev.into();
        cluster.lb_config = maglev.table_size.filter(|size| *size != 0).map(|size| {
            LbConfig::MaglevLbConfig(cluster::cluster::MaglevLbConfig {
                table_size: Some(wide(size)),
            })
        });
        return;
    }
    let size = match &hash.ring_hash {
        Some(ring) => ring.minimum_ring_size.filter(|size| *size != 0),
        None => Some(
            hash.minimum_ring_size
                .filter(|size| *size != 0)
                .unwrap_or(1024),
        ),
    };
    cluster.lb_policy = LbPolicy::RingHash.into();
    cluster.lb_config = size.map(|size| {
        LbConfig::RingHashLbConfig(cluster::cluster::RingHashLbConfig {
            minimum_ring_size: Some(wide(size)),
            ..Default::default()
        })
    });
}

/// Sets the protocol that the endpoints of `port` speak.
pub(super) fn set_upstream_protocol(draft: &mut Draft, port: Protocol) {
    if port.is_http2() {
        draft.use_http2();
    } else if port == Protocol::Unsupported {
        draft.use_downstream_protocol();
    }
}
