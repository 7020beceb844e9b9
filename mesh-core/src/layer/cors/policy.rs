//! What Envoy's CORS filter does with one request.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN,
    },
};

use crate::{model::RuntimeFraction, route::CorsPolicy, telemetry::metrics::CorsStats};

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const NOTHING: HeaderValue = HeaderValue::from_static("");

/// Which policies act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acts {
    /// None: the listener has no such filter.
    #[default]
    Never,
    /// Those that are set for the filter, which the listener has disabled for all other routes.
    WhereSet,
    /// All.
    Always,
}

impl Acts {
    /// Whether `policy` acts.
    pub(crate) fn on(self, policy: &CorsPolicy) -> bool {
        match self {
            Self::Never => false,
            Self::WhereSet => policy.enables(),
            Self::Always => true,
        }
    }
}

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

/// Judges a request, and counts its origin.
pub(crate) fn judge<B>(
    policy: &CorsPolicy,
    request: &Request<B>,
    stats: Option<&CorsStats>,
) -> Verdict {
    let config = &policy.config;
    let hit = |share: &RuntimeFraction| share.default.hit(crate::world::random());
    let enabled = config.enabled.as_ref().is_none_or(hit);
    let judged = enabled || config.shadow.as_ref().is_some_and(hit);
    let origin = request.headers().get(ORIGIN);
    let Some(origin) = origin.filter(|origin| judged && !origin.is_empty()) else {
        return Verdict::Pass;
    };
    let allowed = policy.allows(origin.as_bytes());
    if let Some(stats) = stats {
        match allowed {
            true => stats.origin_valid.add(1),
            false => stats.origin_invalid.add(1),
        }
    }
    if !enabled {
        return Verdict::Pass;
    }
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .get(ACCESS_CONTROL_REQUEST_METHOD)
            .is_some_and(|method| !method.is_empty());
    let marks = || Marks {
        origin: origin.clone(),
        credentials: config.allow_credentials == Some(true),
        expose: config.expose_headers.clone(),
    };
    match (preflight, allowed) {
        (true, true) => Verdict::Preflight(answer(policy, request, Some(marks()))),
        (true, false) if config.forward_not_matching_preflights == Some(false) => {
            Verdict::Preflight(answer(policy, request, None))
        }
        (false, true) => Verdict::Mark(marks()),
        _ => Verdict::Pass,
    }
}

/// The answer to a preflight; `marks`: of an origin that is allowed. `*` stands for whatever is asked for.
fn answer<B>(policy: &CorsPolicy, request: &Request<B>, marks: Option<Marks>) -> HeaderMap {
    let config = &policy.config;
    let asked = request.headers();
    let mut headers = HeaderMap::new();
    match marks {
        Some(marks) => marks.write(&mut headers),
        None if config.allow_credentials == Some(true) => {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        None => {}
    }
    for (name, value, any) in [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            &config.allow_methods,
            Some(ACCESS_CONTROL_REQUEST_METHOD),
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            &config.allow_headers,
            Some(ACCESS_CONTROL_REQUEST_HEADERS),
        ),
        (ACCESS_CONTROL_MAX_AGE, &config.max_age, None),
    ] {
        let Some(value) = value else {
            continue;
        };
        let value = match any.filter(|_| value == "*") {
            Some(any) => asked.get(any).cloned().unwrap_or(NOTHING),
            None => value.clone(),
        };
        headers.insert(name, value);
    }
    let private = asked.get(REQUEST_PRIVATE_NETWORK) == Some(&TRUE);
    if private && config.allow_private_network == Some(true) {
        headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    headers
}
