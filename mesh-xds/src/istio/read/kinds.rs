//! Which kinds there are, in which groups and versions, and what becomes of each.

use crate::yaml::{Error, nearest};

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Typed and strict: an Istio kind.
    Istio,
    /// A Kubernetes object that the index reads.
    Kubernetes,
    /// Known, taken, without effect on a mesh of files.
    Passive,
    /// Known, not served yet.
    NotServed,
    /// Of a group that is no concern of the mesh.
    Foreign,
}

/// A kind that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) role: Role,
    pub(super) namespaced: bool,
}

const fn kind(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    role: Role,
) -> Kind {
    Kind {
        group,
        kind,
        versions,
        role,
        namespaced: true,
    }
}

const fn cluster(
    group: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    role: Role,
) -> Kind {
    Kind {
        group,
        kind,
        versions,
        role,
        namespaced: false,
    }
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const GATEWAY_API_X: &str = "gateway.networking.x-k8s.io";
const ALL: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const V1_BETA: &[&str] = &["v1", "v1beta1"];
const GATEWAY_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3", "v1alpha2"];

pub(super) const KINDS: &[Kind] = &[
    kind(NETWORKING, "VirtualService", ALL, Role::Istio),
    kind(NETWORKING, "DestinationRule", ALL, Role::Istio),
    kind(NETWORKING, "Gateway", ALL, Role::Istio),
    kind(NETWORKING, "ServiceEntry", ALL, Role::Istio),
    kind(NETWORKING, "WorkloadEntry", ALL, Role::Istio),
    kind(NETWORKING, "WorkloadGroup", ALL, Role::Istio),
    kind(NETWORKING, "Sidecar", ALL, Role::Istio),
    kind(NETWORKING, "EnvoyFilter", &["v1alpha3"], Role::Istio),
    kind(NETWORKING, "ProxyConfig", &["v1beta1"], Role::Istio),
    kind(SECURITY, "PeerAuthentication", V1_BETA, Role::Istio),
    kind(SECURITY, "RequestAuthentication", V1_BETA, Role::Istio),
    kind(SECURITY, "AuthorizationPolicy", V1_BETA, Role::Istio),
    kind(
        "telemetry.istio.io",
        "Telemetry",
        &["v1", "v1alpha1"],
        Role::Istio,
    ),
    kind(
        "extensions.istio.io",
        "WasmPlugin",
        &["v1alpha1"],
        Role::Istio,
    ),
    kind(
        "extensions.istio.io",
        "TrafficExtension",
        &["v1alpha1"],
        Role::Istio,
    ),
    kind(
        "install.istio.io",
        "IstioOperator",
        &["v1alpha1"],
        Role::Istio,
    ),
    cluster(
        GATEWAY_API,
        "GatewayClass",
        GATEWAY_VERSIONS,
        Role::NotServed,
    ),
    kind(GATEWAY_API, "Gateway", GATEWAY_VERSIONS, Role::NotServed),
    kind(GATEWAY_API, "HTTPRoute", GATEWAY_VERSIONS, Role::NotServed),
    kind(GATEWAY_API, "GRPCRoute", GATEWAY_VERSIONS, Role::NotServed),
    kind(GATEWAY_API, "TCPRoute", GATEWAY_VERSIONS, Role::NotServed),
    kind(GATEWAY_API, "TLSRoute", GATEWAY_VERSIONS, Role::NotServed),
    kind(GATEWAY_API, "UDPRoute", GATEWAY_VERSIONS, Role::NotServed),
    kind(
        GATEWAY_API,
        "ReferenceGrant",
        GATEWAY_VERSIONS,
        Role::NotServed,
    ),
    kind(
        GATEWAY_API,
        "BackendTLSPolicy",
        GATEWAY_VERSIONS,
        Role::NotServed,
    ),
    kind(
        GATEWAY_API,
        "ListenerSet",
        GATEWAY_VERSIONS,
        Role::NotServed,
    ),
    kind(
        GATEWAY_API_X,
        "XListenerSet",
        &["v1alpha1"],
        Role::NotServed,
    ),
    kind(
        GATEWAY_API_X,
        "XBackendTrafficPolicy",
        &["v1alpha1"],
        Role::NotServed,
    ),
    kind(GATEWAY_API_X, "XBackend", &["v1alpha1"], Role::NotServed),
    cluster(GATEWAY_API_X, "XMesh", &["v1alpha1"], Role::NotServed),
    kind("", "Service", &["v1"], Role::Kubernetes),
    kind("", "Endpoints", &["v1"], Role::Kubernetes),
    kind("", "Pod", &["v1"], Role::Kubernetes),
    kind("", "ConfigMap", &["v1"], Role::Kubernetes),
    cluster("", "Namespace", &["v1"], Role::Passive),
    kind("", "ServiceAccount", &["v1"], Role::Passive),
    kind(
        "discovery.k8s.io",
        "EndpointSlice",
        V1_BETA,
        Role::Kubernetes,
    ),
    kind("apps", "Deployment", &["v1"], Role::Kubernetes),
    kind("apps", "StatefulSet", &["v1"], Role::Kubernetes),
    kind("apps", "DaemonSet", &["v1"], Role::Kubernetes),
    kind("apps", "ReplicaSet", &["v1"], Role::Kubernetes),
];

/// Kinds of Kubernetes' own groups that the mesh passes over; they are known, so that they are not taken for a misspelt one.
const PASSED_OVER: &[&str] = &[
    "Secret",
    "Node",
    "Event",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "ReplicationController",
    "ResourceQuota",
    "LimitRange",
    "PodTemplate",
    "Binding",
    "ComponentStatus",
    "ControllerRevision",
];

/// An `apiVersion` taken apart: group and version.
pub(super) fn split(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// Finds a kind.
///
/// # Errors
/// The group, version or kind is none of those that exist, though it is meant for the mesh. The path of the error is
/// `apiVersion` or `kind`.
pub(super) fn find(api_version: &str, name: &str) -> Result<Kind, Error> {
    let (group, version) = split(api_version);
    let foreign = Kind {
        group: "",
        kind: "",
        versions: &[],
        role: Role::Foreign,
        namespaced: true,
    };
    let in_group = || KINDS.iter().filter(|k| k.group == group);
    if let Some(kind) = in_group().find(|k| k.kind == name) {
        return match kind.versions.contains(&version) {
            true => Ok(*kind),
            false => Err(unknown_version(api_version, name, [kind])),
        };
    }
    let known = in_group().next().is_some();
    // A group without a dot is Kubernetes' own: it holds no kind of another group.
    let mut elsewhere = KINDS.iter().filter(|k| k.kind == name).peekable();
    if (known || !group.contains('.')) && elsewhere.peek().is_some() {
        return Err(unknown_version(api_version, name, elsewhere));
    }
    if !known {
        return unknown_group(group).map_or(Ok(foreign), Err);
    }
    let names = in_group().map(|k| k.kind);
    let kubernetes = group.is_empty() || group == "apps" || group == "discovery.k8s.io";
    let misspelt = nearest(name, names.clone()).is_some() && !PASSED_OVER.contains(&name);
    if kubernetes && !misspelt {
        return Ok(foreign);
    }
    let whose = if group.is_empty() {
        "the core group"
    } else {
        group
    };
    let error = Error::new(format!("unknown kind `{name}` in {whose}"));
    Err(error
        .with_allowed(name, names)
        .in_field(crate::yaml::Path::root().key("kind")))
}

/// The error for an `apiVersion` that none of these kinds of that name has.
fn unknown_version(
    api_version: &str,
    name: &str,
    kinds: impl IntoIterator<Item = &'static Kind>,
) -> Error {
    let full: Vec<String> = kinds
        .into_iter()
        .flat_map(|kind| kind.versions.iter().map(|v| join(kind.group, v)))
        .collect();
    Error::new(format!("unknown apiVersion `{api_version}` of {name}"))
        .with_allowed(api_version, full.iter().map(String::as_str))
        .in_field(crate::yaml::Path::root().key("apiVersion"))
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// A group that belongs to the mesh by its name, or nearly so.
fn unknown_group(group: &str) -> Option<Error> {
    let mut groups: Vec<&str> = KINDS
        .iter()
        .map(|k| k.group)
        .filter(|g| g.contains('.'))
        .collect();
    groups.dedup();
    let near = nearest(group, groups.iter().copied()).is_some();
    if !near && group != "istio.io" && !group.ends_with(".istio.io") {
        return None;
    }
    let error = Error::new(format!("unknown API group `{group}`"));
    Some(
        error
            .with_allowed(group, groups)
            .in_field(crate::yaml::Path::root().key("apiVersion")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_foreign_and_misspelt() {
        let role = |api, kind| find(api, kind).map(|k| k.role).map_err(|e| e.to_string());
        assert_eq!(
            role("networking.istio.io/v1beta1", "VirtualService"),
            Ok(Role::Istio)
        );
        assert_eq!(role("v1", "Service"), Ok(Role::Kubernetes));
        assert_eq!(role("v1", "Secret"), Ok(Role::Foreign));
        assert_eq!(role("apps/v1", "Deployment"), Ok(Role::Kubernetes));
        assert_eq!(role("batch/v1", "Job"), Ok(Role::Foreign));
        assert_eq!(role("serving.knative.dev/v1", "Service"), Ok(Role::Foreign));
        assert_eq!(
            role("rbac.authorization.k8s.io/v1", "ClusterRole"),
            Ok(Role::Foreign)
        );
        assert_eq!(
            role("gateway.networking.k8s.io/v1", "HTTPRoute"),
            Ok(Role::NotServed)
        );
        for (api, kind, hint) in [
            (
                "networking.istio.io/v1",
                "VirtualServise",
                "did you mean `VirtualService`",
            ),
            (
                "networking.istio.io/v2",
                "VirtualService",
                "allowed: networking.istio.io/v1",
            ),
            (
                "netwroking.istio.io/v1",
                "VirtualService",
                "did you mean `networking.istio.io`",
            ),
            (
                "networking.istio.oi/v1",
                "VirtualService",
                "did you mean `networking.istio.io`",
            ),
            ("config.istio.io/v1", "Rule", "unknown API group"),
            ("v1", "Servcie", "did you mean `Service`"),
            ("apps/v1", "Deploymnet", "did you mean `Deployment`"),
            // A kind of the mesh in a group of Kubernetes or of Istio that does not have it is never passed over.
            (
                "v1",
                "AuthorizationPolicy",
                "apiVersion: unknown apiVersion `v1` of AuthorizationPolicy; allowed: security.istio.io/v1, security.istio.io/v1beta1",
            ),
            (
                "networking.istio.io",
                "VirtualService",
                "did you mean `networking.istio.io/v1`",
            ),
            (
                "networking.istio.io/v1",
                "PeerAuthentication",
                "allowed: security.istio.io/v1, ",
            ),
            ("apps/v1", "Service", "allowed: v1"),
            ("istio/v1", "Gateway", "allowed: networking.istio.io/v1, "),
            ("extensions/v1beta1", "Deployment", "allowed: apps/v1"),
        ] {
            let error = role(api, kind).expect_err(kind);
            assert!(error.contains(hint), "{error}");
        }
    }
}
