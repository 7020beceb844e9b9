//! A response body whose upstream must keep sending.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::Frame;

use super::{MeshBody, content::Content};
use crate::{
    Error, Kind,
    telemetry::{clock, record::Record},
    transport::Deadline,
};

/// A body with the idle time of its attempt (`per_try_idle_timeout`).
#[derive(Debug)]
pub(super) struct Watched<U> {
    inner: Content<U>,
    idle: Duration,
    /// When something came last.
    moved: Instant,
    deadline: Option<Deadline>,
    record: Option<Arc<Record>>,
}

impl<U: MeshBody> Watched<U> {
    pub(super) fn new(inner: Content<U>, idle: Duration, record: Option<Arc<Record>>) -> Self {
        Self {
            inner,
            idle,
            moved: clock::now(),
            deadline: None,
            record,
        }
    }

    pub(super) fn inner(&self) -> &Content<U> {
        &self.inner
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = self.inner.poll_frame(context);
        if frame.is_ready() {
            self.moved = clock::now();
            return frame;
        }
        loop {
            let due = clock::after(self.moved, self.idle);
            let record = self.record.as_ref();
            // One that is too early is looked at when it fires.
            let deadline = self
                .deadline
                .get_or_insert_with(|| Record::deadline_of(record, due));
            ready!(Pin::new(deadline).poll(context));
            self.deadline = None;
            if due <= clock::now() {
                self.count();
                return Poll::Ready(Some(Err(Kind::PerTryIdleTimeout.into())));
            }
        }
    }

    fn count(&self) {
        let Some(record) = &self.record else {
            return;
        };
        let late = record.late();
        if let Some(cluster) = &late.cluster {
            cluster.stats().upstream_rq_per_try_idle_timeout.add(1);
        }
        if let Some(endpoint) = &late.endpoint {
            endpoint.stats().rq_timeout.add(1);
        }
    }
}
