//! Injected faults: a delay, and an answer in the place of the upstream's, for a share of the requests.
//!
//! Envoy's order: the delay first, then the abort. Headers of the request give times and codes where the policy leaves them
//! open, and may lower shares.

mod future;
mod layer;
mod policy;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::{FaultLayer, RouteFaults},
    policy::{ActiveFaults, FaultOf},
    service::Fault,
};
