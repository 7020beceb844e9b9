//! The Envoy resources that istiod would send to one proxy.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;

use super::api::destination_rule::ConsistentHashLb;
use super::api::virtual_service::Destination;
use super::index::{Context, Proxy, SidecarScope};

mod base64;
mod domain;
mod fault;
mod hash;
mod header;
mod pb;
mod retry;
pub mod route;
mod route_match;
mod session;
mod sidecar_route;

pub use pb::{config_name, subset_key};

/// The route configuration of that name for outbound traffic of a sidecar: the name is a port, `host:port` where the
/// protocol is detected, or the path of a Unix socket.
#[must_use]
pub fn outbound_route_config(
    context: &Context,
    scope: &SidecarScope,
    proxy: &Proxy,
    name: &str,
) -> Option<RouteConfiguration> {
    let outbound = sidecar_route::Outbound {
        context,
        scope,
        proxy,
    };
    outbound.configuration(name)
}

/// What requests to a destination are hashed by, as its DestinationRule says.
#[must_use]
pub fn destination_hash(
    scope: &SidecarScope,
    proxy: &Proxy,
    to: &Destination,
) -> Option<ConsistentHashLb> {
    let rule = scope.destination_rule(proxy, &to.host)?;
    hash::for_destination(&rule.spec, to)
}
