//! HTTP rules of a VirtualService as Envoy routes.

#![allow(deprecated)] // `max_grpc_timeout`: istiod still sets it, since its replacement behaves otherwise.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use route::RetryPolicy;
use route::route::Action;
use route::route_action::{ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier};
use route::route_match::PathSpecifier;

use super::header::{self, Changes};
use super::{fault, hash, pb, retry, route_match, session};
use crate::istio::api::destination_rule::ConsistentHashLb;
use crate::istio::api::virtual_service::{
    Destination, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite,
    HttpRoute, HttpRouteDestination, Percent, RedirectPortSelection,
};
use crate::istio::index::{Proxy, Semantics, Service, VirtualServiceRule, service_entry};
use crate::json;

/// Longest body of a direct response, in bytes: as much as istiod's validation allows.
pub const MAX_DIRECT_RESPONSE_BODY: u32 = 1024 * 1024;

/// The name of a route that no VirtualService made.
const DEFAULT_ROUTE: &str = "default";

/// What the routes of a rule depend on besides the rule.
pub struct RouteOptions<'a> {
    /// The proxy that they are for.
    pub proxy: &'a Proxy,
    /// The port that requests come in on.
    pub port: u32,
    /// Names of the gateways that they are for.
    pub gateways: &'a [&'a str],
    /// Whether the port terminates TLS.
    pub tls: bool,
    /// Whether HTTP/3 is offered in answers.
    pub http3: bool,
    /// Whether `x-forwarded-host` keeps a host that a rule's `rewrite` replaces.
    pub keeps_host: bool,
    /// The mesh's retry policy for rules without one.
    pub default_retry: Option<&'a HttpRetry>,
    /// Finds a service by host.
    pub service: &'a dyn Fn(&str) -> Option<&'a Service>,
    /// Finds the hash policy for a destination.
    pub hash: &'a dyn Fn(&Destination) -> Option<ConsistentHashLb>,
}

impl std::fmt::Debug for RouteOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteOptions")
            .field("port", &self.port)
            .field("gateways", &self.gateways)
            .finish_non_exhaustive()
    }
}

/// The routes of `rule`, in order; empty when none of its conditions can hold for this proxy and port.
#[must_use]
pub fn build(rule: &VirtualServiceRule, options: &RouteOptions<'_>) -> Vec<route::Route> {
    let mut out = Vec::new();
    for http in &rule.spec.http {
        if http.matches.is_empty() {
            out.extend(translate(rule, http, None, options));
            break;
        }
        for condition in &http.matches {
            let Some(route) = translate(rule, http, Some(condition), options) else {
                continue;
            };
            let last = is_catch_all(&route);
            out.push(route);
            if last {
                return out;
            }
        }
    }
    out
}

/// Whether nothing after this route can be reached.
#[must_use]
pub fn is_catch_all(route: &route::Route) -> bool {
    let Some(m) = &route.r#match else {
        return false;
    };
    let all_paths = match &m.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => {
            prefix == "/"
        }
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    all_paths
        && m.headers.is_empty()
        && m.query_parameters.is_empty()
        && m.dynamic_metadata.is_empty()
}

/// Puts catch-all routes last and keeps the order of the others.
#[must_use]
pub fn sort_catch_all(routes: Vec<route::Route>) -> Vec<route::Route> {
    let (last, mut first): (Vec<_>, Vec<_>) = routes.into_iter().partition(is_catch_all);
    first.extend(last);
    first
}

fn applies(condition: Option<&HttpMatchRequest>, options: &RouteOptions<'_>) -> bool {
    let Some(condition) = condition else {
        return true;
    };
    if condition.port != 0 && condition.port != options.port {
        return false;
    }
    if !condition.gateways.is_empty() {
        return condition
            .gateways
            .iter()
            .any(|name| options.gateways.contains(&name.as_str()));
    }
    let namespace = &condition.source_namespace;
    service_entry::selects(&condition.source_labels, &options.proxy.labels)
        && (namespace.is_empty() || *namespace == options.proxy.namespace)
}

fn translate(
    rule: &VirtualServiceRule,
    http: &HttpRoute,
    condition: Option<&HttpMatchRequest>,
    options: &RouteOptions<'_>,
) -> Option<route::Route> {
    if !applies(condition, options) {
        return None;
    }
    let changes = Changes::new(http.headers.as_ref());
    let mut out = route::Route {
        name: match condition {
            Some(condition) if !condition.name.is_empty() => {
                format!("{}.{}", http.name, condition.name)
            }
            _ => http.name.clone(),
        },
        r#match: Some(route_match::translate(condition, rule.semantics)),
        metadata: Some(pb::config_metadata("virtual-service", &rule.meta)),
        stat_prefix: condition
            .map(|condition| condition.stat_prefix.clone())
            .unwrap_or_default(),
        request_headers_to_add: changes.request_add,
        request_headers_to_remove: changes.request_remove,
        response_headers_to_add: changes.response_add,
        response_headers_to_remove: changes.response_remove,
        ..route::Route::default()
    };
    if let Some(to) = &http.redirect {
        out.action = redirect(to, options).map(Action::Redirect);
    } else if let Some(response) = &http.direct_response {
        out.action = Some(Action::DirectResponse(direct_response(response)));
    } else {
        let action = forward(rule, http, changes.authority, options, &mut out);
        out.action = Some(Action::Route(action));
        if let Some((name, config)) = session::for_destinations(http, options) {
            out.typed_per_filter_config.insert(name, config);
        }
    }
    out.decorator = Some(route::Decorator {
        operation: operation(&out, &rule.meta.name, options.port),
        propagate: None,
    });
    if let Some(fault) = http.fault.as_ref().and_then(fault::fault) {
        out.typed_per_filter_config
            .insert("envoy.filters.http.fault".to_owned(), pb::any(&fault));
    }
    if let Some(cors) = &http.cors_policy {
        let policy = pb::any(&fault::cors(cors));
        out.typed_per_filter_config
            .insert("envoy.filters.http.cors".to_owned(), policy);
    }
    if options.http3 {
        let offer = format!("h3=\":{}\"; ma=86400", options.port);
        let append = core::header_value_option::HeaderAppendAction::AppendIfExistsOrAdd;
        out.response_headers_to_add
            .push(header::option("alt-svc", &offer, append));
    }
    Some(out)
}

fn forward(
    rule: &VirtualServiceRule,
    http: &HttpRoute,
    authority: Option<String>,
    options: &RouteOptions<'_>,
    out: &mut route::Route,
) -> route::RouteAction {
    let mut action = route::RouteAction::default();
    set_timeout(&mut action, http.timeout);
    if rule.semantics == Semantics::Gateway {
        action.cluster_not_found_response_code =
            ClusterNotFoundResponseCode::InternalServerError.into();
    }
    let mut authority = authority;
    if let Some(rewrite) = &http.rewrite {
        action.append_x_forwarded_host = options.keeps_host;
        set_rewrite(&mut action, rewrite, rule.semantics, out.r#match.as_ref());
        if !rewrite.authority.is_empty() {
            authority = Some(rewrite.authority.clone());
        }
    }
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    set_mirrors(&mut action, http, options);
    let hashed = match http.route.as_slice() {
        [arm] => single(&mut action, out, arm, options),
        arms => {
            weighted(&mut action, arms, options);
            false
        }
    };
    action.retry_policy = retry::outbound(http.retries.as_ref().or(options.default_retry), hashed);
    action
}

fn set_timeout(action: &mut route::RouteAction, timeout: Option<Duration>) {
    let timeout = pb::duration(timeout.unwrap_or_default());
    action.timeout = Some(timeout);
    action.max_grpc_timeout = Some(timeout);
}

fn set_rewrite(
    action: &mut route::RouteAction,
    rewrite: &HttpRewrite,
    semantics: Semantics,
    matched: Option<&route::RouteMatch>,
) {
    let substitute = |regex: &str, substitution: &str| RegexMatchAndSubstitute {
        pattern: Some(pb::regex(regex)),
        substitution: substitution.to_owned(),
    };
    if let Some(by_regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(substitute(&by_regex.matches, &by_regex.rewrite));
    } else if rewrite.uri == "/" && semantics == Semantics::Gateway {
        // The prefix goes away; a slash is kept in case that nothing else is left of the path.
        let prefix = match matched.and_then(|m| m.path_specifier.as_ref()) {
            Some(PathSpecifier::PathSeparatedPrefix(prefix)) => quote_regex(prefix),
            _ => String::new(),
        };
        action.regex_rewrite = Some(substitute(&format!("^{prefix}(/?)(.*)"), r"/\2"));
    } else {
        action.prefix_rewrite.clone_from(&rewrite.uri);
    }
}

/// Escapes what has a meaning in RE2.
fn quote_regex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn set_mirrors(action: &mut route::RouteAction, http: &HttpRoute, options: &RouteOptions<'_>) {
    let share = |percentage: Option<&Percent>| match percentage {
        None => Some(pb::whole_percent(100)),
        Some(Percent { value }) => (value.0 > 0.0).then(|| pb::percent(value.0)),
    };
    let mut add = |to: &Destination, share| {
        let Some(share) = share else { return };
        action
            .request_mirror_policies
            .push(route::route_action::RequestMirrorPolicy {
                cluster: destination_cluster(to, (options.service)(&to.host), options.port),
                runtime_fraction: Some(pb::runtime(share)),
                trace_sampled: Some(pb::boolean(false)),
                disable_shadow_host_suffix_append: true,
                ..Default::default()
            });
    };
    if let Some(to) = &http.mirror {
        let whole = match (&http.mirror_percentage, http.mirror_percent) {
            (None, Some(percent)) => (percent > 0).then(|| pb::whole_percent(percent)),
            (percentage, _) => share(percentage.as_ref()),
        };
        add(to, whole);
    }
    for mirror in &http.mirrors {
        if let Some(to) = &mirror.destination {
            add(to, share(mirror.percentage.as_ref()));
        }
    }
}

fn arm_cluster(arm: &HttpRouteDestination, options: &RouteOptions<'_>) -> String {
    let to = arm.destination.clone().unwrap_or_default();
    destination_cluster(&to, (options.service)(&to.host), options.port)
}

fn arm_hash(arm: &HttpRouteDestination, options: &RouteOptions<'_>) -> Option<ConsistentHashLb> {
    (options.hash)(arm.destination.as_ref()?)
}

/// Leads all requests to one destination; whether they are hashed, be it by nothing that is named.
fn single(
    action: &mut route::RouteAction,
    out: &mut route::Route,
    arm: &HttpRouteDestination,
    options: &RouteOptions<'_>,
) -> bool {
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(arm_cluster(arm, options)));
    let changes = Changes::new(arm.headers.as_ref());
    out.request_headers_to_add.extend(changes.request_add);
    out.request_headers_to_remove.extend(changes.request_remove);
    out.response_headers_to_add.extend(changes.response_add);
    out.response_headers_to_remove
        .extend(changes.response_remove);
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = changes
            .authority
            .map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    let hash = arm_hash(arm, options);
    action
        .hash_policy
        .extend(hash.as_ref().and_then(hash::policy));
    hash.is_some()
}

fn weighted(
    action: &mut route::RouteAction,
    arms: &[HttpRouteDestination],
    options: &RouteOptions<'_>,
) {
    use route::weighted_cluster::{
        ClusterWeight, cluster_weight::HostRewriteSpecifier as ArmRewrite,
    };
    let mut clusters = Vec::new();
    for arm in arms.iter().filter(|arm| arm.weight != 0) {
        let changes = Changes::new(arm.headers.as_ref());
        clusters.push(ClusterWeight {
            name: arm_cluster(arm, options),
            weight: Some(pb::uint(u32::try_from(arm.weight).unwrap_or_default())),
            request_headers_to_add: changes.request_add,
            request_headers_to_remove: changes.request_remove,
            response_headers_to_add: changes.response_add,
            response_headers_to_remove: changes.response_remove,
            host_rewrite_specifier: changes.authority.map(ArmRewrite::HostRewriteLiteral),
            ..ClusterWeight::default()
        });
        let hash = arm_hash(arm, options);
        action
            .hash_policy
            .extend(hash.as_ref().and_then(hash::policy));
    }
    action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
        clusters,
        ..route::WeightedCluster::default()
    }));
}

/// The cluster of a destination: its own port, else the only port of the service, else the port of the request.
#[must_use]
pub fn destination_cluster(to: &Destination, service: Option<&Service>, port: u32) -> String {
    if to.host.is_empty() {
        return "UnknownService".to_owned();
    }
    let host = service
        .and_then(|service| service.external_name.as_deref())
        .unwrap_or(&to.host);
    let port = match (&to.port, service.map(|service| service.ports.as_slice())) {
        (Some(port), _) => port.number,
        (None, Some([only])) => only.port,
        (None, _) => port,
    };
    pb::subset_key("outbound", &to.subset, host, port)
}

fn redirect(to: &HttpRedirect, options: &RouteOptions<'_>) -> Option<route::RedirectAction> {
    use route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let code = match to.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let port = match (to.port, to.derive_port) {
        (Some(port), _) => port,
        (None, Some(RedirectPortSelection::FromRequestPort)) => options.port,
        (None, _) => 0,
    };
    let default_scheme = if options.tls { "https" } else { "http" };
    let scheme = if to.scheme.is_empty() {
        default_scheme
    } else {
        &to.scheme
    };
    let implied = matches!((port, scheme), (80, "http") | (443, "https"));
    Some(route::RedirectAction {
        host_redirect: to.authority.clone(),
        port_redirect: if implied { 0 } else { port },
        response_code: code.into(),
        scheme_rewrite_specifier: (!to.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(to.scheme.clone())),
        path_rewrite_specifier: Some(if to.prefix_rewrite.is_empty() {
            PathRewriteSpecifier::PathRedirect(to.uri.clone())
        } else {
            PathRewriteSpecifier::PrefixRewrite(to.prefix_rewrite.clone())
        }),
        ..route::RedirectAction::default()
    })
}

fn direct_response(response: &HttpDirectResponse) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let body = response
        .body
        .as_ref()
        .and_then(|body| match (&body.string, &body.bytes) {
            (Some(text), _) => Some(Specifier::InlineString(text.clone())),
            (None, Some(bytes)) => Some(Specifier::InlineBytes(json::base64(bytes)?)),
            (None, None) => None,
        });
    route::DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| core::DataSource {
            specifier: Some(specifier),
            ..core::DataSource::default()
        }),
        ..route::DirectResponseAction::default()
    }
}

/// The name of a route's span: host, port and path of its one destination, else of the rule.
fn operation(route: &route::Route, rule: &str, port: u32) -> String {
    let path = match route
        .r#match
        .as_ref()
        .and_then(|m| m.path_specifier.as_ref())
    {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &route.action {
        Some(Action::Route(route::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)),
            ..
        })) => name.split('|').collect(),
        _ => Vec::new(),
    };
    match cluster.as_slice() {
        [_, port, _, host] => format!("{host}:{port}{path}"),
        _ => format!("{rule}:{port}{path}"),
    }
}

/// The route to a service that no rule names.
#[must_use]
pub fn default_outbound(
    cluster: String,
    operation: String,
    retries: Option<&HttpRetry>,
) -> route::Route {
    let mut action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        retry_policy: retry::outbound(retries, false),
        ..route::RouteAction::default()
    };
    set_timeout(&mut action, None);
    default_route(action, operation)
}

/// The route to the application beside a sidecar.
#[must_use]
pub fn default_inbound(
    cluster: String,
    operation: String,
    retries: Option<RetryPolicy>,
) -> route::Route {
    let zero = Some(pb::duration(Duration::ZERO));
    let action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        timeout: zero,
        max_stream_duration: Some(route::route_action::MaxStreamDuration {
            max_stream_duration: zero,
            grpc_timeout_header_max: zero,
            grpc_timeout_header_offset: None,
        }),
        retry_policy: retries,
        ..route::RouteAction::default()
    };
    default_route(action, operation)
}

fn default_route(action: route::RouteAction, operation: String) -> route::Route {
    route::Route {
        name: DEFAULT_ROUTE.to_owned(),
        r#match: Some(route_match::any_path()),
        decorator: Some(route::Decorator {
            operation,
            propagate: None,
        }),
        action: Some(Action::Route(action)),
        ..route::Route::default()
    }
}

/// The clusters that a route leads to, mirrors included.
pub(super) fn clusters(route: &route::Route) -> Vec<&str> {
    let Some(Action::Route(action)) = &route.action else {
        return Vec::new();
    };
    let mut found: Vec<&str> = action
        .request_mirror_policies
        .iter()
        .map(|mirror| mirror.cluster.as_str())
        .collect();
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => found.push(name),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            found.extend(weighted.clusters.iter().map(|arm| arm.name.as_str()));
        }
        _ => {}
    }
    found
}

/// The answer of a workload whose policies cannot be enforced.
pub(super) fn refuse() -> route::Route {
    let body = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(
            "RBAC: access denied".to_owned(),
        )),
        ..core::DataSource::default()
    };
    route::Route {
        name: "refuse".to_owned(),
        r#match: Some(route_match::any_path()),
        action: Some(Action::DirectResponse(route::DirectResponseAction {
            status: 403,
            body: Some(body),
            ..route::DirectResponseAction::default()
        })),
        ..route::Route::default()
    }
}
