//! The HTTP routes of a VirtualService.

use std::collections::BTreeMap;

use super::check::{At, Check};
use super::rules;
use super::virtual_service::{destination, gateways, required_destination, total_weight, weight};
use crate::istio::api::json::StringMatch;
use crate::istio::api::virtual_service::{
    Abort, CorsPolicy, Delay, GRPC_STATUSES, Headers, HttpDirectResponse, HttpFaultInjection,
    HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, Percent,
};
use crate::json::base64;

pub(super) fn route(c: &mut Check, at: &At<'_>, route: &HttpRoute, delegate: bool) {
    conflicts(c, at, route, delegate);
    for (i, matched) in route.matches.iter().enumerate() {
        match_request(c, &at.item("match", i), matched);
    }
    headers(c, at, route.headers.as_ref());
    if let Some(cors) = &route.cors_policy {
        cors_policy(c, &at.key("corsPolicy"), cors);
    }
    if let Some(injection) = &route.fault {
        fault(c, &at.key("fault"), injection);
    }
    mirrors(c, at, route);
    if let Some(to) = &route.redirect {
        redirect(c, &at.key("redirect"), to, &route.matches);
    }
    if let Some(response) = &route.direct_response {
        direct_response(c, &at.key("directResponse"), response);
    }
    if let Some(retries) = &route.retries {
        retry(c, &at.key("retries"), retries);
    }
    if let Some(change) = &route.rewrite {
        rewrite(c, &at.key("rewrite"), change);
    }
    one_authority(c, at, route);
    if route.websocket_upgrade.is_some() {
        c.inactive(
            &at.key("websocketUpgrade"),
            "websocketUpgrade has no effect: upgrades are always allowed",
        );
    }
    for (i, arm) in route.route.iter().enumerate() {
        let at = at.item("route", i);
        required_destination(c, &at, arm.destination.as_ref());
        headers(c, &at, arm.headers.as_ref());
        weight(c, &at, arm.weight);
    }
    total_weight(
        c,
        &at.key("route"),
        route.route.iter().map(|arm| arm.weight),
    );
    if let Some(timeout) = route.timeout {
        c.rule(&at.key("timeout"), rules::duration(timeout));
    }
}

/// What excludes one another. A rule with `delegate` in a VirtualService with hosts is a root rule.
fn conflicts(c: &mut Check, at: &At<'_>, route: &HttpRoute, delegate: bool) {
    if route.delegate.is_some() && !delegate {
        for (field, set) in [
            ("redirect", route.redirect.is_some()),
            ("route", !route.route.is_empty()),
        ] {
            if set {
                c.error(
                    &at.key(field),
                    format_args!("a rule with delegate must not have {field}"),
                );
            }
        }
        return;
    }
    if route.delegate.is_some() {
        c.error(&at.key("delegate"), "a delegate cannot delegate further");
    }
    let answer = if route.redirect.is_some() {
        Some("redirect")
    } else if route.direct_response.is_some() {
        Some("directResponse")
    } else {
        None
    };
    match answer {
        Some(answer) => {
            let with_response = answer == "redirect" && route.direct_response.is_some();
            for (field, set) in [
                ("route", !route.route.is_empty()),
                ("fault", route.fault.is_some()),
                ("rewrite", route.rewrite.is_some()),
                ("directResponse", with_response),
            ] {
                if set {
                    c.error(
                        &at.key(field),
                        format_args!("a rule cannot have both {field} and {answer}"),
                    );
                }
            }
        }
        None if route.route.is_empty() => {
            c.error(at, "one of route, redirect and directResponse is required")
        }
        None => {}
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        c.error(
            &at.key("mirrors"),
            "a rule cannot have both mirror and mirrors",
        );
    }
}

fn match_request(c: &mut Check, at: &At<'_>, matched: &HttpMatchRequest) {
    for (name, condition) in &matched.headers {
        let at = at.key("headers");
        let at = at.key(name);
        c.rule(&at, rules::header_match_name(name));
        string_match(c, &at, condition, false);
    }
    for (name, condition) in &matched.without_headers {
        let at = at.key("withoutHeaders");
        let at = at.key(name);
        c.rule(&at, rules::header_match_name(name));
        // `*` is no expression here but means that the header is present.
        if *condition != StringMatch::Regex("*".to_owned()) {
            string_match(c, &at, condition, false);
        }
    }
    for (field, condition, empty) in [
        ("uri", &matched.uri, true),
        ("scheme", &matched.scheme, false),
        ("method", &matched.method, false),
        ("authority", &matched.authority, false),
    ] {
        if let Some(condition) = condition {
            string_match(c, &at.key(field), condition, empty);
        }
    }
    for (name, condition) in &matched.query_params {
        string_match(c, &at.key("queryParams").key(name), condition, false);
    }
    if matched.port != 0 {
        c.rule(&at.key("port"), rules::port(matched.port));
    }
    for (key, error) in rules::labels(&matched.source_labels) {
        c.error(&at.key("sourceLabels").key(&key), error);
    }
    gateways(c, &at.key("gateways"), &matched.gateways);
    if !matched.source_namespace.is_empty() && !rules::is_dns_label(&matched.source_namespace) {
        c.error(
            &at.key("sourceNamespace"),
            format_args!("invalid namespace `{}`", matched.source_namespace),
        );
    }
    if matched.ignore_uri_case && matches!(matched.uri, Some(StringMatch::Regex(_))) {
        c.warn(
            &at.key("ignoreUriCase"),
            "has no effect on a regex match of uri",
        );
    }
}

fn string_match(c: &mut Check, at: &At<'_>, condition: &StringMatch, empty_prefix: bool) {
    match condition {
        StringMatch::Prefix(prefix) if prefix.is_empty() && !empty_prefix => {
            c.error(&at.key("prefix"), "the prefix must not be empty");
        }
        StringMatch::Regex(regex) => c.rule(&at.key("regex"), rules::regex(regex)),
        _ => {}
    }
}

/// Header changes of a rule or of an arm.
fn headers(c: &mut Check, at: &At<'_>, headers: Option<&Headers>) {
    let Some(headers) = headers else {
        return;
    };
    let at = at.key("headers");
    for (side, operations) in [
        ("request", &headers.request),
        ("response", &headers.response),
    ] {
        let Some(operations) = operations else {
            continue;
        };
        let at = at.key(side);
        let sets: [(&str, &BTreeMap<String, String>); 2] =
            [("add", &operations.add), ("set", &operations.set)];
        for (field, values) in sets {
            for (name, value) in values {
                let at = at.key(field);
                let at = at.key(name);
                c.rule(&at, rules::header_operation(name, side == "request"));
                c.rule(&at, rules::header_value(value));
            }
        }
        for (i, name) in operations.remove.iter().enumerate() {
            c.rule(&at.item("remove", i), rules::header_operation(name, false));
        }
    }
}

/// The request's authority can be rewritten at one place only.
fn one_authority(c: &mut Check, at: &At<'_>, route: &HttpRoute) {
    let rewritten = route
        .rewrite
        .as_ref()
        .is_some_and(|r| !r.authority.is_empty());
    let request = route.headers.as_ref().and_then(|h| h.request.as_ref());
    let by_headers = request.map_or(0, |r| {
        r.set
            .keys()
            .chain(r.add.keys())
            .filter(|k| rules::is_authority(k))
            .count()
    });
    if usize::from(rewritten) + by_headers > 1 {
        c.error(
            &at.key("headers").key("request"),
            "the authority cannot be set several times",
        );
    }
}

fn cors_policy(c: &mut Check, at: &At<'_>, cors: &CorsPolicy) {
    const METHODS: &[&str] = &[
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*",
    ];
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        let at = at.item("allowOrigins", i);
        match origin {
            StringMatch::Exact(text) | StringMatch::Prefix(text) if !text.is_empty() => {}
            StringMatch::Regex(regex) => c.rule(&at.key("regex"), rules::regex(regex)),
            _ => c.error(
                &at,
                "one of exact, prefix and regex with a text is required",
            ),
        }
    }
    for (i, method) in cors.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            c.not_one_of(&at.item("allowMethods", i), "HTTP method", method, METHODS);
        }
    }
    for (field, names) in [
        ("allowHeaders", &cors.allow_headers),
        ("exposeHeaders", &cors.expose_headers),
    ] {
        for (i, name) in names.iter().enumerate().filter(|(_, name)| *name != "*") {
            // Istio takes a list in one item: all end in one line with commas.
            let each = name.replace(',', ".");
            c.rule(&at.item(field, i), rules::header_name(&each));
        }
    }
    if let Some(age) = cors.max_age {
        c.rule(&at.key("maxAge"), rules::duration(age));
        if age.subsec_nanos() != 0 {
            c.error(&at.key("maxAge"), "the age must be of whole seconds");
        }
    }
}

fn fault(c: &mut Check, at: &At<'_>, fault: &HttpFaultInjection) {
    if fault.abort.is_none() && fault.delay.is_none() {
        c.error(at, "a fault needs abort or delay");
    }
    if let Some(fault) = &fault.abort {
        abort(c, &at.key("abort"), fault);
    }
    if let Some(fault) = &fault.delay {
        delay(c, &at.key("delay"), fault);
    }
}

fn abort(c: &mut Check, at: &At<'_>, abort: &Abort) {
    fraction(c, at, abort.percentage.as_ref());
    let kinds = [
        abort.http_status.is_some(),
        abort.grpc_status.is_some(),
        abort.http2_error.is_some(),
    ];
    if kinds.iter().filter(|set| **set).count() > 1 {
        c.error(
            at,
            "only one of httpStatus, grpcStatus and http2Error can be set",
        );
    }
    if let Some(status) = abort.http_status {
        http_status(c, &at.key("httpStatus"), status.into());
    }
    if let Some(status) = &abort.grpc_status
        && !GRPC_STATUSES.contains(&status.as_str())
    {
        c.not_one_of(&at.key("grpcStatus"), "gRPC status", status, &GRPC_STATUSES);
    }
    if abort.http2_error.is_some() {
        c.error(
            &at.key("http2Error"),
            "an abort by HTTP/2 error is not supported",
        );
    }
    if kinds.iter().all(|set| !set) {
        c.warn(at, "the abort has no status and so does nothing");
    }
}

fn delay(c: &mut Check, at: &At<'_>, delay: &Delay) {
    fraction(c, at, delay.percentage.as_ref());
    if let Some(fixed) = delay.fixed_delay {
        c.rule(&at.key("fixedDelay"), rules::duration(fixed));
    }
    if delay.exponential_delay.is_some() {
        c.error(
            &at.key("exponentialDelay"),
            "exponentialDelay is not supported",
        );
    }
}

/// 0, or at least the smallest share that Envoy can count.
fn fraction(c: &mut Check, at: &At<'_>, percentage: Option<&Percent>) {
    let Some(value) = percentage.map(|p| p.value.0) else {
        return;
    };
    if !(0.0..=100.0).contains(&value) || (value > 0.0 && value < 0.0001) {
        c.error(
            &at.key("percentage").key("value"),
            format_args!("{value} is neither 0 nor in the range 0.0001..100"),
        );
    }
}

fn http_status(c: &mut Check, at: &At<'_>, status: i64) {
    if !(200..600).contains(&status) {
        c.error(
            at,
            format_args!("HTTP status {status} is not in the range 200..599"),
        );
    }
}

fn mirrors(c: &mut Check, at: &At<'_>, route: &HttpRoute) {
    if let Some(percent) = route.mirror_percent {
        let at = at.key("mirrorPercent");
        if percent > 100 {
            c.error(&at, format_args!("{percent} is more than 100"));
        }
        c.warn(&at, "mirrorPercent is deprecated, use mirrorPercentage");
    }
    mirror_share(
        c,
        &at.key("mirrorPercentage"),
        route.mirror_percentage.as_ref(),
    );
    if let Some(to) = &route.mirror {
        destination(c, &at.key("mirror"), to);
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        let at = at.item("mirrors", i);
        required_destination(c, &at, mirror.destination.as_ref());
        mirror_share(c, &at.key("percentage"), mirror.percentage.as_ref());
    }
}

fn mirror_share(c: &mut Check, at: &At<'_>, share: Option<&Percent>) {
    if let Some(value) = share
        .map(|p| p.value.0)
        .filter(|v| !(0.0..=100.0).contains(v))
    {
        c.error(
            &at.key("value"),
            format_args!("{value} is not in the range 0..100"),
        );
    }
}

fn redirect(c: &mut Check, at: &At<'_>, redirect: &HttpRedirect, matches: &[HttpMatchRequest]) {
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        c.error(at, "only one of uri and prefixRewrite can be set");
    }
    let other = |m: &HttpMatchRequest| {
        m.uri
            .as_ref()
            .is_some_and(|u| !matches!(u, StringMatch::Prefix(_)))
    };
    if !redirect.prefix_rewrite.is_empty() && matches.iter().any(other) {
        c.error(
            &at.key("prefixRewrite"),
            "prefixRewrite needs every match of uri to be by prefix",
        );
    }
    let texts = [
        &redirect.uri,
        &redirect.prefix_rewrite,
        &redirect.authority,
        &redirect.scheme,
    ];
    if texts.iter().all(|t| t.is_empty())
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
    {
        c.error(
            at,
            "one of uri, prefixRewrite, authority, scheme and port is required",
        );
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        c.error(at, "only one of port and derivePort can be set");
    }
    let code = redirect.redirect_code;
    if (300..=399).contains(&code) && ![301, 302, 303, 307, 308].contains(&code) {
        c.warn(
            &at.key("redirectCode"),
            format_args!(
                "{code} is refused by the data path: 301, 302, 303, 307 and 308 are allowed"
            ),
        );
    } else if code != 0 && !(300..=399).contains(&code) {
        c.error(
            &at.key("redirectCode"),
            format_args!("{code} is no redirect code, it must be 3xx"),
        );
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        c.not_one_of(
            &at.key("scheme"),
            "scheme",
            &redirect.scheme,
            &["http", "https"],
        );
    }
    if let Some(port) = redirect.port.filter(|port| *port > 0) {
        c.rule(&at.key("port"), rules::port(port));
    }
}

fn direct_response(c: &mut Check, at: &At<'_>, response: &HttpDirectResponse) {
    if let Some(body) = &response.body {
        let at = at.key("body");
        if body.string.is_some() && body.bytes.is_some() {
            c.error(&at, "only one of string and bytes can be set");
        }
        let text = body.string.as_ref().map_or(0, String::len);
        let bytes = body.bytes.as_deref().map(base64);
        if bytes == Some(None) {
            c.error(&at.key("bytes"), "not base64");
        }
        let size = text + bytes.flatten().map_or(0, |bytes| bytes.len());
        if size > 1 << 20 {
            c.error(
                &at,
                format_args!("the body has {size} bytes, at most 1 MiB is allowed"),
            );
        } else if size > 100 << 10 {
            c.warn(
                &at,
                format_args!("the body has {size} bytes, which makes every configuration large"),
            );
        }
    }
    http_status(c, &at.key("status"), response.status.into());
}

/// A retry policy, also of MeshConfig.
pub(super) fn retry(c: &mut Check, at: &At<'_>, retry: &HttpRetry) {
    const POLICIES: &[&str] = &[
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    if retry.attempts < 0 {
        c.error(&at.key("attempts"), "attempts must not be negative");
    }
    let configured = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some();
    if retry.attempts == 0 && configured {
        c.error(
            at,
            "a retry policy with attempts 0 (disabled) must have no other field",
        );
    }
    for (field, duration) in [
        ("perTryTimeout", retry.per_try_timeout),
        ("backoff", retry.backoff),
    ] {
        if let Some(duration) = duration {
            c.rule(&at.key(field), rules::duration(duration));
        }
    }
    for policy in retry
        .retry_on
        .split(',')
        .filter(|_| !retry.retry_on.is_empty())
    {
        if !POLICIES.contains(&policy) && !is_known_status(policy) {
            c.not_one_of(&at.key("retryOn"), "retry condition", policy, POLICIES);
        }
    }
}

/// A status with a registered name.
fn is_known_status(text: &str) -> bool {
    let status = text
        .parse::<u16>()
        .ok()
        .and_then(|n| http::StatusCode::from_u16(n).ok());
    status.is_some_and(|s| s.canonical_reason().is_some())
}

fn rewrite(c: &mut Check, at: &At<'_>, rewrite: &HttpRewrite) {
    if !rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_some() {
        c.error(at, "only one of uri and uriRegexRewrite can be set");
    }
    if rewrite.uri.is_empty() && rewrite.uri_regex_rewrite.is_none() && rewrite.authority.is_empty()
    {
        c.error(at, "one of uri, uriRegexRewrite and authority is required");
    }
    if let Some(change) = &rewrite.uri_regex_rewrite {
        let at = at.key("uriRegexRewrite");
        if change.matches.is_empty() || change.rewrite.is_empty() {
            c.error(&at, "both match and rewrite are required");
        } else {
            c.rule(&at.key("match"), rules::regex(&change.matches));
        }
    }
}
