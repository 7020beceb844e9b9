//! Answers to health checks (`extensions.filters.http.health_check.v3.HealthCheck`).

use envoy_types::pb::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use mesh_core::model::{HeaderValueMatcher, HttpFilterKind, StringPattern};

use crate::decode::{
    Context, common, matcher,
    set::{ignored, unsupported},
};

/// The filter, if it answers one exact path itself; refuses other forms.
pub(super) fn health_check(cx: &mut Context, value: &HealthCheck) -> Option<HttpFilterKind> {
    let HealthCheck {
        pass_through_mode,
        cache_time,
        cluster_min_healthy_percentages,
        headers,
    } = value;
    cx.unsupported(
        "pass_through_mode",
        common::bool_of(pass_through_mode.as_ref(), false),
    );
    ignored!(cx; cache_time);
    unsupported!(cx; cluster_min_healthy_percentages);
    let headers = cx.each("headers", headers, matcher::header);
    if let [header] = headers.as_slice()
        && &*header.name == ":path"
        && !header.invert
        && !header.missing_as_empty
        && let HeaderValueMatcher::String(matcher) = &header.value
        && !matcher.ignore_case
        && let StringPattern::Exact(path) = &matcher.pattern
    {
        return Some(HttpFilterKind::HealthCheck(path.clone()));
    }
    cx.reject("headers", "only one exact match of :path is supported");
    None
}
