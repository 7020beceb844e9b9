use std::{
    any::Any,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Response, header::CONNECTION};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{
    Error, Kind,
    body::{Guard, MeshBody, ResponseBody},
    telemetry::record::Ending,
};

pin_project! {
    /// The future of [`Observe`](super::Observe). Dropping it completes the record as one of a client that went away.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        guard: Option<Guard>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, guard: Guard) -> Self {
        Self {
            inner,
            guard: Some(guard),
        }
    }
}

impl<F, U, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, E>>,
    U: MeshBody,
    E: 'static,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut poll = this.inner.poll(context);
        let Poll::Ready(result) = &mut poll else {
            return poll;
        };
        if let Some(mut guard) = this.guard.take() {
            match result {
                Ok(response) => see(response, guard),
                Err(error) => guard.finish(Ending::Broken(kind(error))),
            }
        }
        poll
    }
}

/// What an error was, if it is one of ours.
fn kind<E: 'static>(error: &E) -> Kind {
    let own = (error as &dyn Any).downcast_ref::<Error>();
    own.map_or(Kind::Internal, Error::kind)
}

/// Takes note of a response, and gives it what completes the record at its end.
fn see<U: MeshBody>(response: &mut Response<ResponseBody<U>>, mut guard: Guard) {
    guard.see_response(response);
    #[cfg(feature = "net")]
    if let Some(tunnel) = response.body_mut().take_upgrade() {
        super::splice::begin(response, tunnel, guard);
        return;
    }
    // The client is told that the rest of its request will not be read. Of a reply of our own the codec reads what is small.
    if guard.record().is_some_and(|record| record.is_early()) && !response.body().is_local() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    // Hyper drops a body that is over before it began without asking it anything.
    if response.body().is_end_stream() {
        guard.complete_on_drop();
    }
    response.body_mut().observe(guard);
}
