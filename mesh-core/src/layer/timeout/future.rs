use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::Limits;
use crate::{
    Error, Kind,
    body::{MeshBody, ResponseBody},
    recycle::Recycled,
    transport::Switched,
};

/// gRPC's status of that name.
const DEADLINE_EXCEEDED: u8 = 4;

pin_project! {
    /// The future of [`Timeout`](super::Timeout). It hands its limits on to the response body.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        limits: Option<Recycled<Limits>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, limits: Option<Recycled<Limits>>) -> Self {
        Self { inner, limits }
    }
}

/// Whether a tunnel follows.
fn goes_on<U>(response: &Response<ResponseBody<U>>) -> bool {
    response.extensions().get::<Switched>().is_some()
}

impl<F, U> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
    U: MeshBody,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut poll = this.inner.poll(context);
        if let Poll::Ready(result) = &mut poll {
            if let Ok(response) = result
                && let Some(mut limits) = this.limits.take()
                && (!response.body().is_end_stream() || goes_on(response))
            {
                limits.moved();
                limits.response_begins();
                response.body_mut().limit(limits);
            }
            if let Err(error) = result
                && let Some(limits) = this.limits
            {
                limits.answer_otherwise(error);
            }
            return poll;
        }
        let Some(limits) = this.limits else {
            return poll;
        };
        let Poll::Ready(kind) = limits.poll(context) else {
            return poll;
        };
        limits.count(kind);
        if kind == Kind::UpstreamTimeout {
            limits.unanswered();
        }
        let mut error = Error::new(kind);
        limits.answer_otherwise(&mut error);
        // The client has said all that it wanted to say, so the fault is not its.
        let late_client = matches!(kind, Kind::StreamIdle | Kind::DownstreamMaxDuration);
        let status = if limits.is_received() {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::REQUEST_TIMEOUT
        };
        let error = match late_client {
            true => error.with_status(status),
            false => error,
        };
        poll = Poll::Ready(Err(match kind {
            // Whatever status it has, Envoy calls it DEADLINE_EXCEEDED.
            Kind::DownstreamMaxDuration => error.with_grpc(DEADLINE_EXCEEDED),
            _ => error,
        }));
        poll
    }
}
