//! `PeerAuthentication`, `RequestAuthentication`, `AuthorizationPolicy`: <https://istio.io/latest/docs/reference/config/security/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::json;
use super::{MatchLabels, PolicyTargetReference};

/// Whether inbound connections need mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerAuthentication {
    pub selector: Option<MatchLabels>,
    pub mtls: Option<MutualTls>,
    #[serde(alias = "port_level_mtls", deserialize_with = "json::not_empty_map")]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// Mode of mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MutualTls {
    #[serde(deserialize_with = "json::null")]
    pub mode: MutualTlsMode,
}

json::enumeration! {
    /// Mode of mutual TLS; unset inherits.
    pub enum MutualTlsMode {
        Unset = 0 "UNSET",
        Disable = 1 "DISABLE",
        Permissive = 2 "PERMISSIVE",
        Strict = 3 "STRICT",
    }
}

/// Which tokens requests may carry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RequestAuthentication {
    pub selector: Option<MatchLabels>,
    #[serde(rename = "targetRef")]
    pub target_ref: Option<PolicyTargetReference>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(alias = "jwt_rules", deserialize_with = "json::null")]
    pub jwt_rules: Vec<JwtRule>,
}

/// One accepted issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtRule {
    #[serde(deserialize_with = "json::null")]
    pub issuer: String,
    #[serde(deserialize_with = "json::null")]
    pub audiences: Vec<String>,
    #[serde(alias = "jwks_uri", deserialize_with = "json::null")]
    pub jwks_uri: String,
    #[serde(deserialize_with = "json::null")]
    pub jwks: String,
    #[serde(alias = "from_headers", deserialize_with = "json::null")]
    pub from_headers: Vec<JwtHeader>,
    #[serde(alias = "from_params", deserialize_with = "json::null")]
    pub from_params: Vec<String>,
    #[serde(alias = "output_payload_to_header", deserialize_with = "json::null")]
    pub output_payload_to_header: String,
    #[serde(alias = "from_cookies", deserialize_with = "json::null")]
    pub from_cookies: Vec<String>,
    #[serde(alias = "forward_original_token", deserialize_with = "json::null")]
    pub forward_original_token: bool,
    #[serde(alias = "output_claim_to_headers", deserialize_with = "json::null")]
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    #[serde(deserialize_with = "json::duration")]
    pub timeout: Option<Duration>,
    #[serde(alias = "space_delimited_claims", deserialize_with = "json::null")]
    pub space_delimited_claims: Vec<String>,
    /// New in Istio 1.32.
    #[serde(deserialize_with = "json::null")]
    pub presence: JwtRequirement,
}

json::enumeration! {
    /// Whether a request must carry a token.
    pub enum JwtRequirement {
        Optional = 0 "OPTIONAL",
        Required = 1 "REQUIRED",
    }
}

/// A header that carries a token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtHeader {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(deserialize_with = "json::null")]
    pub prefix: String,
}

/// A claim that is copied to a header.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClaimToHeader {
    #[serde(deserialize_with = "json::null")]
    pub header: String,
    #[serde(deserialize_with = "json::null")]
    pub claim: String,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AuthorizationPolicy {
    pub selector: Option<MatchLabels>,
    #[serde(rename = "targetRef")]
    pub target_ref: Option<PolicyTargetReference>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(deserialize_with = "json::null")]
    pub rules: Vec<Rule>,
    #[serde(deserialize_with = "json::null")]
    pub action: Action,
    pub provider: Option<ExtensionProviderRef>,
}

/// The external authorizer of a CUSTOM policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExtensionProviderRef {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
}

json::enumeration! {
    /// What a matching policy does.
    pub enum Action {
        Allow = 0 "ALLOW",
        Deny = 1 "DENY",
        Audit = 2 "AUDIT",
        Custom = 3 "CUSTOM",
    }
}

/// One rule: a source, an operation and conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    #[serde(deserialize_with = "json::not_empty")]
    pub from: Vec<RuleFrom>,
    #[serde(deserialize_with = "json::not_empty")]
    pub to: Vec<RuleTo>,
    #[serde(deserialize_with = "json::null")]
    pub when: Vec<Condition>,
}

/// One alternative of sources.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RuleFrom {
    pub source: Option<Source>,
}

/// One alternative of operations.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RuleTo {
    pub operation: Option<Operation>,
}

/// Properties of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Source {
    #[serde(deserialize_with = "json::null")]
    pub principals: Vec<String>,
    #[serde(alias = "not_principals", deserialize_with = "json::null")]
    pub not_principals: Vec<String>,
    #[serde(alias = "request_principals", deserialize_with = "json::null")]
    pub request_principals: Vec<String>,
    #[serde(alias = "not_request_principals", deserialize_with = "json::null")]
    pub not_request_principals: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub namespaces: Vec<String>,
    #[serde(alias = "not_namespaces", deserialize_with = "json::null")]
    pub not_namespaces: Vec<String>,
    #[serde(alias = "service_accounts", deserialize_with = "json::null")]
    pub service_accounts: Vec<String>,
    #[serde(alias = "not_service_accounts", deserialize_with = "json::null")]
    pub not_service_accounts: Vec<String>,
    #[serde(alias = "ip_blocks", deserialize_with = "json::null")]
    pub ip_blocks: Vec<String>,
    #[serde(alias = "not_ip_blocks", deserialize_with = "json::null")]
    pub not_ip_blocks: Vec<String>,
    #[serde(alias = "remote_ip_blocks", deserialize_with = "json::null")]
    pub remote_ip_blocks: Vec<String>,
    #[serde(alias = "not_remote_ip_blocks", deserialize_with = "json::null")]
    pub not_remote_ip_blocks: Vec<String>,
    #[serde(alias = "trust_domains", deserialize_with = "json::null")]
    pub trust_domains: Vec<String>,
    #[serde(alias = "not_trust_domains", deserialize_with = "json::null")]
    pub not_trust_domains: Vec<String>,
}

/// Properties of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Operation {
    #[serde(deserialize_with = "json::null")]
    pub hosts: Vec<String>,
    #[serde(alias = "not_hosts", deserialize_with = "json::null")]
    pub not_hosts: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<String>,
    #[serde(alias = "not_ports", deserialize_with = "json::null")]
    pub not_ports: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub methods: Vec<String>,
    #[serde(alias = "not_methods", deserialize_with = "json::null")]
    pub not_methods: Vec<String>,
    #[serde(deserialize_with = "json::null")]
    pub paths: Vec<String>,
    #[serde(alias = "not_paths", deserialize_with = "json::null")]
    pub not_paths: Vec<String>,
}

/// One further attribute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Condition {
    #[serde(deserialize_with = "json::null")]
    pub key: String,
    #[serde(deserialize_with = "json::null")]
    pub values: Vec<String>,
    #[serde(alias = "not_values", deserialize_with = "json::null")]
    pub not_values: Vec<String>,
}
