//! Route configurations, virtual hosts and routes (`config.route.v3`).

mod action;
pub(crate) mod again;
mod forward;
mod matches;
mod policy;
mod redirect;
mod tree;

pub(crate) use self::{forward::distinct_upgrades, tree::chain_tree};

use envoy_types::pb::{
    envoy::config::route::v3::{
        self as proto, VirtualCluster as ProtoVirtualCluster, virtual_host::TlsRequirementType,
    },
    google::protobuf::{UInt32Value, UInt64Value},
};
use mesh_core::{
    config::Rejection,
    model::{self, Name, RequireTls, Route, RouteConfiguration, RouteRules, VirtualCluster},
};

use super::{
    Context,
    common::{self, bool_of},
    filter, header, matcher,
    set::{ignored, unsupported},
};

/// Envoy's limit of a direct response body.
const MAX_DIRECT_RESPONSE_BODY: u32 = 4096;

/// Decodes a route configuration. What has no effect is noted in `notes`.
///
/// # Errors
///
/// Every reason for which it is refused.
pub fn route_configuration(
    value: &proto::RouteConfiguration,
    notes: &mut Vec<model::Note>,
) -> Result<RouteConfiguration, Vec<Rejection>> {
    let mut cx = Context::new(format!("route configuration {}", value.name));
    let table = table(&mut cx, value);
    let findings = cx.finish();
    notes.extend(findings.notes);
    if findings.rejections.is_empty() {
        Ok(table)
    } else {
        Err(findings.rejections)
    }
}

/// Decodes a route configuration at the place where `cx` stands.
pub(crate) fn table(cx: &mut Context, value: &proto::RouteConfiguration) -> RouteConfiguration {
    let proto::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        validate_clusters,
        max_direct_response_body_size_bytes: _,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = value;
    unsupported!(cx; vhds, route_specifiers);
    // Naming a plugin in a route is what asks for it; the list alone changes nothing.
    ignored!(cx; cluster_specifier_plugins);
    let max_body = max_body(value);
    let metadata = common::metadata(cx, "metadata", metadata.as_ref());
    RouteConfiguration {
        name: name.as_str().into(),
        virtual_hosts: cx.each("virtual_hosts", virtual_hosts, |cx, host| {
            Some(virtual_host(cx, host, max_body))
        }),
        headers: header::mutations(
            cx,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        internal_only_headers: cx.each(
            "internal_only_headers",
            internal_only_headers,
            |cx, name| header::name(cx, "", name),
        ),
        ignore_port_in_host: *ignore_port_in_host_matching,
        most_specific_header_mutations_wins: *most_specific_header_mutations_wins,
        ignore_path_parameters: *ignore_path_parameters_in_path_matching,
        validate_clusters: bool_of(validate_clusters.as_ref(), false),
        mirrors: policy::mirrors(cx, request_mirror_policies),
        filters: filter::overrides(cx, "typed_per_filter_config", typed_per_filter_config),
        vhost_header: (!vhost_header.is_empty()).then(|| vhost_header.as_str().into()),
        origin: common::origin(&metadata),
        metadata,
    }
}

/// The bytes that the body of a direct response may have.
fn max_body(value: &proto::RouteConfiguration) -> u32 {
    let limit = value.max_direct_response_body_size_bytes.as_ref();
    limit.map_or(MAX_DIRECT_RESPONSE_BODY, |limit| limit.value)
}

fn virtual_host(cx: &mut Context, value: &proto::VirtualHost, max_body: u32) -> model::VirtualHost {
    let proto::VirtualHost {
        name,
        domains,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = value;
    ignored!(cx; rate_limits, hedge_policy);
    unsupported!(cx; retry_policy_typed_config, route_specifiers);
    let metadata = common::metadata(cx, "metadata", metadata.as_ref());
    model::VirtualHost {
        name: name.as_str().into(),
        domains: self::domains(cx, domains),
        routes: rules(cx, routes, matcher.as_ref(), max_body),
        require_tls: tls(cx, *require_tls),
        virtual_clusters: cx.each("virtual_clusters", virtual_clusters, virtual_cluster),
        headers: header::mutations(
            cx,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        cors: policy::cors(cx, cors.as_ref()),
        retry: policy::retry(cx, retry_policy.as_ref()),
        mirrors: policy::mirrors(cx, request_mirror_policies),
        include_request_attempt_count: *include_request_attempt_count,
        include_attempt_count_in_response: *include_attempt_count_in_response,
        include_is_timeout_retry: *include_is_timeout_retry_header,
        per_request_buffer_limit: buffer_limit(
            per_request_buffer_limit_bytes.as_ref(),
            request_body_buffer_limit.as_ref(),
        ),
        filters: filter::overrides(cx, "typed_per_filter_config", typed_per_filter_config),
        origin: common::origin(&metadata),
        metadata,
    }
}

fn tls(cx: &mut Context, value: i32) -> RequireTls {
    match TlsRequirementType::try_from(value) {
        Ok(TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
        Ok(TlsRequirementType::All) => RequireTls::All,
        Ok(TlsRequirementType::None) => RequireTls::None,
        Err(_) => {
            cx.reject("require_tls", format_args!("{value} is no known value"));
            RequireTls::All
        }
    }
}

fn domains(cx: &mut Context, domains: &[String]) -> Vec<Name> {
    if domains.is_empty() {
        cx.reject("domains", "must name at least one domain");
    }
    cx.each("domains", domains, domain)
}

/// A `*` stands for something at one end only. As in Envoy any other is itself, which no host has.
fn domain(cx: &mut Context, domain: &String) -> Option<Name> {
    let inner = domain
        .strip_prefix('*')
        .or_else(|| domain.strip_suffix('*'));
    if domain.is_empty() || inner.unwrap_or(domain).contains('*') {
        cx.note(
            "",
            format_args!(
                "no host is {domain:?}: *, *.suffix, prefix.* or an exact name has an effect"
            ),
        );
    }
    Some(domain.as_str().into())
}

fn rules(
    cx: &mut Context,
    routes: &[proto::Route],
    matcher: Option<&envoy_types::pb::xds::r#type::matcher::v3::Matcher>,
    max_body: u32,
) -> RouteRules {
    let Some(matcher) = matcher else {
        return RouteRules::List(cx.each("routes", routes, |cx, value| route(cx, value, max_body)));
    };
    if !routes.is_empty() {
        cx.reject("matcher", "matcher and routes must not both be set");
    }
    let tree = cx.field("matcher", |cx| tree::tree(cx, matcher, max_body));
    tree.map_or_else(RouteRules::default, |tree| RouteRules::Tree(Box::new(tree)))
}

fn virtual_cluster(cx: &mut Context, value: &ProtoVirtualCluster) -> Option<VirtualCluster> {
    let ProtoVirtualCluster { headers, name } = value;
    if headers.is_empty() {
        cx.reject("headers", "virtual clusters must define headers");
    }
    Some(VirtualCluster {
        name: name.as_str().into(),
        headers: cx.each("headers", headers, matcher::header),
    })
}

/// One rule.
fn route(cx: &mut Context, value: &proto::Route, max_body: u32) -> Option<Route> {
    let proto::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = value;
    ignored!(cx; tracing);
    unsupported!(cx; route_specifiers);
    let metadata = common::metadata(cx, "metadata", metadata.as_ref());
    let matches = match r#match {
        Some(value) => cx.field("match", |cx| matches::route_match(cx, value)),
        None => {
            cx.reject("match", "must be set");
            None
        }
    };
    let action = action::action(cx, action.as_ref(), max_body);
    let decorator = decorator.as_ref().map(|decorator| {
        cx.ignored("decorator.propagate", decorator.propagate.is_some());
        decorator.operation.as_str().into()
    });
    Some(Route {
        name: name.as_str().into(),
        headers: header::mutations(
            cx,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        decorator,
        filters: filter::overrides(cx, "typed_per_filter_config", typed_per_filter_config),
        per_request_buffer_limit: buffer_limit(
            per_request_buffer_limit_bytes.as_ref(),
            request_body_buffer_limit.as_ref(),
        ),
        stat_prefix: (!stat_prefix.is_empty()).then(|| stat_prefix.as_str().into()),
        origin: common::origin(&metadata),
        metadata,
        matches: matches?,
        action: action?,
    })
}

/// The newer field wins.
fn buffer_limit(old: Option<&UInt32Value>, new: Option<&UInt64Value>) -> Option<u64> {
    new.map(|limit| limit.value)
        .or_else(|| old.map(|limit| u64::from(limit.value)))
}

#[cfg(test)]
mod tests;
