//! Counts TCP connections of one listener.

use std::sync::Arc;

use super::{Labels, Metrics, Reporter, TcpSeries, Workload, labels::Service};
use crate::cluster::{Cluster, Endpoint};

/// Counts connections with Istio's labels.
#[derive(Clone, Debug)]
pub struct TcpMetrics {
    metrics: Metrics,
    reporter: Reporter,
}

/// A connection that is counted: as closed when it is dropped.
#[derive(Debug)]
pub struct TcpConnection(Arc<TcpSeries>);

impl TcpMetrics {
    /// Counts into `metrics` as `reporter`.
    pub fn new(metrics: Metrics, reporter: Reporter) -> Self {
        Self { metrics, reporter }
    }

    /// A connection was made to an endpoint of a cluster.
    pub fn open(&self, cluster: &Cluster, endpoint: &Endpoint) -> TcpConnection {
        let own = self.metrics.workload();
        let other = Workload::of_endpoint(endpoint);
        let service = Service::of(cluster);
        let mut labels = match self.reporter {
            Reporter::Source => Labels::ends(self.reporter, own, &other, &service),
            Reporter::Destination => {
                Labels::ends(self.reporter, &Workload::default(), own, &service)
            }
        };
        labels.push_raw("request_protocol", "tcp");
        labels.push_raw("response_flags", "-");
        labels.push_raw(
            "connection_security_policy",
            match self.reporter {
                Reporter::Source => "unknown",
                Reporter::Destination => "none",
            },
        );
        let series = self.metrics.tcp(labels);
        series.opened.add(1);
        TcpConnection(series)
    }
}

impl TcpConnection {
    /// Bytes went to the client.
    pub fn sent(&self, bytes: u64) {
        self.0.sent.add(bytes);
    }

    /// Bytes came from the client.
    pub fn received(&self, bytes: u64) {
        self.0.received.add(bytes);
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.0.closed.add(1);
    }
}
