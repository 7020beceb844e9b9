use tower_layer::Layer;

use super::Cors;
use crate::{
    layer::{Fixed, Standalone},
    model,
    route::{CorsPolicy, TextMatcher},
};

/// Makes [`Cors`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct CorsLayer<P> {
    policy: P,
    enabled: bool,
}

impl<P> CorsLayer<P> {
    /// CORS as `policy` says; not at all unless `enabled` (the listener has the filter).
    pub fn new(policy: P, enabled: bool) -> Self {
        Self { policy, enabled }
    }
}

impl CorsLayer<Fixed<CorsPolicy>> {
    /// The same policy for every request, in any tower stack.
    pub fn fixed(config: model::Cors) -> Standalone<Self> {
        let origins = config.allow_origins.iter().map(TextMatcher::new).collect();
        let policy = CorsPolicy { origins, config };
        Standalone(Self::new(Fixed(policy), true))
    }
}

impl<S, P: Clone> Layer<S> for CorsLayer<P> {
    type Service = Cors<S, P>;

    fn layer(&self, inner: S) -> Cors<S, P> {
        Cors::new(inner, self.policy.clone(), self.enabled)
    }
}
