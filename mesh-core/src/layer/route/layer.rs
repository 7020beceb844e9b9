use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::{Front, ResponseFuture, Route, TableOf};
use crate::{
    Error, Kind,
    body::{MeshBody, RequestBody, ResponseBody},
    layer::{Exchange, Routed, Standalone, is_grpc},
    route::RouteTable,
    telemetry::record::Record,
};

/// Makes [`Route`] services for calls that come over no connection.
#[derive(Clone, Debug)]
pub struct RouteLayer<T> {
    front: Arc<Front>,
    table: T,
}

impl<T> RouteLayer<T> {
    /// Routes by `table`, after `front` has treated the requests.
    pub fn new(front: Arc<Front>, table: T) -> Self {
        Self { front, table }
    }
}

impl RouteLayer<Arc<RouteTable>> {
    /// Routes every request by `table`, in any tower stack. The inner service takes [`Routed`] requests, which know their
    /// route, arm and cluster, and become plain ones by `into`.
    pub fn fixed(table: Arc<RouteTable>) -> Standalone<Self> {
        Standalone(Self::new(Arc::new(Front::embedded(Arc::default())), table))
    }
}

/// One table for all requests.
impl TableOf for Arc<RouteTable> {
    fn table<B>(&mut self, _request: &Request<B>) -> Result<&Arc<RouteTable>, Kind> {
        Ok(self)
    }
}

impl<S, T: Clone> Layer<S> for RouteLayer<T> {
    type Service = Route<S, T>;

    fn layer(&self, inner: S) -> Route<S, T> {
        Route::new(inner, self.front.clone(), self.table.clone(), None)
    }
}

/// Without a layer that observes, the record is made here, and nobody is told of it.
impl<S, B, U, T> Service<Request<RequestBody<B>>> for Route<S, T>
where
    T: TableOf,
    S: Service<Routed<RequestBody<B>>, Response = Response<ResponseBody<U>>, Error = Error> + Clone,
    B: MeshBody,
{
    type Response = Response<ResponseBody<U>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, U>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<Exchange<RequestBody<B>>>::poll_ready(self, context)
    }

    fn call(&mut self, request: Request<RequestBody<B>>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let record = Record::begin(None, request.version(), grpc);
        Service::<Exchange<RequestBody<B>>>::call(self, Exchange::new(request, record))
    }
}

/// Takes route and record off, for inner services that want a plain request.
impl<B: 'static> From<Routed<B>> for Request<B> {
    fn from(routed: Routed<B>) -> Self {
        routed.request.into_inner()
    }
}
