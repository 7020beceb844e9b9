use tower_layer::Layer;

use super::{Acts, Cors};
use crate::{
    layer::{Fixed, Standalone},
    model,
    route::CorsPolicy,
};

/// Makes [`Cors`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct CorsLayer<P> {
    policy: P,
    acts: Acts,
}

impl<P> CorsLayer<P> {
    /// CORS as `policy` says; not at all unless it `acts`.
    pub fn new(policy: P, acts: Acts) -> Self {
        Self { policy, acts }
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
        Cors::new(inner, self.policy.clone(), self.acts)
    }
}
