//! Limits of a request's time: the route's timeout, idle time, and the longest life of a stream.
//!
//! The route's timeout begins when the whole request has arrived, as in Envoy, and holds until the end of the response. The
//! request's own `x-envoy-upstream-rq-timeout-ms` and `grpc-timeout` count where the policy lets them.
//!
//! ```
//! use mesh_core::layer::timeout::{TimeoutLayer, Timeouts};
//! use std::time::Duration;
//! use tower_layer::Layer;
//!
//! let limits = Timeouts { route: Some(Duration::from_secs(2)), ..Timeouts::default() };
//! let service = TimeoutLayer::fixed(limits).layer(tower::service_fn(|_request: http::Request<mesh_core::body::RequestBody<String>>| async {
//!     Ok::<_, std::convert::Infallible>(http::Response::new(String::from("in time")))
//! }));
//! # fn used<S: tower_service::Service<http::Request<String>>>(_: S) {}
//! # used(service);
//! ```

mod future;
mod layer;
mod limits;
mod policy;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::TimeoutLayer,
    policy::{StreamLimits, Timeouts},
    service::Timeout,
};
pub(crate) use self::{limits::Limits, policy::take_added};
