use std::task::{Context, Poll};

use http::Response;
use tower_service::Service;

use super::{ResponseFuture, Rules};
use crate::{Error, body::ResponseBody};

/// Changes headers.
#[derive(Clone, Debug)]
pub struct Headers<S, P> {
    inner: S,
    rules: P,
}

impl<S, P> Headers<S, P> {
    /// Changes what goes to and comes from `inner` as `rules` say.
    pub fn new(inner: S, rules: P) -> Self {
        Self { inner, rules }
    }
}

impl<S, P, R, U> Service<R> for Headers<S, P>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    P: Rules<R>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, P::Later>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let later = self.rules.request(&mut request);
        ResponseFuture::new(self.inner.call(request), later)
    }
}
