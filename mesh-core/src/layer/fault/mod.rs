//! Injected faults for a share of the requests: a delay, an answer in the place of the upstream's, and a limit for the speed
//! of the response, local replies included.
//!
//! Envoy's order: the delay first, then the abort. Headers of the request give times, codes and rates where the policy leaves
//! them open, and may lower shares. A request counts as an active fault while it is delayed; where there is a limit for the
//! response, until its end. Upgraded connections are not slowed down.

mod future;
mod layer;
mod policy;
mod service;

#[cfg(test)]
mod tests;

pub(crate) use self::policy::{Active, Meeting, meet};
pub use self::{
    future::ResponseFuture,
    layer::{FaultLayer, RouteFaults},
    policy::{ActiveFaults, FaultOf},
    service::Fault,
};
