//! The router's own settings (`extensions.filters.http.router.v3.Router`).

use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;

use crate::decode::{
    Context, common,
    set::{ignored, unsupported},
};

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
    ignored!(cx; start_child_span, upstream_log, upstream_log_options, suppress_grpc_request_failure_code_stats,
        reject_connect_request_early_data);
    unsupported!(cx; strict_check_headers, upstream_http_filters);
    RouterSettings {
        suppress_envoy_headers: *suppress_envoy_headers,
        respect_expected_rq_timeout: *respect_expected_rq_timeout,
    }
}
