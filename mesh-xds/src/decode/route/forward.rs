//! The action that sends requests to a cluster.

use envoy_types::pb::envoy::{
    config::{
        core::v3::{RoutingPriority, TypedExtensionConfig},
        route::v3::{
            self as proto,
            route_action::{
                self, ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
            },
            weighted_cluster::{
                ClusterWeight, RandomValueSpecifier,
                cluster_weight::HostRewriteSpecifier as ArmHost,
            },
        },
    },
    extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig,
    r#type::matcher::v3::RegexMatchAndSubstitute,
};
use http::{HeaderName, StatusCode, header};
use mesh_core::{
    model::{
        ClusterChoice, ConnectConfig, Forward, HostRewrite, MaxStreamDuration, Name, PathRewrite,
        Priority, Regex, Upgrade, WeightedCluster, WeightedClusters,
    },
    route::regex::Substitution,
};

use super::{policy, redirect};
use crate::decode::{
    Context,
    common::{self, bool_of, some_duration},
    filter, format,
    header::{mutations, name as header_name},
    matcher,
    set::{ignored, unsupported},
    transport,
};

pub(super) fn forward(cx: &mut Context, value: &proto::RouteAction) -> Option<Forward> {
    not_acting(cx, value);
    let cluster = cluster(cx, value.cluster_specifier.as_ref());
    let not_found = ClusterNotFoundResponseCode::try_from(value.cluster_not_found_response_code);
    let path_rewrite = path_rewrite(cx, value);
    let host_rewrite = host_rewrite(cx, value.host_rewrite_specifier.as_ref());
    let max_stream = value.max_stream_duration.as_ref();
    Some(Forward {
        cluster_not_found_status: match not_found {
            Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Ok(ClusterNotFoundResponseCode::NotFound) => StatusCode::NOT_FOUND,
            Ok(ClusterNotFoundResponseCode::InternalServerError) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Err(error) => {
                cx.reject("cluster_not_found_response_code", error);
                return None;
            }
        },
        path_rewrite,
        host_rewrite,
        append_x_forwarded_host: value.append_x_forwarded_host,
        timeout: some_duration(cx, "timeout", value.timeout.as_ref()),
        idle_timeout: some_duration(cx, "idle_timeout", value.idle_timeout.as_ref()),
        max_stream_duration: max_stream
            .map(|value| cx.field("max_stream_duration", |cx| max_stream_duration(cx, value))),
        max_grpc_timeout: some_duration(cx, "max_grpc_timeout", value.max_grpc_timeout.as_ref()),
        grpc_timeout_offset: some_duration(
            cx,
            "grpc_timeout_offset",
            value.grpc_timeout_offset.as_ref(),
        ),
        retry: policy::retry(cx, value.retry_policy.as_ref()),
        mirrors: policy::mirrors(cx, &value.request_mirror_policies),
        priority: match RoutingPriority::try_from(value.priority) {
            Ok(RoutingPriority::High) => Priority::High,
            Ok(RoutingPriority::Default) => Priority::Default,
            Err(error) => {
                cx.reject("priority", error);
                return None;
            }
        },
        hash: policy::hashes(cx, &value.hash_policy),
        cors: policy::cors(cx, value.cors.as_ref()),
        upgrades: upgrades(cx, &value.upgrade_configs),
        metadata_match: common::metadata(cx, "metadata_match", value.metadata_match.as_ref()),
        internal_redirect: redirect::policy(cx, value),
        cluster: cluster?,
    })
}

/// Takes the action apart, so that a new field cannot be overlooked, and notes what has no effect.
fn not_acting(cx: &mut Context, value: &proto::RouteAction) {
    let proto::RouteAction {
        cluster_not_found_response_code: _,
        metadata_match,
        prefix_rewrite: _,
        regex_rewrite: _,
        path_rewrite_policy: _,
        path_rewrite: _,
        append_x_forwarded_host: _,
        timeout: _,
        idle_timeout: _,
        flush_timeout,
        early_data_policy,
        retry_policy: _,
        retry_policy_typed_config,
        request_mirror_policies: _,
        priority: _,
        rate_limits,
        include_vh_rate_limits,
        hash_policy: _,
        cors: _,
        max_grpc_timeout: _,
        grpc_timeout_offset: _,
        upgrade_configs: _,
        internal_redirect_policy: _,
        internal_redirect_action: _,
        max_internal_redirects: _,
        hedge_policy,
        max_stream_duration: _,
        cluster_specifier: _,
        host_rewrite_specifier: _,
    } = value;
    ignored!(cx; metadata_match, flush_timeout, early_data_policy, rate_limits, include_vh_rate_limits, hedge_policy);
    unsupported!(cx; retry_policy_typed_config);
}

fn cluster(cx: &mut Context, value: Option<&ClusterSpecifier>) -> Option<ClusterChoice> {
    match value {
        Some(ClusterSpecifier::Cluster(name)) if !name.is_empty() => {
            Some(ClusterChoice::Name(name.as_str().into()))
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            cluster_header(cx, "cluster_header", name).map(ClusterChoice::Header)
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => cx
            .field("weighted_clusters", |cx| weighted_clusters(cx, weighted))
            .map(ClusterChoice::Weighted),
        Some(ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            cx.reject("cluster_specifier_plugin", "not supported");
            None
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(plugin)) if plugin.is_optional => {
            cx.note(
                "inline_cluster_specifier_plugin",
                "optional, and not supported: the route never matches",
            );
            None
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            cx.reject("inline_cluster_specifier_plugin", "not supported");
            None
        }
        Some(ClusterSpecifier::Cluster(_)) | None => {
            cx.reject(
                "",
                "one of cluster, cluster_header, weighted_clusters must be set",
            );
            None
        }
    }
}

/// The header that names the cluster. `:authority` stands as `host`, which means the same.
pub(super) fn cluster_header(cx: &mut Context, field: &str, name: &str) -> Option<HeaderName> {
    if name.eq_ignore_ascii_case(":authority") {
        return Some(header::HOST);
    }
    header_name(cx, field, name)
}

fn weighted_clusters(cx: &mut Context, value: &proto::WeightedCluster) -> Option<WeightedClusters> {
    let proto::WeightedCluster {
        clusters,
        total_weight,
        runtime_key_prefix,
        random_value_specifier,
    } = value;
    ignored!(cx; total_weight);
    let arms = cx.each("clusters", clusters, arm);
    let total: u64 = arms.iter().map(|arm| u64::from(arm.weight)).sum();
    let total = match u32::try_from(total) {
        Ok(0) => {
            cx.reject("clusters", "the sum of the weights must be over 0");
            0
        }
        Ok(total) => total,
        Err(_) => {
            cx.reject(
                "clusters",
                "the sum of the weights must not be over 4294967295",
            );
            0
        }
    };
    let (mut random_header, mut use_hash) = (None, false);
    match random_value_specifier {
        Some(RandomValueSpecifier::HeaderName(name)) => {
            random_header = header_name(cx, "header_name", name);
        }
        Some(RandomValueSpecifier::UseHashPolicy(value)) => {
            use_hash = value.value;
            cx.ignored("use_hash_policy", use_hash);
        }
        None => {}
    }
    Some(WeightedClusters {
        arms,
        total,
        runtime_key_prefix: runtime_key_prefix.as_str().into(),
        random_header,
        use_hash,
    })
}

fn arm(cx: &mut Context, value: &ClusterWeight) -> Option<WeightedCluster> {
    let ClusterWeight {
        name,
        cluster_header: header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = value;
    if name.is_empty() == header.is_empty() {
        cx.reject("", "one of name, cluster_header must be set, and only one");
    }
    if weight.is_none() {
        cx.reject("weight", "must be set");
    }
    ignored!(cx; metadata_match);
    let header = match header.as_str() {
        "" => None,
        header => Some(cluster_header(cx, "cluster_header", header)?),
    };
    Some(WeightedCluster {
        name: name.as_str().into(),
        header,
        weight: weight.as_ref().map_or(0, |weight| weight.value),
        headers: mutations(
            cx,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        host_rewrite: match host_rewrite_specifier {
            Some(ArmHost::HostRewriteLiteral(host)) if !host.is_empty() => {
                Some(host.as_str().into())
            }
            _ => None,
        },
        metadata_match: common::metadata(cx, "metadata_match", metadata_match.as_ref()),
        filters: filter::overrides(cx, "typed_per_filter_config", typed_per_filter_config),
    })
}

fn path_rewrite(cx: &mut Context, value: &proto::RouteAction) -> Option<PathRewrite> {
    let prefix = (!value.prefix_rewrite.is_empty())
        .then(|| PathRewrite::Prefix(value.prefix_rewrite.as_str().into()));
    let regex = value.regex_rewrite.as_ref().and_then(|rewrite| {
        cx.field("regex_rewrite", |cx| substitution(cx, rewrite))
            .map(|(regex, to)| PathRewrite::Regex(regex, to))
    });
    let template = value
        .path_rewrite_policy
        .as_ref()
        .and_then(|policy| cx.field("path_rewrite_policy", |cx| template(cx, policy)))
        .map(PathRewrite::Template);
    let full = (!value.path_rewrite.is_empty())
        .then(|| format::text(cx, "path_rewrite", &value.path_rewrite))
        .flatten()
        .map(PathRewrite::Full);
    let mut all = [prefix, regex, template, full].into_iter().flatten();
    let first = all.next();
    if all.next().is_some() {
        cx.reject(
            "",
            "only one of prefix_rewrite, regex_rewrite, path_rewrite_policy, path_rewrite may be set",
        );
    }
    first
}

fn template(cx: &mut Context, value: &TypedExtensionConfig) -> Option<Name> {
    let config: UriTemplateRewriteConfig = cx.extension("path rewriter", value)?;
    Some(config.path_template_rewrite.into())
}

/// A regex and what each match becomes.
pub(super) fn substitution(
    cx: &mut Context,
    value: &RegexMatchAndSubstitute,
) -> Option<(Regex, Name)> {
    let RegexMatchAndSubstitute {
        pattern,
        substitution,
    } = value;
    let Some(pattern) = pattern else {
        cx.reject("pattern", "must be set");
        return None;
    };
    let regex = cx.field("pattern", |cx| matcher::regex(cx, pattern))?;
    if let Err(reason) = Substitution::parse(substitution) {
        cx.reject("substitution", reason);
        return None;
    }
    Some((regex, substitution.as_str().into()))
}

fn host_rewrite(cx: &mut Context, value: Option<&HostRewriteSpecifier>) -> Option<HostRewrite> {
    match value? {
        HostRewriteSpecifier::HostRewriteLiteral(host) => {
            (!host.is_empty()).then(|| HostRewrite::Literal(host.as_str().into()))
        }
        HostRewriteSpecifier::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        HostRewriteSpecifier::HostRewriteHeader(name) if name.is_empty() => None,
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            header_name(cx, "host_rewrite_header", name).map(HostRewrite::Header)
        }
        HostRewriteSpecifier::HostRewritePathRegex(rewrite) => cx
            .field("host_rewrite_path_regex", |cx| substitution(cx, rewrite))
            .map(|(regex, to)| HostRewrite::PathRegex(regex, to)),
        HostRewriteSpecifier::HostRewrite(text) => {
            format::text(cx, "host_rewrite", text).map(HostRewrite::Format)
        }
    }
}

fn max_stream_duration(
    cx: &mut Context,
    value: &route_action::MaxStreamDuration,
) -> MaxStreamDuration {
    MaxStreamDuration {
        max: some_duration(
            cx,
            "max_stream_duration",
            value.max_stream_duration.as_ref(),
        ),
        grpc_timeout_header_max: some_duration(
            cx,
            "grpc_timeout_header_max",
            value.grpc_timeout_header_max.as_ref(),
        ),
        grpc_timeout_header_offset: some_duration(
            cx,
            "grpc_timeout_header_offset",
            value.grpc_timeout_header_offset.as_ref(),
        ),
    }
}

fn upgrades(cx: &mut Context, values: &[route_action::UpgradeConfig]) -> Vec<Upgrade> {
    let upgrades: Vec<Upgrade> = cx.each("upgrade_configs", values, |cx, value| {
        let kind = value.upgrade_type.to_ascii_lowercase();
        let connect = value.connect_config.as_ref();
        if connect.is_some() && kind != "connect" && kind != "connect-udp" {
            cx.reject("connect_config", format_args!("{kind} is no CONNECT"));
        }
        cx.unsupported("connect_config", connect.is_some() && kind == "connect-udp");
        Some(Upgrade {
            enabled: bool_of(value.enabled.as_ref(), true),
            connect: connect
                .map(|config| cx.field("connect_config", |cx| connect_config(cx, config))),
            kind: kind.into(),
        })
    });
    distinct_upgrades(cx, &upgrades);
    upgrades
}

/// Refuses a kind of upgrade that stands twice.
pub(crate) fn distinct_upgrades(cx: &mut Context, upgrades: &[Upgrade]) {
    for (index, upgrade) in upgrades.iter().enumerate() {
        let mut before = upgrades[..index].iter();
        if before.any(|other| other.kind == upgrade.kind) {
            cx.reject(
                &format!("upgrade_configs[{index}].upgrade_type"),
                format_args!("{:?} is given twice", upgrade.kind),
            );
        }
    }
}

fn connect_config(
    cx: &mut Context,
    value: &route_action::upgrade_config::ConnectConfig,
) -> ConnectConfig {
    let route_action::upgrade_config::ConnectConfig {
        proxy_protocol_config,
        allow_post,
    } = value;
    let version = |config| cx.field("proxy_protocol_config", |cx| transport::version(cx, config));
    ConnectConfig {
        allow_post: *allow_post,
        proxy_protocol: proxy_protocol_config.as_ref().map(version),
    }
}
