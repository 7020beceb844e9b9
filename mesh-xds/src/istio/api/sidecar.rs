//! `Sidecar` and `ProxyConfig`: <https://istio.io/latest/docs/reference/config/networking/sidecar/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::{Port, ServerTlsSettings};
use super::json;
use super::virtual_service::Destination;
use super::{MatchLabels, WorkloadSelector};

/// What the sidecars of a namespace, or of some workloads, listen on and may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Sidecar {
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    #[serde(deserialize_with = "json::null")]
    pub ingress: Vec<IstioIngressListener>,
    #[serde(deserialize_with = "json::null")]
    pub egress: Vec<IstioEgressListener>,
    #[serde(alias = "inbound_connection_pool")]
    pub inbound_connection_pool: Option<ConnectionPoolSettings>,
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// One inbound listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IstioIngressListener {
    pub port: Option<Port>,
    #[serde(deserialize_with = "json::null")]
    pub bind: String,
    #[serde(alias = "capture_mode", deserialize_with = "json::null")]
    pub capture_mode: CaptureMode,
    #[serde(alias = "default_endpoint", deserialize_with = "json::null")]
    pub default_endpoint: String,
    pub tls: Option<ServerTlsSettings>,
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// One outbound listener, or all of them when it has no port.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IstioEgressListener {
    pub port: Option<Port>,
    #[serde(deserialize_with = "json::null")]
    pub bind: String,
    #[serde(alias = "capture_mode", deserialize_with = "json::null")]
    pub capture_mode: CaptureMode,
    #[serde(deserialize_with = "json::null")]
    pub hosts: Vec<String>,
}

json::enumeration! {
    /// How traffic comes to a listener.
    pub enum CaptureMode {
        Default = 0 "DEFAULT",
        Iptables = 1 "IPTABLES",
        None = 2 "NONE",
    }
}

/// What happens to traffic for unknown hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct OutboundTrafficPolicy {
    #[serde(deserialize_with = "json::null")]
    pub mode: OutboundMode,
    #[serde(alias = "egress_proxy")]
    pub egress_proxy: Option<Destination>,
}

json::enumeration! {
    /// Whether unknown hosts may be reached.
    pub enum OutboundMode {
        RegistryOnly = 0 "REGISTRY_ONLY",
        AllowAny = 1 "ALLOW_ANY",
        AllowAnyDynamicDns = 3 "ALLOW_ANY_DYNAMIC_DNS",
    }
}

/// Settings of the proxy process itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyConfig {
    pub selector: Option<MatchLabels>,
    #[serde(deserialize_with = "json::opt_int")]
    pub concurrency: Option<i32>,
    #[serde(alias = "environment_variables", deserialize_with = "json::null")]
    pub environment_variables: BTreeMap<String, String>,
    pub image: Option<ProxyImage>,
}

/// The image that injection uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyImage {
    #[serde(alias = "image_type", deserialize_with = "json::null")]
    pub image_type: String,
}
