use std::task::{Context, Poll};

use http::Response;
use tower_service::Service;

use super::{
    Repeat, ResponseFuture, Retries,
    conditions::Conditions,
    future::{Again, Turn},
    saved::SavedHead,
};
use crate::{
    Error,
    body::{MeshBody, ReplayEnd, RequestBody, ResponseBody},
    layer::PolicyOf,
};

/// Tries requests again.
#[derive(Clone, Debug)]
pub struct Retry<S, P> {
    inner: S,
    policy: P,
}

impl<S, P> Retry<S, P> {
    /// Retries at `inner` as `policy` says. A clone of `inner` makes the further attempts.
    pub fn new(inner: S, policy: P) -> Self {
        Self { inner, policy }
    }
}

impl<S, P, R, B, U> Service<R> for Retry<S, P>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error> + Clone,
    R: Repeat<Body = RequestBody<B>>,
    P: PolicyOf<R, Retries>,
    B: MeshBody,
    U: MeshBody,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, R, B>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let asks = request.asks();
        let (policy, http) = self.policy.split(&mut request);
        let Some(mut conditions) = Conditions::new(policy, http, asks) else {
            return ResponseFuture::once(self.inner.call(request));
        };
        if conditions.is_timed() {
            conditions.within(request.route_limit());
            request.timed();
        }
        request.avoid(conditions.policy.0.host_attempts);
        let again = conditions.can_retry().then(|| Again {
            inner: self.inner.clone(),
            body: ReplayEnd::keep(request.request_mut().body_mut(), conditions.policy.0.buffer),
        });
        let head = again.is_some().then(|| SavedHead::of(request.request()));
        let turn = Turn::new(conditions, head);
        let rest = request.rest();
        ResponseFuture::new(self.inner.call(request), turn, rest, again)
    }
}
