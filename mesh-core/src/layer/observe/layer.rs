use std::sync::Arc;

use tower_layer::Layer;

use super::Observe;
use crate::{layer::Exchange, telemetry::record::Sink, transport::ConnInfo};

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

    /// Tells `sink` of every request, in any tower stack. The inner service gets an [`Exchange`].
    pub fn fixed(sink: Arc<dyn Sink>) -> Self {
        Self::new(sink, None)
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe::new(inner, self.sink.clone(), self.connection.clone())
    }
}

/// Takes the record off, for inner services that want a plain request.
impl<B> From<Exchange<B>> for http::Request<B> {
    fn from(exchange: Exchange<B>) -> Self {
        exchange.request
    }
}
