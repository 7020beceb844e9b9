//! Hash policies from DestinationRule objects.

use envoy_types::pb::envoy::config::route::v3::route_action::{HashPolicy, hash_policy};
use hash_policy::PolicySpecifier;

use super::pb;
use crate::istio::api::destination_rule::{
    ConsistentHashLb, DestinationRule, LoadBalancerSettings, PortTrafficPolicy,
};
use crate::istio::api::virtual_service::Destination;

/// What a request is hashed by.
pub(super) fn policy(hash: &ConsistentHashLb) -> Option<HashPolicy> {
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(hash_policy::Header {
            header_name: name.clone(),
            regex_rewrite: None,
        })
    } else if let Some(cookie) = &hash.http_cookie {
        let attributes = cookie
            .attributes
            .iter()
            .map(|attribute| hash_policy::CookieAttribute {
                name: attribute.name.clone(),
                value: attribute.value.clone(),
            });
        PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(pb::duration),
            path: cookie.path.clone(),
            attributes: attributes.collect(),
        })
    } else if let Some(source_ip) = hash.use_source_ip {
        PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip })
    } else {
        let name = hash.http_query_parameter_name.clone()?;
        PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name })
    };
    Some(HashPolicy {
        terminal: false,
        policy_specifier: Some(specifier),
    })
}

/// The hash settings for a destination: of the subset's port, the subset, the port, the whole rule, in this order.
pub(super) fn for_destination(
    rule: &DestinationRule,
    to: &Destination,
) -> Option<ConsistentHashLb> {
    let general = rule.traffic_policy.as_ref();
    let subset = rule.subsets.iter().find(|subset| subset.name == to.subset);
    let subset = subset.and_then(|subset| subset.traffic_policy.as_ref());
    let port = to.port.as_ref().map(|port| port.number);
    [
        subset.and_then(|policy| of_port(&policy.port_level_settings, port)),
        subset.and_then(|policy| of(policy.load_balancer.as_ref())),
        general.and_then(|policy| of_port(&policy.port_level_settings, port)),
        general.and_then(|policy| of(policy.load_balancer.as_ref())),
    ]
    .into_iter()
    .flatten()
    .next()
    .cloned()
}

/// The hash settings for a service's port without any rule on routes.
pub(super) fn for_port(rule: &DestinationRule, port: u32) -> Option<ConsistentHashLb> {
    let policy = rule.traffic_policy.as_ref()?;
    let found = of_port(&policy.port_level_settings, Some(port))
        .or_else(|| of(policy.load_balancer.as_ref()));
    found.cloned()
}

fn of(balancer: Option<&LoadBalancerSettings>) -> Option<&ConsistentHashLb> {
    balancer?.consistent_hash.as_ref()
}

fn of_port(settings: &[PortTrafficPolicy], port: Option<u32>) -> Option<&ConsistentHashLb> {
    let port = port?;
    let found = settings
        .iter()
        .find(|setting| setting.port.as_ref().is_some_and(|own| own.number == port))?;
    of(found.load_balancer.as_ref())
}
