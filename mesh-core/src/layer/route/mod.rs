//! Finds the route of a request: [`Exchange`](super::Exchange) in, [`Routed`](super::Routed) out.
//!
//! Before that it does what Envoy's connection manager does with a request head ([`Front`]): host and path checks,
//! normalisation, `x-forwarded-*`, `x-envoy-*`, `x-request-id`, headers of the connection, upgrades. Redirects and direct
//! responses are answered here; redirects of upstreams are followed where the route says so.

#[cfg(feature = "net")]
mod ahead;
mod front;
mod future;
mod layer;
#[cfg(feature = "net")]
mod redirect;
mod service;
mod table;
#[cfg(feature = "net")]
mod upgrade;

#[cfg(all(test, feature = "client"))]
mod tests;

#[cfg(feature = "net")]
pub(crate) use self::ahead::Ahead;
pub(crate) use self::front::Answer;
pub(crate) use self::front::PeerExchange;
#[cfg(feature = "net")]
pub(crate) use self::front::copied;
#[cfg(feature = "net")]
pub(crate) use self::upgrade::{Asked, Ends, Upgrading};
pub use self::{
    front::Front,
    future::ResponseFuture,
    layer::RouteLayer,
    service::Route,
    table::{CellTable, TableOf},
};
