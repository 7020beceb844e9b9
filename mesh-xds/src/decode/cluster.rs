//! Clusters (`config.cluster.v3.Cluster`).

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster as Proto, Filter, OutlierDetection as ProtoOutlier,
                UpstreamConnectionOptions, circuit_breakers::Thresholds, cluster,
            },
            core::v3::{BindConfig, RoutingPriority},
        },
        extensions::clusters::dns::v3::DnsCluster,
    },
    google::protobuf::Duration as ProtoDuration,
};
use mesh_core::model::{
    Address, Cluster, Discovery, Dns, DnsFamily, Limits, Name, OriginalDst, OutlierDetection,
    RetryBudget, TransportMatch, Value,
};

use super::{
    Context, cluster_http, cluster_rules, common, endpoint, filter, header, lb,
    set::{ignored, unsupported},
    transport,
};

/// A cluster. What was found decides whether it may be used.
pub(crate) fn cluster(cx: &mut Context, value: &Proto) -> Cluster {
    let Proto {
        transport_socket_matches,
        name,
        alt_stat_name,
        connect_timeout,
        load_assignment,
        circuit_breakers,
        outlier_detection,
        common_lb_config,
        transport_socket,
        metadata,
        filters,
        ..
    } = value;
    unused(cx, value);
    lb::subsets(cx, value);
    let mut out = Cluster::new(
        name.as_str(),
        discovery(cx, value).unwrap_or(Discovery::Static),
    );
    out.alt_stat_name = (!alt_stat_name.is_empty()).then(|| alt_stat_name.as_str().into());
    if let Some(value) = load_assignment {
        out.load_assignment = cx.field("load_assignment", |cx| endpoint::assignment(cx, value));
    }
    out.lb = lb::policy(cx, value);
    let limit = common::some_duration(cx, "connect_timeout", connect_timeout.as_ref());
    out.connect_timeout = limit.unwrap_or(out.connect_timeout);
    if let Some(value) = circuit_breakers {
        cx.field("circuit_breakers", |cx| limits(cx, value, &mut out));
    }
    cluster_http::options(cx, value, &mut out);
    out.transport = transport::socket(cx, "transport_socket", transport_socket.as_ref());
    out.transport_matches = transport_matches(cx, transport_socket_matches);
    out.outlier = outlier_detection
        .as_ref()
        .map(|value| cx.field("outlier_detection", |cx| outlier(cx, value)));
    if let Some(value) = common_lb_config {
        cx.field("common_lb_config", |cx| lb::common(cx, value, &mut out));
    }
    connections(cx, value, &mut out);
    upstream_filters(cx, filters);
    out.metadata = common::metadata(cx, "metadata", metadata.as_ref());
    out.origin = common::origin(&out.metadata);
    addresses(cx, &out);
    cluster_rules::check(cx, value, &out);
    out
}

/// How connections to endpoints are made and kept.
fn connections(cx: &mut Context, value: &Proto, out: &mut Cluster) {
    let Proto {
        upstream_bind_config,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ..
    } = value;
    if let Some(value) = upstream_bind_config {
        out.bind = cx.field("upstream_bind_config", |cx| bind(cx, value));
    }
    if let Some(value) = upstream_connection_options {
        connection_options(cx, value, out);
    }
    out.close_on_host_failure = *close_connections_on_host_health_failure;
}

/// Fields without effect, and those that ask for what is not there.
fn unused(cx: &mut Context, value: &Proto) {
    ignored!(cx, value; stats_matcher, per_connection_buffer_limit_bytes, per_connection_buffer_high_watermark_timeout, health_checks, dns_jitter,
        dns_failure_refresh_rate, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
        typed_dns_resolver_config, wait_for_warm_on_init, cleanup_interval, ignore_health_on_host_removal,
        lrs_server, lrs_report_endpoint_metrics, track_timeout_budgets, track_cluster_stats, preconnect_policy,
        connection_pool_per_downstream_connection, queuing_policies);
    unsupported!(cx, value; transport_socket_matcher, upstream_config);
}

/// A host name needs a look-up; only DNS clusters make one.
fn addresses(cx: &mut Context, cluster: &Cluster) {
    if matches!(
        cluster.discovery,
        Discovery::StrictDns(_) | Discovery::LogicalDns(_)
    ) {
        return;
    }
    for (group, locality) in cluster.load_assignment.localities.iter().enumerate() {
        for (index, endpoint) in locality.endpoints.iter().enumerate() {
            if let Address::Host(host, _) = &endpoint.address {
                let at = format!(
                    "load_assignment.endpoints[{group}].lb_endpoints[{index}].endpoint.address.socket_address.address"
                );
                let reason = format_args!(
                    "{host:?} is no IP address; host names need type STRICT_DNS or LOGICAL_DNS"
                );
                cx.reject(&at, reason);
            }
        }
    }
}

fn discovery(cx: &mut Context, value: &Proto) -> Option<Discovery> {
    use cluster::{ClusterDiscoveryType as Kind, DiscoveryType};
    let kind = match &value.cluster_discovery_type {
        Some(Kind::Type(kind)) => DiscoveryType::try_from(*kind).ok(),
        Some(Kind::ClusterType(custom)) => return custom_type(cx, custom),
        None => Some(DiscoveryType::Static),
    };
    Some(match kind {
        Some(DiscoveryType::Static) => Discovery::Static,
        Some(DiscoveryType::StrictDns) => Discovery::StrictDns(dns(cx, value)),
        Some(DiscoveryType::LogicalDns) => Discovery::LogicalDns(dns(cx, value)),
        Some(DiscoveryType::Eds) => {
            let service = value
                .eds_cluster_config
                .as_ref()
                .map(|eds| eds.service_name.as_str());
            let name = service.filter(|name| !name.is_empty());
            Discovery::Eds(name.unwrap_or(&value.name).into())
        }
        Some(DiscoveryType::OriginalDst) => Discovery::OriginalDst(original_dst(cx, value)?),
        None => {
            cx.reject("type", "no known value");
            return None;
        }
    })
}

fn dns(cx: &mut Context, value: &Proto) -> Dns {
    use cluster::DnsLookupFamily as Family;
    let default = Dns::default();
    ignored!(cx, value; respect_dns_ttl);
    let refresh = common::some_duration(cx, "dns_refresh_rate", value.dns_refresh_rate.as_ref());
    Dns {
        refresh: refresh.unwrap_or(default.refresh),
        family: match value.dns_lookup_family() {
            Family::Auto => DnsFamily::Auto,
            Family::V4Only => DnsFamily::V4Only,
            Family::V6Only => DnsFamily::V6Only,
            Family::V4Preferred => DnsFamily::V4Preferred,
            Family::All => DnsFamily::All,
        },
    }
}

/// `envoy.cluster.dns` and `envoy.cluster.strict_dns` are known; others are refused by name.
fn custom_type(cx: &mut Context, value: &cluster::CustomClusterType) -> Option<Discovery> {
    let cluster::CustomClusterType { name, typed_config } = value;
    cx.field("cluster_type", |cx| {
        let typed = match typed_config {
            Some(any) => cx.field("typed_config", |cx| cx.typed(any))?,
            None => {
                cx.reject("", format_args!("cluster type {name} is not supported"));
                return None;
            }
        };
        if typed.name != "envoy.extensions.clusters.dns.v3.DnsCluster" {
            cx.reject(
                "",
                format_args!("cluster type {name} ({}) is not supported", typed.name),
            );
            return None;
        }
        let message = cx.message(&typed)?;
        Some(cx.field("typed_config", |cx| dns_cluster(cx, &message)))
    })
}

fn dns_cluster(cx: &mut Context, value: &DnsCluster) -> Discovery {
    use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as Family;
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family: _,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = value;
    ignored!(cx; dns_failure_refresh_rate, respect_dns_ttl, dns_jitter, typed_dns_resolver_config, dns_min_refresh_rate);
    let default = Dns::default();
    let refresh = common::some_duration(cx, "dns_refresh_rate", dns_refresh_rate.as_ref());
    let dns = Dns {
        refresh: refresh.unwrap_or(default.refresh),
        family: match value.dns_lookup_family() {
            Family::Unspecified | Family::Auto => DnsFamily::Auto,
            Family::V4Only => DnsFamily::V4Only,
            Family::V6Only => DnsFamily::V6Only,
            Family::V4Preferred => DnsFamily::V4Preferred,
            Family::All => DnsFamily::All,
        },
    };
    if *all_addresses_in_single_endpoint {
        Discovery::LogicalDns(dns)
    } else {
        Discovery::StrictDns(dns)
    }
}

fn original_dst(cx: &mut Context, value: &Proto) -> Option<OriginalDst> {
    let Some(cluster::LbConfig::OriginalDstLbConfig(config)) = &value.lb_config else {
        return Some(OriginalDst::default());
    };
    let cluster::OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = config;
    cx.field("original_dst_lb_config", |cx| {
        unsupported!(cx; metadata_key);
        if !use_http_header && !http_header_name.is_empty() {
            cx.reject(
                "http_header_name",
                "must not be set without use_http_header",
            );
        }
        let name = match http_header_name.as_str() {
            "" => "x-envoy-original-dst-host",
            ":authority" => "host",
            name => name,
        };
        let header = match use_http_header {
            true => Some(header::name(cx, "http_header_name", name)?),
            false => None,
        };
        let port_override = match upstream_port_override {
            Some(port) => Some(common::port(cx, "upstream_port_override", port.value)?),
            None => None,
        };
        Some(OriginalDst {
            header,
            port_override,
        })
    })
}

fn limits(cx: &mut Context, value: &CircuitBreakers, out: &mut Cluster) {
    let CircuitBreakers {
        thresholds,
        per_host_thresholds,
    } = value;
    let mut found = [false; 2];
    for (index, value) in thresholds.iter().enumerate() {
        let limits = cx.item("thresholds", index, |cx| threshold(cx, value));
        let priority = match value.priority() {
            RoutingPriority::Default => 0,
            RoutingPriority::High => 1,
        };
        // As in Envoy the first of a priority is in force.
        if std::mem::replace(&mut found[priority], true) {
            cx.note(
                &format!("thresholds[{index}]"),
                "ignored: there are thresholds of this priority before",
            );
        } else {
            out.limits[priority] = limits;
        }
    }
    for (index, value) in per_host_thresholds.iter().enumerate() {
        cx.item("per_host_thresholds", index, |cx| {
            let Thresholds {
                priority: _,
                max_connections,
                max_pending_requests,
                max_requests,
                max_retries,
                retry_budget,
                track_remaining,
                max_connection_pools,
            } = value;
            for (field, set) in [
                ("max_pending_requests", max_pending_requests.is_some()),
                ("max_requests", max_requests.is_some()),
                ("max_retries", max_retries.is_some()),
                ("max_connection_pools", max_connection_pools.is_some()),
                ("retry_budget", retry_budget.is_some()),
            ] {
                if set {
                    cx.reject(field, "has no meaning for a single host");
                }
            }
            ignored!(cx; track_remaining);
            if value.priority() == RoutingPriority::Default {
                out.per_host_max_connections = common::u32_of(max_connections.as_ref());
            } else {
                ignored!(cx; max_connections);
            }
        });
    }
}

fn threshold(cx: &mut Context, value: &Thresholds) -> Limits {
    let Thresholds {
        priority: _,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        retry_budget,
        track_remaining,
        max_connection_pools,
    } = value;
    ignored!(cx; max_connection_pools);
    let default = Limits::default();
    let or = |value: &Option<_>, default| common::u32_of(value.as_ref()).unwrap_or(default);
    let budget = retry_budget.as_ref().map(|budget| {
        cx.field("retry_budget", |cx| {
            let budget_interval = &budget.budget_interval;
            ignored!(cx; budget_interval);
            let percent = budget.budget_percent.as_ref();
            let points =
                percent.and_then(|value| common::basis_points(cx, "budget_percent", value));
            RetryBudget {
                basis_points: points.unwrap_or(2000),
                min_concurrency: common::u32_of(budget.min_retry_concurrency.as_ref()).unwrap_or(3),
            }
        })
    });
    Limits {
        max_connections: or(max_connections, default.max_connections),
        max_pending_requests: or(max_pending_requests, default.max_pending_requests),
        max_requests: or(max_requests, default.max_requests),
        max_retries: or(max_retries, default.max_retries),
        retry_budget: budget,
        track_remaining: *track_remaining,
    }
}

/// Envoy's default of `base_ejection_time`.
const BASE_EJECTION: Duration = Duration::from_secs(30);

fn outlier(cx: &mut Context, value: &ProtoOutlier) -> OutlierDetection {
    let ProtoOutlier {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = value;
    cx.note(
        "",
        "outlier detection does not act yet: no endpoint is ejected",
    );
    ignored!(cx; success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor,
        enforcing_consecutive_local_origin_failure, enforcing_local_origin_success_rate,
        failure_percentage_threshold, enforcing_failure_percentage, enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts, failure_percentage_request_volume, max_ejection_time_jitter,
        successful_active_health_check_uneject_host, monitors, always_eject_one_host, detect_degraded_hosts);
    let number = |value: &Option<_>| common::u32_of(value.as_ref());
    let (base, longest) = ejection(cx, base_ejection_time.as_ref(), max_ejection_time.as_ref());
    OutlierDetection {
        consecutive_5xx: number(consecutive_5xx),
        consecutive_gateway_failure: number(consecutive_gateway_failure),
        consecutive_local_origin_failure: number(consecutive_local_origin_failure),
        split_external_local_origin_errors: *split_external_local_origin_errors,
        interval: common::some_duration(cx, "interval", interval.as_ref()),
        base_ejection_time: base,
        max_ejection_time: longest,
        max_ejection_percent: number(max_ejection_percent),
        enforcing_consecutive_5xx: number(enforcing_consecutive_5xx),
        enforcing_consecutive_gateway_failure: number(enforcing_consecutive_gateway_failure),
        enforcing_success_rate: number(enforcing_success_rate),
    }
}

/// For how long an endpoint is ejected at first, and at most.
fn ejection(
    cx: &mut Context,
    base: Option<&ProtoDuration>,
    longest: Option<&ProtoDuration>,
) -> (Option<Duration>, Option<Duration>) {
    let base = common::some_duration(cx, "base_ejection_time", base);
    let longest = common::some_duration(cx, "max_ejection_time", longest);
    if longest.is_some_and(|longest| longest < base.unwrap_or(BASE_EJECTION)) {
        cx.reject(
            "max_ejection_time",
            "must not be less than base_ejection_time",
        );
    }
    (base, longest)
}

fn bind(cx: &mut Context, value: &BindConfig) -> Option<Address> {
    let BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = value;
    ignored!(cx; freebind, socket_options, validate_network_namespaces);
    unsupported!(cx; extra_source_addresses, additional_source_addresses, local_address_selector);
    let source = source_address.as_ref()?;
    let address = cx.field("source_address", |cx| common::socket_address(cx, source))?;
    if let Address::Host(host, _) = &address {
        cx.reject(
            "source_address.address",
            format_args!("{host:?} is no IP address"),
        );
        return None;
    }
    Some(address)
}

fn connection_options(cx: &mut Context, value: &UpstreamConnectionOptions, out: &mut Cluster) {
    cx.field("upstream_connection_options", |cx| {
        let UpstreamConnectionOptions {
            tcp_keepalive,
            set_local_interface_name_on_upstream_connections,
            happy_eyeballs_config,
        } = value;
        ignored!(cx; set_local_interface_name_on_upstream_connections, happy_eyeballs_config);
        out.tcp_keepalive = tcp_keepalive.as_ref().map(common::keepalive);
    });
}

fn transport_matches(
    cx: &mut Context,
    values: &[cluster::TransportSocketMatch],
) -> Vec<TransportMatch> {
    cx.each("transport_socket_matches", values, |cx, value| {
        let cluster::TransportSocketMatch {
            name,
            r#match,
            transport_socket,
        } = value;
        let mut labels: Vec<(Name, Name)> = Vec::new();
        for (key, value) in r#match.iter().flat_map(|fields| &fields.fields) {
            match common::json_value(value) {
                Value::String(text) => labels.push((key.as_str().into(), text)),
                other => match other.as_text() {
                    Some(text) => labels.push((key.as_str().into(), text.into())),
                    None => cx.reject(
                        "match",
                        format_args!("{key}: only plain values are supported"),
                    ),
                },
            }
        }
        labels.sort();
        Some(TransportMatch {
            name: name.as_str().into(),
            labels,
            transport: transport::socket(cx, "transport_socket", transport_socket.as_ref()),
        })
    })
}

/// Network filters of upstream connections: telemetry is done elsewhere, others are refused.
fn upstream_filters(cx: &mut Context, values: &[Filter]) {
    for (index, value) in values.iter().enumerate() {
        cx.item("filters", index, |cx| {
            let typed = value.typed_config.as_ref().and_then(|any| cx.typed(any));
            match typed {
                Some(typed) if filter::is_telemetry(&typed.name) => {
                    cx.note(
                        "",
                        format_args!("ignored: filter {} has no effect here", value.name),
                    );
                }
                _ => cx.reject(
                    "",
                    format_args!("upstream filter {} is not supported", value.name),
                ),
            }
        });
    }
}
