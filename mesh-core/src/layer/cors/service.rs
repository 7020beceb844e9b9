use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Response;
use tower_service::Service;

use super::{
    Acts, ResponseFuture,
    future::Marking,
    policy::{Verdict, judge},
};
use crate::{
    Error,
    body::ResponseBody,
    layer::{Carrier, PolicyOf},
    route::CorsPolicy,
    telemetry::metrics::CorsStats,
};

/// Answers preflights and marks responses.
#[derive(Clone, Debug)]
pub struct Cors<S, P> {
    inner: S,
    policy: P,
    acts: Acts,
    stats: Option<Arc<CorsStats>>,
}

impl<S, P> Cors<S, P> {
    /// CORS in front of `inner` as `policy` says, if it `acts`.
    pub fn new(inner: S, policy: P, acts: Acts) -> Self {
        Self {
            inner,
            policy,
            acts,
            stats: None,
        }
    }

    /// Counts origins; `None`: nowhere.
    #[must_use]
    pub fn stats(mut self, stats: Option<Arc<CorsStats>>) -> Self {
        self.stats = stats;
        self
    }
}

impl<S, P, R, U> Service<R> for Cors<S, P>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Carrier,
    P: PolicyOf<R, CorsPolicy>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let policy = match self.acts {
            Acts::Never => None,
            acts => self
                .policy
                .policy(&request)
                .filter(|policy| acts.on(policy)),
        };
        let verdict = policy.map_or(Verdict::Pass, |policy| {
            judge(policy, request.request(), self.stats.as_deref())
        });
        match verdict {
            Verdict::Pass => ResponseFuture::pass(self.inner.call(request), None),
            Verdict::Mark(marks) => {
                let record = request.record().cloned();
                let marking = Box::new(Marking { marks, record });
                ResponseFuture::pass(self.inner.call(request), Some(marking))
            }
            Verdict::Preflight(headers) => {
                if let Some(record) = request.record() {
                    record.late().details = Some("cors_response".into());
                }
                ResponseFuture::preflight(headers)
            }
        }
    }
}
