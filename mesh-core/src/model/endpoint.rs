//! Endpoints of clusters (`config.endpoint.v3`).

use std::net::SocketAddr;

use super::{Address, Metadata, Name, Origin};

/// All endpoints of one cluster (`ClusterLoadAssignment`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterLoadAssignment {
    /// Name of the cluster, or its EDS service name.
    pub cluster: Name,
    /// Groups by priority and locality.
    pub localities: Vec<LocalityEndpoints>,
    /// Overprovisioning factor in per cent; default 140.
    pub overprovisioning_factor: Option<u32>,
    /// Shares of requests that are dropped on purpose: category, fraction. In the model now, listed as not acting.
    pub drop_overloads: Vec<(Name, super::Fraction)>,
    /// The configuration object that it was made of.
    pub origin: Origin,
}

impl ClusterLoadAssignment {
    /// Endpoints of `cluster` at these addresses, all alike.
    pub fn of(cluster: impl Into<Name>, addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        let addresses = addresses.into_iter().map(Address::Socket);
        Self {
            cluster: cluster.into(),
            localities: vec![LocalityEndpoints {
                endpoints: addresses.map(LbEndpoint::new).collect(),
                ..LocalityEndpoints::default()
            }],
            ..Self::default()
        }
    }
}

/// Endpoints of one locality at one priority (`LocalityLbEndpoints`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Locality,
    /// 0 is the first choice.
    pub priority: u32,
    /// Weight among the localities of one priority, for balancing by locality, which does not act yet.
    pub weight: Option<u32>,
    /// The endpoints.
    pub endpoints: Vec<LbEndpoint>,
}

/// Region, zone and sub-zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: Name,
    /// Zone.
    pub zone: Name,
    /// Sub-zone.
    pub sub_zone: Name,
}

/// One endpoint (`LbEndpoint`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LbEndpoint {
    /// Where it listens.
    pub address: Address,
    /// Its host name, for `auto_host_rewrite` and health checks; may be empty.
    pub hostname: Name,
    /// Weight, at least 1.
    pub weight: u32,
    /// What the control plane says of it.
    pub health: HealthStatus,
    /// `envoy.lb`, `envoy.transport_socket_match`, `istio`, ….
    pub metadata: Metadata,
}

impl LbEndpoint {
    /// An endpoint of weight 1 of which nothing else is known.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            hostname: "".into(),
            weight: 1,
            health: HealthStatus::default(),
            metadata: Metadata::default(),
        }
    }
}

/// Health as the control plane tells it (`config.core.v3.HealthStatus`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HealthStatus {
    /// Not said: healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Takes no traffic.
    Unhealthy,
    /// Takes no new traffic.
    Draining,
    /// Takes no traffic.
    Timeout,
    /// Takes traffic if healthy ones are too few.
    Degraded,
}
