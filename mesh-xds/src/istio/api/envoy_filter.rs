//! `EnvoyFilter`: <https://istio.io/latest/docs/reference/config/networking/envoy-filter/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::json;
use super::{PolicyTargetReference, WorkloadSelector};

/// Patches of the Envoy resources that are made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnvoyFilter {
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(alias = "config_patches", deserialize_with = "json::null")]
    pub config_patches: Vec<EnvoyConfigObjectPatch>,
    #[serde(deserialize_with = "json::int")]
    pub priority: i32,
}

json::enumeration! {
    /// Kind of object that is patched.
    pub enum ApplyTo {
        Invalid = 0 "INVALID",
        Listener = 1 "LISTENER",
        FilterChain = 2 "FILTER_CHAIN",
        NetworkFilter = 3 "NETWORK_FILTER",
        HttpFilter = 4 "HTTP_FILTER",
        RouteConfiguration = 5 "ROUTE_CONFIGURATION",
        VirtualHost = 6 "VIRTUAL_HOST",
        HttpRoute = 7 "HTTP_ROUTE",
        Cluster = 8 "CLUSTER",
        ExtensionConfig = 9 "EXTENSION_CONFIG",
        Bootstrap = 10 "BOOTSTRAP",
        ListenerFilter = 11 "LISTENER_FILTER",
    }
}

json::enumeration! {
    /// Role of the proxy's part that is patched.
    pub enum PatchContext {
        Any = 0 "ANY",
        SidecarInbound = 1 "SIDECAR_INBOUND",
        SidecarOutbound = 2 "SIDECAR_OUTBOUND",
        Gateway = 3 "GATEWAY",
        Waypoint = 4 "WAYPOINT",
    }
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnvoyConfigObjectPatch {
    #[serde(alias = "apply_to", deserialize_with = "json::null")]
    pub apply_to: ApplyTo,
    #[serde(rename = "match")]
    pub matches: Option<EnvoyConfigObjectMatch>,
    pub patch: Option<Patch>,
}

/// The objects that are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnvoyConfigObjectMatch {
    #[serde(deserialize_with = "json::null")]
    pub context: PatchContext,
    pub proxy: Option<ProxyMatch>,
    pub listener: Option<ListenerMatch>,
    #[serde(alias = "route_configuration")]
    pub route_configuration: Option<RouteConfigurationMatch>,
    pub cluster: Option<ClusterMatch>,
    pub waypoint: Option<WaypointMatch>,
}

/// The proxies whose objects are patched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyMatch {
    #[serde(alias = "proxy_version", deserialize_with = "json::null")]
    pub proxy_version: String,
    #[serde(deserialize_with = "json::null")]
    pub metadata: BTreeMap<String, String>,
}

/// A cluster by port, service, subset or name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClusterMatch {
    #[serde(alias = "port_number", deserialize_with = "json::int")]
    pub port_number: u32,
    #[serde(deserialize_with = "json::null")]
    pub service: String,
    #[serde(deserialize_with = "json::null")]
    pub subset: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// A route configuration, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteConfigurationMatch {
    #[serde(alias = "port_number", deserialize_with = "json::int")]
    pub port_number: u32,
    #[serde(alias = "port_name", deserialize_with = "json::null")]
    pub port_name: String,
    #[serde(deserialize_with = "json::null")]
    pub gateway: String,
    pub vhost: Option<VirtualHostMatch>,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// A virtual host, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VirtualHostMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "domain_name", deserialize_with = "json::null")]
    pub domain_name: String,
    pub route: Option<RouteMatch>,
}

/// A route by name or action.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub action: RouteAction,
}

json::enumeration! {
    /// Kind of a route's action.
    pub enum RouteAction {
        Any = 0 "ANY",
        Route = 1 "ROUTE",
        Redirect = 2 "REDIRECT",
        DirectResponse = 3 "DIRECT_RESPONSE",
    }
}

/// A listener, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListenerMatch {
    #[serde(alias = "port_number", deserialize_with = "json::int")]
    pub port_number: u32,
    #[serde(alias = "port_name", deserialize_with = "json::null")]
    pub port_name: String,
    #[serde(alias = "filter_chain")]
    pub filter_chain: Option<FilterChainMatch>,
    #[serde(alias = "listener_filter", deserialize_with = "json::null")]
    pub listener_filter: String,
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// A filter chain, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FilterChainMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub sni: String,
    #[serde(alias = "transport_protocol", deserialize_with = "json::null")]
    pub transport_protocol: String,
    #[serde(alias = "application_protocols", deserialize_with = "json::null")]
    pub application_protocols: String,
    pub filter: Option<FilterMatch>,
    #[serde(alias = "destination_port", deserialize_with = "json::int")]
    pub destination_port: u32,
    #[serde(alias = "transport_socket", deserialize_with = "json::null")]
    pub transport_socket: String,
}

/// A network filter, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct FilterMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "sub_filter")]
    pub sub_filter: Option<SubFilterMatch>,
}

/// An HTTP filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SubFilterMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// A part of a waypoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WaypointMatch {
    #[serde(alias = "port_number", deserialize_with = "json::int")]
    pub port_number: u32,
    pub route: Option<WaypointRouteMatch>,
    pub filter: Option<FilterMatch>,
}

/// A route of a waypoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WaypointRouteMatch {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

/// What is done, and with which value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Patch {
    #[serde(deserialize_with = "json::null")]
    pub operation: Operation,
    #[serde(deserialize_with = "json::null")]
    pub value: Value,
    #[serde(alias = "filter_class", deserialize_with = "json::null")]
    pub filter_class: FilterClass,
}

json::enumeration! {
    /// How a patch is applied.
    pub enum Operation {
        Invalid = 0 "INVALID",
        Merge = 1 "MERGE",
        Add = 2 "ADD",
        Remove = 3 "REMOVE",
        InsertBefore = 4 "INSERT_BEFORE",
        InsertAfter = 5 "INSERT_AFTER",
        InsertFirst = 6 "INSERT_FIRST",
        Replace = 7 "REPLACE",
        MergeAndReplaceList = 8 "MERGE_AND_REPLACE_LIST",
    }
}

json::enumeration! {
    /// Where among filters a patch is put.
    pub enum FilterClass {
        Unspecified = 0 "UNSPECIFIED",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}
