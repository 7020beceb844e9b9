//! What a route does: forward, redirect, answer by itself.

use envoy_types::pb::envoy::config::route::v3::{
    self as proto,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route,
};
use http::StatusCode;
use mesh_core::model::{Action, DirectResponse, Redirect, RedirectPath, SchemeRedirect};

use super::forward;
use crate::decode::{Context, format};

pub(super) fn action(
    cx: &mut Context,
    value: Option<&route::Action>,
    max_body: u32,
) -> Option<Action> {
    Some(match value {
        Some(route::Action::Route(value)) => Action::Forward(Box::new(
            cx.field("route", |cx| forward::forward(cx, value))?,
        )),
        Some(route::Action::Redirect(value)) => {
            Action::Redirect(Box::new(cx.field("redirect", |cx| redirect(cx, value))?))
        }
        Some(route::Action::DirectResponse(value)) => Action::DirectResponse(
            cx.field("direct_response", |cx| direct_response(cx, value, max_body))?,
        ),
        Some(route::Action::FilterAction(value)) => {
            cx.ignored("filter_action.action", value.action.is_some());
            Action::NonForwarding
        }
        Some(route::Action::NonForwardingAction(_)) => Action::NonForwarding,
        None => {
            cx.reject(
                "",
                "one of route, redirect, direct_response, filter_action, non_forwarding_action must be set",
            );
            return None;
        }
    })
}

fn redirect(cx: &mut Context, value: &proto::RedirectAction) -> Option<Redirect> {
    let proto::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = value;
    let code = match RedirectResponseCode::try_from(*response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
        Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => {
            cx.reject(
                "response_code",
                format_args!("{response_code} is no known value"),
            );
            return None;
        }
    };
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(SchemeRedirect::Https),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(SchemeRedirect::To(scheme.as_str().into()))
        }
        _ => None,
    };
    let path = match path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(text)) if !text.is_empty() => {
            Some(RedirectPath::Full(text.as_str().into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(text)) if !text.is_empty() => {
            Some(RedirectPath::Prefix(text.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            let (regex, to) = cx.field("regex_rewrite", |cx| forward::substitution(cx, rewrite))?;
            Some(RedirectPath::Regex(regex, to))
        }
        Some(PathRewriteSpecifier::PathRewrite(text)) if !text.is_empty() => Some(
            RedirectPath::Format(format::text(cx, "path_rewrite", text)?),
        ),
        _ => None,
    };
    Some(Redirect {
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: (*port_redirect != 0).then_some(*port_redirect),
        path,
        code,
        strip_query: *strip_query,
    })
}

fn direct_response(
    cx: &mut Context,
    value: &proto::DirectResponseAction,
    max_body: u32,
) -> Option<DirectResponse> {
    let proto::DirectResponseAction {
        status,
        body,
        body_format,
    } = value;
    let code = u16::try_from(*status)
        .ok()
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok());
    if code.is_none() {
        cx.reject("status", format_args!("{status} is not in 200 ..= 599"));
    }
    let body = match body {
        Some(source) => cx.field("body", |cx| format::data_source(cx, source))?,
        None => bytes::Bytes::new(),
    };
    if body.len() > max_body as usize {
        cx.reject(
            "body",
            format_args!(
                "{} bytes are over max_direct_response_body_size_bytes, {max_body}",
                body.len()
            ),
        );
    }
    let format = match body_format {
        Some(value) => Some(cx.field("body_format", |cx| format::body(cx, value))?),
        None => None,
    };
    Some(DirectResponse {
        status: code?,
        body,
        format,
    })
}
