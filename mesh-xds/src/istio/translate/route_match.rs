//! Conditions of HTTP rules.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use route::header_matcher::HeaderMatchSpecifier;
use route::query_parameter_matcher::QueryParameterMatchSpecifier;
use route::route_match::PathSpecifier;

use super::pb;
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service::{HttpMatchRequest, claims};
use crate::istio::index::Semantics;

/// The match of a rule without conditions.
pub(super) fn any_path() -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..route::RouteMatch::default()
    }
}

/// One alternative of a rule's conditions.
pub(super) fn translate(
    condition: Option<&HttpMatchRequest>,
    semantics: Semantics,
) -> route::RouteMatch {
    let mut out = any_path();
    let Some(condition) = condition else {
        return out;
    };
    add_headers(&mut out, condition);
    if let Some(path) = condition.uri.as_ref().and_then(|uri| path(uri, semantics)) {
        out.path_specifier = Some(path);
    }
    out.case_sensitive = Some(pb::boolean(!condition.ignore_uri_case));
    let pseudo = [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ];
    for (name, value) in pseudo {
        out.headers
            .extend(value.as_ref().map(|value| header(name, value)));
    }
    out.query_parameters = condition
        .query_params
        .iter()
        .map(|(name, value)| query(name, value))
        .collect();
    out
}

fn add_headers(out: &mut route::RouteMatch, condition: &HttpMatchRequest) {
    // The API says that these names are ignored here: each has a field of its own.
    let own_field = |name: &str| matches!(name, "uri" | "scheme" | "method" | "authority");
    let headers = condition
        .headers
        .iter()
        .filter(|(name, _)| !own_field(name));
    let wanted = headers.map(|entry| (entry, false));
    let unwanted = condition.without_headers.iter().map(|entry| (entry, true));
    for ((name, value), invert) in wanted.chain(unwanted) {
        if let Some(mut claim) = claim(name, value) {
            claim.invert = invert;
            out.dynamic_metadata.push(claim);
            continue;
        }
        let mut matcher = header(name, value);
        matcher.invert_match = invert;
        matcher.treat_missing_header_as_empty = invert && !is_presence(value);
        out.headers.push(matcher);
    }
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));
}

fn path(uri: &StringMatch, semantics: Semantics) -> Option<PathSpecifier> {
    Some(match uri {
        StringMatch::Unset => return None,
        StringMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        StringMatch::Prefix(prefix) if semantics != Semantics::VirtualService && prefix != "/" => {
            PathSpecifier::PathSeparatedPrefix(
                prefix.strip_suffix('/').unwrap_or(prefix).to_owned(),
            )
        }
        StringMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        StringMatch::Regex(regex) => PathSpecifier::SafeRegex(pb::regex(regex)),
    })
}

/// Whether the condition asks only that the name is there: nothing is given, or the regex `*`, which is none in RE2.
fn is_presence(value: &StringMatch) -> bool {
    match value {
        StringMatch::Unset => true,
        StringMatch::Regex(regex) => regex == "*",
        StringMatch::Exact(_) | StringMatch::Prefix(_) => false,
    }
}

fn header(name: &str, value: &StringMatch) -> route::HeaderMatcher {
    let condition = if is_presence(value) {
        Some(HeaderMatchSpecifier::PresentMatch(true))
    } else {
        pb::string_match(value).map(HeaderMatchSpecifier::StringMatch)
    };
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: condition,
        ..route::HeaderMatcher::default()
    }
}

fn query(name: &str, value: &StringMatch) -> route::QueryParameterMatcher {
    let condition = if is_presence(value) {
        Some(QueryParameterMatchSpecifier::PresentMatch(true))
    } else {
        pb::string_match(value).map(QueryParameterMatchSpecifier::StringMatch)
    };
    route::QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: condition,
    }
}

/// The condition on a claim of a JSON Web Token, for a name that stands for one.
fn claim(name: &str, value: &StringMatch) -> Option<matcher::MetadataMatcher> {
    use matcher::list_matcher::MatchPattern as ListPattern;
    use matcher::value_matcher::MatchPattern;
    let claims = claims(name)?;
    let key = |key: &str| matcher::metadata_matcher::PathSegment {
        segment: Some(matcher::metadata_matcher::path_segment::Segment::Key(
            key.to_owned(),
        )),
    };
    let text = matcher::ValueMatcher {
        match_pattern: pb::string_match(value).map(MatchPattern::StringMatch),
    };
    let list = matcher::ListMatcher {
        match_pattern: Some(ListPattern::OneOf(Box::new(text.clone()))),
    };
    let in_list = matcher::ValueMatcher {
        match_pattern: Some(MatchPattern::ListMatch(Box::new(list))),
    };
    Some(matcher::MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path: std::iter::once(key("payload"))
            .chain(claims.into_iter().map(key))
            .collect(),
        value: Some(matcher::ValueMatcher {
            match_pattern: Some(MatchPattern::OrMatch(matcher::OrMatcher {
                value_matchers: vec![in_list, text],
            })),
        }),
        invert: false,
    })
}
