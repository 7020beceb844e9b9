//! `DestinationRule`: <https://istio.io/latest/docs/reference/config/networking/destination-rule/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::json::{self, Double};
use super::{MatchLabels, PortSelector};

/// Policies for traffic to a service, after routing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DestinationRule {
    #[serde(deserialize_with = "json::null")]
    pub host: String,
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
    #[serde(deserialize_with = "json::null")]
    pub subsets: Vec<Subset>,
    #[serde(alias = "export_to", deserialize_with = "json::null")]
    pub export_to: Vec<String>,
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<MatchLabels>,
}

/// A named part of a service's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Subset {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub labels: BTreeMap<String, String>,
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Load balancing, pools, ejection and TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficPolicy {
    #[serde(alias = "load_balancer")]
    pub load_balancer: Option<LoadBalancerSettings>,
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPoolSettings>,
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
    #[serde(alias = "port_level_settings", deserialize_with = "json::null")]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    pub tunnel: Option<TunnelSettings>,
    #[serde(alias = "proxy_protocol")]
    pub proxy_protocol: Option<ProxyProtocol>,
    #[serde(alias = "retry_budget")]
    pub retry_budget: Option<RetryBudget>,
}

/// Policies of one port; an omitted section takes its default, not the service's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortTrafficPolicy {
    pub port: Option<PortSelector>,
    #[serde(alias = "load_balancer")]
    pub load_balancer: Option<LoadBalancerSettings>,
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPoolSettings>,
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
    pub tls: Option<ClientTlsSettings>,
}

/// CONNECT or POST tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TunnelSettings {
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
    #[serde(alias = "target_host", deserialize_with = "json::null")]
    pub target_host: String,
    #[serde(alias = "target_port", deserialize_with = "json::int")]
    pub target_port: u32,
}

/// PROXY protocol towards the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyProtocol {
    #[serde(deserialize_with = "json::null")]
    pub version: ProxyProtocolVersion,
}

json::enumeration! {
    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        V1 = 0 "V1",
        V2 = 1 "V2",
    }
}

/// Limit on concurrent retries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RetryBudget {
    pub percent: Option<Double>,
    #[serde(alias = "min_retry_concurrency", deserialize_with = "json::int")]
    pub min_retry_concurrency: u32,
    #[serde(alias = "budget_interval", deserialize_with = "json::duration")]
    pub budget_interval: Option<Duration>,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LoadBalancerSettings {
    pub simple: Option<SimpleLb>,
    #[serde(alias = "consistent_hash")]
    pub consistent_hash: Option<ConsistentHashLb>,
    #[serde(alias = "locality_lb_setting")]
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    #[serde(alias = "zone_aware_lb_setting")]
    pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
    #[serde(alias = "warmup_duration_secs", deserialize_with = "json::duration")]
    pub warmup_duration_secs: Option<Duration>,
    pub warmup: Option<WarmupConfiguration>,
    #[serde(alias = "backend_utilization")]
    pub backend_utilization: Option<BackendUtilization>,
}

/// Weights by what endpoints report of their load.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BackendUtilization {
    #[serde(
        alias = "weight_stabilization_period",
        deserialize_with = "json::duration"
    )]
    pub weight_stabilization_period: Option<Duration>,
    #[serde(
        alias = "weight_expiration_period",
        deserialize_with = "json::duration"
    )]
    pub weight_expiration_period: Option<Duration>,
    #[serde(alias = "weight_update_period", deserialize_with = "json::duration")]
    pub weight_update_period: Option<Duration>,
    #[serde(
        alias = "error_utilization_penalty_percent",
        deserialize_with = "json::opt_int"
    )]
    pub error_utilization_penalty_percent: Option<u32>,
    #[serde(
        alias = "metric_names_for_computing_utilization",
        deserialize_with = "json::null"
    )]
    pub metric_names_for_computing_utilization: Vec<String>,
}

json::enumeration! {
    /// Balancing without affinity.
    pub enum SimpleLb {
        Unspecified = 0 "UNSPECIFIED",
        LeastConn = 1 "LEAST_CONN",
        Random = 2 "RANDOM",
        Passthrough = 3 "PASSTHROUGH",
        RoundRobin = 4 "ROUND_ROBIN",
        LeastRequest = 5 "LEAST_REQUEST",
    }
}

/// Slow start of new endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WarmupConfiguration {
    #[serde(deserialize_with = "json::duration")]
    pub duration: Option<Duration>,
    #[serde(alias = "minimum_percent")]
    pub minimum_percent: Option<Double>,
    pub aggression: Option<Double>,
}

/// Affinity by hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConsistentHashLb {
    #[serde(alias = "http_header_name")]
    pub http_header_name: Option<String>,
    #[serde(alias = "http_cookie")]
    pub http_cookie: Option<HttpCookie>,
    #[serde(alias = "use_source_ip")]
    pub use_source_ip: Option<bool>,
    #[serde(alias = "http_query_parameter_name")]
    pub http_query_parameter_name: Option<String>,
    #[serde(alias = "ring_hash")]
    pub ring_hash: Option<RingHash>,
    pub maglev: Option<MagLev>,
    #[serde(alias = "minimum_ring_size", deserialize_with = "json::opt_int")]
    pub minimum_ring_size: Option<u64>,
}

/// Ring of hashed endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RingHash {
    #[serde(alias = "minimum_ring_size", deserialize_with = "json::opt_int")]
    pub minimum_ring_size: Option<u64>,
}

/// Maglev table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MagLev {
    #[serde(alias = "table_size", deserialize_with = "json::opt_int")]
    pub table_size: Option<u64>,
}

/// The cookie that is hashed, and made when absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpCookie {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub path: String,
    #[serde(deserialize_with = "json::duration")]
    pub ttl: Option<Duration>,
    #[serde(deserialize_with = "json::null")]
    pub attributes: Vec<CookieAttribute>,
}

/// One further attribute of a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CookieAttribute {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

/// Balancing by locality.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LocalityLoadBalancerSetting {
    #[serde(deserialize_with = "json::null")]
    pub distribute: Vec<Distribute>,
    #[serde(deserialize_with = "json::null")]
    pub failover: Vec<Failover>,
    #[serde(alias = "failover_priority", deserialize_with = "json::null")]
    pub failover_priority: Vec<String>,
    pub enabled: Option<bool>,
}

/// Shares by locality.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Distribute {
    #[serde(deserialize_with = "json::null")]
    pub from: String,
    #[serde(deserialize_with = "json::int_map")]
    pub to: BTreeMap<String, u32>,
}

/// Where a region's traffic goes when it fails.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Failover {
    #[serde(deserialize_with = "json::null")]
    pub from: String,
    #[serde(deserialize_with = "json::null")]
    pub to: String,
}

/// Balancing that keeps traffic in its zone while capacity allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ZoneAwareLoadBalancerSetting {
    pub enabled: Option<bool>,
    #[serde(deserialize_with = "json::null")]
    pub failover: Vec<Failover>,
    #[serde(alias = "failover_priority", deserialize_with = "json::null")]
    pub failover_priority: Vec<String>,
    #[serde(alias = "min_cluster_size", deserialize_with = "json::opt_int")]
    pub min_cluster_size: Option<u64>,
}

/// Limits of connections and requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ConnectionPoolSettings {
    pub tcp: Option<TcpSettings>,
    pub http: Option<HttpSettings>,
}

/// Settings of all upstream connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpSettings {
    #[serde(alias = "max_connections", deserialize_with = "json::int")]
    pub max_connections: i32,
    #[serde(alias = "connect_timeout", deserialize_with = "json::duration")]
    pub connect_timeout: Option<Duration>,
    #[serde(alias = "tcp_keepalive")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    #[serde(alias = "max_connection_duration", deserialize_with = "json::duration")]
    pub max_connection_duration: Option<Duration>,
    #[serde(alias = "idle_timeout", deserialize_with = "json::duration")]
    pub idle_timeout: Option<Duration>,
}

/// TCP keep-alive probes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpKeepalive {
    #[serde(deserialize_with = "json::int")]
    pub probes: u32,
    #[serde(deserialize_with = "json::duration")]
    pub time: Option<Duration>,
    #[serde(deserialize_with = "json::duration")]
    pub interval: Option<Duration>,
}

/// Settings of HTTP upstream connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpSettings {
    #[serde(alias = "http1_max_pending_requests", deserialize_with = "json::int")]
    pub http1_max_pending_requests: i32,
    #[serde(alias = "http2_max_requests", deserialize_with = "json::int")]
    pub http2_max_requests: i32,
    #[serde(alias = "max_requests_per_connection", deserialize_with = "json::int")]
    pub max_requests_per_connection: i32,
    #[serde(alias = "max_retries", deserialize_with = "json::int")]
    pub max_retries: i32,
    #[serde(alias = "idle_timeout", deserialize_with = "json::duration")]
    pub idle_timeout: Option<Duration>,
    #[serde(alias = "h2_upgrade_policy", deserialize_with = "json::null")]
    pub h2_upgrade_policy: H2UpgradePolicy,
    #[serde(alias = "use_client_protocol", deserialize_with = "json::null")]
    pub use_client_protocol: bool,
    #[serde(alias = "max_concurrent_streams", deserialize_with = "json::int")]
    pub max_concurrent_streams: i32,
    #[serde(alias = "http2_keep_alive")]
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// HTTP/2 PING probes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Http2KeepAlive {
    #[serde(deserialize_with = "json::duration")]
    pub interval: Option<Duration>,
    #[serde(deserialize_with = "json::duration")]
    pub timeout: Option<Duration>,
}

json::enumeration! {
    /// Whether HTTP/1.1 is upgraded to HTTP/2 on the way.
    pub enum H2UpgradePolicy {
        Default = 0 "DEFAULT",
        DoNotUpgrade = 1 "DO_NOT_UPGRADE",
        Upgrade = 2 "UPGRADE",
    }
}

/// When an endpoint is ejected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutlierDetection {
    #[serde(alias = "consecutive_errors", deserialize_with = "json::int")]
    pub consecutive_errors: i32,
    #[serde(
        alias = "split_external_local_origin_errors",
        deserialize_with = "json::null"
    )]
    pub split_external_local_origin_errors: bool,
    #[serde(
        alias = "consecutive_local_origin_failures",
        deserialize_with = "json::opt_int"
    )]
    pub consecutive_local_origin_failures: Option<u32>,
    #[serde(
        alias = "consecutive_gateway_errors",
        deserialize_with = "json::opt_int"
    )]
    pub consecutive_gateway_errors: Option<u32>,
    #[serde(alias = "consecutive_5xx_errors", deserialize_with = "json::opt_int")]
    pub consecutive_5xx_errors: Option<u32>,
    #[serde(deserialize_with = "json::duration")]
    pub interval: Option<Duration>,
    #[serde(alias = "base_ejection_time", deserialize_with = "json::duration")]
    pub base_ejection_time: Option<Duration>,
    #[serde(alias = "max_ejection_percent", deserialize_with = "json::int")]
    pub max_ejection_percent: i32,
    #[serde(alias = "min_health_percent", deserialize_with = "json::int")]
    pub min_health_percent: i32,
    #[serde(
        alias = "outlier_detection_http_error_codes",
        deserialize_with = "json::null"
    )]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// TLS towards the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientTlsSettings {
    #[serde(deserialize_with = "json::null")]
    pub mode: ClientTlsMode,
    #[serde(alias = "client_certificate", deserialize_with = "json::null")]
    pub client_certificate: String,
    #[serde(alias = "private_key", deserialize_with = "json::null")]
    pub private_key: String,
    #[serde(alias = "ca_certificates", deserialize_with = "json::null")]
    pub ca_certificates: String,
    #[serde(alias = "credential_name", deserialize_with = "json::null")]
    pub credential_name: String,
    #[serde(alias = "subject_alt_names", deserialize_with = "json::null")]
    pub subject_alt_names: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub sni: String,
    #[serde(alias = "insecure_skip_verify")]
    pub insecure_skip_verify: Option<bool>,
    #[serde(alias = "ca_crl", deserialize_with = "json::null")]
    pub ca_crl: String,
}

json::enumeration! {
    /// Kind of TLS towards the upstream.
    pub enum ClientTlsMode {
        Disable = 0 "DISABLE",
        Simple = 1 "SIMPLE",
        Mutual = 2 "MUTUAL",
        IstioMutual = 3 "ISTIO_MUTUAL",
    }
}
