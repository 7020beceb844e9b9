//! Cross-origin resource sharing (`extensions.filters.http.cors.v3.CorsPolicy`).

use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use http::HeaderValue;
use mesh_core::model::Cors;

use crate::decode::{Context, common, format, matcher};

/// A policy.
pub(in crate::decode) fn policy(cx: &mut Context, value: &CorsPolicy) -> Cors {
    let CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = value;
    let text = |cx: &mut Context, field: &str, value: &str| -> Option<HeaderValue> {
        (!value.is_empty()).then(|| format::header_value(cx, field, value))?
    };
    Cors {
        allow_origins: cx.each(
            "allow_origin_string_match",
            allow_origin_string_match,
            matcher::string,
        ),
        allow_methods: text(cx, "allow_methods", allow_methods),
        allow_headers: text(cx, "allow_headers", allow_headers),
        expose_headers: text(cx, "expose_headers", expose_headers),
        max_age: text(cx, "max_age", max_age),
        allow_credentials: allow_credentials.as_ref().map(|value| value.value),
        enabled: filter_enabled.as_ref().map(common::runtime_fraction),
        shadow: shadow_enabled.as_ref().map(common::runtime_fraction),
        forward_not_matching_preflights: forward_not_matching_preflights
            .as_ref()
            .map(|value| value.value),
        allow_private_network: allow_private_network_access
            .as_ref()
            .map(|value| value.value),
    }
}
