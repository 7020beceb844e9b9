//! What the layers compile of a route: made once, when the first request takes the route, and kept in it.

#[cfg(feature = "net")]
use http::HeaderName;
use http::Request;

use super::{ByRoute, PolicyOf, Routed};
#[cfg(feature = "net")]
use super::{retry::Retries, timeout::Timeouts};
use crate::route::{CorsPolicy, Forwarding};
#[cfg(feature = "net")]
use crate::{body::BUFFER_LIMIT, names, route::RouteEntry};

/// Headers of a request that the layers behind the routing use up.
#[cfg(feature = "net")]
pub(crate) const CONSUMED: [HeaderName; 11] = [
    names::RQ_TIMEOUT,
    names::PER_TRY_TIMEOUT,
    names::RETRY_ON,
    names::RETRY_GRPC_ON,
    names::MAX_RETRIES,
    names::RETRIABLE_STATUSES,
    names::RETRIABLE_HEADERS,
    names::HEDGE,
    names::ALT_STAT_NAME,
    names::ALT_RESPONSE,
    names::STREAM_DURATION,
];

/// Bytes of a request body that may be kept for another attempt.
#[cfg(feature = "net")]
pub(crate) fn buffer_limit(route: &RouteEntry) -> u64 {
    let host = route.host().config();
    let limit = route.config().per_request_buffer_limit;
    let limit = limit.or(host.per_request_buffer_limit);
    limit.unwrap_or(BUFFER_LIMIT)
}

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
        let buffer = buffer_limit(forwarding.route());
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
