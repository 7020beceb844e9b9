//! `IstioOperator`: an installer's file. It configures no traffic; it is read strictly, then listed as without effect.

#![allow(dead_code)] // Read for its field names only.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Spec of an IstioOperator: <https://istio.io/latest/docs/reference/config/istio.operator.v1alpha1/>.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct IstioOperatorSpec {
    profile: Option<String>,
    install_package_path: Option<String>,
    hub: Option<String>,
    tag: IgnoredAny,
    resource_suffix: IgnoredAny,
    namespace: Option<String>,
    revision: Option<String>,
    default_revision: Option<bool>,
    compatibility_version: Option<String>,
    mesh_config: IgnoredAny,
    components: Option<Components>,
    addon_components: Option<BTreeMap<String, Component>>,
    values: IgnoredAny,
    unvalidated_values: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Components {
    base: Option<Component>,
    pilot: Option<Component>,
    cni: Option<Component>,
    ztunnel: Option<Component>,
    istiod_remote: Option<Component>,
    ingress_gateways: Option<Vec<Component>>,
    egress_gateways: Option<Vec<Component>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Component {
    enabled: Option<bool>,
    namespace: Option<String>,
    hub: Option<String>,
    tag: IgnoredAny,
    spec: IgnoredAny,
    name: Option<String>,
    label: Option<BTreeMap<String, String>>,
    k8s: Option<KubernetesResources>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct KubernetesResources {
    affinity: IgnoredAny,
    env: IgnoredAny,
    hpa_spec: IgnoredAny,
    image_pull_policy: IgnoredAny,
    node_selector: IgnoredAny,
    pod_disruption_budget: IgnoredAny,
    pod_annotations: IgnoredAny,
    priority_class_name: IgnoredAny,
    readiness_probe: IgnoredAny,
    replica_count: IgnoredAny,
    resources: IgnoredAny,
    service: IgnoredAny,
    strategy: IgnoredAny,
    tolerations: IgnoredAny,
    service_annotations: IgnoredAny,
    security_context: IgnoredAny,
    volumes: IgnoredAny,
    volume_mounts: IgnoredAny,
    overlays: Option<Vec<Overlay>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Overlay {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    patches: Option<Vec<PathValue>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PathValue {
    path: Option<String>,
    value: IgnoredAny,
}
