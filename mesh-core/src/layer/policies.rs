//! What the layers compile of a route: made once, when the first request takes the route, and kept in it.

#[cfg(feature = "net")]
use http::HeaderName;
use http::Request;

use super::{ByRoute, Carrier, PolicyOf, Routed};
#[cfg(feature = "net")]
use super::{retry::Retries, timeout::Timeouts};
use crate::route::{CorsPolicy, Forwarding};

/// Headers of a request that the layers behind the routing use up.
#[cfg(feature = "net")]
pub(crate) const CONSUMED: [HeaderName; 8] = [
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
];

/// Policies of a route that sends requests on.
#[derive(Debug)]
pub struct RoutePolicies {
    #[cfg(feature = "net")]
    timeouts: Timeouts,
    #[cfg(feature = "net")]
    retries: Option<Retries>,
}

impl RoutePolicies {
    #[cfg(feature = "net")]
    pub(crate) fn new(forwarding: &Forwarding) -> Self {
        let forward = forwarding.forward();
        let route = forwarding.route();
        let buffer = route
            .config()
            .per_request_buffer_limit
            .or(route.host().config().per_request_buffer_limit);
        let rules = forward.retry();
        let per_try = rules.and_then(|rules| rules.config.per_try_timeout);
        Self {
            timeouts: Timeouts::of(forward.config(), per_try),
            retries: rules.map(|rules| Retries::of(rules, buffer)),
        }
    }

    #[cfg(not(feature = "net"))]
    pub(crate) fn new(_forwarding: &Forwarding) -> Self {
        Self {}
    }

    /// Limits of time.
    #[cfg(feature = "net")]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Retries.
    #[cfg(feature = "net")]
    pub fn retries(&self) -> Option<&Retries> {
        self.retries.as_ref()
    }
}

/// Implements [`PolicyOf`] for routed requests by a path from the forwarding to the policy.
macro_rules! by_route {
    ($policy:ty, |$forwarding:ident| $path:expr) => {
        impl<B: 'static> PolicyOf<Routed<B>, $policy> for ByRoute {
            fn split<'a>(
                &'a self,
                request: &'a mut Routed<B>,
            ) -> (Option<&'a $policy>, &'a mut Request<B>) {
                let $forwarding = &request.forwarding;
                ($path, &mut request.request)
            }

            fn policy<'a>(&'a self, request: &'a Routed<B>) -> Option<&'a $policy> {
                let $forwarding = &request.forwarding;
                $path
            }
        }
    };
}

#[cfg(feature = "net")]
by_route!(Timeouts, |forwarding| Some(
    forwarding.policies().timeouts()
));
#[cfg(feature = "net")]
by_route!(Retries, |forwarding| forwarding.policies().retries());
by_route!(CorsPolicy, |forwarding| forwarding
    .cors()
    .map(|policy| &**policy));

impl<B: 'static> Routed<B> {
    /// The connection's record is this one's.
    pub fn is_first_attempt(&self) -> bool {
        self.attempt == 1
    }

    /// Whether a body follows the head.
    pub fn has_body(&self) -> bool
    where
        B: http_body::Body,
    {
        !self.request().body().is_end_stream()
    }
}
