//! The request between the layers: with its record, and after routing with its route.

use std::{sync::Arc, time::Instant};

use http::Request;

#[cfg(feature = "net")]
use crate::model::Priority;
use crate::{
    cluster::{Cluster, Endpoint},
    layer::{Pooled, Scan},
    route::Forwarding,
    telemetry::{clock, record::Record},
};
#[cfg(feature = "net")]
use crate::{names::ATTEMPT_COUNT, telemetry::small_number};

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
    cluster: Arc<Cluster>,
}

#[cfg(feature = "net")]
impl<B: 'static> super::retry::Repeat for Routed<B> {
    type Rest = RoutedRest;

    fn rest(&self) -> RoutedRest {
        RoutedRest {
            record: self.record.clone(),
            forwarding: self.forwarding.clone(),
            cluster: self.cluster.clone(),
        }
    }

    fn again(
        rest: &RoutedRest,
        mut request: Request<B>,
        attempt: u32,
        tried: &[Arc<Endpoint>],
    ) -> Self {
        let rest = rest.clone();
        if rest
            .forwarding
            .route()
            .host()
            .config()
            .include_request_attempt_count
        {
            let count = small_number(attempt.into());
            request.headers_mut().insert(ATTEMPT_COUNT, count);
        }
        Self {
            request: request.into(),
            record: rest.record,
            forwarding: rest.forwarding,
            cluster: rest.cluster,
            random: rand::random(),
            attempt,
            tried: tried.to_vec(),
            host_attempts: 0,
            // A request is asked for its wishes once.
            scan: Scan::default(),
            redirected: false,
        }
    }

    fn budget(rest: &RoutedRest) -> Option<(Arc<Cluster>, Priority)> {
        let priority = rest.forwarding.forward().config().priority;
        Some((rest.cluster.clone(), priority))
    }

    fn asks(&self) -> bool {
        self.scan.has(Scan::ENVOY)
    }

    fn avoid(&mut self, host_attempts: u32) {
        self.host_attempts = host_attempts;
    }
}
