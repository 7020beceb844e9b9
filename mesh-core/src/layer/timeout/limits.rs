use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::LocalKey,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::policy::Resolved;
use crate::{
    Error, Kind,
    layer::Carrier,
    recycle::{Blocks, Recycle, Recycled},
    telemetry::{clock, record::Record},
    transport::Deadline,
};

/// The limits of one request while it runs: first in the future, then in the response body. One deadline serves all.
#[derive(Debug)]
pub(crate) struct Limits {
    record: Option<Arc<Record>>,
    /// The route's timeout, as long as the request has not arrived.
    waiting: Option<Duration>,
    route: Option<Instant>,
    max_stream: Option<Instant>,
    /// As long as the request has not arrived.
    request: Option<Instant>,
    idle: Option<Duration>,
    /// When something was last known to have moved.
    moved: Instant,
    /// The record's count of movements then.
    seen: u64,
    deadline: Option<Deadline>,
    /// A timeout of the upstream is answered with 204.
    pub(super) alt_response: bool,
}

thread_local! {
    static BLOCKS: Blocks<Limits> = const { RefCell::new(Vec::new()) };
}

impl Recycle for Limits {
    fn blocks() -> &'static LocalKey<Blocks<Self>> {
        &BLOCKS
    }
}

impl Limits {
    /// `None` if there is no limit.
    pub(super) fn new(resolved: Resolved, request: &impl Carrier) -> Option<Recycled<Self>> {
        if resolved == Resolved::default() {
            return None;
        }
        let (now, record) = (request.began(), request.record());
        let received = record.is_none_or(|record| record.is_received());
        let waiting = resolved.route.filter(|_| !received);
        let until = |limit| clock::after(now, limit);
        Some(Recycled::new(Self {
            record: record.cloned(),
            waiting,
            route: resolved.route.filter(|_| received).map(until),
            max_stream: resolved.max_stream.map(until),
            request: resolved.request.filter(|_| !received).map(until),
            idle: resolved.idle,
            moved: now,
            seen: 0,
            deadline: None,
            alt_response: resolved.alt_response,
        }))
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        if self.record.is_none() && self.idle.is_some() {
            self.moved = clock::now();
        }
    }

    /// The response has begun: the time for the request does not run any more.
    pub(super) fn response_begins(&mut self) {
        self.request = None;
    }

    /// The upstream has said all: its time does not run any more.
    pub(crate) fn response_received(&mut self) {
        (self.waiting, self.route) = (None, None);
    }

    /// Whether the request has arrived as a whole.
    pub(super) fn is_received(&self) -> bool {
        self.record
            .as_ref()
            .is_none_or(|record| record.is_received())
    }

    /// Counts a timeout against the cluster.
    pub(crate) fn count(&self, kind: Kind) {
        if kind != Kind::UpstreamTimeout {
            return;
        }
        if let Some(record) = &self.record {
            let late = record.late();
            if let Some(cluster) = &late.cluster {
                cluster.stats().upstream_rq_timeout.add(1);
            }
            if let Some(endpoint) = &late.endpoint {
                endpoint.stats().rq_timeout.add(1);
            }
        }
    }

    /// The endpoint gave no response in time.
    pub(super) fn unanswered(&self) {
        if let Some(record) = &self.record
            && let Some(endpoint) = &record.late().endpoint
        {
            endpoint.stats().rq_error.add(1);
        }
    }

    /// Changes the answer to a timeout of the upstream where the request asked for that.
    pub(super) fn answer_otherwise(&self, error: &mut Error) {
        let timeout = matches!(
            error.kind(),
            Kind::UpstreamTimeout | Kind::PerTryTimeout | Kind::PerTryIdleTimeout
        );
        let added = || {
            let record = self.record.as_ref();
            record.is_some_and(|record| {
                let late = record.late();
                late.asked.as_ref().is_some_and(|asked| asked.alt_response)
            })
        };
        if timeout && (self.alt_response || added()) {
            error.set_status(StatusCode::NO_CONTENT);
        }
    }

    /// An upgrade has been agreed on, so that the route's timeout has nothing to limit any more.
    pub(crate) fn upgraded(&mut self) {
        self.waiting = None;
        self.route = None;
    }

    /// Ready with what has passed.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Kind> {
        if (self.waiting.is_some() || self.request.is_some())
            && let Some(record) = &self.record
            && record.poll_received(context).is_ready()
        {
            self.request = None;
            if let Some(route) = self.waiting.take() {
                self.route = Some(clock::after(clock::now(), route));
            }
        }
        self.look();
        loop {
            let Some(next) = self.next() else {
                return Poll::Pending;
            };
            // A deadline that is too early is looked at when it fires; one that is too late is replaced.
            let deadline = match &mut self.deadline {
                Some(deadline) if deadline.at() <= next => deadline,
                stale => stale.insert(Record::deadline_of(self.record.as_ref(), next)),
            };
            ready!(Pin::new(deadline).poll(context));
            self.deadline = None;
            self.look();
            if let Some(kind) = self.passed(clock::now()) {
                return Poll::Ready(kind);
            }
        }
    }

    /// Notes whether something moved since the last look. Movements between two looks count as of the later one, so that data
    /// itself costs no look at the clock.
    fn look(&mut self) {
        if self.idle.is_none() {
            return;
        }
        if let Some(record) = &self.record {
            let movements = record.movements();
            if movements != self.seen {
                self.seen = movements;
                self.moved = clock::now();
            }
        }
    }

    fn idle_at(&self) -> Option<Instant> {
        self.idle.map(|idle| clock::after(self.moved, idle))
    }

    fn next(&self) -> Option<Instant> {
        [self.route, self.max_stream, self.request, self.idle_at()]
            .into_iter()
            .flatten()
            .min()
    }

    fn passed(&self, now: Instant) -> Option<Kind> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.route) {
            Some(Kind::UpstreamTimeout)
        } else if passed(self.max_stream) {
            Some(Kind::DownstreamMaxDuration)
        } else if passed(self.request) {
            Some(Kind::RequestTimeout)
        } else if passed(self.idle_at()) {
            Some(Kind::StreamIdle)
        } else {
            None
        }
    }
}
