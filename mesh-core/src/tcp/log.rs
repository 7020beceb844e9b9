//! Access logs of proxied connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::task::TcpTask;
use crate::{
    model::LogType,
    telemetry::{
        clock,
        record::{Ending, Record},
    },
    transport::{Connector, Io, UpstreamConn},
};

/// Lines that are written while a connection goes on.
pub(super) struct Periodic {
    every: Duration,
    pub(super) next: Instant,
}

impl Periodic {
    pub(super) fn new(every: Duration, now: Instant) -> Box<Self> {
        let next = clock::after(now, every);
        Box::new(Self { every, next })
    }
}

impl<I: Io, C: Connector> TcpTask<I, C> {
    /// Writes the proxy's logs at the beginning, or on the way.
    pub(super) fn flush(&mut self, log_type: LogType) {
        let tcp = self.conn.tcp().map(|tcp| tcp.observer().clone());
        let (Some(record), Some(observer)) = (self.record.clone(), tcp) else {
            return;
        };
        self.note(&record);
        record.tell(log_type, &*observer);
    }

    /// Writes the logs that are written in intervals, if it is time.
    pub(super) fn flush_periodic(&mut self, now: Instant) {
        let Some(periodic) = self
            .periodic
            .as_mut()
            .filter(|periodic| periodic.next <= now)
        else {
            return;
        };
        periodic.next = clock::after(now, periodic.every);
        self.flush(LogType::TcpPeriodic);
    }

    /// Writes the logs at the end.
    pub(super) fn log(&mut self) {
        let listener = self.conn.accepted.listener.observer().clone();
        let tcp = self.conn.tcp().map(|tcp| tcp.observer().clone());
        // In Envoy's order.
        let records = [
            (self.listener_record.take(), Some(listener), LogType::NotSet),
            (self.record.take(), tcp, LogType::TcpConnectionEnd),
        ];
        for (record, observer, log_type) in records {
            let (Some(record), Some(observer)) = (record, observer) else {
                continue;
            };
            self.note(&record);
            record.late().log_type = log_type;
            record.finish(Ending::Complete, &*observer);
        }
    }

    /// Notes what is known of the connection by now.
    fn note(&self, record: &Record) {
        let (sent, received) = (record.request_bytes(), record.response_bytes());
        record.spliced(self.up.bytes - sent, self.down.bytes - received);
        let mut late = record.late();
        late.flags = self.end.flags;
        late.cluster = self.end.cluster.clone();
        late.endpoint = self.end.endpoint.clone();
        late.upstream = self.end.local.map(|local| {
            Arc::new(UpstreamConn {
                local: Some(local),
                protocol: None,
                id: 0,
            })
        });
        late.attempts = self.end.attempts;
        late.failure = self.end.reason.clone();
    }
}
