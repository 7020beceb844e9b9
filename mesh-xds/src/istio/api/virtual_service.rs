//! `VirtualService`: <https://istio.io/latest/docs/reference/config/networking/virtual-service/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::PortSelector;
use super::json::{self, Double, StringMatch};

/// Routing rules for hosts of the mesh or of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VirtualService {
    #[serde(deserialize_with = "json::null")]
    pub hosts: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub gateways: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub http: Vec<HttpRoute>,
    #[serde(deserialize_with = "json::null")]
    pub tls: Vec<TlsRoute>,
    #[serde(deserialize_with = "json::null")]
    pub tcp: Vec<TcpRoute>,
    #[serde(alias = "export_to", deserialize_with = "json::null")]
    pub export_to: Vec<String>,
}

/// One ordered rule for HTTP traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRoute {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(rename = "match", deserialize_with = "json::null")]
    pub matches: Vec<HttpMatchRequest>,
    #[serde(deserialize_with = "json::null")]
    pub route: Vec<HttpRouteDestination>,
    pub redirect: Option<HttpRedirect>,
    #[serde(alias = "direct_response")]
    pub direct_response: Option<HttpDirectResponse>,
    pub delegate: Option<Delegate>,
    pub rewrite: Option<HttpRewrite>,
    #[serde(deserialize_with = "json::duration")]
    pub timeout: Option<Duration>,
    pub retries: Option<HttpRetry>,
    pub fault: Option<HttpFaultInjection>,
    pub mirror: Option<Destination>,
    #[serde(deserialize_with = "json::null")]
    pub mirrors: Vec<HttpMirrorPolicy>,
    #[serde(alias = "mirror_percent", deserialize_with = "json::opt_int")]
    pub mirror_percent: Option<u32>,
    #[serde(alias = "mirror_percentage")]
    pub mirror_percentage: Option<Percent>,
    #[serde(alias = "cors_policy")]
    pub cors_policy: Option<CorsPolicy>,
    pub headers: Option<Headers>,
    /// Gone from the API: upgrades are always allowed. Old files still have it.
    #[serde(alias = "websocket_upgrade")]
    pub websocket_upgrade: Option<bool>,
}

/// Conditions that all have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpMatchRequest {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    pub uri: Option<StringMatch>,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    #[serde(deserialize_with = "json::conditions")]
    pub headers: BTreeMap<String, StringMatch>,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    #[serde(alias = "source_labels", deserialize_with = "json::null")]
    pub source_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub gateways: Vec<String>,
    #[serde(alias = "query_params", deserialize_with = "json::conditions")]
    pub query_params: BTreeMap<String, StringMatch>,
    #[serde(alias = "ignore_uri_case", deserialize_with = "json::null")]
    pub ignore_uri_case: bool,
    #[serde(alias = "without_headers", deserialize_with = "json::conditions")]
    pub without_headers: BTreeMap<String, StringMatch>,
    #[serde(alias = "source_namespace", deserialize_with = "json::null")]
    pub source_namespace: String,
    #[serde(alias = "stat_prefix", deserialize_with = "json::null")]
    pub stat_prefix: String,
}

/// One arm of a weighted split.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRouteDestination {
    pub destination: Option<Destination>,
    #[serde(deserialize_with = "json::int")]
    pub weight: i32,
    pub headers: Option<Headers>,
}

/// A service, or a subset of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Destination {
    #[serde(deserialize_with = "json::null")]
    pub host: String,
    #[serde(deserialize_with = "json::null")]
    pub subset: String,
    pub port: Option<PortSelector>,
}

/// The VirtualService that holds the rules of a root rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delegate {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub namespace: String,
}

/// A redirect answered by the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRedirect {
    #[serde(deserialize_with = "json::null")]
    pub uri: String,
    #[serde(deserialize_with = "json::null")]
    pub authority: String,
    #[serde(deserialize_with = "json::opt_int")]
    pub port: Option<u32>,
    #[serde(alias = "derive_port")]
    pub derive_port: Option<RedirectPortSelection>,
    #[serde(deserialize_with = "json::null")]
    pub scheme: String,
    #[serde(alias = "redirect_code", deserialize_with = "json::int")]
    pub redirect_code: u32,
    #[serde(alias = "prefix_rewrite", deserialize_with = "json::null")]
    pub prefix_rewrite: String,
}

json::enumeration! {
    /// How the port of a redirect is found.
    pub enum RedirectPortSelection {
        FromProtocolDefault = 0 "FROM_PROTOCOL_DEFAULT",
        FromRequestPort = 1 "FROM_REQUEST_PORT",
    }
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpDirectResponse {
    #[serde(deserialize_with = "json::int")]
    pub status: u32,
    pub body: Option<HttpBody>,
}

/// A body as text, or as base64.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpBody {
    pub string: Option<String>,
    pub bytes: Option<String>,
}

/// What is changed before forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRewrite {
    #[serde(deserialize_with = "json::null")]
    pub uri: String,
    #[serde(deserialize_with = "json::null")]
    pub authority: String,
    #[serde(alias = "uri_regex_rewrite")]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A rewrite of the path by regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RegexRewrite {
    #[serde(rename = "match", deserialize_with = "json::null")]
    pub matches: String,
    #[serde(deserialize_with = "json::null")]
    pub rewrite: String,
}

/// How failed requests are tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpRetry {
    #[serde(deserialize_with = "json::int")]
    pub attempts: i32,
    #[serde(alias = "per_try_timeout", deserialize_with = "json::duration")]
    pub per_try_timeout: Option<Duration>,
    #[serde(alias = "retry_on", deserialize_with = "json::null")]
    pub retry_on: String,
    #[serde(alias = "retry_remote_localities")]
    pub retry_remote_localities: Option<bool>,
    #[serde(alias = "retry_ignore_previous_hosts")]
    pub retry_ignore_previous_hosts: Option<bool>,
    #[serde(deserialize_with = "json::duration")]
    pub backoff: Option<Duration>,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CorsPolicy {
    #[serde(alias = "allow_origin", deserialize_with = "json::null")]
    pub allow_origin: Vec<String>,
    #[serde(alias = "allow_origins", deserialize_with = "json::null")]
    pub allow_origins: Vec<StringMatch>,
    #[serde(alias = "allow_methods", deserialize_with = "json::null")]
    pub allow_methods: Vec<String>,
    #[serde(alias = "allow_headers", deserialize_with = "json::null")]
    pub allow_headers: Vec<String>,
    #[serde(alias = "expose_headers", deserialize_with = "json::null")]
    pub expose_headers: Vec<String>,
    #[serde(alias = "max_age", deserialize_with = "json::duration")]
    pub max_age: Option<Duration>,
    #[serde(alias = "allow_credentials")]
    pub allow_credentials: Option<bool>,
    #[serde(alias = "unmatched_preflights", deserialize_with = "json::null")]
    pub unmatched_preflights: UnmatchedPreflights,
}

json::enumeration! {
    /// What happens to preflight requests of unknown origin.
    pub enum UnmatchedPreflights {
        Unspecified = 0 "UNSPECIFIED",
        Forward = 1 "FORWARD",
        Ignore = 2 "IGNORE",
    }
}

/// Faults, for tests of resilience.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpFaultInjection {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

/// A delay before forwarding.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Delay {
    #[serde(deserialize_with = "json::int")]
    pub percent: i32,
    #[serde(alias = "fixed_delay", deserialize_with = "json::duration")]
    pub fixed_delay: Option<Duration>,
    #[serde(alias = "exponential_delay", deserialize_with = "json::duration")]
    pub exponential_delay: Option<Duration>,
    pub percentage: Option<Percent>,
}

/// The codes of gRPC, in order of their number.
pub(in crate::istio) const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// An error answered at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Abort {
    #[serde(alias = "http_status", deserialize_with = "json::opt_int")]
    pub http_status: Option<i32>,
    #[serde(alias = "grpc_status")]
    pub grpc_status: Option<String>,
    #[serde(alias = "http2_error")]
    pub http2_error: Option<String>,
    pub percentage: Option<Percent>,
}

/// A copy of the traffic, whose answers are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpMirrorPolicy {
    pub destination: Option<Destination>,
    pub percentage: Option<Percent>,
}

/// A percentage from 0 to 100.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Percent {
    #[serde(deserialize_with = "json::null")]
    pub value: Double,
}

/// Header changes of requests and responses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Headers {
    pub request: Option<HeaderOperations>,
    pub response: Option<HeaderOperations>,
}

/// Header changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HeaderOperations {
    #[serde(deserialize_with = "json::null")]
    pub set: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub add: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub remove: Vec<String>,
}

/// One rule for TLS traffic that is not terminated.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsRoute {
    #[serde(rename = "match", deserialize_with = "json::null")]
    pub matches: Vec<TlsMatchAttributes>,
    #[serde(deserialize_with = "json::null")]
    pub route: Vec<RouteDestination>,
}

/// One rule for TCP traffic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TcpRoute {
    #[serde(rename = "match", deserialize_with = "json::null")]
    pub matches: Vec<L4MatchAttributes>,
    #[serde(deserialize_with = "json::null")]
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TlsMatchAttributes {
    #[serde(alias = "sni_hosts", deserialize_with = "json::null")]
    pub sni_hosts: Vec<String>,
    #[serde(alias = "destination_subnets", deserialize_with = "json::null")]
    pub destination_subnets: Vec<String>,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    #[serde(alias = "source_labels", deserialize_with = "json::null")]
    pub source_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub gateways: Vec<String>,
    #[serde(alias = "source_namespace", deserialize_with = "json::null")]
    pub source_namespace: String,
}

/// Conditions on a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct L4MatchAttributes {
    #[serde(alias = "destination_subnets", deserialize_with = "json::null")]
    pub destination_subnets: Vec<String>,
    #[serde(deserialize_with = "json::int")]
    pub port: u32,
    #[serde(alias = "source_subnet", deserialize_with = "json::null")]
    pub source_subnet: String,
    #[serde(alias = "source_labels", deserialize_with = "json::null")]
    pub source_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "json::null")]
    pub gateways: Vec<String>,
    #[serde(alias = "source_namespace", deserialize_with = "json::null")]
    pub source_namespace: String,
}

/// One arm of a weighted split of connections.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteDestination {
    pub destination: Option<Destination>,
    #[serde(deserialize_with = "json::int")]
    pub weight: i32,
}

/// The claims of a JSON Web Token, from the outermost inwards, that a header's name in a match stands for:
/// `@request.auth.claims.group.id` or `@request.auth.claims[group][id]`.
pub(crate) fn claims(name: &str) -> Option<Vec<&str>> {
    const PREFIX: &str = "@request.auth.claims";
    let (prefix, rest) = name.split_at_checked(PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    match rest.strip_prefix('.') {
        Some("") => None,
        Some(dotted) => Some(dotted.split('.').collect()),
        None => {
            let inner = rest.strip_prefix('[')?.strip_suffix(']')?;
            (!inner.is_empty()).then(|| inner.split("][").collect())
        }
    }
}
