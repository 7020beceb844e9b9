//! Where changes of headers come from.

use std::sync::Arc;

use http::{HeaderName, Request, Response};

use super::{Later, Rules};
use crate::{
    body::ResponseBody,
    layer::{Routed, Scan},
    model::HeaderMutations,
    names::ATTEMPT_COUNT,
    route::{Forwarding, Mutations, format::FormatError},
    telemetry::{context::RecordContext, small_number},
};

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
    fn response<U>(self, response: &mut Response<ResponseBody<U>>) {
        let headers = response.headers_mut();
        self.0.response.apply_response(headers, &());
    }
}

/// The changes of the request's route.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteRules {
    /// No `x-envoy-*` header of our own is added (`suppress_envoy_headers`).
    pub quiet: bool,
}

impl<B: 'static> Rules<Routed<B>> for RouteRules {
    type Later = RouteLater;

    fn request(&self, routed: &mut Routed<B>) -> RouteLater {
        let Routed {
            request,
            forwarding,
            record,
            attempt,
            scan,
            quiet,
            ..
        } = routed;
        *quiet = self.quiet;
        let request = &mut **request;
        let host = forwarding.route().host().config();
        if host.include_request_attempt_count {
            let count = small_number(u64::from(*attempt));
            request.headers_mut().insert(ATTEMPT_COUNT, count);
        }
        #[cfg(feature = "net")]
        if scan.has(Scan::CONNECT_PORT) {
            restore_port(request, record);
        }
        if !forwarding.is_plain() {
            let late = record.late();
            let context = RecordContext::new(record, &late).before(*attempt);
            forwarding.finalize_request(request, &context, !self.quiet);
            drop(late);
            record.see_request_again(request);
            if forwarding.arm().asks {
                // What a route adds asks for retries as what the client sent.
                scan.add(Scan::ENVOY);
                #[cfg(feature = "net")]
                crate::layer::timeout::take_added(request.headers_mut(), forwarding, record);
            }
        }
        let changes = !forwarding.is_response_plain() || host.include_attempt_count_in_response;
        RouteLater {
            quiet: self.quiet,
            forwarding: changes.then(|| forwarding.clone()),
        }
    }
}

/// A CONNECT is routed without the port that the listener took off, and sent on with it.
#[cfg(feature = "net")]
fn restore_port<B>(request: &mut Request<B>, record: &crate::telemetry::record::Record) {
    use crate::route::{Field, HeadMut as _, host};

    let Some(port) = record.late().connect_port else {
        return;
    };
    let field = request.field(&Field::Authority);
    if let Some(authority) = field.filter(|authority| host::port_start(authority).is_none()) {
        let whole = [&*authority, format!(":{port}").as_bytes()].concat();
        request.set_authority(&whole);
        record.see_request_again(request);
    }
}

/// What is left of a route for the response.
#[derive(Debug)]
pub struct RouteLater {
    quiet: bool,
    /// Only if it changes something.
    forwarding: Option<Forwarding>,
}

impl Later for RouteLater {
    fn response<U>(self, response: &mut Response<ResponseBody<U>>) {
        // Only what came through `admit` has a record: there is no service time to tell of other responses.
        let Some(record) = response.body_mut().take_record() else {
            return;
        };
        let status = response.status();
        let headers = response.headers_mut();
        if !self.quiet
            && let Some(taken) = record.service_time()
        {
            headers.insert(SERVICE_TIME, small_number(taken.as_millis() as u64));
        }
        let Some(forwarding) = &self.forwarding else {
            return;
        };
        let mut late = record.late();
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
            forwarding.finalize_response(headers, &RecordContext::new(&record, &late));
        }
    }
}
