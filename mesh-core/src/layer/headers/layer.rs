use tower_layer::Layer;

use super::{HeaderRules, Headers};
use crate::layer::Standalone;

/// Makes [`Headers`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadersLayer<P> {
    rules: P,
}

impl<P> HeadersLayer<P> {
    /// Changes as `rules` say.
    pub fn new(rules: P) -> Self {
        Self { rules }
    }
}

impl HeadersLayer<HeaderRules> {
    /// The same changes for every request, in any tower stack.
    pub fn fixed(rules: HeaderRules) -> Standalone<Self> {
        Standalone(Self::new(rules))
    }
}

impl<S, P: Clone> Layer<S> for HeadersLayer<P> {
    type Service = Headers<S, P>;

    fn layer(&self, inner: S) -> Headers<S, P> {
        Headers::new(inner, self.rules.clone())
    }
}
