//! The layers composed: what a request passes, in order, each stack readable on one screen.
//!
//! One code serves both homes. In an app on a multi-threaded runtime a stack is cloned with its client; in a proxy each
//! connection has one, over the pool of its worker and limits that all workers share.

mod inbound;
#[cfg(feature = "client")]
mod outbound;
#[cfg(all(feature = "client", feature = "server"))]
mod proxy;

#[cfg(all(test, feature = "client"))]
pub(crate) mod tests;

pub use self::inbound::{Inbound, InboundLayer, Serve, ServeFuture};
#[cfg(feature = "client")]
pub use self::outbound::{Outbound, OutboundParts, Upstream};
#[cfg(all(feature = "client", feature = "server"))]
pub use self::proxy::Proxy;
