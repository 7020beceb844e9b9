//! Tells of connections: TCP metrics, and requests that no stack saw since the codec answered them itself.

use http::HeaderValue;

use super::{
    metrics::{Metrics, Reporter, TcpMetrics},
    record::{Ending, Record, RecordedHead},
};
use crate::{
    model::Direction,
    server::{ConnEvent, ConnObserver, Rejected},
    tcp::TcpEnd,
};

/// Counts TCP connections with Istio's labels, and hands requests that a codec refused to the access logs, metrics and
/// statistics of their listener.
#[derive(Clone, Debug)]
pub struct ConnTelemetry {
    metrics: Metrics,
}

impl ConnTelemetry {
    /// Counts into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl ConnObserver for ConnTelemetry {
    fn rejected(&self, event: &ConnEvent<'_>, rejected: &Rejected) {
        let http = event
            .chain
            .and_then(|index| event.listener.chains().nth(index)?.1);
        let Some(http) = http else {
            return;
        };
        let record = Record::begin(Some(event.conn.clone()), rejected.version, false);
        {
            let row = rejected.kind.reply();
            let mut late = record.late();
            late.status = rejected.status;
            late.details = Some(row.details.into());
            late.flags.extend(row.flag);
            late.head = rejected.head.as_ref().map(|(method, uri)| RecordedHead {
                method: method.clone(),
                path: uri.path_and_query().cloned(),
                authority: uri
                    .authority()
                    .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()),
                scheme: uri.scheme().cloned(),
            });
        }
        record.finish(Ending::Complete, &**http.observer());
    }

    fn tcp(&self, event: &ConnEvent<'_>, end: &TcpEnd) {
        let (Some(cluster), Some(endpoint)) = (&end.cluster, &end.endpoint) else {
            return;
        };
        let reporter = match event.listener.config().direction {
            Direction::Inbound => Reporter::Destination,
            _ => Reporter::Source,
        };
        let connection = TcpMetrics::new(self.metrics.clone(), reporter).open(cluster, endpoint);
        connection.sent(event.bytes_sent);
        connection.received(event.bytes_received);
    }
}
