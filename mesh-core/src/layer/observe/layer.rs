use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::Observe;
use crate::{
    layer::{Adopt, Exchange},
    telemetry::record::{Sink, Wants},
    transport::ConnInfo,
};

/// Makes [`Observe`] services.
#[derive(Clone, Debug)]
pub struct ObserveLayer {
    sink: Arc<dyn Sink>,
    connection: Option<Arc<ConnInfo>>,
}

impl ObserveLayer {
    /// Tells `sink` of every request; `connection`: the one that they come over.
    pub fn new(sink: Arc<dyn Sink>, connection: Option<Arc<ConnInfo>>) -> Self {
        Self { sink, connection }
    }

    /// Tells `sink` of every request, in any tower stack. An error of the inner service is told by its kind, if it is an
    /// [`Error`](crate::Error) of the layers, else as [`Kind::ConnectionTermination`](crate::Kind::ConnectionTermination).
    pub fn fixed(sink: Arc<dyn Sink>) -> Alone {
        Alone(Self::new(sink, None))
    }
}

/// An [`ObserveLayer`] made fit for any tower stack: the inner service gets plain requests.
#[derive(Clone, Debug)]
pub struct Alone(ObserveLayer);

impl<S> Layer<S> for Alone {
    type Service = Observe<Adopt<Bare<S>>>;

    fn layer(&self, inner: S) -> Self::Service {
        let wants = Arc::new(self.0.sink.wants().clone());
        self.0.layer(Adopt::new(Bare { inner, wants }))
    }
}

/// Notes what the sink wants of the request's head, and takes the record off.
#[derive(Clone, Debug)]
pub struct Bare<S> {
    inner: S,
    wants: Arc<Wants>,
}

impl<S, B> Service<Exchange<B>> for Bare<S>
where
    S: Service<Request<B>>,
    B: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, exchange: Exchange<B>) -> S::Future {
        exchange.record.see_request(&exchange.request, &self.wants);
        self.inner.call(exchange.request.into_inner())
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe::new(inner, self.sink.clone(), self.connection.clone())
    }
}

/// Takes the record off, for inner services that want a plain request.
impl<B: 'static> From<Exchange<B>> for http::Request<B> {
    fn from(exchange: Exchange<B>) -> Self {
        exchange.request.into_inner()
    }
}
