//! How long a request may take, by its route and by its own headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    layer::{Scan, is_grpc},
    model::Forward,
    names::{ALT_RESPONSE, EXPECTED, PER_TRY_TIMEOUT, RQ_TIMEOUT, STREAM_DURATION},
    route::Forwarding,
    scratch,
    telemetry::{late::Asked, record::Record},
};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Limits of a route (`config.route.v3.RouteAction`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response; `None`: no limit.
    pub route: Option<Duration>,
    /// A gRPC request's `grpc-timeout` replaces `route`, at most this long; zero: any (`max_grpc_timeout`).
    pub max_grpc: Option<Duration>,
    /// Taken off `grpc-timeout` (`grpc_timeout_offset`).
    pub grpc_offset: Option<Duration>,
    /// Longest life of the stream; then `route` has no effect, as in Envoy.
    pub max_stream: Option<crate::model::MaxStreamDuration>,
    /// Nothing moves for so long; `None`: the default of the stack, zero: no limit.
    pub idle: Option<Duration>,
    /// Time for one attempt, told to the upstream as what is expected of it.
    pub per_try: Option<Duration>,
    /// `x-envoy-expected-rq-timeout-ms` of requests that change nothing; made once by [`Timeouts::of`].
    pub expected: Option<HeaderValue>,
}

/// Limits of every stream of a listener or client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Nothing moves for so long (`stream_idle_timeout`).
    pub idle: Option<Duration>,
    /// Longest life (`max_stream_duration`).
    pub max_stream: Option<Duration>,
    /// Until the whole request has arrived or its response has begun (`request_timeout`).
    pub request: Option<Duration>,
    /// What a proxy before this one expects of the request, in its `x-envoy-expected-rq-timeout-ms`, takes the place of the
    /// route's timeout (`respect_expected_rq_timeout`).
    pub respect_expected: bool,
}

/// Limits of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(super) route: Option<Duration>,
    pub(super) max_stream: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) request: Option<Duration>,
    /// A timeout of the upstream is answered with 204 (`x-envoy-upstream-rq-timeout-alt-response`).
    pub(super) alt_response: bool,
    /// What the layers behind this one have to know.
    pub(crate) asked: Option<Asked>,
}

/// Envoy's default for `RouteAction.timeout`.
const DEFAULT_ROUTE: Duration = Duration::from_secs(15);

fn some_time(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

impl Timeouts {
    /// The limits of a route, and of one attempt by its retries.
    pub fn of(route: &Forward, per_try: Option<Duration>) -> Self {
        let per_try = per_try.and_then(some_time);
        let mut this = Self {
            route: some_time(route.timeout.unwrap_or(DEFAULT_ROUTE)),
            max_grpc: route.max_grpc_timeout,
            grpc_offset: route.grpc_timeout_offset,
            max_stream: route.max_stream_duration,
            idle: route.idle_timeout,
            per_try,
            expected: None,
        };
        this.expected = expectation(this.per_try, this.base()).map(HeaderValue::from);
        this
    }

    /// The timeout of the route for the request that `record` tells of, once it has passed the layer.
    pub(crate) fn route_limit(&self, record: &Record) -> Option<Duration> {
        match &record.late().asked {
            Some(asked) => asked.route,
            None => self.base(),
        }
    }

    fn base(&self) -> Option<Duration> {
        self.route.filter(|_| self.max_stream.is_none())
    }

    /// The limits of a request, whose headers are read and, unless `quiet`, changed.
    pub(crate) fn resolve(
        &self,
        headers: &mut HeaderMap,
        scan: Scan,
        defaults: StreamLimits,
        quiet: bool,
    ) -> Resolved {
        let grpc = scan
            .has(Scan::GRPC_TIMEOUT)
            .then(|| headers.get(GRPC_TIMEOUT));
        let grpc = grpc.flatten().map(parse_grpc_timeout);
        let mut route = self.base();
        let mut own = false;
        if let Some(max) = self
            .max_grpc
            .filter(|_| self.max_stream.is_none() && is_grpc(headers))
        {
            route = self.grpc_route(grpc.flatten(), max);
            own = true;
        }
        let asks = scan.has(Scan::ENVOY);
        if asks && let Some(wanted) = wanted(headers, defaults.respect_expected) {
            route = some_time(wanted);
            own = true;
        }
        let life = asks.then(|| headers.remove(STREAM_DURATION)).flatten();
        let life = life.as_ref().and_then(parse_millis);
        let asked = (own || life.is_some()).then_some(Asked {
            route,
            life,
            alt_response: false,
        });
        let max_stream = self.stream_life(headers, grpc.flatten(), defaults);
        let per_try = asks.then(|| headers.get(PER_TRY_TIMEOUT)).flatten();
        let per_try = per_try.and_then(parse_millis);
        let own = (own || per_try.is_some())
            .then(|| expectation(per_try.map_or(self.per_try, some_time), route));
        self.tell(headers, route, own, quiet);
        Resolved {
            route,
            max_stream,
            idle: self.idle.or(defaults.idle).and_then(some_time),
            request: defaults.request.and_then(some_time),
            alt_response: asks && headers.remove(ALT_RESPONSE).is_some(),
            asked,
        }
    }

    /// What a further attempt of at most `per_try` is told of the time that is left, when `elapsed` has passed since the request
    /// arrived.
    pub(crate) fn tell_again(
        &self,
        headers: &mut HeaderMap,
        route: Option<Duration>,
        per_try: Option<Duration>,
        elapsed: Duration,
        quiet: bool,
    ) {
        let Some(expected) = expectation(per_try, route) else {
            return;
        };
        let left = route.map(|route| millis(route).saturating_sub(elapsed.as_millis() as u64));
        // Zero would be no limit at all.
        let expected = left.map_or(expected, |left| expected.min(left)).max(1);
        self.tell(headers, route, Some(Some(expected)), quiet);
    }

    /// What a copy of the request is told: it is not tried again, so that all of the time is its own.
    pub(crate) fn tell_copy(&self, headers: &mut HeaderMap, scan: Scan, quiet: bool) {
        let resolved = self.resolve(headers, scan, StreamLimits::default(), quiet);
        if let Some(route) = resolved.route.filter(|_| !quiet) {
            headers.insert(EXPECTED, millis(route).into());
        }
    }

    fn grpc_route(&self, asked: Option<Duration>, max: Duration) -> Option<Duration> {
        let mut timeout = asked.unwrap_or_default();
        if let Some(offset) = self.grpc_offset.filter(|offset| *offset < timeout) {
            timeout -= offset;
        }
        if !max.is_zero() && (timeout.is_zero() || timeout > max) {
            timeout = max;
        }
        some_time(timeout)
    }

    fn stream_life(
        &self,
        headers: &mut HeaderMap,
        asked: Option<Duration>,
        defaults: StreamLimits,
    ) -> Option<Duration> {
        let Some(policy) = self.max_stream else {
            return defaults.max_stream.and_then(some_time);
        };
        let life = match (asked, policy.grpc_timeout_header_max) {
            // A deadline of zero is one that has passed.
            (Some(asked), Some(most)) => {
                let capped = Some(most).filter(|most| !most.is_zero() && asked > *most);
                let offset = policy.grpc_timeout_header_offset.unwrap_or_default();
                capped.unwrap_or(asked).saturating_sub(offset)
            }
            _ => policy.max.or(defaults.max_stream).and_then(some_time)?,
        };
        // As in Envoy, the upstream is told whichever limit it is.
        if is_grpc(headers) {
            headers.insert(GRPC_TIMEOUT, grpc_timeout(life));
        }
        Some(life)
    }

    /// Tells the upstream how long it has: `own` milliseconds if the request has a limit of its own. Of `grpc-timeout` it is told
    /// also if `quiet`, as in Envoy.
    fn tell(
        &self,
        headers: &mut HeaderMap,
        route: Option<Duration>,
        own: Option<Option<u64>>,
        quiet: bool,
    ) {
        if self.max_grpc.is_some()
            && self.max_stream.is_none()
            && is_grpc(headers)
            && let Some(expected) = own.unwrap_or_else(|| expectation(self.per_try, route))
        {
            headers.insert(GRPC_TIMEOUT, grpc_timeout(Duration::from_millis(expected)));
        }
        if quiet {
            return;
        }
        let expected = match own {
            None => self.expected.clone(),
            Some(expected) => expected.map(HeaderValue::from),
        };
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected);
        }
    }
}

/// The timeout that a request asks for. If what is expected of it counts, the other header goes on as it came.
fn wanted(headers: &mut HeaderMap, respect_expected: bool) -> Option<Duration> {
    match headers.get(EXPECTED).filter(|_| respect_expected) {
        Some(expected) => parse_millis(expected),
        None => parse_millis(&headers.remove(RQ_TIMEOUT)?),
    }
}

/// What the upstream is told, in milliseconds: the time for one attempt, if that is shorter than the whole.
fn expectation(per_try: Option<Duration>, route: Option<Duration>) -> Option<u64> {
    let per_try = per_try.filter(|per_try| route.is_none_or(|route| *per_try < route));
    per_try.or(route).map(millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// Takes what a route asks for by headers that it adds. As in Envoy its own timeout is not among that.
pub(crate) fn take_added(headers: &mut HeaderMap, forwarding: &Forwarding, record: &Record) {
    let alt_response = headers.remove(ALT_RESPONSE).is_some();
    let life = headers.remove(STREAM_DURATION);
    let life = life.as_ref().and_then(parse_millis);
    if !alt_response && life.is_none() {
        return;
    }
    let route = forwarding.policies().timeouts().route_limit(record);
    let mut late = record.late();
    let asked = late.asked.get_or_insert_default();
    asked.route = route;
    asked.alt_response |= alt_response;
    asked.life = life.or(asked.life);
}

/// A header that holds milliseconds.
fn parse_millis(value: &HeaderValue) -> Option<Duration> {
    let millis = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// Parses `grpc-timeout`: at most eight digits and a unit; parts of a millisecond are rounded up.
fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let at = value.len().checked_sub(1)?;
    let (digits, unit) = value.to_str().ok()?.split_at_checked(at)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(match unit {
        "H" => count * 3_600_000,
        "M" => count * 60_000,
        "S" => count * 1000,
        "m" => count,
        "u" => count.div_ceil(1000),
        "n" => count.div_ceil(1_000_000),
        _ => return None,
    }))
}

/// Writes `grpc-timeout` in the smallest unit whose number has at most eight digits.
fn grpc_timeout(duration: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let millis = duration.as_millis();
    let (number, unit) = if millis <= MOST {
        (millis, 'm')
    } else if millis / 1000 <= MOST {
        (millis / 1000, 'S')
    } else {
        ((millis / 60_000).min(MOST), 'M')
    };
    scratch::display_value(format_args!("{number}{unit}"))
        .expect("digits and a letter make a header value")
}
