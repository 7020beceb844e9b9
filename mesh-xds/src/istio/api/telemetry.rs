//! `Telemetry`: <https://istio.io/latest/docs/reference/config/telemetry/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::json::{self, Double};
use super::{MatchLabels, PolicyTargetReference};

/// Traces, metrics and access logs of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Telemetry {
    pub selector: Option<MatchLabels>,
    #[serde(rename = "targetRef")]
    pub target_ref: Option<PolicyTargetReference>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(deserialize_with = "json::null")]
    pub tracing: Vec<Tracing>,
    #[serde(deserialize_with = "json::null")]
    pub metrics: Vec<Metrics>,
    #[serde(alias = "access_logging", deserialize_with = "json::null")]
    pub access_logging: Vec<AccessLogging>,
}

/// The side of a connection that a section is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ModeSelector {
    #[serde(deserialize_with = "json::null")]
    pub mode: WorkloadMode,
}

json::enumeration! {
    /// The side of a connection.
    pub enum WorkloadMode {
        ClientAndServer = 0 "CLIENT_AND_SERVER",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
    }
}

/// A provider by the name in MeshConfig.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProviderRef {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// Settings of traces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tracing {
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    #[serde(deserialize_with = "json::null")]
    pub providers: Vec<ProviderRef>,
    #[serde(alias = "random_sampling_percentage")]
    pub random_sampling_percentage: Option<Double>,
    #[serde(alias = "disable_span_reporting")]
    pub disable_span_reporting: Option<bool>,
    #[serde(alias = "custom_tags", deserialize_with = "json::null")]
    pub custom_tags: BTreeMap<String, CustomTag>,
    #[serde(alias = "use_request_id_for_trace_sampling")]
    pub use_request_id_for_trace_sampling: Option<bool>,
    #[serde(alias = "enable_istio_tags")]
    pub enable_istio_tags: Option<bool>,
    #[serde(alias = "disable_context_propagation")]
    pub disable_context_propagation: Option<bool>,
}

/// Where the value of a tag comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CustomTag {
    pub literal: Option<TagValue>,
    pub environment: Option<TagSource>,
    pub header: Option<TagSource>,
    pub formatter: Option<TagValue>,
}

/// A given value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TagValue {
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

/// A variable or header, with a default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TagSource {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "default_value", deserialize_with = "json::null")]
    pub default_value: String,
}

/// Settings of metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metrics {
    #[serde(deserialize_with = "json::null")]
    pub providers: Vec<ProviderRef>,
    #[serde(deserialize_with = "json::null")]
    pub overrides: Vec<MetricsOverrides>,
    #[serde(alias = "reporting_interval", deserialize_with = "json::duration")]
    pub reporting_interval: Option<Duration>,
}

/// Changes of one metric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MetricsOverrides {
    #[serde(rename = "match")]
    pub matches: Option<MetricSelector>,
    pub disabled: Option<bool>,
    #[serde(alias = "tag_overrides", deserialize_with = "json::null")]
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// The metric that an override is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MetricSelector {
    pub metric: Option<IstioMetric>,
    #[serde(alias = "custom_metric")]
    pub custom_metric: Option<String>,
    #[serde(deserialize_with = "json::null")]
    pub mode: WorkloadMode,
}

json::enumeration! {
    /// Istio's standard metrics.
    pub enum IstioMetric {
        AllMetrics = 0 "ALL_METRICS",
        RequestCount = 1 "REQUEST_COUNT",
        RequestDuration = 2 "REQUEST_DURATION",
        RequestSize = 3 "REQUEST_SIZE",
        ResponseSize = 4 "RESPONSE_SIZE",
        TcpOpenedConnections = 5 "TCP_OPENED_CONNECTIONS",
        TcpClosedConnections = 6 "TCP_CLOSED_CONNECTIONS",
        TcpSentBytes = 7 "TCP_SENT_BYTES",
        TcpReceivedBytes = 8 "TCP_RECEIVED_BYTES",
        GrpcRequestMessages = 9 "GRPC_REQUEST_MESSAGES",
        GrpcResponseMessages = 10 "GRPC_RESPONSE_MESSAGES",
    }
}

/// Change of one label.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TagOverride {
    #[serde(deserialize_with = "json::null")]
    pub operation: TagOperation,
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

json::enumeration! {
    /// What happens to a label.
    pub enum TagOperation {
        Upsert = 0 "UPSERT",
        Remove = 1 "REMOVE",
    }
}

/// Settings of access logs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessLogging {
    #[serde(rename = "match")]
    pub matches: Option<ModeSelector>,
    #[serde(deserialize_with = "json::null")]
    pub providers: Vec<ProviderRef>,
    pub disabled: Option<bool>,
    pub filter: Option<LogFilter>,
}

/// A CEL expression that chooses what is logged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogFilter {
    #[serde(deserialize_with = "json::null")]
    pub expression: String,
}
