use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
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
#[derive(Clone, Debug)]
pub struct Respond<S> {
    inner: S,
    replies: Arc<Replies>,
}

impl<S> Respond<S> {
    /// Answers for `inner` as `replies` say.
    pub fn new(inner: S, replies: Arc<Replies>) -> Self {
        Self { inner, replies }
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

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What stands behind is always ready, or says what is wrong when it is called.
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
        ResponseFuture::new(self.inner.call(request), replies, record, asks)
    }
}
