use std::sync::Arc;

use tower_layer::Layer;

use super::{Acts, Cors};
use crate::{
    layer::{Fixed, Standalone},
    model,
    route::CorsPolicy,
    telemetry::metrics::CorsStats,
};

/// Makes [`Cors`] services.
#[derive(Clone, Debug, Default)]
pub struct CorsLayer<P> {
    policy: P,
    acts: Acts,
    stats: Option<Arc<CorsStats>>,
}

impl<P> CorsLayer<P> {
    /// CORS as `policy` says; not at all unless it `acts`.
    pub fn new(policy: P, acts: Acts) -> Self {
        Self {
            policy,
            acts,
            stats: None,
        }
    }

    /// Counts origins; `None`: nowhere.
    #[must_use]
    pub fn stats(mut self, stats: Option<Arc<CorsStats>>) -> Self {
        self.stats = stats;
        self
    }
}

impl CorsLayer<Fixed<CorsPolicy>> {
    /// The same policy for every request, in any tower stack.
    pub fn fixed(config: model::Cors) -> Standalone<Self> {
        Standalone(Self::new(Fixed(CorsPolicy::new(config)), Acts::Always))
    }
}

impl<S, P: Clone> Layer<S> for CorsLayer<P> {
    type Service = Cors<S, P>;

    fn layer(&self, inner: S) -> Cors<S, P> {
        Cors::new(inner, self.policy.clone(), self.acts).stats(self.stats.clone())
    }
}
