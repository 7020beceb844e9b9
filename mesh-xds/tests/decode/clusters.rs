//! Clusters: discovery, balancing, protocols.

use std::time::Duration;

use mesh_core::model::{Cluster, Discovery, DnsFamily, LbPolicy, RetryBudget, UpstreamProtocol};

use crate::{cluster, notes, refusals};

#[test]
fn load_balancing_is_read_from_both_places() {
    const PREFIX: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    let policy = |kind: &str| {
        format!(
            r#"typed_extension_config: {{name: p, typed_config: {{"@type": {PREFIX}.{kind}}}}}"#
        )
    };
    for (text, expected) in [
        ("{name: a}".to_owned(), LbPolicy::RoundRobin),
        ("{name: a, lb_policy: RANDOM}".to_owned(), LbPolicy::Random),
        (
            "{name: a, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 5}}"
                .to_owned(),
            LbPolicy::LeastRequest { choices: 5 },
        ),
        (
            "{name: a, lb_policy: MAGLEV}".to_owned(),
            LbPolicy::Maglev { table_size: 65_537 },
        ),
        // A policy that is not known is passed over, as Envoy does.
        (
            format!(
                "{{name: a, load_balancing_policy: {{policies: [{{{}}}, {{{}}}]}}}}",
                policy("pick_first.v3.PickFirst"),
                policy("random.v3.Random")
            ),
            LbPolicy::Random,
        ),
    ] {
        let decoded = cluster(&text);
        assert_eq!(refusals(&decoded), [""; 0], "{text}");
        assert_eq!(decoded.value.expect("accepted").lb, expected, "{text}");
    }
    let none = cluster(&format!(
        "{{name: a, load_balancing_policy: {{policies: [{{{}}}]}}}}",
        policy("pick_first.v3.PickFirst")
    ));
    assert_eq!(
        refusals(&none),
        [
            "load_balancing_policy.policies: none is supported: envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst"
        ]
    );
}

#[test]
fn discovery_types() {
    for (text, expected) in [
        ("{name: a, type: EDS, eds_cluster_config: {}}", "Eds(\"a\")"),
        (
            "{name: a, type: EDS, eds_cluster_config: {service_name: s}}",
            "Eds(\"s\")",
        ),
        (
            "{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}}",
            "OriginalDst(OriginalDst { header: Some(\"x-envoy-original-dst-host\"), port_override: None })",
        ),
        (
            "{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true, http_header_name: ':authority'}}",
            "OriginalDst(OriginalDst { header: Some(\"host\"), port_override: None })",
        ),
    ] {
        let decoded = cluster(text);
        let value = decoded.value.as_ref().expect(text);
        assert_eq!(format!("{:?}", value.discovery), expected, "{text}");
    }
    let dns = cluster(
        "{name: a, type: STRICT_DNS, dns_lookup_family: V4_ONLY, respect_dns_ttl: true, load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: a.example, port_value: 80}}}}]}]}}",
    );
    assert_eq!(
        notes(&dns),
        ["respect_dns_ttl: ignored: it has no effect here"]
    );
    let value = dns.value.expect("accepted");
    let Discovery::StrictDns(dns) = &value.discovery else {
        panic!("{value:?}")
    };
    assert_eq!(dns.family, DnsFamily::V4Only);
    assert_eq!(
        value.load_assignment.localities[0].endpoints[0]
            .address
            .to_string(),
        "a.example:80"
    );
    let custom = cluster(
        "{name: a, cluster_type: {name: envoy.clusters.aggregate, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [b]}}}",
    );
    assert!(
        refusals(&custom)[0].contains("cluster type envoy.clusters.aggregate"),
        "{custom:?}"
    );
}

#[test]
fn upstream_protocols() {
    let options = |config: &str| {
        cluster(&format!(
            "{{name: a, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {config}}}}}}}"
        ))
    };
    for (config, expected) in [
        (
            "explicit_http_config: {http_protocol_options: {}}",
            UpstreamProtocol::Http1,
        ),
        (
            "explicit_http_config: {http2_protocol_options: {}}",
            UpstreamProtocol::Http2,
        ),
        (
            "use_downstream_protocol_config: {http2_protocol_options: {}}",
            UpstreamProtocol::Downstream,
        ),
        ("auto_config: {}", UpstreamProtocol::Auto),
    ] {
        assert_eq!(options(config).value.expect(config).protocol, expected);
    }
    let idle = options(
        "common_http_protocol_options: {idle_timeout: 0s}, explicit_http_config: {http_protocol_options: {}}",
    );
    assert_eq!(
        idle.value.expect("accepted").idle_timeout,
        None,
        "zero is none"
    );
    let http3 = options("explicit_http_config: {http3_protocol_options: {}}");
    assert!(
        refusals(&http3)[0].ends_with("HTTP/3 is not supported"),
        "{http3:?}"
    );
}

#[test]
fn extension_options_replace_older_http_fields() {
    let older = "common_http_protocol_options: {idle_timeout: 7s}, http2_protocol_options: {}, max_requests_per_connection: 3";
    let alone = cluster(&format!("{{name: a, {older}}}"));
    assert_eq!(notes(&alone), [""; 0]);
    let alone = alone.value.expect("accepted");
    assert_eq!(alone.idle_timeout, Some(Duration::from_secs(7)));
    assert_eq!(alone.protocol, UpstreamProtocol::Http2);

    let beside = cluster(&format!(
        "{{name: a, {older}, http_protocol_options: {{}}, protocol_selection: USE_DOWNSTREAM_PROTOCOL, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{http_protocol_options: {{}}}}}}}}}}"
    ));
    let mut listed = notes(&beside);
    listed.sort_unstable();
    assert_eq!(
        listed,
        [
            "common_http_protocol_options: ignored: it has no effect here",
            "http2_protocol_options: ignored: it has no effect here",
            "http_protocol_options: ignored: it has no effect here",
            "protocol_selection: ignored: it has no effect here",
        ]
    );
    let value = beside.value.expect("accepted");
    assert_eq!(
        value.idle_timeout,
        Cluster::new("a", Discovery::Static).idle_timeout
    );
    assert_eq!(value.protocol, UpstreamProtocol::Http1);
    assert_eq!(value.max_requests_per_connection, Some(3));

    let both = "http_protocol_options: {}, http2_protocol_options: {}";
    let refused = cluster(&format!("{{name: a, {both}}}"));
    assert!(
        refusals(&refused)[0].contains("protocol_selection"),
        "{refused:?}"
    );
    let chosen = cluster(&format!(
        "{{name: a, {both}, protocol_selection: USE_DOWNSTREAM_PROTOCOL}}"
    ));
    let protocol = chosen.value.expect("accepted").protocol;
    assert_eq!(protocol, UpstreamProtocol::Downstream);
}

/// What Envoy refuses although no rule in its API says so.
#[test]
fn values_that_envoy_refuses_are_refused_with_their_path() {
    let long = "x".repeat(108);
    let pipe = format!(
        "load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: /{long}}}}}}}}}]}}]}}"
    );
    for (field, path) in [
        ("connect_timeout: 9223372037s", "connect_timeout"),
        ("dns_refresh_rate: 9223372037s", "dns_refresh_rate"),
        (
            "common_lb_config: {update_merge_window: -1s}",
            "common_lb_config.update_merge_window",
        ),
        (
            "outlier_detection: {max_ejection_time: 29s}",
            "outlier_detection.max_ejection_time",
        ),
        (
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 9, maximum_ring_size: 8}",
            "ring_hash_lb_config.minimum_ring_size",
        ),
        (
            "lb_policy: MAGLEV, maglev_lb_config: {table_size: 65536}",
            "maglev_lb_config.table_size",
        ),
        (
            &pipe,
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.pipe.path",
        ),
    ] {
        let decoded = cluster(&format!("{{name: a, type: STATIC, {field}}}"));
        let rejections = decoded.findings.rejections.iter();
        let paths: Vec<&str> = rejections.map(|rejection| &*rejection.path).collect();
        assert_eq!(paths, [path], "{field}");
    }
    let accepted = cluster("{name: a, outlier_detection: {max_ejection_time: 30s}}");
    assert_eq!(refusals(&accepted), [""; 0]);
}

/// Whether a cluster is as expected.
type Is = fn(&Cluster) -> bool;

#[test]
fn each_field_of_a_cluster_means_what_it_means_in_envoy() {
    let cases: [(&str, Is); 7] = [
        ("max_requests_per_connection: 0", |c| {
            c.max_requests_per_connection.is_none()
        }),
        (
            "common_http_protocol_options: {max_requests_per_connection: 7}",
            |c| {
                c.max_requests_per_connection == Some(7)
                    && c.idle_timeout == Some(Duration::from_secs(3600))
            },
        ),
        (
            "circuit_breakers: {thresholds: [{priority: HIGH, max_retries: 9}]}",
            |c| (c.limits[0].max_retries, c.limits[1].max_retries) == (3, 9),
        ),
        (
            "circuit_breakers: {thresholds: [{retry_budget: {}}]}",
            |c| {
                let budget = RetryBudget {
                    basis_points: 2000,
                    min_concurrency: 3,
                };
                c.limits[0].retry_budget == Some(budget) && c.limits[1].retry_budget.is_none()
            },
        ),
        (
            "circuit_breakers: {per_host_thresholds: [{max_connections: 4}]}",
            |c| c.per_host_max_connections == Some(4),
        ),
        (
            "circuit_breakers: {per_host_thresholds: [{priority: HIGH, max_connections: 4}]}",
            |c| c.per_host_max_connections.is_none(),
        ),
        // Compared with the version before, so that it may not be by chance.
        (
            "transport_socket_matches: [{name: x, match: {d: '1', b: '2', c: '3', a: '4'}}]",
            |c| c.transport_matches[0].labels.is_sorted(),
        ),
    ];
    for (fields, is) in cases {
        let decoded = cluster(&format!("{{name: a, {fields}}}"));
        let value = decoded.value.as_ref().expect(fields);
        assert!(is(value), "{fields}: {value:?}");
    }
}

#[test]
fn only_what_changes_nothing_is_passed_over() {
    let router = "{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}";
    let other = cluster(&format!(
        "{{name: a, typed_extension_protocol_options: {{x: {router}}}}}"
    ));
    assert_eq!(
        notes(&other),
        [
            "typed_extension_protocol_options[\"x\"]: ignored: envoy.extensions.filters.http.router.v3.Router has no effect here"
        ]
    );
    let refused = cluster(&format!(
        "{{name: a, filters: [{{name: x, typed_config: {router}}}]}}"
    ));
    assert_eq!(
        refusals(&refused),
        ["filters[0]: upstream filter x is not supported"]
    );
    for (disabled, kept) in [(true, true), (false, false)] {
        let filters = cluster(&format!(
            "{{name: a, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
             {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
             {{http_protocol_options: {{}}}}, http_filters: [{{name: x, disabled: {disabled}, typed_config: {router}}}]}}}}}}"
        ));
        assert_eq!(filters.value.is_some(), kept, "{filters:?}");
    }
}

#[test]
fn the_first_thresholds_of_a_priority_are_in_force() {
    let decoded = cluster(
        "{name: a, circuit_breakers: {thresholds: [{max_connections: 1}, {priority: HIGH, max_requests: 2}, {max_connections: 3}]}}",
    );
    assert_eq!(
        notes(&decoded),
        ["circuit_breakers.thresholds[2]: ignored: there are thresholds of this priority before"]
    );
    let [default, high] = decoded.value.expect("accepted").limits;
    assert_eq!((default.max_connections, high.max_requests), (1, 2));
}

#[test]
fn which_events_close_connections_is_kept() {
    let decoded = cluster(
        "{name: a, common_lb_config: {close_connections_on_host_set_change: true}, close_connections_on_host_health_failure: true}",
    );
    assert_eq!(notes(&decoded), [""; 0]);
    let value = decoded.value.expect("accepted");
    assert!(value.close_on_host_set_change && value.close_on_host_failure);
}
