//! One attempt at one endpoint: counted from admission to its end.

use std::{num::NonZeroU16, sync::Arc};

use super::{Cluster, Endpoint, PickKey};
use crate::{Kind, model::Priority};

/// A request on its way to an endpoint. Holds a place in the limits until it is finished or dropped.
#[derive(Debug)]
pub struct Attempt {
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    priority: Priority,
    finished: bool,
    /// Whether a response is counted once it is known that it is not retried.
    deferred: bool,
    /// The status of a response that is not counted yet.
    status: Option<NonZeroU16>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// A response with this status came.
    Response(u16),
    /// A connection was made, and bytes without a status passed.
    Connected,
    /// None came.
    Failed(Kind),
}

impl Attempt {
    pub(super) fn begin(
        cluster: &Arc<Cluster>,
        priority: Priority,
        key: &PickKey<'_>,
        max_requests: u32,
    ) -> Result<Self, Kind> {
        if cluster.config().refuse.is_some() {
            return Err(Kind::FailClosed);
        }
        let state = cluster.limits(priority).1;
        if !state.try_request(max_requests) {
            cluster.stats().upstream_rq_active_overflow.add(1);
            return Err(Kind::Overflow);
        }
        let endpoint = match cluster.pick(key) {
            Ok(endpoint) => endpoint,
            Err(kind) => {
                state.requests.release();
                return Err(kind);
            }
        };
        endpoint.begin();
        cluster.stats().upstream_rq_active.add(1);
        Ok(Self {
            cluster: cluster.clone(),
            endpoint,
            priority,
            finished: false,
            deferred: false,
            status: None,
        })
    }

    /// Counts a response by its status only with [`Attempt::settle`]: a response that is retried counts apart from others.
    #[cfg(feature = "net")]
    pub(crate) fn defer(&mut self) {
        self.deferred = true;
    }

    /// Says of the response whether it is retried.
    pub(crate) fn settle(&mut self, retried: bool) {
        if let Some(status) = self.status.take() {
            let stats = self.cluster.stats();
            match retried {
                true => stats.retried(status.get()),
                false => stats.response(status.get()),
            }
        }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Which set of limits it counts against.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Records how the response began or why none came. The place in the limits is kept until drop, since the body may
    /// still be on its way.
    pub fn record(&mut self, outcome: AttemptOutcome) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        if let Some(monitor) = &self.cluster.monitor {
            monitor.attempted(self, outcome);
        }
        let (stats, endpoint) = (self.cluster.stats(), self.endpoint.stats());
        match outcome {
            AttemptOutcome::Response(status) => {
                match NonZeroU16::new(status).filter(|_| self.deferred) {
                    None => stats.response(status),
                    deferred => self.status = deferred,
                }
                if status >= 500 {
                    endpoint.rq_error.add(1)
                } else {
                    endpoint.rq_success.add(1)
                }
            }
            // Bytes are no request: Envoy counts neither success nor failure.
            AttemptOutcome::Connected => {}
            // The client's fault is not the endpoint's.
            AttemptOutcome::Failed(Kind::DownstreamTermination | Kind::DownstreamProtocol) => {}
            AttemptOutcome::Failed(kind) => {
                endpoint.rq_error.add(1);
                match kind {
                    Kind::UpstreamTimeout => {
                        stats.upstream_rq_timeout.add(1);
                        endpoint.rq_timeout.add(1);
                    }
                    Kind::PerTryTimeout => {
                        stats.upstream_rq_per_try_timeout.add(1);
                        endpoint.rq_timeout.add(1);
                    }
                    Kind::MaxDuration => stats.upstream_rq_max_duration_reached.add(1),
                    kind => self.broke(kind),
                }
            }
        }
    }

    /// Counts how the upstream broke off, before its response or in it.
    pub(crate) fn broke(&self, kind: Kind) {
        let stats = self.cluster.stats();
        match kind {
            Kind::RemoteReset => stats.upstream_rq_rx_reset.add(1),
            Kind::UpstreamProtocol => stats.upstream_cx_protocol_error.add(1),
            _ => {}
        }
    }

    /// Ends the attempt with `outcome`.
    pub fn finish(mut self, outcome: AttemptOutcome) {
        self.record(outcome);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.settle(false);
        self.endpoint.end();
        self.cluster.stats().upstream_rq_active.sub(1);
        self.cluster.limits(self.priority).1.requests.release();
    }
}
