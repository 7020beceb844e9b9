//! The router's own settings (`extensions.filters.http.router.v3.Router`).

use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;

use crate::decode::{Context, common};

/// What the router says about the connection manager.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouterSettings {
    /// `x-envoy-*` request headers are not added.
    pub(crate) suppress_envoy_headers: bool,
    /// What a request is expected to take at most limits it.
    pub(crate) respect_expected_rq_timeout: bool,
}

pub(super) fn router(cx: &mut Context, value: &Router) -> RouterSettings {
    let Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    cx.ignored(
        "dynamic_stats",
        !common::bool_of(dynamic_stats.as_ref(), true),
    );
    cx.ignored("start_child_span", *start_child_span);
    cx.ignored("upstream_log", !upstream_log.is_empty());
    cx.ignored("upstream_log_options", upstream_log_options.is_some());
    cx.unsupported("strict_check_headers", !strict_check_headers.is_empty());
    cx.ignored(
        "suppress_grpc_request_failure_code_stats",
        *suppress_grpc_request_failure_code_stats,
    );
    cx.unsupported("upstream_http_filters", !upstream_http_filters.is_empty());
    cx.ignored(
        "reject_connect_request_early_data",
        reject_connect_request_early_data.is_some(),
    );
    RouterSettings {
        suppress_envoy_headers: *suppress_envoy_headers,
        respect_expected_rq_timeout: *respect_expected_rq_timeout,
    }
}
