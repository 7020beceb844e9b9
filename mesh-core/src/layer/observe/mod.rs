//! The outermost layer: begins the record of a request, and completes it at the end of the response body or when the client
//! goes away. Metrics, access logs and statistics are told once, by the [`Sink`](crate::telemetry::record::Sink).

mod future;
mod layer;
mod service;
#[cfg(feature = "net")]
mod splice;

#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::{Alone, Bare, ObserveLayer},
    service::Observe,
};
