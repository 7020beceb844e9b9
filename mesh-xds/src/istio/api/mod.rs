//! Istio's and Kubernetes' objects as they stand in YAML: plain types, strict about unknown fields.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

pub mod destination_rule;
pub mod envoy_filter;
pub mod extension;
pub mod gateway;
pub mod json;
pub mod k8s;
pub mod lost;
pub mod mesh_config;
pub mod security;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;

pub use destination_rule::DestinationRule;
pub use envoy_filter::EnvoyFilter;
pub use extension::{TrafficExtension, WasmPlugin};
pub use gateway::Gateway;
pub use lost::Lost;
pub use mesh_config::MeshConfig;
pub use security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
pub use service_entry::{ServiceEntry, WorkloadEntry, WorkloadGroup};
pub use sidecar::{ProxyConfig, Sidecar};
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;

/// Workloads chosen by labels, as `networking.istio.io` spells it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadSelector {
    /// Labels that all have to be present.
    #[serde(deserialize_with = "json::null")]
    pub labels: BTreeMap<String, String>,
}

/// Workloads chosen by labels, as `security.istio.io` and others spell it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MatchLabels {
    /// Labels that all have to be present.
    #[serde(alias = "match_labels", deserialize_with = "json::null")]
    pub match_labels: BTreeMap<String, String>,
}

/// A port by number.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortSelector {
    /// The number.
    #[serde(deserialize_with = "json::int")]
    pub number: u32,
}

/// The gateway or service that a policy is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyTargetReference {
    /// API group.
    #[serde(deserialize_with = "json::null")]
    pub group: String,
    /// Kind.
    #[serde(deserialize_with = "json::null")]
    pub kind: String,
    /// Name.
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    /// Namespace; only that of the policy is allowed.
    #[serde(deserialize_with = "json::null")]
    pub namespace: String,
}

/// Where an object was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// The line on which the object begins, from 1.
    pub line: u32,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            file: Arc::from(""),
            line: 0,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One object with its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Object {
    /// API group, empty for Kubernetes' core group.
    pub group: Arc<str>,
    /// API version, as `v1`.
    pub version: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Creation time in seconds since 1970, which orders objects that conflict: the older one wins.
    pub creation_timestamp: i64,
    /// Version of the object, as the store gave it.
    pub resource_version: Arc<str>,
    /// Where it was read.
    pub origin: Origin,
    /// What it says.
    pub spec: Spec,
}

/// The content of an object, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Spec {
    /// `networking.istio.io` VirtualService.
    VirtualService(Box<VirtualService>),
    /// `networking.istio.io` DestinationRule.
    DestinationRule(Box<DestinationRule>),
    /// `networking.istio.io` Gateway.
    Gateway(Box<Gateway>),
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry(Box<ServiceEntry>),
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry(Box<WorkloadEntry>),
    /// `networking.istio.io` WorkloadGroup.
    WorkloadGroup(Box<WorkloadGroup>),
    /// `networking.istio.io` Sidecar.
    Sidecar(Box<Sidecar>),
    /// `networking.istio.io` ProxyConfig.
    ProxyConfig(Box<ProxyConfig>),
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter(Box<EnvoyFilter>),
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication(Box<PeerAuthentication>),
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication(Box<RequestAuthentication>),
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// `telemetry.istio.io` Telemetry.
    Telemetry(Box<Telemetry>),
    /// `extensions.istio.io` WasmPlugin.
    WasmPlugin(Box<WasmPlugin>),
    /// `extensions.istio.io` TrafficExtension.
    TrafficExtension(Box<TrafficExtension>),
    /// The mesh's settings: the key `mesh` of ConfigMap `istio`, or a file `mesh.yaml`.
    MeshConfig(Box<MeshConfig>),
    /// Kubernetes Service.
    Service(Box<k8s::Service>),
    /// `discovery.k8s.io` EndpointSlice.
    EndpointSlice(Box<k8s::EndpointSlice>),
    /// Kubernetes Pod.
    Pod(Box<k8s::Pod>),
    /// `apps` Deployment.
    Deployment(Box<k8s::Deployment>),
    /// Kubernetes ConfigMap.
    ConfigMap(Box<k8s::ConfigMap>),
    /// A kind that is known to exist and has no effect here.
    #[default]
    Other,
}
