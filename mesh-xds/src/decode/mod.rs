//! Envoy's protobuf resources to the model: one file a resource, every field acted on, noted or refused.
//!
//! Functions take a [`Context`] and the message, and return what the model can hold. Most take the message apart with a
//! pattern that names every field, so that a new field of the API is a compile error here, not silence; the test
//! `coverage` sets each field in turn and finds those that leave no trace. A field without effect is a note
//! ([`Context::ignored`]); a wrong one is a rejection ([`Context::reject`]), and then the resource as a whole is not used.
//! What would protect traffic and cannot act is kept as data and fails closed.

#![allow(
    deprecated,
    reason = "fields that Envoy still reads are read, noted or refused"
)]

pub(crate) mod access_log;
pub(crate) mod cluster;
mod cluster_http;
mod cluster_rules;
pub(crate) mod common;
mod context;
pub(crate) mod endpoint;
pub(crate) mod filter;
pub(crate) mod format;
pub(crate) mod header;
pub(crate) mod http;
pub(crate) mod lb;
pub(crate) mod listener;
pub(crate) mod matcher;
mod protocol;
pub(crate) mod route;
pub(crate) mod set;
mod tcp;
pub(crate) mod transport;

use envoy_types::pb::envoy::config::{
    cluster::v3 as cluster_proto, endpoint::v3 as endpoint_proto, listener::v3 as listener_proto,
    route::v3 as route_proto,
};
use mesh_core::model;
use prost::{Message, Name};

pub(crate) use self::route::again::Before;
#[cfg(feature = "istio")]
pub(crate) use self::route::again::Parts;
pub use self::{
    context::{Context, Findings},
    matcher::header as header_matcher,
    route::route_configuration,
};
use crate::json;

/// A decoded resource.
#[derive(Clone, Debug)]
pub struct Decoded<T> {
    /// Its name, also of a refused one if it could be read.
    pub name: model::Name,
    /// The model; `None` if the resource was refused.
    pub value: Option<T>,
    /// Notes, and the reasons of a refusal.
    pub findings: Findings,
}

/// Decodes the wire bytes of an `envoy.config.listener.v3.Listener`.
pub fn listener(wire: &[u8]) -> Decoded<model::Listener> {
    let name = |value: &listener_proto::Listener| value.name.clone();
    decode("listener", wire, name, listener::listener)
}

/// Decodes the wire bytes of an `envoy.config.route.v3.RouteConfiguration`.
pub fn routes(wire: &[u8]) -> Decoded<model::RouteConfiguration> {
    let name = |value: &route_proto::RouteConfiguration| value.name.clone();
    decode("route configuration", wire, name, |cx, value| {
        Some(route::table(cx, value))
    })
}

/// Decodes the wire bytes of a route configuration that takes the place of another.
pub(crate) fn routes_again(wire: &[u8], before: Before<'_>) -> Decoded<model::RouteConfiguration> {
    route::again::changed(wire, before).unwrap_or_else(|| routes(wire))
}

/// Decodes the wire bytes of an `envoy.config.cluster.v3.Cluster`.
pub fn cluster(wire: &[u8]) -> Decoded<model::Cluster> {
    let name = |value: &cluster_proto::Cluster| value.name.clone();
    decode("cluster", wire, name, |cx, value| {
        Some(cluster::cluster(cx, value))
    })
}

/// Decodes the wire bytes of an `envoy.config.endpoint.v3.ClusterLoadAssignment`.
pub fn endpoints(wire: &[u8]) -> Decoded<model::ClusterLoadAssignment> {
    let name = |value: &endpoint_proto::ClusterLoadAssignment| value.cluster_name.clone();
    decode("endpoints", wire, name, |cx, value| {
        Some(endpoint::assignment(cx, value))
    })
}

fn decode<P: Message + Name + Default, T>(
    kind: &str,
    wire: &[u8],
    name: impl Fn(&P) -> String,
    decoder: impl FnOnce(&mut Context, &P) -> Option<T>,
) -> Decoded<T> {
    let proto = P::decode(wire);
    let name = proto.as_ref().map(name).unwrap_or_default();
    let mut cx = Context::new(format!("{kind} {name}"));
    let mut value = None;
    match (json::check(&P::full_name(), wire), proto) {
        (Err(violation), _) => cx.reject(&violation.path, &violation.reason),
        (Ok(()), Err(error)) => cx.reject("", error),
        (Ok(()), Ok(proto)) => value = decoder(&mut cx, &proto),
    }
    let findings = cx.finish();
    Decoded {
        name: name.into(),
        value: value.filter(|_| findings.rejections.is_empty()),
        findings,
    }
}
