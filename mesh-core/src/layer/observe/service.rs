use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::ResponseFuture;
use crate::{
    body::{Guard, MeshBody, RequestBody, ResponseBody},
    layer::{Exchange, is_grpc},
    telemetry::record::{Record, Sink},
    transport::ConnInfo,
};

/// Watches requests from their head to the last frame of their response.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    sink: Arc<dyn Sink>,
    connection: Option<Arc<ConnInfo>>,
}

impl<S> Observe<S> {
    /// Tells `sink` of every request to `inner`; `connection`: the one that they come over.
    pub fn new(inner: S, sink: Arc<dyn Sink>, connection: Option<Arc<ConnInfo>>) -> Self {
        Self {
            inner,
            sink,
            connection,
        }
    }
}

impl<S, B, U> Service<Request<B>> for Observe<S>
where
    S: Service<Exchange<RequestBody<B>>, Response = Response<ResponseBody<U>>>,
    B: MeshBody,
    U: MeshBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let record = Record::begin(self.connection.clone(), request.version(), grpc);
        let request = request.map(|body| RequestBody::observed(body, &record));
        let guard = Guard::new(record.clone(), self.sink.clone());
        ResponseFuture::new(self.inner.call(Exchange { request, record }), guard)
    }
}
