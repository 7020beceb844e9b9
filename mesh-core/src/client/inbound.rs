//! In front of an application.

use std::sync::Arc;

use crate::{
    model::{Direction, HttpFilterKind, Name},
    snapshot::{Http, Mesh, Snapshot},
    stack::InboundLayer,
    telemetry::{
        metrics::{Reporter, RequestMetrics},
        observer::Observer,
    },
};

impl Mesh {
    /// A layer for the application that this program serves: it tells what is served, and refuses everything until there is a
    /// configuration (503), and as long as that asks for protection that cannot act here (403).
    ///
    /// ```
    /// use mesh_core::{config::MemorySource, snapshot::Mesh};
    /// use tower_layer::Layer;
    ///
    /// let (source, _handle) = MemorySource::new();
    /// let (mesh, _driver) = Mesh::builder().source(source).build();
    /// let app = tower::service_fn(|_: http::Request<mesh_core::body::RequestBody<String>>| async {
    ///     Ok::<_, std::convert::Infallible>(http::Response::new(String::from("hello")))
    /// });
    /// let service = mesh.inbound().layer(app);
    /// # fn used<S: tower_service::Service<http::Request<String>>>(_: S) {}
    /// # used(service);
    /// ```
    pub fn inbound(&self) -> InboundLayer {
        let metrics = RequestMetrics::new(self.metrics().clone(), Reporter::Destination);
        let observer = Observer::new()
            .metrics(metrics)
            .sinks(self.metrics().sinks());
        InboundLayer::new(Arc::new(observer), Some(self.reader()))
            .ask(self.metrics().peers().clone())
    }
}

/// Whether a stage's filter judges all requests of a listener: by routes, of which an application that is wrapped has none.
fn is_guarded(http: &Http) -> bool {
    let mut filters = http.config().filters.iter();
    filters.any(|filter| !filter.disabled && matches!(filter.kind, HttpFilterKind::Opaque(..)))
}

const NO_GUARDS: &str = "HTTP filters of stages act in listeners, not in front of an application";

/// Why inbound traffic is refused, if a listener says so.
pub(crate) fn refusal(snapshot: &Snapshot) -> Option<Name> {
    let inbound = snapshot
        .listeners()
        .values()
        .filter(|listener| listener.config().direction == Direction::Inbound);
    inbound
        .flat_map(|listener| listener.chains())
        .find_map(|(chain, http)| {
            let of_manager = |http: &Arc<Http>| {
                let refusal = http.front().refusal().cloned();
                refusal.or_else(|| is_guarded(http).then(|| NO_GUARDS.into()))
            };
            chain.refuse.clone().or_else(|| of_manager(http?))
        })
}
