//! Names of headers that several parts know.

use http::HeaderName;

pub(crate) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
pub(crate) const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");
pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");

// What a request asks of timeouts and retries.
pub(crate) const ALT_RESPONSE: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response");
pub(crate) const ALT_STAT_NAME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-alt-stat-name");
pub(crate) const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const HEDGE: HeaderName = HeaderName::from_static("x-envoy-hedge-on-per-try-timeout");
pub(crate) const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
pub(crate) const PER_TRY_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
pub(crate) const RETRIABLE_HEADERS: HeaderName =
    HeaderName::from_static("x-envoy-retriable-header-names");
pub(crate) const RETRIABLE_STATUSES: HeaderName =
    HeaderName::from_static("x-envoy-retriable-status-codes");
pub(crate) const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
pub(crate) const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
pub(crate) const RQ_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
pub(crate) const STREAM_DURATION: HeaderName =
    HeaderName::from_static("x-envoy-upstream-stream-duration-ms");
