//! Counts TCP connections of one listener.

use std::sync::Arc;

use super::{Labels, Metrics, Reporter, TcpSeries, Workload, labels::Service};
use crate::{
    cluster::{Cluster, Endpoint},
    telemetry::flags::Flags,
    transport::Security,
};

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

    /// A connection began: it has reached an endpoint of a cluster, or `flags` say what it failed for. `client`: what is known
    /// of who made it.
    pub fn open(
        &self,
        cluster: Option<&Cluster>,
        endpoint: Option<&Endpoint>,
        flags: Flags,
        client: &Security,
    ) -> TcpConnection {
        let own = self.metrics.workload();
        let service = cluster.map_or_else(Service::default, Service::of);
        let mut labels = match self.reporter {
            Reporter::Source => {
                let other = endpoint.map_or_else(Workload::default, Workload::of_endpoint);
                Labels::ends(self.reporter, own, &other, &service.at(&other))
            }
            Reporter::Destination => {
                let source = Workload {
                    principal: client.peer_identity.clone().unwrap_or_default(),
                    ..Workload::default()
                };
                Labels::ends(self.reporter, &source, own, &service.served_by(own))
            }
        };
        labels.push_raw("request_protocol", "tcp");
        labels.push_raw("response_flags", flags.to_string());
        labels.push_raw(
            "connection_security_policy",
            match self.reporter {
                Reporter::Source => "unknown",
                Reporter::Destination if client.is_mutual() => "mutual_tls",
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
