//! The layers composed: what a request passes, in order, each stack readable on one screen.
//!
//! One code serves both homes. In an app on a multi-threaded runtime a stack is cloned with its client; in a proxy each
//! connection has one, over the pool of its worker and limits that all workers share.

mod inbound;
#[cfg(feature = "client")]
mod outbound;

#[cfg(all(test, feature = "client"))]
mod tests;

pub use self::inbound::{Inbound, InboundLayer, Serve, ServeFuture};
#[cfg(feature = "client")]
pub use self::outbound::{Outbound, OutboundParts, Upstream};
