//! When a route applies.

use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        route::v3::{self as proto, route_match},
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
};
use mesh_core::model::{CookieMatcher, Name, PathMatch, PathTemplate, RouteMatch};

use crate::decode::{
    Context,
    common::{self, bool_of},
    matcher,
};

pub(super) fn route_match(cx: &mut Context, value: &proto::RouteMatch) -> Option<RouteMatch> {
    let proto::RouteMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = value;
    let path = path(cx, path_specifier.as_ref());
    let case_sensitive = bool_of(case_sensitive.as_ref(), true);
    let by_regex = matches!(
        path,
        Some(PathMatch::Regex(_) | PathMatch::Template(_) | PathMatch::Connect)
    );
    cx.ignored("case_sensitive", !case_sensitive && by_regex);
    let tls = tls_context.as_ref().map(|options| {
        let flag = |value: &Option<_>| -> Option<bool> {
            let value: &Option<envoy_types::pb::google::protobuf::BoolValue> = value;
            value.as_ref().map(|value| value.value)
        };
        (flag(&options.presented), flag(&options.validated))
    });
    Some(RouteMatch {
        case_sensitive,
        headers: cx.each("headers", headers, matcher::header),
        query: cx.each("query_parameters", query_parameters, matcher::query),
        cookies: cx.each("cookies", cookies, cookie),
        grpc: grpc.is_some(),
        runtime_fraction: runtime_fraction.as_ref().map(common::runtime_fraction),
        metadata: cx.each("dynamic_metadata", dynamic_metadata, matcher::metadata),
        filter_state: cx.each("filter_state", filter_state, matcher::filter_state),
        tls,
        path: path?,
    })
}

fn cookie(cx: &mut Context, value: &proto::CookieMatcher) -> Option<CookieMatcher> {
    let proto::CookieMatcher {
        name,
        string_match,
        invert_match,
    } = value;
    let Some(text) = string_match else {
        cx.reject("string_match", "must be set");
        return None;
    };
    Some(CookieMatcher {
        name: name.as_str().into(),
        value: cx.field("string_match", |cx| matcher::string(cx, text))?,
        invert: *invert_match,
    })
}

fn path(cx: &mut Context, value: Option<&route_match::PathSpecifier>) -> Option<PathMatch> {
    use route_match::PathSpecifier as Path;
    Some(match value {
        Some(Path::Prefix(text)) => PathMatch::Prefix(text.as_str().into()),
        Some(Path::Path(text)) => PathMatch::Exact(text.as_str().into()),
        Some(Path::SafeRegex(regex)) => {
            PathMatch::Regex(cx.field("safe_regex", |cx| matcher::regex(cx, regex))?)
        }
        Some(Path::ConnectMatcher(_)) => PathMatch::Connect,
        Some(Path::PathSeparatedPrefix(text)) => {
            if text.contains(['?', '#']) || text.ends_with('/') || text.len() < 2 {
                cx.reject(
                    "path_separated_prefix",
                    format_args!(
                        "{text:?} must have two letters or more, hold no ? or #, and not end with /"
                    ),
                );
            }
            PathMatch::SeparatedPrefix(text.as_str().into())
        }
        Some(Path::PathMatchPolicy(policy)) => PathMatch::Template(PathTemplate {
            text: cx.field("path_match_policy", |cx| template(cx, policy))?,
        }),
        None => {
            cx.reject(
                "",
                "one of prefix, path, safe_regex, connect_matcher, path_separated_prefix, path_match_policy must be set",
            );
            return None;
        }
    })
}

fn template(cx: &mut Context, value: &TypedExtensionConfig) -> Option<Name> {
    let config: UriTemplateMatchConfig = cx.extension("path matcher", value)?;
    Some(config.path_template.into())
}
