use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Response};
use tower_service::Service;

use super::{Replies, ResponseFuture, replies::Asks};
use crate::{
    Error,
    body::{MeshBody, ResponseBody},
    layer::Carrier,
};

/// Answers for the services behind it, which may fail.
#[derive(Debug)]
pub struct Respond<S> {
    inner: S,
    replies: Arc<Replies>,
    /// Why the inner service takes no request: the answer to the next one.
    failed: Option<Error>,
}

impl<S: Clone> Clone for Respond<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.replies.clone())
    }
}

impl<S> Respond<S> {
    /// Answers for `inner` as `replies` say.
    pub fn new(inner: S, replies: Arc<Replies>) -> Self {
        Self {
            inner,
            replies,
            failed: None,
        }
    }
}

impl<S, R, U> Service<R> for Respond<S>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Carrier,
    U: MeshBody,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.failed = ready!(self.inner.poll_ready(context)).err();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let record = request.record().cloned();
        let grpc = match &record {
            Some(record) => record.is_grpc(),
            None => crate::layer::is_grpc(request.request().headers()),
        };
        let asks = Asks {
            grpc,
            head: *request.request().method() == Method::HEAD,
        };
        let replies = self.replies.clone();
        match self.failed.take() {
            None => ResponseFuture::new(self.inner.call(request), replies, record, asks),
            Some(error) => ResponseFuture::failed(error, replies, record, asks),
        }
    }
}
