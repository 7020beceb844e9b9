//! Follows redirects of upstreams (`internal_redirect_policy`), with Envoy's conditions.
//!
//! The request that the first upstream got is sent on to where its `location` leads, by a route of its own: with another host,
//! scheme and path, and its old URL in `x-envoy-original-url`. What cannot be followed goes to the client. The second round
//! passes all layers of a routed request again, and in metrics and access logs it is a request of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_LENGTH, LOCATION, TRANSFER_ENCODING},
    request::Parts,
    uri::Scheme,
};

use super::{
    Front,
    ahead::{Own, Place},
    service::{absent, forward, own_answer},
};
use crate::{
    Error,
    body::{MeshBody, ReplayEnd, RequestBody, ResponseBody},
    cluster::Count,
    layer::{CONSUMED, Exchange, Routed, buffer_limit},
    model::{InternalRedirect, Name, RedirectPredicate},
    route::{
        ConnectionFacts, Counted, Decision, Field, Forwarding, Head, HeadMut, HeadersMut,
        RouteTable,
    },
    snapshot::judge,
    telemetry::{context::RecordContext, metrics::HttpStats, record::Record},
};

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

/// What is kept of a request whose upstream may redirect it.
#[derive(Debug)]
pub(super) struct Follow<S, B> {
    pub(super) inner: S,
    front: Arc<Front>,
    table: Arc<RouteTable>,
    facts: ConnectionFacts,
    record: Arc<Record>,
    forwarding: Forwarding,
    head: Parts,
    /// `None`: there is none.
    body: Option<ReplayEnd<B>>,
    https: bool,
    /// Redirects so far: the name of the route, and that of its target.
    followed: Vec<(Name, Name)>,
}

/// Who routed the request.
pub(super) struct Router<'a> {
    pub(super) front: &'a Arc<Front>,
    pub(super) table: &'a Arc<RouteTable>,
    pub(super) facts: &'a ConnectionFacts,
    pub(super) https: bool,
}

/// What follows from a response.
pub(super) enum Step<B: 'static> {
    /// It goes to the client.
    Pass,
    /// The request goes on to another upstream.
    Again(Box<Routed<RequestBody<B>>>),
    /// It is answered here.
    Answer(Own),
}

/// Why a redirect is not followed.
#[derive(Clone, Copy)]
enum Left {
    /// The request is not whole, or cannot be sent again.
    NotWhole,
    BadLocation,
    UnsafeScheme,
    TooMany,
    NoRoute,
    Predicate,
}

impl Left {
    /// Where it is counted.
    fn count(self, stats: &HttpStats) -> Option<&Count> {
        Some(match self {
            Self::NotWhole => return None,
            Self::BadLocation => &stats.passthrough_internal_redirect_bad_location,
            Self::UnsafeScheme => &stats.passthrough_internal_redirect_unsafe_scheme,
            Self::TooMany => &stats.passthrough_internal_redirect_too_many_redirects,
            Self::NoRoute => &stats.passthrough_internal_redirect_no_route,
            Self::Predicate => &stats.passthrough_internal_redirect_predicate,
        })
    }
}

/// Where a redirect leads.
struct Target {
    request: Request<()>,
    https: bool,
    decision: Decision,
    counted: Option<Box<Counted>>,
    random: u64,
    /// The request goes on without its body.
    bare: bool,
}

impl<S, B: MeshBody> Follow<S, B> {
    /// Keeps what is needed of `routed`.
    pub(super) fn new(inner: S, router: Router<'_>, routed: &mut Routed<RequestBody<B>>) -> Self {
        let limit = buffer_limit(routed.forwarding.route());
        let kept = ReplayEnd::keep(routed.request.body_mut(), limit);
        let (head, body) =
            std::mem::replace(&mut *routed.request, Request::new(RequestBody::empty()))
                .into_parts();
        *routed.request = Request::from_parts(head.clone(), body);
        Self {
            inner,
            front: router.front.clone(),
            table: router.table.clone(),
            facts: router.facts.clone(),
            record: routed.record.clone(),
            forwarding: routed.forwarding.clone(),
            head,
            body: kept,
            https: router.https,
            followed: Vec::new(),
        }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// What follows from `response`.
    pub(super) fn step<U>(&mut self, response: &Response<ResponseBody<U>>) -> Step<B> {
        let forwarding = self.forwarding.clone();
        let Some(policy) = &forwarding.forward().config().internal_redirect else {
            return Step::Pass;
        };
        if !policy.codes.contains(&response.status().as_u16()) {
            return Step::Pass;
        }
        let stats = forwarding.cluster().map(|cluster| cluster.stats());
        let target = self.target(policy, response);
        let count = |count: Option<&Count>| count.map_or((), |count| count.add(1));
        let target = match target {
            Ok(target) => target,
            Err(left) => {
                count(stats.map(|stats| &stats.upstream_internal_redirect_failed_total));
                count(self.front.stats().and_then(|stats| left.count(stats)));
                return Step::Pass;
            }
        };
        count(stats.map(|stats| &stats.upstream_internal_redirect_succeeded_total));
        // With the new head and route already, as in Envoy.
        self.record.see_request_again(&target.request);
        self.record.late().route = target.decision.route().cloned();
        self.record.redirected(response, self.front.sink());
        self.go_on(target)
    }

    /// Where the response leads, or why it is not followed.
    fn target<U>(
        &mut self,
        policy: &InternalRedirect,
        response: &Response<ResponseBody<U>>,
    ) -> Result<Target, Left> {
        let repeatable = self.body.as_ref().is_none_or(ReplayEnd::can_repeat);
        if !self.record.is_received() || !repeatable {
            return Err(Left::NotWhole);
        }
        // One without a location is no redirect.
        let location = response.headers().get(LOCATION).ok_or(Left::NotWhole)?;
        let url = Url::parse(location).ok_or(Left::BadLocation)?;
        // A connection without TLS is plain whatever its client says.
        let https = self.https && (self.facts.tls || self.record.connection().is_none());
        if url.https != https && !policy.cross_scheme {
            return Err(Left::UnsafeScheme);
        }
        if self.followed.len() >= policy.max as usize {
            return Err(Left::TooMany);
        }
        let mut request = self.shipped();
        let original = original_url(&request, https).ok_or(Left::NotWhole)?;
        copy_headers(policy, response.headers(), request.headers_mut());
        url.apply(&mut request);
        let record = &self.record;
        let treated = self.front.treat_again(&mut request, record);
        treated.map_err(|_| Left::NotWhole)?;
        let random = crate::world::random();
        let mut head = Head::of(&request);
        head.connection = &self.facts;
        head.random = random;
        head.scheme = if url.https { b"https" } else { b"http" };
        let decision = self.table.decide(&head);
        // What they would refuse the client is told of, and asks for itself.
        let guards = self.front.guards();
        if !guards.is_empty() {
            judge(guards, &head, &decision, None).map_err(|_| Left::NotWhole)?;
        }
        let mut counted = None;
        let name = match &decision {
            Decision::Forward(forwarding) => {
                counted = forwarding.counted(&head);
                forwarding.route().name().clone()
            }
            Decision::DirectResponse(route) => route.name().clone(),
            Decision::Redirect(redirect) => redirect
                .route()
                .map_or_else(|| "".into(), |route| route.name().clone()),
            _ => return Err(Left::NoRoute),
        };
        if !self.accepts(policy, &name, https, url.https) {
            return Err(Left::Predicate);
        }
        let bare = response.status() == StatusCode::SEE_OTHER && becomes_get(&mut request);
        request.headers_mut().insert(ORIGINAL_URL, original);
        let from = self.forwarding.route().name().clone();
        self.followed.push((from, name));
        Ok(Target {
            request,
            https: url.https,
            decision,
            counted,
            random,
            bare,
        })
    }

    /// The head that the upstream got.
    fn shipped(&self) -> Request<()> {
        let mut request = Request::from_parts(self.head.clone(), ());
        for name in &CONSUMED {
            request.headers_mut().remove(name);
        }
        let late = self.record.late();
        let context = RecordContext::new(&self.record, &late);
        let keep_original = !self.front.is_quiet();
        self.forwarding
            .finalize_request(&mut request, &context, keep_original);
        request
    }

    fn accepts(&self, policy: &InternalRedirect, target: &Name, from: bool, to: bool) -> bool {
        let present = self.forwarding.route().name();
        policy.predicates.iter().all(|predicate| match predicate {
            RedirectPredicate::AllowListedRoutes(names) => names.contains(target),
            RedirectPredicate::PreviousRoutes => !self
                .followed
                .iter()
                .any(|(route, led_to)| route == present && led_to == target),
            RedirectPredicate::SafeCrossScheme => from || !to,
        })
    }

    /// Sends the request on.
    fn go_on(&mut self, target: Target) -> Step<B> {
        let Target {
            request,
            https,
            decision,
            counted,
            random,
            bare,
        } = target;
        let (head, ()) = request.into_parts();
        self.head = head.clone();
        self.https = https;
        if bare {
            self.body = None;
        }
        let body = match &self.body {
            None => RequestBody::empty(),
            Some(kept) => match kept.read() {
                Some(body) => RequestBody::replayed(body),
                None => {
                    let error = Error::from(crate::Kind::LocalReset);
                    return Step::Answer(Own::Answer(error.into()));
                }
            },
        };
        let request = Request::from_parts(head, body);
        let exchange = Exchange::new(request, self.record.clone());
        let forwarding = match decision {
            Decision::Forward(forwarding) => forwarding,
            other => {
                let met = self
                    .front
                    .meet(&exchange, Place::Own(other.route().map(|route| &**route)));
                let answer = own_answer(&self.front, &exchange, other);
                return Step::Answer(Own::new(&self.record, met, answer));
            }
        };
        self.forwarding = forwarding.clone();
        let met = absent(&self.front, &exchange, &forwarding);
        match forward(&self.front, exchange, forwarding, random, counted) {
            Ok((mut routed, _)) => {
                routed.redirected = true;
                Step::Again(Box::new(routed))
            }
            Err((record, error)) => Step::Answer(Own::new(&record, met, error.into())),
        }
    }
}

/// Makes a GET without a body of any other request but HEAD; whether it was one.
fn becomes_get(request: &mut Request<()>) -> bool {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return false;
    }
    *request.method_mut() = Method::GET;
    request.headers_mut().remove(CONTENT_LENGTH);
    request.headers_mut().remove(TRANSFER_ENCODING);
    true
}

/// `scheme://host/path?query` of a request.
fn original_url(request: &Request<()>, https: bool) -> Option<HeaderValue> {
    let mut url = if https { &b"https://"[..] } else { b"http://" }.to_vec();
    url.extend_from_slice(&request.field(&Field::Authority).unwrap_or_default());
    url.extend_from_slice(&request.field(&Field::Path)?);
    HeaderValue::from_maybe_shared(Bytes::from(url)).ok()
}

/// Headers of the redirect in the place of the request's.
fn copy_headers(policy: &InternalRedirect, from: &HeaderMap, to: &mut HeaderMap) {
    for name in &policy.copy_headers {
        HeadersMut::remove(to, name);
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// An absolute `http` or `https` URL.
struct Url {
    https: bool,
    authority: Vec<u8>,
    path: Vec<u8>,
}

impl Url {
    /// The URL of a `location`; the fragment is for the client alone.
    fn parse(location: &HeaderValue) -> Option<Self> {
        let text = location.to_str().ok()?;
        let text = text.split('#').next().unwrap_or_default();
        let url: Uri = text.parse().ok()?;
        let https = match url.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = url.authority().filter(|authority| {
            // Credentials are none of a host's business.
            !authority.host().is_empty() && !authority.as_str().contains('@')
        })?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            https,
            authority: authority.as_str().as_bytes().to_vec(),
            path: path.as_bytes().to_vec(),
        })
    }

    fn apply(&self, request: &mut Request<()>) {
        request.set_authority(&self.authority);
        request.set_path(&self.path);
        if request.uri().scheme().is_some() {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.scheme = Some(if self.https {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            });
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
    }
}
