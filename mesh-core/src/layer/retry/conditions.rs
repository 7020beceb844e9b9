//! What is tried again: Envoy's `RetryStateImpl`, as a function of what came back.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Request, Response, StatusCode};

use super::{Retries, policy::Compiled};
use crate::{
    Error, Kind,
    model::RetryOn,
    names::{
        ALT_STAT_NAME, HEDGE, MAX_RETRIES, PER_TRY_TIMEOUT, RATE_LIMITED, RETRIABLE_HEADERS,
        RETRIABLE_STATUSES, RETRY_GRPC_ON, RETRY_ON,
    },
    route::{Field, Head, Headers as _},
    telemetry::record::grpc_status,
};

/// The conditions of one request: its policy, and what its headers add.
#[derive(Debug)]
pub(super) struct Conditions {
    pub(super) policy: Retries,
    on: RetryOn,
    pub(super) left: u32,
    pub(super) per_try: Option<Duration>,
    more: Option<Box<More>>,
    /// The request came as early data of TLS, so that 425 is for its client.
    early: bool,
}

const EARLY_DATA: HeaderName = HeaderName::from_static("early-data");

/// What few requests ask for.
#[derive(Debug, Default)]
struct More {
    codes: Vec<StatusCode>,
    headers: Vec<HeaderName>,
}

impl Conditions {
    /// The conditions for a request, whose retry headers are taken out; `None` if nothing asks for another attempt and no
    /// attempt has a limit of its own.
    pub(super) fn new<B>(
        policy: Option<&Retries>,
        request: &mut Request<B>,
        asks: bool,
    ) -> Option<Self> {
        let mut this = match policy {
            Some(policy) if asks || policy.0.acts() => Self {
                on: policy.0.on,
                left: policy.0.retries,
                per_try: policy.0.per_try,
                more: None,
                early: false,
                policy: policy.clone(),
            },
            None if asks => Self {
                on: RetryOn::default(),
                left: super::policy::DEFAULT_RETRIES,
                per_try: None,
                more: None,
                early: false,
                policy: Retries::asked(),
            },
            _ => return None,
        };
        if asks {
            this.read(request.headers_mut());
        }
        // What came before the handshake was over must not be sent so again.
        this.early =
            this.has_code(StatusCode::TOO_EARLY) && request.headers().contains_key(EARLY_DATA);
        let tests = &this.policy.0.request_headers;
        if !tests.is_empty() {
            let head = Head::of(request);
            if !tests.iter().any(|test| test.matches(&head)) {
                this.on = RetryOn::default();
            }
        }
        // One without retries still says of what it would have tried again that none was left.
        (this.is_timed() || !this.on.is_empty()).then_some(this)
    }

    /// Whether an attempt has limits of its own.
    pub(super) fn is_timed(&self) -> bool {
        self.per_try.is_some() || self.policy.0.per_try_idle.is_some()
    }

    /// An attempt that may take as long as all of them has no limit of its own.
    pub(super) fn within(&mut self, route: Option<Duration>) {
        self.per_try = self
            .per_try
            .filter(|per_try| route.is_none_or(|route| *per_try < route));
    }

    /// Longest time within an attempt in which nothing comes.
    pub(super) fn per_try_idle(&self) -> Option<Duration> {
        self.policy.0.per_try_idle
    }

    /// Whether a further attempt is ever made.
    pub(super) fn can_retry(&self) -> bool {
        !self.on.is_empty() && self.left > 0
    }

    fn read(&mut self, headers: &mut HeaderMap) {
        // Each header knows its own conditions only.
        for (name, grpc) in [(RETRY_ON, false), (RETRY_GRPC_ON, true)] {
            if let Some(value) = take(headers, name) {
                let (asked, _) = RetryOn::parse(&value);
                self.on = self.on.or(asked.only(RetryOn::GRPC, grpc));
            }
        }
        if let Some(max) = number(take(headers, MAX_RETRIES)) {
            self.left = max;
        }
        if let Some(millis) = number(take(headers, PER_TRY_TIMEOUT)) {
            self.per_try = (millis > 0).then(|| Duration::from_millis(millis.into()));
        }
        if let Some(list) = take(headers, RETRIABLE_STATUSES) {
            let codes = words(&list).filter_map(|code| code.parse::<StatusCode>().ok());
            self.more.get_or_insert_default().codes.extend(codes);
        }
        if let Some(list) = take(headers, RETRIABLE_HEADERS) {
            let names = words(&list).filter_map(|name| name.parse::<HeaderName>().ok());
            self.more.get_or_insert_default().headers.extend(names);
        }
        headers.remove(HEDGE);
        // Nothing is counted under names that requests choose.
        headers.remove(ALT_STAT_NAME);
    }

    /// Whether a response is tried again.
    pub(super) fn response<B>(&self, response: &Response<B>) -> bool {
        let status = response.status();
        let code = status.as_u16();
        let on = |condition| self.on.any(condition);
        let wanted = on(RetryOn::SERVER_ERROR) && status.is_server_error()
            || on(RetryOn::GATEWAY_ERROR) && (502..=504).contains(&code)
            || on(RetryOn::RETRIABLE_4XX) && code == 409
            || on(RetryOn::RETRIABLE_STATUS_CODES)
                && self.has_code(status)
                && !self.is_early(status)
            || on(RetryOn::RETRIABLE_HEADERS) && self.has_header(response)
            || self.grpc(response.headers());
        let limited = on(RetryOn::ENVOY_RATELIMITED);
        // What a rate limiter refused is tried again only if the policy says so. The header is looked for last, since it
        // makes no difference to most responses.
        match (wanted || limited) && response.headers().contains_key(RATE_LIMITED) {
            true => limited,
            false => wanted,
        }
    }

    /// Whether 425 says to the client, not to us, that it came too early.
    fn is_early(&self, status: StatusCode) -> bool {
        self.early && status == StatusCode::TOO_EARLY
    }

    /// Whether a response that is tried again is so without a back-off.
    pub(super) fn at_once(&self, status: StatusCode) -> bool {
        status == StatusCode::TOO_EARLY
            && self.on.any(RetryOn::RETRIABLE_STATUS_CODES)
            && self.has_code(status)
    }

    fn has_code(&self, status: StatusCode) -> bool {
        let more = self
            .more
            .as_ref()
            .is_some_and(|more| more.codes.contains(&status));
        more || self.policy.0.codes.contains(&status)
    }

    fn has_header<B>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let more = self
            .more
            .as_ref()
            .is_some_and(|more| more.headers.iter().any(|name| headers.contains_key(name)));
        more || self.policy.0.headers.iter().any(|test| match test.field() {
            Field::Header(name) => test.matches_header(name, headers),
            Field::Unknown(name) if &**name == ":status" => {
                test.matches_value(Some(response.status().as_str().as_bytes()))
            }
            _ => test.matches_value(None),
        })
    }

    /// gRPC conditions look at responses that consist of trailers only; later trailers come too late.
    fn grpc(&self, headers: &HeaderMap) -> bool {
        if !self.on.any(RetryOn::GRPC) {
            return false;
        }
        let condition = match grpc_status(headers) {
            Some(1) => RetryOn::GRPC_CANCELLED,
            Some(4) => RetryOn::GRPC_DEADLINE_EXCEEDED,
            Some(8) => RetryOn::GRPC_RESOURCE_EXHAUSTED,
            Some(13) => RetryOn::GRPC_INTERNAL,
            Some(14) => RetryOn::GRPC_UNAVAILABLE,
            _ => return false,
        };
        self.on.any(condition)
    }

    /// Whether the lack of a response is tried again.
    pub(super) fn failure(&self, error: &Error) -> bool {
        let kind = error.kind();
        let on = |condition| self.on.any(condition);
        let connect = matches!(kind, Kind::ConnectFailure | Kind::ConnectTimeout);
        let reset = connect
            || matches!(
                kind,
                Kind::ConnectionTermination
                    | Kind::RemoteReset
                    | Kind::RefusedStream
                    | Kind::UpstreamProtocol
                    | Kind::LocalReset
                    | Kind::PerTryTimeout
                    | Kind::PerTryIdleTimeout
                    | Kind::MaxDuration
            );
        if !reset {
            return false;
        }
        on(RetryOn::SERVER_ERROR)
            || on(RetryOn::GATEWAY_ERROR)
            || on(RetryOn::RESET)
            || on(RetryOn::RESET_BEFORE_REQUEST) && (connect || unsent(error))
            || on(RetryOn::CONNECT_FAILURE) && connect
            || on(RetryOn::REFUSED_STREAM) && kind == Kind::RefusedStream
    }
}

/// Whether nothing of the request was sent.
fn unsent(error: &Error) -> bool {
    #[cfg(feature = "client")]
    let lost = crate::pool::lost(error).is_some_and(|lost| !lost.sent);
    #[cfg(not(feature = "client"))]
    let lost = false;
    lost
}

impl Compiled {
    /// How long the response asks to wait, if the policy listens to that: so long at least, at most half as much more.
    pub(super) fn asked_back_off(&self, headers: &HeaderMap, random: u64) -> Option<Duration> {
        let policy = self.rate_limited.as_ref()?;
        let wait = policy.reset_headers.iter().find_map(|(name, seconds)| {
            let value: u64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            let wait = if *seconds {
                value
            } else {
                let now = crate::world::wall().duration_since(UNIX_EPOCH).ok()?;
                value.checked_sub(now.as_secs())?
            };
            let wait = Duration::from_secs(wait);
            (wait <= policy.max_interval).then_some(wait)
        })?;
        let more = u64::try_from((wait / 2).as_nanos()).unwrap_or(u64::MAX);
        (more > 0).then(|| wait + Duration::from_nanos(random % more))
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

/// Takes a header out; several lines of it are one list.
fn take(headers: &mut HeaderMap, name: HeaderName) -> Option<String> {
    let joined = headers.joined(&name)?;
    let text = String::from_utf8_lossy(&joined).into_owned();
    headers.remove(name);
    Some(text)
}

fn number(value: Option<String>) -> Option<u32> {
    value?.trim().parse().ok()
}
