//! Where changes of headers come from.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, StatusCode};

use super::{Later, Rules};
use crate::{
    layer::Routed,
    model::HeaderMutations,
    route::{Forwarding, Mutations, format::FormatError},
    telemetry::{context::RecordContext, record::Record, small_number},
};

const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// Changes that are the same for every request. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules(Arc<Compiled>);

#[derive(Debug, Default)]
struct Compiled {
    request: Mutations,
    response: Mutations,
}

impl HeaderRules {
    /// Compiles changes.
    ///
    /// # Errors
    ///
    /// [`FormatError`] of the first value that does not parse.
    pub fn new(changes: &HeaderMutations) -> Result<Self, FormatError> {
        let compile = |remove, add| Mutations::new(&[(remove, add)]).map_err(|(_, _, error)| error);
        Ok(Self(Arc::new(Compiled {
            request: compile(&changes.request_remove[..], &changes.request_add[..])?,
            response: compile(&changes.response_remove[..], &changes.response_add[..])?,
        })))
    }
}

impl<B> Rules<Request<B>> for HeaderRules {
    type Later = Self;

    fn request(&self, request: &mut Request<B>) -> Self {
        self.0.request.apply_request(request, &());
        self.clone()
    }
}

impl Later for HeaderRules {
    fn response(self, _status: StatusCode, headers: &mut HeaderMap) {
        self.0.response.apply_response(headers, &());
    }
}

/// The changes of the request's route.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteRules {
    /// No `x-envoy-*` header of our own is added (`suppress_envoy_headers`).
    pub quiet: bool,
}

impl<B> Rules<Routed<B>> for RouteRules {
    type Later = RouteLater;

    fn request(&self, routed: &mut Routed<B>) -> RouteLater {
        let Routed {
            request,
            forwarding,
            record,
            attempt,
            ..
        } = routed;
        if !forwarding.is_plain() {
            let late = record.late();
            let context = RecordContext::new(record, &late).before(*attempt);
            forwarding.finalize_request(request, &context, !self.quiet);
            drop(late);
            record.see_request_again(request);
        }
        let host = forwarding.route().host().config();
        if host.include_request_attempt_count {
            let count = small_number(u64::from(*attempt));
            request.headers_mut().insert(ATTEMPT_COUNT, count);
        }
        let changes = !forwarding.is_response_plain() || host.include_attempt_count_in_response;
        RouteLater {
            quiet: self.quiet,
            record: record.clone(),
            forwarding: changes.then(|| forwarding.clone()),
        }
    }
}

/// What is left of a route for the response.
#[derive(Debug)]
pub struct RouteLater {
    quiet: bool,
    record: Arc<Record>,
    /// Only if it changes something.
    forwarding: Option<Forwarding>,
}

impl Later for RouteLater {
    fn response(self, status: StatusCode, headers: &mut HeaderMap) {
        let mut late = self.record.late();
        if !self.quiet
            && let Some(began) = late.response_began
        {
            let taken = began.saturating_sub(late.request_received.unwrap_or_default());
            headers.insert(SERVICE_TIME, small_number(taken.as_millis() as u64));
        }
        let Some(forwarding) = &self.forwarding else {
            return;
        };
        if forwarding
            .route()
            .host()
            .config()
            .include_attempt_count_in_response
        {
            headers.insert(ATTEMPT_COUNT, small_number(late.attempts.into()));
        }
        if !forwarding.is_response_plain() {
            late.status = status.as_u16();
            forwarding.finalize_response(headers, &RecordContext::new(&self.record, &late));
        }
    }
}
