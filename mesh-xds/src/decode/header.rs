//! Changes of headers (`config.core.v3.HeaderValueOption` and lists of names to remove).

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use http::HeaderName;
use mesh_core::model::{AppendAction, HeaderAddition, HeaderMutations};

use super::{Context, format};

/// The name of a header; refuses pseudo headers and what is no name.
pub(crate) fn name(cx: &mut Context, field: &str, name: &str) -> Option<HeaderName> {
    match HeaderName::try_from(name) {
        Ok(name) => Some(name),
        Err(error) => {
            cx.reject(field, format_args!("{name:?}: {error}"));
            None
        }
    }
}

/// A name that may be changed: neither a pseudo header nor `host`.
pub(crate) fn changeable(cx: &mut Context, field: &str, text: &str) -> Option<HeaderName> {
    if text.starts_with(':') || text.eq_ignore_ascii_case("host") {
        cx.reject(
            field,
            ":-prefixed and host headers may not be changed here: use a rewrite",
        );
        return None;
    }
    name(cx, field, text)
}

/// Headers that are added.
pub(crate) fn additions(
    cx: &mut Context,
    field: &str,
    values: &[HeaderValueOption],
) -> Vec<HeaderAddition> {
    cx.each(field, values, addition)
}

fn addition(cx: &mut Context, value: &HeaderValueOption) -> Option<HeaderAddition> {
    let HeaderValueOption {
        header,
        append,
        append_action,
        keep_empty_value,
    } = value;
    let Some(HeaderValue {
        key,
        value: text,
        raw_value,
    }) = header
    else {
        cx.reject("header", "must be set");
        return None;
    };
    if !raw_value.is_empty() {
        cx.note(
            "header.raw_value",
            "ignored, as by Envoy: `value` is what is added",
        );
    }
    let action = match (append, HeaderAppendAction::try_from(*append_action)) {
        (Some(_), Ok(action)) if action != HeaderAppendAction::AppendIfExistsOrAdd => {
            cx.reject("append", "append and append_action must not both be set");
            return None;
        }
        (Some(append), _) if append.value => AppendAction::AppendIfExistsOrAdd,
        (Some(_), _) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::AppendIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => {
            AppendAction::OverwriteIfExistsOrAdd
        }
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (None, Err(_)) => {
            cx.reject(
                "append_action",
                format_args!("{append_action} is no known value"),
            );
            return None;
        }
    };
    Some(HeaderAddition {
        name: changeable(cx, "header.key", key)?,
        value: format::text(cx, "header.value", text)?,
        action,
        keep_empty: *keep_empty_value,
    })
}

/// Names of headers that are removed.
pub(crate) fn removals(cx: &mut Context, field: &str, names: &[String]) -> Vec<HeaderName> {
    cx.each(field, names, |cx, name| changeable(cx, "", name))
}

/// The four lists of a route configuration, virtual host, route or weighted cluster.
pub(crate) fn mutations(
    cx: &mut Context,
    request_add: &[HeaderValueOption],
    request_remove: &[String],
    response_add: &[HeaderValueOption],
    response_remove: &[String],
) -> HeaderMutations {
    HeaderMutations {
        request_add: additions(cx, "request_headers_to_add", request_add),
        request_remove: removals(cx, "request_headers_to_remove", request_remove),
        response_add: additions(cx, "response_headers_to_add", response_add),
        response_remove: removals(cx, "response_headers_to_remove", response_remove),
    }
}
