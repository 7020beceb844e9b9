//! The request between the layers: with its record, and after routing with its route.

#[cfg(feature = "net")]
use std::time::Duration;
use std::{sync::Arc, time::Instant};

use http::Request;
#[cfg(feature = "net")]
use http::{HeaderMap, HeaderValue};

#[cfg(feature = "net")]
use crate::model::Priority;
use crate::{
    cluster::{Cluster, Endpoint},
    layer::{Pooled, Scan},
    route::Forwarding,
    telemetry::{clock, record::Record},
};
#[cfg(feature = "net")]
use crate::{
    layer::retry::Next,
    names::{ATTEMPT_COUNT, IS_TIMEOUT_RETRY},
    telemetry::small_number,
};

/// A request that a layer can read and change, whatever travels beside it.
pub trait Carrier {
    /// Its body.
    type Body;

    /// The request.
    fn request(&self) -> &Request<Self::Body>;

    /// The request, to change it.
    fn request_mut(&mut self) -> &mut Request<Self::Body>;

    /// What is known of it; `None` outside a stack.
    fn record(&self) -> Option<&Arc<Record>> {
        None
    }

    /// What its head had when it came.
    fn scan(&self) -> Scan {
        Scan::UNKNOWN
    }

    /// When its time began to run.
    fn began(&self) -> Instant {
        self.record()
            .map_or_else(clock::now, |record| record.started())
    }
}

impl<B> Carrier for Request<B> {
    type Body = B;

    fn request(&self) -> &Request<B> {
        self
    }

    fn request_mut(&mut self) -> &mut Request<B> {
        self
    }
}

/// A request before it is routed, and its record.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exchange<B: 'static> {
    /// The request; pooled, since all layers hand it on.
    pub request: Pooled<Request<B>>,
    /// What is known of it.
    pub record: Arc<Record>,
    /// What its head had when it came.
    pub scan: Scan,
}

impl<B: 'static> Exchange<B> {
    /// A request of which `record` tells.
    pub fn new(request: Request<B>, record: Arc<Record>) -> Self {
        Self {
            scan: Scan::of(request.headers()),
            request: request.into(),
            record,
        }
    }
}

impl<B: 'static> Carrier for Exchange<B> {
    type Body = B;

    fn request(&self) -> &Request<B> {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request<B> {
        &mut self.request
    }

    fn record(&self) -> Option<&Arc<Record>> {
        Some(&self.record)
    }
}

/// A request with its route.
#[derive(Debug)]
#[non_exhaustive]
pub struct Routed<B: 'static> {
    /// The request; pooled, since all layers hand it on.
    pub request: Pooled<Request<B>>,
    /// What is known of it.
    pub record: Arc<Record>,
    /// Route and arm.
    pub forwarding: Forwarding,
    /// The cluster that was found for it.
    pub cluster: Arc<Cluster>,
    /// The random value that decides shares and picks.
    pub random: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Endpoints to avoid.
    pub tried: Vec<Arc<Endpoint>>,
    /// How often another endpoint is looked for to avoid those.
    pub host_attempts: u32,
    /// What its head had when it came.
    pub scan: Scan,
    /// Its upstream redirected it here, so that its time begins anew.
    pub redirected: bool,
    /// Further attempts get no `x-envoy-*` header of our own.
    pub quiet: bool,
    /// Its attempts have limits of their own.
    pub timed: bool,
}

impl<B: 'static> Carrier for Routed<B> {
    type Body = B;

    fn request(&self) -> &Request<B> {
        &self.request
    }

    fn request_mut(&mut self) -> &mut Request<B> {
        &mut self.request
    }

    fn record(&self) -> Option<&Arc<Record>> {
        Some(&self.record)
    }

    fn scan(&self) -> Scan {
        self.scan
    }

    fn began(&self) -> Instant {
        if self.redirected {
            clock::now()
        } else {
            self.record.started()
        }
    }
}

/// What a [`Routed`] request has besides its `http` request.
#[cfg(feature = "net")]
#[derive(Clone, Debug)]
pub struct RoutedRest {
    record: Arc<Record>,
    forwarding: Forwarding,
    quiet: bool,
    timed: bool,
}

#[cfg(feature = "net")]
impl RoutedRest {
    /// Tells the upstream of the `next` attempt how many there were, and of the time that is left.
    fn tell(&self, headers: &mut HeaderMap, next: &Next<'_>) {
        let host = self.forwarding.route().host().config();
        if host.include_request_attempt_count {
            let count = small_number(next.attempt.into());
            headers.insert(ATTEMPT_COUNT, count);
        }
        if host.include_is_timeout_retry {
            let timed_out = if next.timed_out { "true" } else { "false" };
            headers.insert(IS_TIMEOUT_RETRY, HeaderValue::from_static(timed_out));
        }
        let timeouts = self.forwarding.policies().timeouts();
        let route = timeouts.route_limit(&self.record);
        let elapsed = self.record.since_received();
        timeouts.tell_again(headers, route, next.per_try, elapsed, self.quiet);
    }
}

#[cfg(feature = "net")]
impl<B: 'static> super::retry::Repeat for Routed<B> {
    type Rest = RoutedRest;

    fn rest(&self) -> RoutedRest {
        RoutedRest {
            record: self.record.clone(),
            forwarding: self.forwarding.clone(),
            quiet: self.quiet,
            timed: self.timed,
        }
    }

    fn record_of(rest: &RoutedRest) -> Option<&Arc<Record>> {
        Some(&rest.record)
    }

    fn again(rest: &RoutedRest, mut request: Request<B>, next: &Next<'_>) -> Option<Self> {
        let rest = rest.clone();
        rest.tell(request.headers_mut(), next);
        Some(Self {
            request: request.into(),
            record: rest.record,
            cluster: rest.forwarding.cluster()?.clone(),
            forwarding: rest.forwarding,
            random: crate::world::random(),
            attempt: next.attempt,
            tried: next.tried.to_vec(),
            host_attempts: 0,
            // A request is asked for its wishes once.
            scan: Scan::default(),
            redirected: false,
            quiet: rest.quiet,
            timed: rest.timed,
        })
    }

    fn route_limit(&self) -> Option<Duration> {
        let timeouts = self.forwarding.policies().timeouts();
        timeouts.route_limit(&self.record)
    }

    fn timed(&mut self) {
        self.timed = true;
    }

    fn budget(rest: &RoutedRest) -> Option<(Arc<Cluster>, Priority)> {
        let priority = rest.forwarding.forward().config().priority;
        Some((rest.forwarding.cluster()?.clone(), priority))
    }

    fn asks(&self) -> bool {
        self.scan.has(Scan::ENVOY)
    }

    fn avoid(&mut self, host_attempts: u32) {
        self.host_attempts = host_attempts;
    }
}
