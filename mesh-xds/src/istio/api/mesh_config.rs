//! `MeshConfig`: <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/>. Only the fields below are read; the
//! others are kept by name, to be listed.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, LocalityLoadBalancerSetting, OutlierDetection,
    TcpKeepalive,
};
use super::json;
use super::virtual_service::HttpRetry;

/// Settings of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    #[serde(alias = "connect_timeout", deserialize_with = "json::duration")]
    pub connect_timeout: Option<Duration>,
    #[serde(
        alias = "protocol_detection_timeout",
        deserialize_with = "json::duration"
    )]
    pub protocol_detection_timeout: Option<Duration>,
    #[serde(alias = "proxy_listen_port", deserialize_with = "json::int")]
    pub proxy_listen_port: i32,
    #[serde(alias = "proxy_inbound_listen_port", deserialize_with = "json::int")]
    pub proxy_inbound_listen_port: i32,
    #[serde(alias = "proxy_http_port", deserialize_with = "json::int")]
    pub proxy_http_port: i32,
    #[serde(alias = "root_namespace", deserialize_with = "json::null")]
    pub root_namespace: String,
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
    #[serde(alias = "default_service_export_to", deserialize_with = "json::null")]
    pub default_service_export_to: Vec<String>,
    #[serde(
        alias = "default_virtual_service_export_to",
        deserialize_with = "json::null"
    )]
    pub default_virtual_service_export_to: Vec<String>,
    #[serde(
        alias = "default_destination_rule_export_to",
        deserialize_with = "json::null"
    )]
    pub default_destination_rule_export_to: Vec<String>,
    #[serde(alias = "default_http_retry_policy")]
    pub default_http_retry_policy: Option<HttpRetry>,
    #[serde(alias = "default_inbound_http_retry_policy")]
    pub default_inbound_http_retry_policy: Option<HttpRetry>,
    #[serde(alias = "access_log_file", deserialize_with = "json::null")]
    pub access_log_file: String,
    #[serde(alias = "access_log_format", deserialize_with = "json::null")]
    pub access_log_format: String,
    #[serde(alias = "access_log_encoding", deserialize_with = "json::null")]
    pub access_log_encoding: AccessLogEncoding,
    #[serde(alias = "tcp_keepalive")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    #[serde(alias = "h2_upgrade_policy", deserialize_with = "json::null")]
    pub h2_upgrade_policy: MeshH2Upgrade,
    #[serde(alias = "inbound_cluster_stat_name", deserialize_with = "json::null")]
    pub inbound_cluster_stat_name: String,
    #[serde(alias = "outbound_cluster_stat_name", deserialize_with = "json::null")]
    pub outbound_cluster_stat_name: String,
    #[serde(alias = "default_traffic_policy")]
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
    #[serde(alias = "locality_lb_setting")]
    pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
    #[serde(alias = "dns_refresh_rate", deserialize_with = "json::duration")]
    pub dns_refresh_rate: Option<Duration>,
    #[serde(alias = "path_normalization")]
    pub path_normalization: Option<PathNormalization>,
    #[serde(alias = "default_config")]
    pub default_config: Option<MeshProxyConfig>,
    /// Fields that are not read: each is listed to the user as ignored.
    #[serde(flatten)]
    pub ignored: BTreeMap<String, Value>,
}

/// What holds for each cluster whose own rule says nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DefaultTrafficPolicy {
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPoolSettings>,
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
}

/// What happens to traffic for unknown hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MeshOutboundTrafficPolicy {
    #[serde(deserialize_with = "json::null")]
    pub mode: MeshOutboundMode,
    pub tls: Option<ClientTlsSettings>,
}

json::enumeration! {
    /// Whether unknown hosts may be reached.
    pub enum MeshOutboundMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
        AllowAnyDynamicDns = 3 "ALLOW_ANY_DYNAMIC_DNS",
    }
}

json::enumeration! {
    /// Form of the access log.
    pub enum AccessLogEncoding {
        Text = 0 "TEXT",
        Json = 1 "JSON",
    }
}

json::enumeration! {
    /// Whether HTTP/1.1 is upgraded to HTTP/2 on the way.
    pub enum MeshH2Upgrade {
        DoNotUpgrade = 0 "DO_NOT_UPGRADE",
        Upgrade = 1 "UPGRADE",
    }
}

/// How paths are normalized before they are matched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PathNormalization {
    #[serde(deserialize_with = "json::null")]
    pub normalization: NormalizationType,
}

json::enumeration! {
    /// Degree of path normalization.
    pub enum NormalizationType {
        Default = 0 "DEFAULT",
        None = 1 "NONE",
        Base = 2 "BASE",
        MergeSlashes = 3 "MERGE_SLASHES",
        DecodeAndMergeSlashes = 4 "DECODE_AND_MERGE_SLASHES",
    }
}

/// Default settings of each proxy (`defaultConfig`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshProxyConfig {
    #[serde(deserialize_with = "json::opt_int")]
    pub concurrency: Option<i32>,
    #[serde(alias = "proxy_admin_port", deserialize_with = "json::int")]
    pub proxy_admin_port: i32,
    #[serde(alias = "status_port", deserialize_with = "json::int")]
    pub status_port: i32,
    #[serde(alias = "drain_duration", deserialize_with = "json::duration")]
    pub drain_duration: Option<Duration>,
    #[serde(
        alias = "termination_drain_duration",
        deserialize_with = "json::duration"
    )]
    pub termination_drain_duration: Option<Duration>,
    #[serde(alias = "gateway_topology")]
    pub gateway_topology: Option<GatewayTopology>,
    #[serde(alias = "proxy_headers")]
    pub proxy_headers: Option<ProxyHeaders>,
    #[serde(alias = "connection_settings")]
    pub connection_settings: Option<ConnectionSettings>,
    /// Fields that are not read: each is listed to the user as ignored.
    #[serde(flatten)]
    pub ignored: BTreeMap<String, Value>,
}

/// Headers that the proxy adds by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyHeaders {
    pub server: Option<ServerHeader>,
    #[serde(alias = "request_id")]
    pub request_id: Option<Disabled>,
    #[serde(alias = "attempt_count")]
    pub attempt_count: Option<Disabled>,
    #[serde(alias = "envoy_debug_headers")]
    pub envoy_debug_headers: Option<Disabled>,
    #[serde(alias = "x_forwarded_host")]
    pub x_forwarded_host: Option<Enabled>,
    #[serde(alias = "x_forwarded_port")]
    pub x_forwarded_port: Option<Enabled>,
    /// Fields that are not read: each is listed to the user as ignored.
    #[serde(flatten)]
    pub ignored: BTreeMap<String, Value>,
}

/// The `server` header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServerHeader {
    pub disabled: Option<bool>,
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

/// A header that is added unless it is switched off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Disabled {
    pub disabled: Option<bool>,
}

/// A header that is added only where it is switched on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Enabled {
    pub enabled: Option<bool>,
}

/// Trusted proxies in front of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayTopology {
    #[serde(alias = "num_trusted_proxies", deserialize_with = "json::int")]
    pub num_trusted_proxies: u32,
    /// Fields that are not read: each is listed to the user as ignored.
    #[serde(flatten)]
    pub ignored: BTreeMap<String, Value>,
}

/// Limits and times of client connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionSettings {
    #[serde(deserialize_with = "json::null")]
    pub profile: ConnectionProfile,
    #[serde(
        alias = "listener_per_connection_buffer_limit_bytes",
        deserialize_with = "json::opt_int"
    )]
    pub listener_per_connection_buffer_limit_bytes: Option<i32>,
    #[serde(alias = "http_idle_timeout", deserialize_with = "json::duration")]
    pub http_idle_timeout: Option<Duration>,
    #[serde(
        alias = "http_max_connection_duration",
        deserialize_with = "json::duration"
    )]
    pub http_max_connection_duration: Option<Duration>,
    #[serde(alias = "http_drain_timeout", deserialize_with = "json::duration")]
    pub http_drain_timeout: Option<Duration>,
    #[serde(alias = "http_request_timeout", deserialize_with = "json::duration")]
    pub http_request_timeout: Option<Duration>,
    #[serde(
        alias = "http_request_headers_timeout",
        deserialize_with = "json::duration"
    )]
    pub http_request_headers_timeout: Option<Duration>,
    #[serde(
        alias = "http_stream_idle_timeout",
        deserialize_with = "json::duration"
    )]
    pub http_stream_idle_timeout: Option<Duration>,
    #[serde(
        alias = "http_max_stream_duration",
        deserialize_with = "json::duration"
    )]
    pub http_max_stream_duration: Option<Duration>,
    #[serde(
        alias = "http_max_concurrent_streams",
        deserialize_with = "json::opt_int"
    )]
    pub http_max_concurrent_streams: Option<i32>,
    #[serde(
        alias = "http2_initial_stream_window_size",
        deserialize_with = "json::opt_int"
    )]
    pub http2_initial_stream_window_size: Option<i32>,
    #[serde(
        alias = "http2_initial_connection_window_size",
        deserialize_with = "json::opt_int"
    )]
    pub http2_initial_connection_window_size: Option<i32>,
    #[serde(
        alias = "http_headers_with_underscores_action",
        deserialize_with = "json::null"
    )]
    pub http_headers_with_underscores_action: UnderscoresAction,
    #[serde(alias = "http_merge_slashes")]
    pub http_merge_slashes: Option<bool>,
    #[serde(
        alias = "http_path_with_escaped_slashes_action",
        deserialize_with = "json::null"
    )]
    pub http_path_with_escaped_slashes_action: EscapedSlashesAction,
    /// Fields that are not read: each is listed to the user as ignored.
    #[serde(flatten)]
    pub ignored: BTreeMap<String, Value>,
}

json::enumeration! {
    /// Where defaults come from.
    pub enum ConnectionProfile {
        Sidecar = 0 "SIDECAR",
        Edge = 1 "EDGE",
    }
}

json::enumeration! {
    /// What is done with headers that have underscores in their names.
    pub enum UnderscoresAction {
        Unspecified = 0 "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
        Allow = 1 "HEADERS_WITH_UNDERSCORES_ALLOW",
        RejectRequest = 2 "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
        DropHeader = 3 "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
    }
}

json::enumeration! {
    /// What is done with paths that have escaped slashes.
    pub enum EscapedSlashesAction {
        Unspecified = 0 "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
        KeepUnchanged = 1 "KEEP_UNCHANGED",
        RejectRequest = 2 "REJECT_REQUEST",
        UnescapeAndRedirect = 3 "UNESCAPE_AND_REDIRECT",
        UnescapeAndForward = 4 "UNESCAPE_AND_FORWARD",
    }
}
