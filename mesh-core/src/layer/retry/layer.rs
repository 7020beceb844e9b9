use tower_layer::Layer;

use super::{Retries, Retry};
use crate::layer::{Fixed, Standalone};

/// Makes [`Retry`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct RetryLayer<P> {
    policy: P,
}

impl<P> RetryLayer<P> {
    /// Retries as `policy` says.
    pub fn new(policy: P) -> Self {
        Self { policy }
    }
}

impl RetryLayer<Fixed<Retries>> {
    /// The same retries for every request, in any tower stack. A clone of the inner service makes the further attempts.
    pub fn fixed(policy: Retries) -> Standalone<Self> {
        Standalone(Self::new(Fixed(policy)))
    }
}

impl<S, P: Clone> Layer<S> for RetryLayer<P> {
    type Service = Retry<S, P>;

    fn layer(&self, inner: S) -> Retry<S, P> {
        Retry::new(inner, self.policy.clone())
    }
}
