use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    thread::LocalKey,
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Repeat,
    conditions::Conditions,
    saved::{Next, SavedHead},
};
use crate::{
    Error, Kind,
    body::{MeshBody, ReplayEnd, RequestBody, ResponseBody},
    cluster::{ClusterStats, Endpoint, Permit},
    recycle::{Blocks, Recycle, Recycled},
    telemetry::{clock, flags::Flag, record::Record},
    transport::Deadline,
};

/// What a further attempt is made of.
#[derive(Debug)]
pub(super) struct Again<S, B> {
    pub(super) inner: S,
    /// `None`: there is none.
    pub(super) body: Option<ReplayEnd<B>>,
}

pin_project! {
    /// The future of [`Retry`](super::Retry).
    pub struct ResponseFuture<S: Service<R>, R: Repeat, B> {
        #[pin]
        state: State<S::Future>,
        turn: Option<Recycled<Turn>>,
        // What there is besides the turn; of a single attempt nothing.
        rest: Option<R::Rest>,
        again: Option<Again<S, B>>,
    }
}

impl<S: Service<R>, R: Repeat, B> std::fmt::Debug for ResponseFuture<S, R, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Trying {
            #[pin]
            attempt: F,
        },
        Waiting {
            until: Deadline,
        },
    }
}

/// Where the request stands among its attempts: in a block of its own, so that the futures around it stay small.
#[derive(Debug)]
pub(super) struct Turn {
    conditions: Conditions,
    /// What a further attempt begins with, if there may be one.
    head: Option<SavedHead>,
    /// Attempts so far.
    attempts: u32,
    /// Limit of the attempt that runs; made when the request has arrived.
    per_try: Option<Deadline>,
    permit: Option<Permit>,
    tried: Vec<Arc<Endpoint>>,
    /// Back-offs by the policy so far.
    back_offs: u32,
    /// The last attempt took longer than it may.
    timed_out: bool,
}

impl<S: Service<R>, R: Repeat, B> ResponseFuture<S, R, B> {
    /// A single attempt.
    pub(super) fn once(attempt: S::Future) -> Self {
        Self {
            state: State::Trying { attempt },
            turn: None,
            rest: None,
            again: None,
        }
    }

    pub(super) fn new(
        attempt: S::Future,
        turn: Recycled<Turn>,
        rest: R::Rest,
        again: Option<Again<S, B>>,
    ) -> Self {
        Self {
            state: State::Trying { attempt },
            turn: Some(turn),
            rest: Some(rest),
            again,
        }
    }
}

impl<S, R, B, U> Future for ResponseFuture<S, R, B>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Repeat<Body = RequestBody<B>>,
    B: MeshBody,
    U: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(turn), Some(rest)) = (&mut *this.turn, &*this.rest) else {
            // A single attempt is the future itself.
            return match this.state.project() {
                StateProject::Trying { attempt } => attempt.poll(context),
                StateProject::Waiting { .. } => Poll::Ready(Err(Kind::Internal.into())),
            };
        };
        let record = R::record_of(rest);
        loop {
            let wait = match this.state.as_mut().project() {
                StateProject::Trying { attempt } => {
                    let mut poll = attempt.poll(context);
                    if poll.is_pending() {
                        match turn.poll_per_try(record, context) {
                            Poll::Ready(error) => poll = Poll::Ready(Err(error)),
                            Poll::Pending => return poll,
                        }
                    }
                    let Poll::Ready(result) = &mut poll else {
                        return poll;
                    };
                    match turn.decide::<S, R, B, U>(result, rest, this.again.as_ref()) {
                        Some(wait) => {
                            if let Ok(response) = result {
                                response.body_mut().settle(true);
                            }
                            wait
                        }
                        None => {
                            turn.last(result, record);
                            if this.again.as_ref().is_some_and(Again::is_abandoned) {
                                stats(record, |stats| stats.retry_or_shadow_abandoned.add(1));
                            }
                            return poll;
                        }
                    }
                }
                StateProject::Waiting { until } => {
                    ready!(Pin::new(until).poll(context));
                    let Some(again) = &mut *this.again else {
                        return Poll::Ready(Err(Kind::Internal.into()));
                    };
                    let attempt = ready!(again.poll_call::<R>(turn, rest, context))?;
                    this.state.set(State::Trying { attempt });
                    continue;
                }
            };
            // The response or failure of the last attempt is dropped here, before the next one begins.
            let until = deadline(record, wait);
            this.state.set(State::Waiting { until });
        }
    }
}

impl<S, B: MeshBody> Again<S, B> {
    fn is_repeatable(&self) -> bool {
        self.body.as_ref().is_none_or(ReplayEnd::can_repeat)
    }

    /// Ready with the next attempt when the service is.
    fn poll_call<R>(
        &mut self,
        turn: &mut Turn,
        rest: &R::Rest,
        context: &mut Context<'_>,
    ) -> Poll<Result<S::Future, Error>>
    where
        S: Service<R, Error = Error>,
        R: Repeat<Body = RequestBody<B>>,
    {
        ready!(self.inner.poll_ready(context))?;
        Poll::Ready(match self.next::<R>(turn, rest) {
            Some(request) => Ok(self.inner.call(request)),
            None => Err(Kind::LocalReset.into()),
        })
    }

    /// Whether the body was too large to be kept.
    fn is_abandoned(&self) -> bool {
        self.body.as_ref().is_some_and(ReplayEnd::is_abandoned)
    }

    fn next<R>(&self, turn: &mut Turn, rest: &R::Rest) -> Option<R>
    where
        R: Repeat<Body = RequestBody<B>>,
    {
        let body = match &self.body {
            None => RequestBody::empty(),
            Some(kept) => RequestBody::replayed(kept.read()?),
        };
        turn.attempts += 1;
        let request = turn.head.as_ref()?.request(body);
        let next = Next {
            attempt: turn.attempts,
            tried: &turn.tried,
            per_try: turn.conditions.per_try,
            timed_out: turn.timed_out,
        };
        let mut request = R::again(rest, request, &next)?;
        request.avoid(turn.conditions.policy.0.host_attempts);
        Some(request)
    }
}

thread_local! {
    static BLOCKS: Blocks<Turn> = const { RefCell::new(Vec::new()) };
}

impl Recycle for Turn {
    fn blocks() -> &'static LocalKey<Blocks<Self>> {
        &BLOCKS
    }
}

impl Turn {
    /// Before the first attempt at a request, whose `head` is kept if there may be a further one.
    pub(super) fn new(conditions: Conditions, head: Option<SavedHead>) -> Recycled<Self> {
        Recycled::new(Self {
            conditions,
            head,
            attempts: 1,
            per_try: None,
            permit: None,
            tried: Vec::new(),
            back_offs: 0,
            timed_out: false,
        })
    }

    /// Ready with an error when the attempt's own time is over.
    fn poll_per_try(
        &mut self,
        record: Option<&Arc<Record>>,
        context: &mut Context<'_>,
    ) -> Poll<Error> {
        let (limit, kind) = match (self.conditions.per_try, self.conditions.per_try_idle()) {
            (None, None) => return Poll::Pending,
            (Some(whole), Some(idle)) if whole <= idle => (whole, Kind::PerTryTimeout),
            (_, Some(idle)) => (idle, Kind::PerTryIdleTimeout),
            (Some(whole), None) => (whole, Kind::PerTryTimeout),
        };
        if self.per_try.is_none() {
            if let Some(record) = record {
                ready!(record.poll_received(context));
                // The attempt itself is polled with this, and so when it has its connection.
                if record.is_pending() {
                    return Poll::Pending;
                }
            }
            self.per_try = Some(deadline(record, limit));
        }
        if let Some(deadline) = &mut self.per_try {
            ready!(Pin::new(deadline).poll(context));
        }
        stats(record, |stats| match kind {
            Kind::PerTryIdleTimeout => stats.upstream_rq_per_try_idle_timeout.add(1),
            _ => stats.upstream_rq_per_try_timeout.add(1),
        });
        if let Some(record) = record
            && let Some(endpoint) = &record.late().endpoint
        {
            endpoint.stats().rq_timeout.add(1);
            endpoint.stats().rq_error.add(1);
        }
        Poll::Ready(kind.into())
    }

    /// The back-off before the next attempt, or `None` if this was the last.
    fn decide<S, R, B, U>(
        &mut self,
        result: &Result<Response<ResponseBody<U>>, Error>,
        rest: &R::Rest,
        again: Option<&Again<S, B>>,
    ) -> Option<Duration>
    where
        R: Repeat,
        B: MeshBody,
    {
        let record = R::record_of(rest);
        let wanted = match result {
            Ok(response) => self.conditions.response(response),
            Err(error) => self.conditions.failure(error),
        };
        if !wanted {
            if self.attempts > 1 && result.is_ok() {
                stats(record, |stats| stats.upstream_rq_retry_success.add(1));
            }
            return None;
        }
        // As in Envoy: what an upstream has begun to answer is not asked of another, and what was too large to be kept is not a
        // question of how many are left.
        let begun = |record: &Arc<Record>| record.late().interims[0] > 0;
        if record.is_some_and(begun) || again.is_some_and(Again::is_abandoned) {
            return None;
        }
        if self.conditions.left == 0 {
            stats(record, |stats| {
                stats.upstream_rq_retry_limit_exceeded.add(1)
            });
            if let Some(record) = record {
                record.flag(Flag::UpstreamRetryLimitExceeded);
            }
            return None;
        }
        again.filter(|again| again.is_repeatable())?;
        self.conditions.left -= 1;
        self.permit = None;
        if let Some((cluster, priority)) = R::budget(rest) {
            self.permit = Permit::retry(&cluster, priority);
            if self.permit.is_none() {
                cluster.stats().upstream_rq_retry_overflow.add(1);
                if let Some(record) = record {
                    record.flag(Flag::UpstreamOverflow);
                }
                return None;
            }
        }
        self.per_try = None;
        self.timed_out = result.as_ref().is_err_and(|error| {
            matches!(error.kind(), Kind::PerTryTimeout | Kind::PerTryIdleTimeout)
        });
        self.remember(record);
        if let Ok(response) = result
            && self.conditions.at_once(response.status())
        {
            stats(record, |stats| stats.upstream_rq_retry.add(1));
            return Some(Duration::ZERO);
        }
        let headers = result.as_ref().ok().map(|response| response.headers());
        Some(self.back_off(headers, record))
    }

    /// The time until the next attempt, which is counted: as long as the response asks for, else by the policy.
    fn back_off(
        &mut self,
        headers: Option<&http::HeaderMap>,
        record: Option<&Arc<Record>>,
    ) -> Duration {
        let policy = &self.conditions.policy.0;
        let asked =
            headers.and_then(|headers| policy.asked_back_off(headers, crate::world::random()));
        stats(record, |stats| {
            stats.upstream_rq_retry.add(1);
            match asked {
                Some(_) => stats.upstream_rq_retry_backoff_ratelimited.add(1),
                None => stats.upstream_rq_retry_backoff_exponential.add(1),
            }
        });
        asked.unwrap_or_else(|| {
            self.back_offs += 1;
            policy.back_off(self.back_offs - 1, crate::world::random())
        })
    }

    /// Keeps the endpoint that was tried, so that it is avoided.
    fn remember(&mut self, record: Option<&Arc<Record>>) {
        if !self.conditions.policy.0.avoid_previous {
            return;
        }
        let endpoint = record.and_then(|record| record.late().endpoint.clone());
        self.tried.extend(endpoint);
    }

    fn last<U: MeshBody>(
        &mut self,
        result: &mut Result<Response<ResponseBody<U>>, Error>,
        record: Option<&Arc<Record>>,
    ) {
        if let Ok(response) = result {
            let body = response.body_mut();
            body.settle(false);
            body.hold_retry(self.permit.take());
            if let Some(idle) = self.conditions.per_try_idle() {
                body.watch(idle, record.cloned());
            }
        }
    }
}

fn deadline(record: Option<&Arc<Record>>, after: Duration) -> Deadline {
    Record::deadline_of(record, clock::after(clock::now(), after))
}

fn stats(record: Option<&Arc<Record>>, count: impl FnOnce(&ClusterStats)) {
    if let Some(record) = record
        && let Some(cluster) = &record.late().cluster
    {
        count(cluster.stats());
    }
}
