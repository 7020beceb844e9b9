//! Names of clusters in statistics, as `outboundClusterStatName` and `inboundClusterStatName` of MeshConfig form them.

use crate::istio::index::{Port, Registry, Service};

/// What a name is made of.
pub(super) struct Parts<'a> {
    /// Full host of the service.
    pub(super) host: &'a str,
    /// The service, if there is one.
    pub(super) service: Option<&'a Service>,
    /// Name of the subset, empty for the whole service.
    pub(super) subset: &'a str,
    /// The service's port.
    pub(super) port: &'a Port,
    /// The workload's port; 0 towards other workloads.
    pub(super) target_port: u32,
}

/// The name that `pattern` makes of `parts`, with the sign behind which counters follow.
pub(super) fn of(pattern: &str, parts: &Parts<'_>) -> String {
    let named =
        |service: &&Service| service.registry == Registry::Kubernetes && !service.name.is_empty();
    let (short, name) = match parts.service.filter(named) {
        Some(service) => (
            format!("{}.{}", service.name, service.namespace),
            service.name.as_str(),
        ),
        None => (parts.host.to_owned(), parts.host),
    };
    let made = pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", name)
        .replace("%SERVICE_FQDN%", parts.host)
        .replace("%SUBSET_NAME%", parts.subset)
        .replace("%TARGET_PORT%", &parts.target_port.to_string())
        .replace("%SERVICE_PORT%", &parts.port.port.to_string())
        .replace("%SERVICE_PORT_NAME%", &parts.port.name);
    made + ";"
}
