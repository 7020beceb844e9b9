//! Endpoints (`config.endpoint.v3.ClusterLoadAssignment`).

use envoy_types::pb::envoy::config::{
    core::v3 as core,
    endpoint::v3::{
        self as proto, LbEndpoint as ProtoEndpoint, LocalityLbEndpoints, cluster_load_assignment,
        lb_endpoint::HostIdentifier, locality_lb_endpoints,
    },
};
use mesh_core::model::{
    Address, ClusterLoadAssignment, HealthStatus, LbEndpoint, Locality, LocalityEndpoints, Origin,
};

use super::{
    Context, common,
    set::{ignored, unsupported},
};

/// The endpoints of one cluster.
pub(crate) fn assignment(
    cx: &mut Context,
    value: &proto::ClusterLoadAssignment,
) -> ClusterLoadAssignment {
    let proto::ClusterLoadAssignment {
        cluster_name,
        endpoints,
        named_endpoints,
        policy,
    } = value;
    let mut out = ClusterLoadAssignment {
        cluster: cluster_name.as_str().into(),
        localities: cx.each("endpoints", endpoints, |cx, group| {
            Some(locality(cx, group, value))
        }),
        overprovisioning_factor: None,
        drop_overloads: Vec::new(),
        origin: Origin::default(),
    };
    // Named endpoints are looked up by those that refer to them.
    let _ = named_endpoints;
    if let Some(policy) = policy {
        cx.field("policy", |cx| self::policy(cx, policy, &mut out));
    }
    out
}

fn policy(
    cx: &mut Context,
    value: &cluster_load_assignment::Policy,
    out: &mut ClusterLoadAssignment,
) {
    let cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = value;
    ignored!(cx; endpoint_stale_after, weighted_priority_health, drop_overloads);
    out.overprovisioning_factor = common::u32_of(overprovisioning_factor.as_ref());
    out.drop_overloads = drop_overloads
        .iter()
        .filter_map(|drop| {
            let share = common::fraction(drop.drop_percentage.as_ref()?);
            Some((drop.category.as_str().into(), share))
        })
        .collect();
}

fn locality(
    cx: &mut Context,
    value: &LocalityLbEndpoints,
    all: &proto::ClusterLoadAssignment,
) -> LocalityEndpoints {
    let LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity,
        lb_config,
    } = value;
    ignored!(cx; metadata, proximity);
    let (mut endpoints, mut field) = (lb_endpoints, "lb_endpoints");
    match lb_config {
        None => {}
        Some(locality_lb_endpoints::LbConfig::LoadBalancerEndpoints(list)) => {
            (endpoints, field) = (&list.lb_endpoints, "load_balancer_endpoints.lb_endpoints");
        }
        Some(locality_lb_endpoints::LbConfig::LedsClusterLocalityConfig(_)) => {
            cx.reject("leds_cluster_locality_config", "not supported");
        }
    }
    LocalityEndpoints {
        locality: locality
            .as_ref()
            .map_or_else(Locality::default, self::place),
        priority: *priority,
        weight: common::u32_of(load_balancing_weight.as_ref()),
        endpoints: cx.each(field, endpoints, |cx, value| endpoint(cx, value, all)),
    }
}

pub(crate) fn place(value: &core::Locality) -> Locality {
    Locality {
        region: value.region.as_str().into(),
        zone: value.zone.as_str().into(),
        sub_zone: value.sub_zone.as_str().into(),
    }
}

fn endpoint(
    cx: &mut Context,
    value: &ProtoEndpoint,
    all: &proto::ClusterLoadAssignment,
) -> Option<LbEndpoint> {
    let ProtoEndpoint {
        health_status,
        metadata,
        load_balancing_weight,
        host_identifier,
    } = value;
    let (address, hostname) = match host_identifier {
        Some(HostIdentifier::Endpoint(host)) => cx.field("endpoint", |cx| self::host(cx, host))?,
        Some(HostIdentifier::EndpointName(name)) => match all.named_endpoints.get(name) {
            Some(host) => cx.field("endpoint_name", |cx| self::host(cx, host))?,
            None => {
                cx.reject("endpoint_name", format_args!("no named endpoint {name:?}"));
                return None;
            }
        },
        None => {
            cx.reject("", "one of endpoint, endpoint_name must be set");
            return None;
        }
    };
    Some(LbEndpoint {
        address,
        hostname,
        weight: common::u32_of(load_balancing_weight.as_ref())
            .unwrap_or(1)
            .max(1),
        health: health(*health_status),
        metadata: common::metadata(cx, "metadata", metadata.as_ref()),
    })
}

fn host(cx: &mut Context, value: &proto::Endpoint) -> Option<(Address, mesh_core::model::Name)> {
    let proto::Endpoint {
        address,
        health_check_config,
        hostname,
        additional_addresses,
        observability_name,
    } = value;
    ignored!(cx; health_check_config, observability_name);
    unsupported!(cx; additional_addresses);
    let Some(address) = address else {
        cx.reject("address", "must be set");
        return None;
    };
    let address = cx.field("address", |cx| common::address(cx, address))?;
    Some((address, hostname.as_str().into()))
}

fn health(value: i32) -> HealthStatus {
    match core::HealthStatus::try_from(value) {
        Ok(core::HealthStatus::Healthy) => HealthStatus::Healthy,
        Ok(core::HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        Ok(core::HealthStatus::Draining) => HealthStatus::Draining,
        Ok(core::HealthStatus::Timeout) => HealthStatus::Timeout,
        Ok(core::HealthStatus::Degraded) => HealthStatus::Degraded,
        Ok(core::HealthStatus::Unknown) | Err(_) => HealthStatus::Unknown,
    }
}
