use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::ResponseFuture;
#[cfg(feature = "net")]
use crate::transport::{ConnTimer, Expectation, Hold};
use crate::{
    body::{Guard, MeshBody, RequestBody, ResponseBody},
    layer::{Exchange, Scan, is_grpc},
    telemetry::record::{Record, Sink},
    transport::ConnInfo,
};

/// Watches requests from their head to the last frame of their response.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    sink: Arc<dyn Sink>,
    connection: Option<Arc<ConnInfo>>,
    /// For deadlines of requests that come over no connection.
    #[cfg(feature = "net")]
    timer: Option<ConnTimer>,
}

impl<S> Observe<S> {
    /// Deadlines of requests that come over no connection use `timer`.
    #[cfg(feature = "net")]
    pub(crate) fn set_timer(&mut self, timer: &ConnTimer) {
        if self.timer.is_none() {
            self.timer = Some(timer.clone());
        }
    }

    /// Tells `sink` of every request to `inner`; `connection`: the one that they come over.
    pub fn new(inner: S, sink: Arc<dyn Sink>, connection: Option<Arc<ConnInfo>>) -> Self {
        Self {
            inner,
            sink,
            connection,
            #[cfg(feature = "net")]
            timer: None,
        }
    }
}

impl<S, B, U> Service<Request<B>> for Observe<S>
where
    S: Service<Exchange<RequestBody<B>>, Response = Response<ResponseBody<U>>, Error: 'static>,
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
        let scan = Scan::of(request.headers());
        let grpc = scan.has(Scan::CONTENT_TYPE) && is_grpc(request.headers());
        let record = Record::begin(self.connection.clone(), request.version(), grpc);
        #[cfg(feature = "net")]
        let record = match &self.timer {
            Some(timer) => record.with_timer(timer),
            None => record,
        };
        #[cfg(feature = "net")]
        let hold = match scan.has(Scan::EXPECT) {
            true => expectation(&request, &record),
            false => None,
        };
        let request = request.map(|body| RequestBody::observed(body, &record));
        #[cfg(feature = "net")]
        let request = match hold {
            Some(hold) => request.map(|body| body.held(hold)),
            None => request,
        };
        let guard = Guard::new(record.clone(), self.sink.clone());
        let exchange = Exchange {
            request: request.into(),
            record,
            scan,
        };
        ResponseFuture::new(self.inner.call(exchange), guard)
    }
}

/// How long the body of a client of HTTP/1.1 that waits for 100 is not asked for, since asking says 100; `None`: it does not wait.
#[cfg(feature = "net")]
fn expectation<B: MeshBody>(request: &Request<B>, record: &Record) -> Option<Hold> {
    let connection = record.connection()?;
    let expects = request.headers().get(http::header::EXPECT)?;
    let waits = expects.as_bytes().eq_ignore_ascii_case(b"100-continue")
        && request.version() == http::Version::HTTP_11
        && !request.body().is_end_stream();
    if !waits {
        return None;
    }
    let passes = connection.interims();
    if passes.is_none_or(|interims| interims.has_body()) {
        return Some(Hold::Never);
    }
    let expectation = Arc::<Expectation>::default();
    record.late().expectation = Some(expectation.clone());
    Some(Hold::until(expectation))
}
