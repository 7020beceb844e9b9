//! Matchers of text, headers, query parameters, metadata and filter state (`type.matcher.v3`).

use envoy_types::pb::{
    envoy::{
        config::route::v3::{
            HeaderMatcher, QueryParameterMatcher, header_matcher::HeaderMatchSpecifier,
            query_parameter_matcher::QueryParameterMatchSpecifier,
        },
        r#type::matcher::v3::{
            self as proto, RegexMatcher, double_matcher, filter_state_matcher, list_matcher,
            metadata_matcher::path_segment::Segment, regex_matcher, string_matcher::MatchPattern,
            value_matcher,
        },
    },
    xds::core::v3::CidrRange,
};
use mesh_core::model::{
    self, HeaderValueMatcher, MetadataMatcher, Name, QueryMatcher, Regex, StringMatcher,
    StringPattern, ValueMatcher,
};

use super::{Context, common};

/// A predicate over text.
pub(crate) fn string(cx: &mut Context, value: &proto::StringMatcher) -> Option<StringMatcher> {
    let proto::StringMatcher {
        ignore_case,
        match_pattern,
    } = value;
    let pattern = match match_pattern {
        Some(MatchPattern::Exact(text)) => StringPattern::Exact(text.as_str().into()),
        Some(MatchPattern::Prefix(text)) => StringPattern::Prefix(text.as_str().into()),
        Some(MatchPattern::Suffix(text)) => StringPattern::Suffix(text.as_str().into()),
        Some(MatchPattern::Contains(text)) => StringPattern::Contains(text.as_str().into()),
        Some(MatchPattern::SafeRegex(expression)) => {
            if *ignore_case {
                cx.reject(
                    "ignore_case",
                    "has no effect on safe_regex: write (?i) in it",
                );
            }
            StringPattern::Regex(cx.field("safe_regex", |cx| regex(cx, expression))?)
        }
        Some(MatchPattern::Custom(custom)) => {
            cx.reject(
                "custom",
                format_args!("matcher {} is not supported", custom.name),
            );
            return None;
        }
        None => {
            cx.reject(
                "",
                "one of exact, prefix, suffix, safe_regex, contains must be set",
            );
            return None;
        }
    };
    Some(StringMatcher {
        pattern,
        ignore_case: *ignore_case,
    })
}

/// A regular expression.
pub(crate) fn regex(cx: &mut Context, value: &RegexMatcher) -> Option<Regex> {
    // `engine_type` is deprecated and names the only engine that there is.
    if let Some(regex_matcher::EngineType::GoogleRe2(engine)) = &value.engine_type {
        cx.ignored(
            "google_re2.max_program_size",
            engine.max_program_size.is_some(),
        );
    }
    match Regex::parse(&value.regex) {
        Ok(regex) => Some(regex),
        Err(error) => {
            cx.reject("regex", error);
            None
        }
    }
}

/// A predicate over a header.
pub fn header(cx: &mut Context, value: &HeaderMatcher) -> Option<model::HeaderMatcher> {
    let HeaderMatcher {
        name,
        invert_match,
        treat_missing_header_as_empty,
        header_match_specifier,
    } = value;
    let plain = |pattern| {
        HeaderValueMatcher::String(StringMatcher {
            pattern,
            ignore_case: false,
        })
    };
    let value = match header_match_specifier {
        None => HeaderValueMatcher::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderValueMatcher::Present(*present),
        // An empty text in this older form means any value.
        Some(HeaderMatchSpecifier::ExactMatch(text)) if text.is_empty() => {
            HeaderValueMatcher::Present(true)
        }
        Some(HeaderMatchSpecifier::ExactMatch(text)) => {
            plain(StringPattern::Exact(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::PrefixMatch(text)) => {
            plain(StringPattern::Prefix(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(text)) => {
            plain(StringPattern::Suffix(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
            plain(StringPattern::Contains(text.as_str().into()))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(expression)) => plain(StringPattern::Regex(
            cx.field("safe_regex_match", |cx| regex(cx, expression))?,
        )),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderValueMatcher::Range {
            start: range.start,
            end: range.end,
        },
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            HeaderValueMatcher::String(cx.field("string_match", |cx| string(cx, matcher))?)
        }
    };
    Some(model::HeaderMatcher {
        name: name.to_ascii_lowercase().into(),
        value,
        invert: *invert_match,
        missing_as_empty: *treat_missing_header_as_empty,
    })
}

/// A predicate over a query parameter.
pub(crate) fn query(cx: &mut Context, value: &QueryParameterMatcher) -> Option<QueryMatcher> {
    let QueryParameterMatcher {
        name,
        query_parameter_match_specifier,
    } = value;
    let mut matcher = QueryMatcher {
        name: name.as_str().into(),
        value: None,
        present: None,
    };
    match query_parameter_match_specifier {
        None => {}
        Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
            matcher.value = Some(cx.field("string_match", |cx| string(cx, text))?);
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => {
            matcher.present = Some(*present);
        }
    }
    Some(matcher)
}

/// A predicate over dynamic metadata.
pub(crate) fn metadata(
    cx: &mut Context,
    value: &proto::MetadataMatcher,
) -> Option<MetadataMatcher> {
    let proto::MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = value;
    let path = path
        .iter()
        .filter_map(|segment| segment.segment.as_ref())
        .map(|Segment::Key(key)| Name::from(key.as_str()))
        .collect();
    let Some(value) = value else {
        cx.reject("value", "must be set");
        return None;
    };
    Some(MetadataMatcher {
        namespace: filter.as_str().into(),
        path,
        value: cx.field("value", |cx| self::value(cx, value))?,
        invert: *invert,
    })
}

/// A block of addresses in xDS' own message.
fn block(cx: &mut Context, value: &CidrRange) -> Option<model::Cidr> {
    let bits = value.prefix_len.as_ref().map_or(0, |bits| bits.value);
    let range = envoy_types::pb::envoy::config::core::v3::CidrRange {
        address_prefix: value.address_prefix.clone(),
        prefix_len: Some(envoy_types::pb::google::protobuf::UInt32Value { value: bits }),
    };
    common::cidr(cx, &range)
}

/// A predicate over filter state: its text.
pub(crate) fn filter_state(
    cx: &mut Context,
    value: &proto::FilterStateMatcher,
) -> Option<MetadataMatcher> {
    let proto::FilterStateMatcher { key, matcher } = value;
    let value = match matcher {
        Some(filter_state_matcher::Matcher::StringMatch(text)) => {
            ValueMatcher::String(cx.field("string_match", |cx| string(cx, text))?)
        }
        Some(filter_state_matcher::Matcher::AddressMatch(address)) => ValueMatcher::Address(
            cx.field("address_match", |cx| {
                cx.each("ranges", &address.ranges, block)
            }),
            address.invert_match,
        ),
        None => {
            cx.reject("", "one of string_match, address_match must be set");
            return None;
        }
    };
    Some(MetadataMatcher {
        namespace: key.as_str().into(),
        path: Vec::new(),
        value,
        invert: false,
    })
}

fn value(cx: &mut Context, value: &proto::ValueMatcher) -> Option<ValueMatcher> {
    use value_matcher::MatchPattern as Pattern;
    let number = |value: f64| Name::from(value.to_string());
    Some(match &value.match_pattern {
        Some(Pattern::NullMatch(_)) => ValueMatcher::Null,
        Some(Pattern::BoolMatch(value)) => ValueMatcher::Bool(*value),
        Some(Pattern::PresentMatch(present)) => ValueMatcher::Present(*present),
        Some(Pattern::StringMatch(text)) => {
            ValueMatcher::String(cx.field("string_match", |cx| string(cx, text))?)
        }
        Some(Pattern::DoubleMatch(matcher)) => match &matcher.match_pattern {
            Some(double_matcher::MatchPattern::Exact(value)) => {
                ValueMatcher::Number(number(*value))
            }
            Some(double_matcher::MatchPattern::Range(range)) => {
                ValueMatcher::NumberRange(number(range.start), number(range.end))
            }
            None => {
                cx.reject("double_match", "one of exact, range must be set");
                return None;
            }
        },
        Some(Pattern::ListMatch(list)) => match &list.match_pattern {
            Some(list_matcher::MatchPattern::OneOf(item)) => ValueMatcher::List(Box::new(
                cx.field("list_match.one_of", |cx| self::value(cx, item))?,
            )),
            None => {
                cx.reject("list_match", "one_of must be set");
                return None;
            }
        },
        Some(Pattern::OrMatch(any)) => ValueMatcher::Or(cx.field("or_match", |cx| {
            cx.each("value_matchers", &any.value_matchers, self::value)
        })),
        None => {
            cx.reject("", "a pattern must be set");
            return None;
        }
    })
}
