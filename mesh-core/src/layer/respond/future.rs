use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;

use super::Replies;
use crate::{Error, body::ResponseBody, telemetry::record::Record};

pin_project! {
    /// The future of [`Respond`](super::Respond).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        replies: Arc<Replies>,
        record: Option<Arc<Record>>,
        grpc: bool,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(
        inner: F,
        replies: Arc<Replies>,
        record: Option<Arc<Record>>,
        grpc: bool,
    ) -> Self {
        Self {
            inner,
            replies,
            record,
            grpc,
        }
    }
}

impl<F, U> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
{
    type Output = Result<Response<ResponseBody<U>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match ready!(this.inner.poll(context)) {
            Ok(response) => response,
            Err(error) => this
                .replies
                .reply(&error, *this.grpc, this.record.as_deref())
                .map(ResponseBody::local),
        };
        this.replies.finish(&mut response);
        Poll::Ready(Ok(response))
    }
}
