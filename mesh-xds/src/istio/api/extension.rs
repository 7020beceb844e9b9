//! `WasmPlugin` and `TrafficExtension`: <https://istio.io/latest/docs/reference/config/proxy_extensions/>.

#![allow(missing_docs)] // Field names and meaning are those of the API page named above.

use serde::Deserialize;
use serde_json::Value;

use super::json;
use super::{MatchLabels, PolicyTargetReference, PortSelector};

/// A WebAssembly filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WasmPlugin {
    pub selector: Option<MatchLabels>,
    #[serde(rename = "targetRef")]
    pub target_ref: Option<PolicyTargetReference>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(deserialize_with = "json::null")]
    pub url: String,
    #[serde(deserialize_with = "json::null")]
    pub sha256: String,
    #[serde(alias = "image_pull_policy", deserialize_with = "json::null")]
    pub image_pull_policy: PullPolicy,
    #[serde(alias = "image_pull_secret", deserialize_with = "json::null")]
    pub image_pull_secret: String,
    #[serde(alias = "verification_key", deserialize_with = "json::null")]
    pub verification_key: String,
    #[serde(alias = "plugin_config", deserialize_with = "json::null")]
    pub plugin_config: Value,
    #[serde(alias = "plugin_name", deserialize_with = "json::null")]
    pub plugin_name: String,
    #[serde(deserialize_with = "json::null")]
    pub phase: PluginPhase,
    #[serde(deserialize_with = "json::opt_int")]
    pub priority: Option<i32>,
    #[serde(alias = "fail_strategy", deserialize_with = "json::null")]
    pub fail_strategy: FailStrategy,
    #[serde(alias = "vm_config")]
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "match", deserialize_with = "json::no_nulls")]
    pub matches: Vec<TrafficSelector>,
    #[serde(rename = "type", deserialize_with = "json::null")]
    pub kind: PluginType,
}

json::enumeration! {
    /// When an image is fetched.
    pub enum PullPolicy {
        UnspecifiedPolicy = 0 "UNSPECIFIED_POLICY",
        IfNotPresent = 1 "IfNotPresent",
        Always = 2 "Always",
    }
}

json::enumeration! {
    /// Where in the chain a WasmPlugin stands.
    pub enum PluginPhase {
        UnspecifiedPhase = 0 "UNSPECIFIED_PHASE",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}

json::enumeration! {
    /// What happens when a plugin fails.
    pub enum FailStrategy {
        FailClose = 0 "FAIL_CLOSE",
        FailOpen = 1 "FAIL_OPEN",
        FailReload = 2 "FAIL_RELOAD",
    }
}

json::enumeration! {
    /// Kind of filter that a plugin is.
    pub enum PluginType {
        UnspecifiedPluginType = 0 "UNSPECIFIED_PLUGIN_TYPE",
        Http = 1 "HTTP",
        Network = 2 "NETWORK",
    }
}

/// Environment of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VmConfig {
    #[serde(deserialize_with = "json::null")]
    pub env: Vec<EnvVar>,
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EnvVar {
    #[serde(deserialize_with = "json::null")]
    pub name: String,
    #[serde(alias = "value_from", deserialize_with = "json::null")]
    pub value_from: EnvValueSource,
    #[serde(deserialize_with = "json::null")]
    pub value: String,
}

json::enumeration! {
    /// Where the value of a variable comes from.
    pub enum EnvValueSource {
        Inline = 0 "INLINE",
        Host = 1 "HOST",
    }
}

json::enumeration! {
    /// The side of a connection. Unlike Telemetry's enum of the same name it may be left open.
    pub enum WorkloadMode {
        Undefined = 0 "UNDEFINED",
        Client = 1 "CLIENT",
        Server = 2 "SERVER",
        ClientAndServer = 3 "CLIENT_AND_SERVER",
    }
}

/// The traffic that an extension sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficSelector {
    #[serde(deserialize_with = "json::null")]
    pub mode: WorkloadMode,
    #[serde(deserialize_with = "json::null")]
    pub ports: Vec<PortSelector>,
}

/// A WebAssembly or Lua filter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficExtension {
    pub selector: Option<MatchLabels>,
    #[serde(rename = "targetRefs", deserialize_with = "json::null")]
    pub target_refs: Vec<PolicyTargetReference>,
    #[serde(deserialize_with = "json::null")]
    pub phase: ExecutionPhase,
    #[serde(deserialize_with = "json::opt_int")]
    pub priority: Option<i32>,
    #[serde(rename = "match", deserialize_with = "json::no_nulls")]
    pub matches: Vec<TrafficSelector>,
    pub wasm: Option<WasmConfig>,
    pub lua: Option<LuaConfig>,
}

json::enumeration! {
    /// Where in the chain an extension stands.
    pub enum ExecutionPhase {
        Unspecified = 0 "UNSPECIFIED",
        Authn = 1 "AUTHN",
        Authz = 2 "AUTHZ",
        Stats = 3 "STATS",
    }
}

/// The WebAssembly module of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WasmConfig {
    #[serde(deserialize_with = "json::null")]
    pub url: String,
    #[serde(deserialize_with = "json::null")]
    pub sha256: String,
    #[serde(alias = "image_pull_policy", deserialize_with = "json::null")]
    pub image_pull_policy: PullPolicy,
    #[serde(alias = "image_pull_secret", deserialize_with = "json::null")]
    pub image_pull_secret: String,
    #[serde(alias = "verification_key", deserialize_with = "json::null")]
    pub verification_key: String,
    #[serde(alias = "plugin_config", deserialize_with = "json::null")]
    pub plugin_config: Value,
    #[serde(alias = "plugin_name", deserialize_with = "json::null")]
    pub plugin_name: String,
    #[serde(alias = "fail_strategy", deserialize_with = "json::null")]
    pub fail_strategy: FailStrategy,
    #[serde(alias = "vm_config")]
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "type", deserialize_with = "json::null")]
    pub kind: PluginType,
}

/// The Lua code of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LuaConfig {
    #[serde(alias = "inline_code", deserialize_with = "json::null")]
    pub inline_code: String,
}
