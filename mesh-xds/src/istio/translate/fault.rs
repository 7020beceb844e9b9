//! Faults and cross-origin policies of a route.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{
    FaultDelay, fault_delay::FaultDelaySecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{
    FaultAbort, HttpFault, fault_abort::ErrorType,
};

use super::pb;
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service as api;

/// The fault of a route; nothing when neither a delay nor an abort is left.
pub(super) fn fault(fault: &api::HttpFaultInjection) -> Option<HttpFault> {
    let out = HttpFault {
        delay: fault.delay.as_ref().and_then(delay),
        abort: fault.abort.as_ref().and_then(abort),
        ..HttpFault::default()
    };
    (out.delay.is_some() || out.abort.is_some()).then_some(out)
}

fn delay(delay: &api::Delay) -> Option<FaultDelay> {
    let percentage = match &delay.percentage {
        Some(percentage) => pb::percent(percentage.value.0),
        None => pb::whole_percent(u32::try_from(delay.percent).unwrap_or_default()),
    };
    Some(FaultDelay {
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(pb::duration(
            delay.fixed_delay?,
        ))),
        percentage: Some(percentage),
    })
}

fn abort(abort: &api::Abort) -> Option<FaultAbort> {
    let error = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => ErrorType::HttpStatus(u32::try_from(status).ok()?),
        (None, Some(name)) => {
            let code = api::GRPC_STATUSES.iter().position(|known| known == name)?;
            ErrorType::GrpcStatus(u32::try_from(code).ok()?)
        }
        (None, None) => return None,
    };
    Some(FaultAbort {
        error_type: Some(error),
        percentage: abort
            .percentage
            .as_ref()
            .map(|percentage| pb::percent(percentage.value.0)),
        ..FaultAbort::default()
    })
}

/// The cross-origin policy of a route.
pub(super) fn cors(policy: &api::CorsPolicy) -> CorsPolicy {
    let exact = |origin: &String| pb::string_match(&StringMatch::Exact(origin.clone()));
    let origins = if policy.allow_origins.is_empty() {
        policy.allow_origin.iter().filter_map(exact).collect()
    } else {
        policy
            .allow_origins
            .iter()
            .filter_map(pb::string_match)
            .collect()
    };
    let forward = policy.unmatched_preflights != api::UnmatchedPreflights::Ignore;
    CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy
            .max_age
            .map(|age| age.as_secs().to_string())
            .unwrap_or_default(),
        allow_credentials: policy.allow_credentials.map(pb::boolean),
        filter_enabled: Some(pb::runtime(pb::whole_percent(100))),
        forward_not_matching_preflights: Some(pb::boolean(forward)),
        ..CorsPolicy::default()
    }
}
