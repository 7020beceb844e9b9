//! Tries a request again at another endpoint, under Envoy's conditions.
//!
//! An attempt is repeated if its answer, or the lack of one, is among the conditions; if attempts are left; if the cluster's
//! limit or budget of retries allows; and if the request body still fits into what may be kept of it. Between two attempts
//! lies a back-off with full jitter. `x-envoy-retry-on`, `-retry-grpc-on`, `-max-retries`, `-retriable-status-codes` and
//! `-retriable-header-names` of the request add to the policy, and are not sent on; nor is `x-envoy-hedge-on-per-try-timeout`,
//! which has no effect: requests are not hedged. Retries avoid endpoints that were tried, canaries, or endpoints of certain
//! metadata, where the policy says so.

mod conditions;
mod future;
mod layer;
mod policy;
mod saved;
mod service;

#[cfg(all(test, feature = "client"))]
mod routed_tests;
#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::RetryLayer,
    policy::Retries,
    saved::{Next, Repeat},
    service::Retry,
};
