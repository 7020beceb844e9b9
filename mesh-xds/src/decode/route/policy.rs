//! Policies that routes and virtual hosts share: retries, mirrors, CORS, hashes.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        common::mutation_rules::v3::{HeaderMutation, header_mutation},
        route::v3::{
            self as proto,
            cors_policy::EnabledSpecifier,
            retry_policy::{
                RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
                RetryPriority, retry_host_predicate, retry_priority,
            },
            route_action::{HashPolicy as ProtoHash, RequestMirrorPolicy, hash_policy},
        },
    },
    extensions::{
        filters::http::cors::v3::CorsPolicy,
        retry::{
            host::omit_host_metadata::v3::OmitHostMetadataConfig,
            priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
    },
};
use http::StatusCode;
use mesh_core::model::{
    ClusterChoice, Cors, Fraction, HashPolicy, HashSource, HeaderMutations, Mirror, Name,
    RateLimitedBackOff, RetryOn, RetryPolicy, RuntimeFraction,
};

use super::forward::{self, substitution};
use crate::decode::{
    Context,
    common::{self, some_duration},
    context::Typed,
    filter, header, matcher,
    set::ignored,
};

pub(super) fn retry(cx: &mut Context, value: Option<&proto::RetryPolicy>) -> Option<RetryPolicy> {
    let value = value?;
    Some(cx.field("retry_policy", |cx| retry_policy(cx, value)))
}

fn retry_policy(cx: &mut Context, value: &proto::RetryPolicy) -> RetryPolicy {
    let proto::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        per_try_idle_timeout,
        retry_priority,
        retry_host_predicate,
        retry_options_predicates,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        rate_limited_retry_back_off,
        retriable_headers,
        retriable_request_headers,
        refresh_cluster_on_retry,
    } = value;
    let (on, unknown) = RetryOn::parse(retry_on);
    for word in unknown {
        cx.note(
            "retry_on",
            format_args!("ignored: unknown condition {word:?}"),
        );
    }
    ignored!(cx; retry_options_predicates, refresh_cluster_on_retry, retry_priority);
    let mut policy = RetryPolicy {
        on,
        retries: num_retries.as_ref().map_or(1, |retries| retries.value),
        per_try_timeout: some_duration(cx, "per_try_timeout", per_try_timeout.as_ref()),
        per_try_idle_timeout: some_duration(
            cx,
            "per_try_idle_timeout",
            per_try_idle_timeout.as_ref(),
        ),
        codes: cx.each("retriable_status_codes", retriable_status_codes, status),
        headers: cx.each("retriable_headers", retriable_headers, matcher::header),
        request_headers: cx.each(
            "retriable_request_headers",
            retriable_request_headers,
            matcher::header,
        ),
        host_selection_attempts: u32::try_from((*host_selection_retry_max_attempts).max(1))
            .unwrap_or(u32::MAX),
        ..RetryPolicy::default()
    };
    if let Some(back_off) = retry_back_off {
        cx.field("retry_back_off", |cx| {
            self::back_off(cx, back_off, &mut policy)
        });
    }
    policy.rate_limited = rate_limited_retry_back_off
        .as_ref()
        .and_then(|value| cx.field("rate_limited_retry_back_off", |cx| rate_limited(cx, value)));
    policy.previous_priorities = retry_priority
        .as_ref()
        .and_then(|value| cx.field("retry_priority", |cx| priority(cx, value)));
    predicates(cx, retry_host_predicate, &mut policy);
    policy
}

fn predicates(cx: &mut Context, values: &[RetryHostPredicate], policy: &mut RetryPolicy) {
    for (index, value) in values.iter().enumerate() {
        cx.item("retry_host_predicate", index, |cx| {
            predicate(cx, value, policy);
        });
    }
}

fn status(cx: &mut Context, code: &u32) -> Option<StatusCode> {
    let status = u16::try_from(*code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    if status.is_none() {
        cx.note("", format_args!("ignored: {code} is no HTTP status"));
    }
    status
}

fn back_off(cx: &mut Context, value: &RetryBackOff, policy: &mut RetryPolicy) {
    policy.base_interval = some_duration(cx, "base_interval", value.base_interval.as_ref());
    policy.max_interval = some_duration(cx, "max_interval", value.max_interval.as_ref());
    // Both count in whole milliseconds, of which there is at least one.
    let whole = |interval: Duration| interval.as_millis().max(1);
    match (policy.base_interval, policy.max_interval) {
        (None, _) => cx.reject("base_interval", "must be set"),
        (Some(base), Some(max)) if whole(max) < whole(base) => {
            cx.reject("max_interval", "must not be less than base_interval");
        }
        _ => {}
    }
}

fn rate_limited(cx: &mut Context, value: &RateLimitedRetryBackOff) -> Option<RateLimitedBackOff> {
    let RateLimitedRetryBackOff {
        reset_headers,
        max_interval,
    } = value;
    if reset_headers.is_empty() {
        cx.reject("reset_headers", "must not be empty");
    }
    let reset_headers = cx.each("reset_headers", reset_headers, |cx, value| {
        let seconds = value.format == ResetHeaderFormat::Seconds as i32;
        header::name(cx, "name", &value.name).map(|name| (name, seconds))
    });
    Some(RateLimitedBackOff {
        reset_headers,
        max_interval: some_duration(cx, "max_interval", max_interval.as_ref())
            .unwrap_or(Duration::from_secs(300)),
    })
}

fn priority(cx: &mut Context, value: &RetryPriority) -> Option<u32> {
    const KNOWN: &str =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    let Some(retry_priority::ConfigType::TypedConfig(any)) = &value.config_type else {
        cx.reject("typed_config", "must be set");
        return None;
    };
    let typed = cx.field("typed_config", |cx| cx.typed(any))?;
    if typed.name != KNOWN {
        cx.reject(
            "",
            format_args!("retry priority {} is not supported", value.name),
        );
        return None;
    }
    let config: PreviousPrioritiesConfig = cx.message(&typed)?;
    u32::try_from(config.update_frequency).ok()
}

fn predicate(cx: &mut Context, value: &RetryHostPredicate, policy: &mut RetryPolicy) {
    let typed = match &value.config_type {
        Some(retry_host_predicate::ConfigType::TypedConfig(any)) => {
            cx.field("typed_config", |cx| cx.typed(any))
        }
        None => None,
    };
    let typed = typed.filter(|typed| !typed.name.is_empty());
    let kind = typed.as_ref().map_or(&value.name, |typed| &typed.name);
    match kind.as_str() {
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        | "envoy.retry_host_predicates.previous_hosts" => policy.avoid_previous_hosts = true,
        "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"
        | "envoy.retry_host_predicates.omit_canary_hosts" => policy.omit_canary_hosts = true,
        "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"
        | "envoy.retry_host_predicates.omit_host_metadata" => {
            cx.field("typed_config", |cx| match &typed {
                Some(typed) => omit_metadata(cx, typed, policy),
                None => cx.reject("", "must be set"),
            });
        }
        _ => cx.reject(
            "",
            format_args!("retry host predicate {} is not supported", value.name),
        ),
    }
}

fn omit_metadata(cx: &mut Context, typed: &Typed, policy: &mut RetryPolicy) {
    let Some(OmitHostMetadataConfig { metadata_match }) = cx.message(typed) else {
        return;
    };
    policy.omit_host_metadata = common::metadata(cx, "metadata_match", metadata_match.as_ref());
}

pub(super) fn mirrors(cx: &mut Context, values: &[RequestMirrorPolicy]) -> Vec<Mirror> {
    cx.each("request_mirror_policies", values, mirror)
}

fn mirror(cx: &mut Context, value: &RequestMirrorPolicy) -> Option<Mirror> {
    let RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = value;
    ignored!(cx; trace_sampled);
    let cluster = match (cluster.as_str(), cluster_header.as_str()) {
        ("", "") => {
            cx.reject("", "one of cluster, cluster_header must be set");
            return None;
        }
        ("", name) => ClusterChoice::Header(forward::cluster_header(cx, "cluster_header", name)?),
        (name, "") => ClusterChoice::Name(name.into()),
        _ => {
            cx.reject("", "only one of cluster, cluster_header may be set");
            return None;
        }
    };
    let always = RuntimeFraction {
        default: Fraction::ALWAYS,
        key: "".into(),
    };
    Some(Mirror {
        cluster,
        fraction: runtime_fraction
            .as_ref()
            .map_or(always, common::runtime_fraction),
        keep_host: *disable_shadow_host_suffix_append,
        host_rewrite: (!host_rewrite_literal.is_empty())
            .then(|| host_rewrite_literal.as_str().into()),
        headers: cx.each(
            "request_headers_mutations",
            request_headers_mutations,
            mutation,
        ),
    })
}

fn mutation(cx: &mut Context, value: &HeaderMutation) -> Option<HeaderMutations> {
    let mut headers = HeaderMutations::default();
    match &value.action {
        Some(header_mutation::Action::Remove(name)) => {
            headers.request_remove = vec![header::name(cx, "remove", name)?];
        }
        Some(header_mutation::Action::Append(option)) => {
            headers.request_add = header::additions(cx, "append", std::slice::from_ref(option));
        }
        Some(header_mutation::Action::RemoveOnMatch(_)) => cx.unsupported("remove_on_match", true),
        None => cx.reject("", "one of remove, append must be set"),
    }
    Some(headers)
}

/// The older place of a CORS policy, in the route or the virtual host itself.
pub(super) fn cors(cx: &mut Context, value: Option<&proto::CorsPolicy>) -> Option<Cors> {
    let value = value?;
    Some(cx.field("cors", |cx| filter::cors::policy(cx, &newer_cors(value))))
}

/// The older message as the newer one, which has the same fields.
fn newer_cors(value: &proto::CorsPolicy) -> CorsPolicy {
    let proto::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = value;
    CorsPolicy {
        allow_origin_string_match: allow_origin_string_match.clone(),
        allow_methods: allow_methods.clone(),
        allow_headers: allow_headers.clone(),
        expose_headers: expose_headers.clone(),
        max_age: max_age.clone(),
        allow_credentials: *allow_credentials,
        filter_enabled: enabled_specifier.as_ref().map(|enabled| match enabled {
            EnabledSpecifier::FilterEnabled(share) => share.clone(),
        }),
        shadow_enabled: shadow_enabled.clone(),
        allow_private_network_access: *allow_private_network_access,
        forward_not_matching_preflights: *forward_not_matching_preflights,
    }
}

/// Hash policies are kept for the hashing balancers; until these are there, they are noted.
pub(super) fn hashes(cx: &mut Context, values: &[ProtoHash]) -> Vec<HashPolicy> {
    cx.ignored("hash_policy", !values.is_empty());
    cx.each("hash_policy", values, |cx, value| {
        Some(HashPolicy {
            source: hash_source(cx, value.policy_specifier.as_ref()?)?,
            terminal: value.terminal,
        })
    })
}

fn hash_source(cx: &mut Context, value: &hash_policy::PolicySpecifier) -> Option<HashSource> {
    use hash_policy::PolicySpecifier as Source;
    Some(match value {
        Source::Header(value) => {
            let rewrite = value.regex_rewrite.as_ref().and_then(|rewrite| {
                cx.field("header.regex_rewrite", |cx| substitution(cx, rewrite))
            });
            HashSource::Header(value.header_name.to_ascii_lowercase().into(), rewrite)
        }
        Source::Cookie(value) => HashSource::Cookie {
            name: value.name.as_str().into(),
            ttl: some_duration(cx, "cookie.ttl", value.ttl.as_ref()),
            path: value.path.as_str().into(),
            attributes: value
                .attributes
                .iter()
                .map(|pair| {
                    (
                        Name::from(pair.name.as_str()),
                        Name::from(pair.value.as_str()),
                    )
                })
                .collect(),
        },
        Source::ConnectionProperties(value) if value.source_ip => HashSource::SourceIp,
        Source::ConnectionProperties(_) => return None,
        Source::QueryParameter(value) => HashSource::Query(value.name.as_str().into()),
        Source::FilterState(value) => HashSource::FilterState(value.key.as_str().into()),
    })
}
