//! Retry policies.

use envoy_types::pb::envoy::config::route::v3::{RetryPolicy, retry_policy};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::pb;
use crate::istio::api::virtual_service::HttpRetry;

/// What istiod retries on when nothing is written.
const DEFAULT_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The policy of an outbound route; nothing if retries are switched off.
///
/// With a hash policy the request has to stay with its endpoint, so used ones are not avoided.
pub(super) fn outbound(policy: Option<&HttpRetry>, hashed: bool) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(pb::uint(2)),
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        host_selection_retry_max_attempts: 5,
        retry_host_predicate: if hashed {
            Vec::new()
        } else {
            vec![previous_hosts()]
        },
        ..RetryPolicy::default()
    };
    let Some(policy) = policy else {
        return Some(out);
    };
    apply(&mut out, policy)?;
    out.per_try_timeout = policy.per_try_timeout.map(pb::duration);
    if let Some(ignore) = policy.retry_ignore_previous_hosts {
        out.retry_host_predicate = if ignore {
            vec![previous_hosts()]
        } else {
            Vec::new()
        };
    }
    if policy.retry_remote_localities == Some(true) {
        out.retry_priority = Some(previous_priorities());
    }
    Some(out)
}

/// The policy of an inbound route; nothing if retries are switched off. Without a policy of the mesh a request that never
/// reached the application is sent again.
pub(super) fn inbound(policy: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let mut out = RetryPolicy {
        num_retries: Some(pb::uint(2)),
        retry_on: "reset-before-request".to_owned(),
        ..RetryPolicy::default()
    };
    if let Some(policy) = policy {
        apply(&mut out, policy)?;
    }
    Some(out)
}

fn apply(out: &mut RetryPolicy, policy: &HttpRetry) -> Option<()> {
    let attempts = u32::try_from(policy.attempts)
        .ok()
        .filter(|attempts| *attempts > 0)?;
    out.num_retries = Some(pb::uint(attempts));
    if !policy.retry_on.is_empty() {
        let (conditions, codes) = split_conditions(&policy.retry_on);
        out.retry_on = conditions;
        if !codes.is_empty() && !out.retry_on.contains("retriable-status-codes") {
            out.retry_on.push_str(",retriable-status-codes");
        }
        out.retriable_status_codes = codes;
    }
    out.retry_back_off = policy.backoff.map(|base| retry_policy::RetryBackOff {
        base_interval: Some(pb::duration(base)),
        max_interval: None,
    });
    Some(())
}

/// Conditions by name, and status codes among them.
fn split_conditions(text: &str) -> (String, Vec<u32>) {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part
            .parse::<u16>()
            .ok()
            .and_then(|code| http::StatusCode::from_u16(code).ok())
        {
            Some(code) if code.canonical_reason().is_some() => codes.push(code.as_u16().into()),
            _ => names.push(part),
        }
    }
    (names.join(","), codes)
}

fn previous_hosts() -> retry_policy::RetryHostPredicate {
    use retry_policy::retry_host_predicate::ConfigType;
    retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pb::any(
            &PreviousHostsPredicate::default(),
        ))),
    }
}

fn previous_priorities() -> retry_policy::RetryPriority {
    use retry_policy::retry_priority::ConfigType;
    retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pb::any(
            &PreviousPrioritiesConfig {
                update_frequency: 2,
            },
        ))),
    }
}
