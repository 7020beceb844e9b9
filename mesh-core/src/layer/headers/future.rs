use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use super::Later;
use crate::{Error, body::ResponseBody};

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
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
    L: Later,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut poll = this.inner.poll(context);
        if let Poll::Ready(Ok(response)) = &mut poll
            && let Some(later) = this.later.take()
        {
            later.response(response);
        }
        poll
    }
}
