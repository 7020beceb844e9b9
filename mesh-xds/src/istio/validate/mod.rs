//! What Istio's own validation asks of each object, beyond its types.
//!
//! [`object`] checks one object alone. What needs other objects (a host or subset that does not exist) is no refusal in
//! Istio; [`dangling`] lists it as warnings.

mod check;
mod destination_rule;
mod envoy_filter;
mod extension;
mod gateway;
mod http;
mod kubernetes;
mod mesh;
mod proxy_fields;
mod reach;
mod reference;
mod rules;
mod security;
mod selector;
mod service_entry;
mod sidecar;
mod telemetry;
#[cfg(test)]
mod tests;
mod virtual_service;

pub use check::{Problem, Severity};
#[cfg(test)]
pub(crate) use mesh::MESH_FIELDS;
pub use reference::dangling;

use crate::istio::api::security::Action;
use crate::istio::{Object, Spec};
use check::{At, Check};

const SPEC: At<'static> = At::root("spec");
const METADATA: At<'static> = At::root("metadata");

/// The problems of one object.
pub fn object(object: &Object) -> Vec<Problem> {
    let mut check = Check::default();
    if is_istio(&object.spec) {
        metadata(&mut check, object);
    }
    let (c, namespace) = (&mut check, &*object.namespace);
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::check(c, &SPEC, spec, namespace),
        Spec::DestinationRule(spec) => destination_rule::check(c, &SPEC, spec, namespace),
        Spec::Gateway(spec) => gateway::check(c, &SPEC, spec, object),
        Spec::ServiceEntry(spec) => service_entry::check(c, &SPEC, spec, object),
        Spec::WorkloadEntry(spec) => service_entry::workload_entry(c, &SPEC, spec, None, true),
        Spec::WorkloadGroup(spec) => service_entry::workload_group(c, &SPEC, spec),
        Spec::Sidecar(spec) => sidecar::check(c, &SPEC, spec, namespace),
        Spec::ProxyConfig(spec) => sidecar::proxy_config(c, &SPEC, spec),
        Spec::PeerAuthentication(spec) => security::peer_authentication(c, &SPEC, spec),
        Spec::RequestAuthentication(spec) => security::request_authentication(c, &SPEC, spec),
        Spec::AuthorizationPolicy(spec) => security::authorization_policy(c, &SPEC, spec),
        Spec::Telemetry(spec) => telemetry::check(c, &SPEC, spec),
        Spec::EnvoyFilter(spec) => envoy_filter::check(c, &SPEC, spec),
        Spec::WasmPlugin(spec) => extension::wasm_plugin(c, &SPEC, spec),
        Spec::TrafficExtension(spec) => extension::traffic_extension(c, &SPEC, spec),
        Spec::MeshConfig(config) => mesh::check(c, config),
        Spec::Service(spec) => kubernetes::service(c, spec, &object.annotations),
        Spec::EndpointSlice(slice) => kubernetes::endpoint_slice(c, slice, object),
        Spec::Pod(pod) => kubernetes::pod(c, pod, &object.annotations),
        Spec::Deployment(spec) => {
            let template = SPEC.key("template");
            let annotations = &spec.template.metadata.annotations;
            mesh::annotation(c, &template.key("metadata"), annotations);
        }
        _ => {}
    }
    if let Some(reason) = no_effect(object) {
        check.inactive_object(format_args!("{} {reason}", object.kind));
    }
    check.into_problems()
}

/// Why an object of a kind that is read has no effect at all.
fn no_effect(object: &Object) -> Option<&'static str> {
    match &object.spec {
        Spec::EnvoyFilter(_) => Some("does not act yet: resources stay as they are made"),
        Spec::Telemetry(_) => Some("does not act yet: the mesh's defaults stay in force"),
        Spec::WasmPlugin(_) | Spec::TrafficExtension(_) => {
            Some("does not act yet: requests pass without it")
        }
        Spec::WorkloadGroup(_) => Some("has no effect: nobody registers workloads of it"),
        Spec::Other if *object.kind == *"IstioOperator" => {
            Some("is for an installer, it configures no traffic")
        }
        Spec::AuthorizationPolicy(policy) if policy.action == Action::Audit => {
            Some("with action AUDIT does not act yet: nothing is recorded")
        }
        _ => None,
    }
}

fn is_istio(spec: &Spec) -> bool {
    !matches!(
        spec,
        Spec::Service(_)
            | Spec::EndpointSlice(_)
            | Spec::Pod(_)
            | Spec::Deployment(_)
            | Spec::ConfigMap(_)
            | Spec::MeshConfig(_)
            | Spec::Other
    )
}

/// Annotations that Istio gives a meaning to.
fn metadata(c: &mut Check, object: &Object) {
    const DRY_RUN: &str = "istio.io/dry-run";
    const RESERVED: [&str; 3] = [
        "internal.istio.io/webhook-always-reject",
        "internal.istio.io/parents",
        "internal.istio.io/parent-namespace",
    ];
    let annotations = METADATA.key("annotations");
    for name in RESERVED {
        if object.annotations.contains_key(name) {
            c.error(
                &annotations.key(name),
                format_args!("the annotation `{name}` is not for users"),
            );
        }
    }
    let Some(value) = object.annotations.get(DRY_RUN) else {
        return;
    };
    let at = annotations.key(DRY_RUN);
    match &object.spec {
        Spec::AuthorizationPolicy(policy)
            if matches!(policy.action, Action::Allow | Action::Deny) =>
        {
            let go_bool = [
                "1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False",
            ];
            if !go_bool.contains(&value.as_str()) {
                c.not_one_of(&at, "value", value, &["true", "false"]);
            }
        }
        _ => c.error(
            &at,
            "dry-run is for AuthorizationPolicy with action ALLOW or DENY only",
        ),
    }
}
