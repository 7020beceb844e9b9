//! Policies for traffic: timeouts, retries, faults, mirrors, CORS, hashes, limits.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    ClusterChoice, Fraction, HeaderMatcher, Metadata, Name, Regex, RuntimeFraction, StringMatcher,
};

/// When and how a request is tried again (`config.route.v3.RetryPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Conditions.
    pub on: RetryOn,
    /// Retries after the first attempt; default 1, Istio 2.
    pub retries: u32,
    /// Limit of one attempt; `None`: the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// Nothing moves in one attempt for so long.
    pub per_try_idle_timeout: Option<Duration>,
    /// Codes for `retriable-status-codes`.
    pub codes: Vec<StatusCode>,
    /// Response headers for `retriable-headers`.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests with these headers are tried again (`retriable_request_headers`).
    pub request_headers: Vec<HeaderMatcher>,
    /// First back-off; default 25 ms.
    pub base_interval: Option<Duration>,
    /// Longest back-off; default 10 × base.
    pub max_interval: Option<Duration>,
    /// Back-off that the response asks for.
    pub rate_limited: Option<RateLimitedBackOff>,
    /// Endpoints that were tried are avoided (`previous_hosts`).
    pub avoid_previous_hosts: bool,
    /// Canary endpoints are avoided (`omit_canary_hosts`).
    pub omit_canary_hosts: bool,
    /// Endpoints with all of this metadata in `envoy.lb` are avoided (`omit_host_metadata`).
    pub omit_host_metadata: Metadata,
    /// How often another endpoint is picked to avoid a previous one; default 1, Istio 5.
    pub host_selection_attempts: u32,
    /// Priorities that were tried are avoided, updated every so many attempts (`previous_priorities`).
    pub previous_priorities: Option<u32>,
}

impl Default for RetryPolicy {
    /// Envoy's defaults, and no condition.
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            codes: Vec::new(),
            headers: Vec::new(),
            request_headers: Vec::new(),
            base_interval: None,
            max_interval: None,
            rate_limited: None,
            avoid_previous_hosts: false,
            omit_canary_hosts: false,
            omit_host_metadata: Metadata::default(),
            host_selection_attempts: 1,
            previous_priorities: None,
        }
    }
}

/// Back-off that the response asks for (`RateLimitedRetryBackOff`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitedBackOff {
    /// Header and whether it holds seconds (`true`) or a Unix time (`false`).
    pub reset_headers: Vec<(HeaderName, bool)>,
    /// Longest; default 300 s.
    pub max_interval: Duration,
}

/// Conditions for a retry (`retry_on`, `x-envoy-retry-on`, `x-envoy-retry-grpc-on`), a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn(u32);

impl RetryOn {
    /// Any 5xx, or no answer.
    pub const SERVER_ERROR: Self = Self(1);
    /// 502, 503, 504.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// No answer at all.
    pub const RESET: Self = Self(1 << 2);
    /// No answer, and the request was not sent.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// No connection.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `x-envoy-ratelimited` is not retried unless asked.
    pub const ENVOY_RATELIMITED: Self = Self(1 << 5);
    /// 409.
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    /// REFUSED_STREAM.
    pub const REFUSED_STREAM: Self = Self(1 << 7);
    /// Listed status codes.
    pub const RETRIABLE_STATUS_CODES: Self = Self(1 << 8);
    /// Listed response headers.
    pub const RETRIABLE_HEADERS: Self = Self(1 << 9);
    /// gRPC CANCELLED (1).
    pub const GRPC_CANCELLED: Self = Self(1 << 10);
    /// gRPC DEADLINE_EXCEEDED (4).
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 11);
    /// gRPC INTERNAL (13).
    pub const GRPC_INTERNAL: Self = Self(1 << 12);
    /// gRPC RESOURCE_EXHAUSTED (8).
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 13);
    /// gRPC UNAVAILABLE (14).
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 14);
    /// HTTP/3 connection failures after which the next attempt uses TCP.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);
    /// All conditions of gRPC.
    pub const GRPC: Self = Self::GRPC_CANCELLED
        .or(Self::GRPC_DEADLINE_EXCEEDED)
        .or(Self::GRPC_INTERNAL)
        .or(Self::GRPC_RESOURCE_EXHAUSTED)
        .or(Self::GRPC_UNAVAILABLE);

    const NAMES: [(&'static str, Self); 16] = [
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("envoy-ratelimited", Self::ENVOY_RATELIMITED),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::RETRIABLE_STATUS_CODES),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        (
            "http3-post-connect-failure",
            Self::HTTP3_POST_CONNECT_FAILURE,
        ),
    ];

    /// Parses a comma-separated list. Unknown words are returned apart; the caller lists or refuses them.
    pub fn parse(text: &str) -> (Self, Vec<&str>) {
        let mut on = Self::default();
        let mut unknown = Vec::new();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match Self::NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, bit)) => on = on.or(*bit),
                None => unknown.push(word),
            }
        }
        (on, unknown)
    }

    /// Whether one of the bits of `other` is set.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of `other` only, or all but those.
    #[must_use]
    pub const fn only(self, other: Self, wanted: bool) -> Self {
        Self(self.0 & if wanted { other.0 } else { !other.0 })
    }

    /// Whether no condition is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Fault injection (`extensions.filters.http.fault.v3.HTTPFault`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Delay before the request goes on.
    pub delay: Option<FaultDelay>,
    /// Answer in the place of the upstream.
    pub abort: Option<FaultAbort>,
    /// Only requests with all of these.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests to this cluster; empty: any (`upstream_cluster`).
    pub upstream_cluster: Name,
    /// Only requests from these nodes (`x-envoy-downstream-service-node`).
    pub downstream_nodes: Vec<Name>,
    /// Most faults at one time; `None`: no limit.
    pub max_active_faults: Option<u32>,
    /// Response bandwidth.
    pub response_rate_limit: Option<FaultRateLimit>,
}

/// The delay of a [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultDelay {
    /// `None`: the header `x-envoy-fault-delay-request` says it in milliseconds.
    pub fixed: Option<Duration>,
    /// Share of requests.
    pub percentage: Fraction,
}

/// The abort of a [`Fault`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultAbort {
    /// What is answered.
    pub with: AbortWith,
    /// Share of requests.
    pub percentage: Fraction,
}

/// The answer of a [`FaultAbort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AbortWith {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status, as trailers-only response.
    Grpc(u32),
    /// The header `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says it.
    Header,
}

/// Bandwidth of responses (`FaultRateLimit`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRateLimit {
    /// KiB a second; `None`: the header `x-envoy-fault-throughput-response` says it.
    pub kibps: Option<u64>,
    /// Share of requests.
    pub percentage: Fraction,
}

/// A copy of the request for another cluster; its answer is dropped (`RequestMirrorPolicy`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Where to.
    pub cluster: ClusterChoice,
    /// Share of requests.
    pub fraction: RuntimeFraction,
    /// `-shadow` is not appended to the authority (`disable_shadow_host_suffix_append`).
    pub keep_host: bool,
    /// Authority of the copy (`host_rewrite_literal`).
    pub host_rewrite: Option<Name>,
    /// Changes of the copy's headers, one after the other (`request_headers_mutations`).
    pub headers: Vec<super::HeaderMutations>,
}

/// Cross-origin resource sharing (`extensions.filters.http.cors.v3.CorsPolicy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`.
    pub allow_methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub allow_headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub expose_headers: Option<HeaderValue>,
    /// `access-control-max-age`, seconds.
    pub max_age: Option<HeaderValue>,
    /// `access-control-allow-credentials`; `None`: no, unless a more general level says so.
    pub allow_credentials: Option<bool>,
    /// Share of requests on which it acts; `None`: all.
    pub enabled: Option<RuntimeFraction>,
    /// Share of the others whose origins are counted as if it acted; `None`: none.
    pub shadow: Option<RuntimeFraction>,
    /// A preflight from an origin that is not allowed goes to the upstream (default) or is answered here.
    pub forward_not_matching_preflights: Option<bool>,
    /// `access-control-allow-private-network` is answered (`allow_private_network_access`); `None` as above.
    pub allow_private_network: Option<bool>,
}

impl Cors {
    /// What this says, and for the rest what `general` says; on which requests it acts this alone decides.
    #[must_use]
    pub fn or(mut self, general: &Self) -> Self {
        if self.allow_origins.is_empty() {
            self.allow_origins.clone_from(&general.allow_origins);
        }
        for (own, other) in [
            (&mut self.allow_methods, &general.allow_methods),
            (&mut self.allow_headers, &general.allow_headers),
            (&mut self.expose_headers, &general.expose_headers),
            (&mut self.max_age, &general.max_age),
        ] {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        for (own, other) in [
            (&mut self.allow_credentials, general.allow_credentials),
            (
                &mut self.forward_not_matching_preflights,
                general.forward_not_matching_preflights,
            ),
            (
                &mut self.allow_private_network,
                general.allow_private_network,
            ),
        ] {
            *own = own.or(other);
        }
        self
    }
}

/// One source of a request's hash (`RouteAction.HashPolicy`). In the model now; acts with the hashing pickers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Later policies are skipped if this one gave a hash.
    pub terminal: bool,
}

/// What a [`HashPolicy`] hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashSource {
    /// A header by its name in small letters, which may be `:path` or another pseudo header, with an optional rewrite.
    Header(Name, Option<(Regex, Name)>),
    /// A cookie; made when absent if `ttl` is set.
    Cookie {
        /// Its name.
        name: Name,
        /// `None`: never made; zero: a session cookie.
        ttl: Option<Duration>,
        /// Its path.
        path: Name,
        /// Further attributes.
        attributes: Vec<(Name, Name)>,
    },
    /// The peer's IP address.
    SourceIp,
    /// A query parameter.
    Query(Name),
    /// A key of the filter state.
    FilterState(Name),
}

/// Limits of a cluster for one priority (`CircuitBreakers.Thresholds`). They hold for the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Upstream connections; default 1,024.
    pub max_connections: u32,
    /// Requests that wait for a connection; default 1,024.
    pub max_pending_requests: u32,
    /// Requests in flight; default 1,024.
    pub max_requests: u32,
    /// Retries in flight; default 3. Ignored if there is a budget.
    pub max_retries: u32,
    /// Retries as a share of the requests in flight.
    pub retry_budget: Option<RetryBudget>,
    /// `remaining` gauges are published.
    pub track_remaining: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// Retries as a share of the requests in flight (`RetryBudget`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Hundredths of a per cent of pending and active requests; default 2,000 (20 %).
    pub basis_points: u32,
    /// Always allowed; default 3.
    pub min_concurrency: u32,
}
