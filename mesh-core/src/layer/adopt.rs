//! Adapters around a layer that stands in somebody else's stack: bodies and errors become the mesh's types.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Error,
    body::{MeshBody, RequestBody, ResponseBody},
};

/// A layer of the mesh made fit for any tower stack: what its `fixed` constructor returns.
#[derive(Clone, Copy, Debug)]
pub struct Standalone<L>(pub(crate) L);

impl<S, L: Layer<Adopt<S>>> Layer<S> for Standalone<L> {
    type Service = Enter<L::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        Enter {
            inner: self.0.layer(Adopt { inner }),
        }
    }
}

/// Wraps the request body on the way in.
#[derive(Clone, Copy, Debug)]
pub struct Enter<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Enter<S>
where
    S: Service<Request<RequestBody<B>>>,
    B: MeshBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = EnterFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        EnterFuture {
            inner: self.inner.call(request.map(RequestBody::new)),
        }
    }
}

pin_project! {
    /// The future of [`Enter`].
    #[derive(Debug)]
    pub struct EnterFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F: Future> Future for EnterFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(context)
    }
}

/// Makes the answers of a foreign service the mesh's: its body becomes a [`ResponseBody`], its error an [`Error`].
#[derive(Clone, Copy, Debug)]
pub struct Adopt<S> {
    inner: S,
}

impl<S> Adopt<S> {
    /// Adopts `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, R, U> Service<R> for Adopt<S>
where
    S: Service<R, Response = Response<U>>,
    S::Error: Into<crate::BoxError>,
    U: MeshBody,
{
    type Response = Response<ResponseBody<U>>;
    type Error = Error;
    type Future = AdoptFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::adopt)
    }

    fn call(&mut self, request: R) -> Self::Future {
        AdoptFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    /// The future of [`Adopt`].
    #[derive(Debug)]
    pub struct AdoptFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, U, E> Future for AdoptFuture<F>
where
    F: Future<Output = Result<Response<U>, E>>,
    E: Into<crate::BoxError>,
    U: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().inner.poll(context));
        Poll::Ready(match result {
            Ok(response) => Ok(response.map(ResponseBody::upstream)),
            Err(error) => Err(Error::adopt(error)),
        })
    }
}
