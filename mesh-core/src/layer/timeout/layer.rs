use tower_layer::Layer;

use super::{StreamLimits, Timeout, Timeouts};
use crate::layer::{Fixed, Standalone};

/// Makes [`Timeout`] services.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimeoutLayer<P> {
    policy: P,
    defaults: StreamLimits,
    quiet: bool,
}

impl<P> TimeoutLayer<P> {
    /// Limits as `policy` says, else `defaults`.
    pub fn new(policy: P, defaults: StreamLimits) -> Self {
        Self {
            policy,
            defaults,
            quiet: false,
        }
    }

    /// Sends no `x-envoy-expected-rq-timeout-ms` (`suppress_envoy_headers`).
    #[must_use]
    pub fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }
}

impl TimeoutLayer<Fixed<Timeouts>> {
    /// The same limits for every request, in any tower stack.
    pub fn fixed(policy: Timeouts) -> Standalone<Self> {
        Standalone(Self::new(Fixed(policy), StreamLimits::default()).quiet(true))
    }
}

impl<S, P: Clone> Layer<S> for TimeoutLayer<P> {
    type Service = Timeout<S, P>;

    fn layer(&self, inner: S) -> Timeout<S, P> {
        Timeout::new(inner, self.policy.clone(), self.defaults, self.quiet)
    }
}
