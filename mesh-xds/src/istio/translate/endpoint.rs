//! Endpoints of clusters.

use std::collections::BTreeMap;

use endpoint::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;

use super::{Env, pb};
use crate::istio::index::{Health, Instance, Port, Resolution, Service, service_entry};

/// Which endpoints of a service belong to a cluster.
pub(super) struct Selection<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a Port,
    /// Labels of the subset.
    pub(super) labels: &'a BTreeMap<String, String>,
}

impl Env<'_> {
    /// The endpoints of `selection` for the cluster of that name, grouped by locality.
    pub(super) fn load_assignment(
        &self,
        cluster: &str,
        selection: &Selection<'_>,
    ) -> endpoint::ClusterLoadAssignment {
        let mut localities: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
        let instances = self.context.instances_of(selection.service).iter();
        for instance in instances.filter(|instance| belongs(instance, selection)) {
            localities
                .entry(&instance.workload.locality)
                .or_default()
                .push(instance);
        }
        endpoint::ClusterLoadAssignment {
            cluster_name: cluster.to_owned(),
            endpoints: localities
                .into_iter()
                .map(|(locality, list)| group(locality, &list))
                .collect(),
            ..endpoint::ClusterLoadAssignment::default()
        }
    }
}

/// Names that are looked up are of the port with that number, other endpoints of the port with that name.
fn belongs(instance: &Instance, selection: &Selection<'_>) -> bool {
    let by_number = matches!(
        selection.service.resolution,
        Resolution::DnsLb | Resolution::DnsRoundRobinLb
    );
    let of_port = match instance.service_port.filter(|_| by_number) {
        Some(number) => number == selection.port.port,
        None => instance.port_name == selection.port.name,
    };
    of_port
        && instance.health == Health::Healthy
        && service_entry::selects(selection.labels, &instance.workload.labels)
}

fn group(name: &str, instances: &[&Instance]) -> endpoint::LocalityLbEndpoints {
    let endpoints: Vec<_> = instances
        .iter()
        .map(|instance| lb_endpoint(instance))
        .collect();
    let weight: u32 = instances
        .iter()
        .map(|instance| instance.weight.max(1))
        .fold(0, u32::saturating_add);
    endpoint::LocalityLbEndpoints {
        locality: Some(locality(name)),
        lb_endpoints: endpoints,
        load_balancing_weight: Some(pb::uint(weight)),
        ..endpoint::LocalityLbEndpoints::default()
    }
}

/// A locality from `region/zone/subzone`.
pub(super) fn locality(name: &str) -> core::Locality {
    let mut parts = name.splitn(3, '/').map(str::to_owned);
    core::Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        sub_zone: parts.next().unwrap_or_default(),
    }
}

fn lb_endpoint(instance: &Instance) -> endpoint::LbEndpoint {
    let address = match instance.address.strip_prefix("unix://") {
        Some(path) => pb::pipe(path),
        None => pb::socket_address(&instance.address, instance.port),
    };
    endpoint::LbEndpoint {
        metadata: Some(metadata(instance)),
        load_balancing_weight: Some(pb::uint(instance.weight.max(1))),
        ..plain(address)
    }
}

/// An endpoint with an address and nothing else.
pub(super) fn plain(address: core::Address) -> endpoint::LbEndpoint {
    endpoint::LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..endpoint::Endpoint::default()
        })),
        ..endpoint::LbEndpoint::default()
    }
}

/// Istio's short form of a workload: name, namespace, canonical name and revision, cluster.
fn metadata(instance: &Instance) -> core::Metadata {
    let identity = instance.workload.identity();
    let text = format!(
        "{};{};{};{};{}",
        identity.name,
        identity.namespace,
        identity.canonical_service,
        identity.canonical_revision,
        identity.cluster
    );
    pb::istio_metadata([("workload".to_owned(), pb::text_value(text))])
}
