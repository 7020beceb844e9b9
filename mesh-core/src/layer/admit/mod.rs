//! The last layer before the pool: counts the request against the cluster's limits, picks an endpoint, and sends.
//!
//! Overload is a refusal at once, as Envoy's circuit breakers do it: nothing waits here. The place in the limits is kept
//! until the last frame of the response.

mod future;
mod layer;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::{AdmitLayer, ByShadow, FixedAdmit},
    service::Admit,
};
