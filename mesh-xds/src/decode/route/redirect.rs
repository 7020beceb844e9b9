//! Redirects of upstreams that are followed (`internal_redirect_policy`).

use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        route::v3::{self as proto, route_action::InternalRedirectAction},
    },
    extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig,
};
use http::HeaderName;
use mesh_core::model::{InternalRedirect, RedirectPredicate};

use crate::decode::{Context, common, header};

/// Envoy's default for `max_internal_redirects`.
const MAX: u32 = 1;
/// The only codes that a policy may name.
const CODES: [u16; 5] = [301, 302, 303, 307, 308];

/// The policy of a route, or its older form.
pub(super) fn policy(cx: &mut Context, value: &proto::RouteAction) -> Option<InternalRedirect> {
    if let Some(policy) = &value.internal_redirect_policy {
        return Some(cx.field("internal_redirect_policy", |cx| read(cx, policy)));
    }
    let follows =
        value.internal_redirect_action == InternalRedirectAction::HandleInternalRedirect as i32;
    follows.then(|| InternalRedirect {
        max: common::u32_of(value.max_internal_redirects.as_ref()).unwrap_or(MAX),
        codes: vec![302],
        cross_scheme: false,
        predicates: Vec::new(),
        copy_headers: Vec::new(),
    })
}

fn read(cx: &mut Context, value: &proto::InternalRedirectPolicy) -> InternalRedirect {
    let proto::InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = value;
    let mut codes = cx.each(
        "redirect_response_codes",
        redirect_response_codes,
        |cx, code| {
            let code = u16::try_from(*code)
                .ok()
                .filter(|code| CODES.contains(code));
            if code.is_none() {
                cx.note("", "ignored: only 301, 302, 303, 307 and 308 are followed");
            }
            code
        },
    );
    if redirect_response_codes.is_empty() {
        codes.push(302);
    }
    InternalRedirect {
        max: common::u32_of(max_internal_redirects.as_ref()).unwrap_or(MAX),
        codes,
        cross_scheme: *allow_cross_scheme_redirect,
        predicates: cx.each("predicates", predicates, predicate),
        copy_headers: copied(cx, response_headers_to_copy),
    }
}

/// Names of headers, each once.
fn copied(cx: &mut Context, names: &[String]) -> Vec<HeaderName> {
    let mut out = Vec::new();
    for (index, name) in names.iter().enumerate() {
        cx.item("response_headers_to_copy", index, |cx| {
            if names[..index].contains(name) {
                cx.reject("", format_args!("{name:?} is given twice"));
            }
            out.extend(header::changeable(cx, "", name));
        });
    }
    out
}

fn predicate(cx: &mut Context, value: &TypedExtensionConfig) -> Option<RedirectPredicate> {
    const ALLOW: &str =
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig";
    const PREVIOUS: &str =
        "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig";
    const SAFE: &str =
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig";
    let Some(any) = &value.typed_config else {
        cx.reject("typed_config", "must be set");
        return None;
    };
    cx.field("typed_config", |cx| {
        let typed = cx.typed(any)?;
        match typed.name.as_str() {
            ALLOW => {
                let AllowListedRoutesConfig {
                    allowed_route_names,
                } = cx.message(&typed)?;
                let names = allowed_route_names.into_iter().map(Into::into).collect();
                Some(RedirectPredicate::AllowListedRoutes(names))
            }
            PREVIOUS => Some(RedirectPredicate::PreviousRoutes),
            SAFE => Some(RedirectPredicate::SafeCrossScheme),
            name => {
                cx.reject(
                    "",
                    format_args!("internal redirect predicate {name} is not supported"),
                );
                None
            }
        }
    })
}
