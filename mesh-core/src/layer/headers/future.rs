use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::Later;
use crate::Error;

pin_project! {
    /// The future of [`Headers`](super::Headers).
    #[derive(Debug)]
    pub struct ResponseFuture<F, L> {
        #[pin]
        inner: F,
        later: Option<L>,
    }
}

impl<F, L> ResponseFuture<F, L> {
    pub(super) fn new(inner: F, later: L) -> Self {
        Self {
            inner,
            later: Some(later),
        }
    }
}

impl<F, L, U> Future for ResponseFuture<F, L>
where
    F: Future<Output = Result<Response<U>, Error>>,
    L: Later,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut result = ready!(this.inner.poll(context));
        if let (Ok(response), Some(later)) = (&mut result, this.later.take()) {
            later.response(response.status(), response.headers_mut());
        }
        Poll::Ready(result)
    }
}
