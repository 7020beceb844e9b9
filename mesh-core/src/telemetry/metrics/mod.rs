//! Istio's standard metrics: `istio_requests_total` and its like, with Istio's labels.
//!
//! A series is found by a hash of labels once; then a small cache at the listener or client that counts finds it by what
//! differs from request to request (endpoint, status, flags), so that a request does atomic additions only.

mod histogram;
mod http;
mod labels;
mod registry;
mod requests;
mod routes;
mod tcp;

#[cfg(test)]
mod tests;

pub use self::{
    histogram::Histogram,
    http::{CorsStats, FaultStats, HttpStats},
    labels::{Labels, Workload},
    registry::{MessageSeries, Metrics, Series, TcpSeries},
    requests::RequestMetrics,
    routes::{RoutePart, RouteScope, RouteStats},
    tcp::{TcpConnection, TcpMetrics},
};

/// Who reports a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reporter {
    /// The client's side.
    Source,
    /// The server's side.
    Destination,
}

impl Reporter {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}
