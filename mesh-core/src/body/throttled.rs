//! A response body that an injected fault lets through slowly.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{BUFFER_LIMIT, MeshBody, content::Content};
use crate::{
    Error,
    layer::fault::Active,
    telemetry::{clock, record::Record},
    transport::Deadline,
};

/// How often further bytes are let through: Envoy's default of its stream rate limiter.
const INTERVAL: Duration = Duration::from_millis(50);
/// Bytes that are taken from the upstream ahead of what may be sent on.
const AHEAD: usize = BUFFER_LIMIT as usize;

/// A body behind a token bucket, and the place among the active faults that it holds until its end.
#[derive(Debug)]
pub(super) struct Throttled<U> {
    inner: Content<U>,
    bucket: Option<Bucket>,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    queued: usize,
    /// Bytes of `queue` that may go now.
    credit: usize,
    trailers: Option<HeaderMap>,
    /// The upstream has said all.
    received: bool,
    wait: Option<Deadline>,
    record: Option<Arc<Record>>,
    _active: Active,
}

impl<U> Throttled<U> {
    pub(super) fn inner(&self) -> &Content<U> {
        &self.inner
    }
}

impl<U: MeshBody> Throttled<U> {
    /// `inner` at `rate` KiB a second; `None`: as fast as it comes.
    pub(super) fn new(
        inner: Content<U>,
        rate: Option<u64>,
        active: Active,
        record: Option<Arc<Record>>,
    ) -> Self {
        Self {
            inner,
            bucket: rate.map(Bucket::new),
            queue: VecDeque::new(),
            queued: 0,
            credit: 0,
            trailers: None,
            received: false,
            wait: None,
            record,
            _active: active,
        }
    }

    /// Whether the upstream has said all, so that its time does not run any more.
    pub(super) fn is_received(&self) -> bool {
        self.received
    }

    /// Takes what the upstream has.
    fn fill(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while !self.received && self.queued < AHEAD {
            match self.inner.poll_frame(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.received = true,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => {
                        self.queued += data.len();
                        if !data.is_empty() {
                            let kept = super::kept(self.queue.len(), self.queue.back_mut(), &data);
                            self.queue.extend(kept);
                        }
                        self.received = self.inner.is_end_stream();
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.received = true;
                    }
                },
            }
        }
        Ok(())
    }

    /// Ready when some of the queue may go.
    fn poll_credit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.credit == 0 {
            if let Some(wait) = &mut self.wait {
                ready!(Pin::new(wait).poll(context));
                self.wait = None;
            }
            let now = clock::now();
            self.credit = match &mut self.bucket {
                Some(bucket) => bucket.take(self.queued, now),
                None => self.queued,
            };
            if self.credit < self.queued {
                self.wait = Some(Record::deadline_of(self.record.as_ref(), now + INTERVAL));
            }
        }
        Poll::Ready(())
    }
}

impl<U: MeshBody> Throttled<U> {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.fill(context)?;
        let Some(first) = self.queue.front() else {
            return match self.trailers.take() {
                Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                None if self.received => Poll::Ready(None),
                None => Poll::Pending,
            };
        };
        let length = first.len();
        ready!(self.poll_credit(context));
        let sent = length.min(self.credit);
        self.credit -= sent;
        self.queued -= sent;
        let data = match self.queue.front_mut() {
            Some(first) if sent < length => first.split_to(sent),
            _ => self.queue.pop_front().unwrap_or_default(),
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.received && self.queue.is_empty() && self.trailers.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let (inner, queued) = (self.inner.size_hint(), self.queued as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + queued);
        }
        hint.set_lower(inner.lower() + queued);
        hint
    }
}

/// Envoy's token bucket: one token a byte; it begins with those of one interval and holds those of one second at most.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(kibps: u64) -> Self {
        let rate = kibps as f64 * 1024.0;
        Self {
            rate,
            tokens: rate * INTERVAL.as_secs_f64(),
            at: clock::now(),
        }
    }

    /// Up to `wanted` tokens.
    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.rate).min(self.rate);
        let taken = wanted.min(self.tokens as usize);
        self.tokens -= taken as f64;
        taken
    }
}
