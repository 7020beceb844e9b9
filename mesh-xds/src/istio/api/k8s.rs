//! The parts of Kubernetes objects that say which services and workloads exist. Fields that the mesh does not need are
//! read past on purpose: they are for Kubernetes. In Services and EndpointSlices, which people write by hand for a mesh of
//! files, a field that does not exist is refused; of the large kinds (Pod, Deployment) only what is needed is known.

#![allow(missing_docs)] // Field names and meaning are those of <https://kubernetes.io/docs/reference/kubernetes-api/>.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};

use super::json;

/// A field that is for Kubernetes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unread;

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from)?;
        Ok(Self)
    }
}

/// Spec of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Service {
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<ServicePort>,
    #[serde(deserialize_with = "json::null")]
    pub selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP", deserialize_with = "json::null")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "json::null")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "type", deserialize_with = "json::null")]
    pub kind: String,
    #[serde(rename = "externalIPs")]
    pub external_ips: Unread,
    #[serde(deserialize_with = "json::null")]
    pub external_name: String,
    #[serde(deserialize_with = "json::null")]
    pub publish_not_ready_addresses: bool,
    pub session_affinity: Unread,
    pub session_affinity_config: Unread,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Unread,
    pub load_balancer_source_ranges: Unread,
    pub load_balancer_class: Unread,
    pub external_traffic_policy: Unread,
    #[serde(deserialize_with = "json::null")]
    pub internal_traffic_policy: String,
    pub health_check_node_port: Unread,
    pub ip_families: Unread,
    pub ip_family_policy: Unread,
    pub allocate_load_balancer_node_ports: Unread,
    #[serde(deserialize_with = "json::null")]
    pub traffic_distribution: String,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServicePort {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
    pub app_protocol: Option<String>,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    pub target_port: Option<IntOrString>,
    pub node_port: Unread,
}

/// A port by number or by the name of a container's port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a port's number or name is expected")]
pub enum IntOrString {
    /// A number.
    Int(u32),
    /// A name.
    Name(String),
}

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Content of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    #[serde(deserialize_with = "json::null")]
    pub address_type: String,
    #[serde(deserialize_with = "json::null")]
    pub endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Endpoint {
    #[serde(deserialize_with = "json::null")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub conditions: EndpointConditions,
    pub hostname: Unread,
    pub node_name: Option<String>,
    pub target_ref: Option<ObjectReference>,
    pub zone: Unread,
    pub hints: Unread,
    pub deprecated_topology: Unread,
    /// Ports of this endpoint, where the slice was made from an older kind that has several lists of them.
    #[serde(skip)]
    pub ports: Option<Vec<EndpointPort>>,
}

/// State of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

/// A reference to an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    #[serde(deserialize_with = "json::null")]
    pub kind: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub namespace: String,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EndpointPort {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
    #[serde(deserialize_with = "json::opt_int")]
    pub port: Option<u32>,
    pub app_protocol: Option<String>,
}

/// Spec and status of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    #[serde(deserialize_with = "json::null")]
    pub spec: PodSpec,
    #[serde(deserialize_with = "json::null")]
    pub status: PodStatus,
}

/// Spec of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    #[serde(deserialize_with = "json::null")]
    pub containers: Vec<Container>,
    #[serde(deserialize_with = "json::null")]
    pub service_account_name: String,
    #[serde(deserialize_with = "json::null")]
    pub node_name: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<ContainerPort>,
}

/// One port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::int")]
    pub container_port: u32,
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
}

/// Status of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    #[serde(deserialize_with = "json::null")]
    pub phase: String,
    #[serde(rename = "podIP", deserialize_with = "json::null")]
    pub pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "json::null")]
    pub pod_ips: Vec<PodIp>,
    #[serde(deserialize_with = "json::null")]
    pub conditions: Vec<Condition>,
}

/// One address of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    #[serde(deserialize_with = "json::null")]
    pub ip: String,
}

/// One condition of a status.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type", deserialize_with = "json::null")]
    pub kind: String,
    #[serde(deserialize_with = "json::null")]
    pub status: String,
}

/// Spec of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub replicas: Unread,
    #[serde(deserialize_with = "json::null")]
    pub template: PodTemplate,
}

/// The Pods that a Deployment makes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    #[serde(deserialize_with = "json::null")]
    pub metadata: TemplateMetadata,
    #[serde(deserialize_with = "json::null")]
    pub spec: PodSpec,
}

/// Labels and annotations of such Pods.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct TemplateMetadata {
    #[serde(deserialize_with = "json::null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub annotations: BTreeMap<String, String>,
}

/// Data of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    #[serde(deserialize_with = "json::null")]
    pub data: BTreeMap<String, String>,
}
