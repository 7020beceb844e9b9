//! What Envoy's CORS filter does with one request.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    },
};

use crate::route::CorsPolicy;

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on, and nothing is said.
    Pass,
    /// It goes on, and its response gets these headers.
    Mark(Marks),
    /// It is a preflight that is answered with these headers.
    Preflight(HeaderMap),
}

/// Headers of a response to an allowed origin.
#[derive(Debug)]
pub(crate) struct Marks {
    origin: HeaderValue,
    credentials: bool,
    expose: Option<HeaderValue>,
}

impl Marks {
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = self.expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}

/// Judges a request.
pub(crate) fn judge<B>(policy: &CorsPolicy, request: &Request<B>) -> Verdict {
    let config = &policy.config;
    let enabled = config
        .enabled
        .as_ref()
        .is_none_or(|share| share.default.hit(rand::random()));
    let Some(origin) = request.headers().get(ORIGIN).filter(|_| enabled) else {
        return Verdict::Pass;
    };
    let allowed = policy
        .origins
        .iter()
        .any(|matcher| matcher.matches(origin.as_bytes()));
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty());
    let marks = || Marks {
        origin: origin.clone(),
        credentials: config.allow_credentials,
        expose: config.expose_headers.clone(),
    };
    match (preflight, allowed) {
        (true, true) => Verdict::Preflight(answer(policy, request, marks())),
        (true, false) if config.forward_not_matching_preflights == Some(false) => {
            Verdict::Preflight(HeaderMap::new())
        }
        (false, true) => Verdict::Mark(marks()),
        _ => Verdict::Pass,
    }
}

fn answer<B>(policy: &CorsPolicy, request: &Request<B>, marks: Marks) -> HeaderMap {
    let config = &policy.config;
    let mut headers = HeaderMap::new();
    marks.write(&mut headers);
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, &config.allow_methods),
        (ACCESS_CONTROL_ALLOW_HEADERS, &config.allow_headers),
        (ACCESS_CONTROL_MAX_AGE, &config.max_age),
    ] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    let private = request.headers().get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE);
    if private && config.allow_private_network {
        headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    headers
}
