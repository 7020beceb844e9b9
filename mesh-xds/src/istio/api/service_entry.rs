//! `ServiceEntry`, `WorkloadEntry`, `WorkloadGroup`: <https://istio.io/latest/docs/reference/config/networking/service-entry/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;
use super::json;

/// A service that is not made from a Kubernetes Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceEntry {
    #[serde(deserialize_with = "json::null")]
    pub hosts: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub addresses: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<ServicePort>,
    #[serde(deserialize_with = "json::null")]
    pub location: Location,
    #[serde(deserialize_with = "json::null")]
    pub resolution: Resolution,
    #[serde(deserialize_with = "json::null")]
    pub endpoints: Vec<WorkloadEntry>,
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    #[serde(alias = "export_to", deserialize_with = "json::null")]
    pub export_to: Vec<String>,
    #[serde(alias = "subject_alt_names", deserialize_with = "json::null")]
    pub subject_alt_names: Vec<String>,
}

/// A port of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServicePort {
    #[serde(deserialize_with = "json::int")]
    pub number: u32,
    #[serde(deserialize_with = "json::null")]
    pub protocol: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "target_port", deserialize_with = "json::int")]
    pub target_port: u32,
}

json::enumeration! {
    /// Whether the service belongs to the mesh.
    pub enum Location {
        MeshExternal = 0 "MESH_EXTERNAL",
        MeshInternal = 1 "MESH_INTERNAL",
    }
}

json::enumeration! {
    /// How the addresses of a service are found.
    pub enum Resolution {
        None = 0 "NONE",
        Static = 1 "STATIC",
        Dns = 2 "DNS",
        DnsRoundRobin = 3 "DNS_ROUND_ROBIN",
        DynamicDns = 4 "DYNAMIC_DNS",
    }
}

/// One workload outside Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEntry {
    #[serde(deserialize_with = "json::null")]
    pub address: String,
    #[serde(deserialize_with = "json::int_map")]
    pub ports: BTreeMap<String, u32>,
    #[serde(deserialize_with = "json::null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub network: String,
    #[serde(deserialize_with = "json::null")]
    pub locality: String,
    #[serde(deserialize_with = "json::int")]
    pub weight: u32,
    #[serde(alias = "service_account", deserialize_with = "json::null")]
    pub service_account: String,
}

/// A template of WorkloadEntry objects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadGroup {
    pub metadata: Option<GroupMetadata>,
    pub template: Option<WorkloadEntry>,
    pub probe: Option<ReadinessProbe>,
}

/// Labels and annotations that workloads of a group get.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GroupMetadata {
    #[serde(deserialize_with = "json::null")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub annotations: BTreeMap<String, String>,
}

/// Readiness of a workload outside Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ReadinessProbe {
    #[serde(alias = "initial_delay_seconds", deserialize_with = "json::int")]
    pub initial_delay_seconds: i32,
    #[serde(alias = "timeout_seconds", deserialize_with = "json::int")]
    pub timeout_seconds: i32,
    #[serde(alias = "period_seconds", deserialize_with = "json::int")]
    pub period_seconds: i32,
    #[serde(alias = "success_threshold", deserialize_with = "json::int")]
    pub success_threshold: i32,
    #[serde(alias = "failure_threshold", deserialize_with = "json::int")]
    pub failure_threshold: i32,
    #[serde(alias = "http_get")]
    pub http_get: Option<HttpHealthCheck>,
    #[serde(alias = "tcp_socket")]
    pub tcp_socket: Option<TcpHealthCheck>,
    pub exec: Option<ExecHealthCheck>,
    pub grpc: Option<GrpcHealthCheck>,
}

/// Probe by HTTP GET.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpHealthCheck {
    #[serde(deserialize_with = "json::null")]
    pub path: String,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    #[serde(deserialize_with = "json::null")]
    pub host: String,
    #[serde(deserialize_with = "json::null")]
    pub scheme: String,
    #[serde(alias = "http_headers", deserialize_with = "json::null")]
    pub http_headers: Vec<HttpHeader>,
}

/// A header that a probe sends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpHeader {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

/// Probe by TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpHealthCheck {
    #[serde(deserialize_with = "json::null")]
    pub host: String,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
}

/// Probe by command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExecHealthCheck {
    #[serde(deserialize_with = "json::null")]
    pub command: Vec<String>,
}

/// Probe by gRPC health check.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GrpcHealthCheck {
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    #[serde(deserialize_with = "json::null")]
    pub service: String,
}
