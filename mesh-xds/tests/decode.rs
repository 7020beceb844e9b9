//! What decoders make of resources: values, notes and refusals.

use std::time::Duration;

use mesh_core::model::{
    Cluster, Discovery, DnsFamily, HttpFilterKind, LbPolicy, Listener, ListenerFilter, Network,
    RouteSource, TransportSocket, UpstreamProtocol,
};
use mesh_xds::{
    decode::{self, Decoded},
    json, yaml,
};

fn wire(message: &str, text: &str) -> Vec<u8> {
    let document: serde_json::Value = yaml::from_str(text).expect(text);
    json::to_wire(message, document).expect(text)
}

fn cluster(text: &str) -> Decoded<Cluster> {
    decode::cluster(&wire("envoy.config.cluster.v3.Cluster", text))
}

fn listener(text: &str) -> Decoded<Listener> {
    decode::listener(&wire("envoy.config.listener.v3.Listener", text))
}

/// A listener whose connection manager has these HTTP filters before the router.
fn with_filters(filters: &str) -> Decoded<Listener> {
    listener(&format!(
        r#"
name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
filter_chains:
- filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      rds: {{route_config_name: "80", config_source: {{ads: {{}}}}}}
      http_filters:
      {filters}
      - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
"#
    ))
}

fn filters(decoded: &Decoded<Listener>) -> Vec<HttpFilterKind> {
    let listener = decoded.value.as_ref().expect("accepted");
    let Network::Http(manager) = &listener.filter_chains[0].network else {
        panic!("{listener:?}")
    };
    assert_eq!(manager.routes, RouteSource::Named("80".into()));
    manager
        .filters
        .iter()
        .map(|filter| filter.kind.clone())
        .collect()
}

fn notes<T>(decoded: &Decoded<T>) -> Vec<String> {
    let notes = decoded.findings.notes.iter();
    notes
        .map(|note| format!("{}: {}", note.path, note.reason))
        .collect()
}

fn refusals<T>(decoded: &Decoded<T>) -> Vec<String> {
    let rejections = decoded.findings.rejections.iter();
    rejections
        .map(|rejection| format!("{}: {}", rejection.path, rejection.reason))
        .collect()
}

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
        (
            format!(
                "{{name: a, load_balancing_policy: {{policies: [{{{}}}, {{{}}}]}}}}",
                policy("override_host.v3.OverrideHost"),
                policy("random.v3.Random")
            ),
            LbPolicy::Random,
        ),
    ] {
        let decoded = cluster(&text);
        // A policy that is not known is passed over, as Envoy does; its own rules hold all the same.
        if let Some(value) = &decoded.value {
            assert_eq!(value.lb, expected, "{text}");
        } else {
            assert!(
                text.contains("override_host"),
                "{text}: {:?}",
                refusals(&decoded)
            );
        }
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

#[test]
fn what_protects_traffic_and_cannot_act_is_kept_and_noted() {
    let rbac = with_filters(
        r#"- {name: rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}"#,
    );
    assert!(
        matches!(&filters(&rbac)[0], HttpFilterKind::Opaque(url, _) if url.ends_with("rbac.v3.RBAC"))
    );
    assert!(
        notes(&rbac)[0].ends_with("is not supported: all requests are refused"),
        "{rbac:?}"
    );
    let optional = with_filters(
        r#"- {name: rbac, is_optional: true, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}"#,
    );
    assert_eq!(filters(&optional), [HttpFilterKind::Router]);
    assert_eq!(notes(&optional).len(), 1);

    let tls = cluster(
        "{name: a, transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: x}}}",
    );
    let transport = tls.value.expect("accepted").transport;
    assert!(matches!(transport, TransportSocket::Tls(tls) if &*tls.sni == "x"));
    let alts = cluster(
        "{name: a, transport_socket: {name: alts, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.alts.v3.Alts, handshaker_service: x}}}",
    );
    assert!(notes(&alts)[0].ends_with("it refuses traffic"), "{alts:?}");
    assert!(matches!(
        alts.value.expect("accepted").transport,
        TransportSocket::Unsupported(..)
    ));

    let network = listener(
        "{name: in, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [{name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: x}}, {name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: a}}]}]}",
    );
    let chain = &network.value.as_ref().expect("accepted").filter_chains[0];
    assert!(
        chain
            .refuse
            .as_ref()
            .is_some_and(|reason| reason.contains("network.rbac")),
        "{chain:?}"
    );
    assert!(
        notes(&network)[0].ends_with("connections are closed"),
        "{network:?}"
    );
}

#[test]
fn filters_that_istio_writes_are_known() {
    let known = with_filters(
        r#"- {name: istio.metadata_exchange, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: {upstream_discovery: []}}}
      - {name: envoy.filters.http.grpc_stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true}}
      - {name: istio.alpn, typed_config: {"@type": type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, alpn_override: [{alpn_override: [istio]}]}}
      - {name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
      - {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
      - {name: istio.stats, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: {}}}"#,
    );
    assert_eq!(refusals(&known), [""; 0]);
    let kinds = filters(&known);
    let telemetry = kinds
        .iter()
        .filter(|kind| matches!(kind, HttpFilterKind::Telemetry(_)));
    assert_eq!((kinds.len(), telemetry.count()), (6, 3));
    let listed = notes(&known);
    assert!(listed[0].contains("grpc_stats"), "{listed:?}");
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(kinds.contains(&HttpFilterKind::Cors));
}

#[test]
fn wrong_listeners_are_refused_by_name() {
    let tcp = "filters: [{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: a}}]";
    let at = "address: {socket_address: {address: 127.0.0.1, port_value: 80}}";
    for (text, expected) in [
        (
            format!("{{name: a, {at}}}"),
            "filter_chains: no filter chain is given",
        ),
        (
            format!("{{name: a, filter_chains: [{{{tcp}}}]}}"),
            "address: must be set",
        ),
        (
            format!(
                "{{name: a, address: {{socket_address: {{address: localhost, port_value: 80}}}}, filter_chains: [{{{tcp}}}]}}"
            ),
            "address.socket_address.address: \"localhost\" is no IP address",
        ),
        (
            format!(
                "{{name: a, address: {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{{tcp}}}]}}"
            ),
            "address.socket_address.protocol: UDP is not supported",
        ),
        (
            format!("{{name: a, {at}, filter_chains: [{{{tcp}}}, {{{tcp}}}]}}"),
            "filter_chains[1].filter_chain_match: is the same as that of filter_chains[0]",
        ),
        (
            format!(
                "{{name: a, {at}, filter_chains: [{{filter_chain_match: {{server_names: [a*.x]}}, {tcp}}}]}}"
            ),
            "filter_chains[0].filter_chain_match.server_names[0]: \"a*.x\": a wildcard may only be the first of several labels",
        ),
        (
            format!(
                "{{name: a, {at}, filter_chains: [{{filter_chain_match: {{server_names: [a.x, '*']}}, {tcp}}}]}}"
            ),
            "filter_chains[0].filter_chain_match.server_names[1]: \"*\": a wildcard may only be the first of several labels",
        ),
        (
            format!(
                "{{name: a, address: {{socket_address: {{address: '::1', port_value: 80, ipv4_compat: true}}}}, filter_chains: [{{{tcp}}}]}}"
            ),
            "address.socket_address.ipv4_compat: ::1 is neither :: nor an IPv4-mapped address",
        ),
        (
            format!(
                "{{name: a, address: {{pipe: {{path: /a}}}}, enable_mptcp: true, filter_chains: [{{{tcp}}}]}}"
            ),
            "enable_mptcp: is for IP addresses only",
        ),
        (
            format!(
                "{{name: a, {at}, listener_filters: [{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, disallowed_versions: [V1, V2]}}}}], filter_chains: [{{{tcp}}}]}}"
            ),
            "listener_filters[0].typed_config.disallowed_versions: all versions are disallowed",
        ),
        (
            format!(
                "{{name: a, {at}, listener_filters: [{{name: x, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc}}}}], filter_chains: [{{{tcp}}}]}}"
            ),
            "listener_filters[0].typed_config: listener filter x (envoy.extensions.filters.listener.original_src.v3.OriginalSrc) is not supported",
        ),
        (
            format!("{{name: a, {at}, udp_listener_config: {{}}, filter_chains: [{{{tcp}}}]}}"),
            "udp_listener_config: not supported",
        ),
    ] {
        assert_eq!(refusals(&listener(&text)), [expected], "{text}");
    }
    let proxied = listener(&format!(
        "{{{at}, filter_chains: [{{use_proxy_proto: true, {tcp}}}]}}"
    ));
    let value = proxied.value.expect("accepted");
    assert_eq!(&*value.name, "127.0.0.1:80", "known by its address");
    assert_eq!(
        value.listener_filters,
        [ListenerFilter::ProxyProtocol {
            allow_without: false,
            disallowed: None,
            stat_prefix: "".into(),
        }]
    );
}

#[test]
fn unknown_field_numbers_and_broken_bytes_are_refused() {
    let mut bytes = wire("envoy.config.cluster.v3.Cluster", "{name: a}");
    bytes.extend([0x80, 0x7d, 1]);
    assert!(refusals(&decode::cluster(&bytes))[0].contains("unknown field number 2000"));
    assert!(decode::cluster(&[0x0a, 9, b'a']).value.is_none());
}

#[test]
fn nesting_is_bounded_on_the_wire() {
    // A struct in a struct, ten thousand times: `{fields: {"": {struct_value: …}}}`.
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        for tag in [0x2a, 0x12, 0x0a] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.append(&mut bytes);
            bytes = outer;
        }
    }
    let name = "google.protobuf.Struct";
    assert!(json::wire_to_value(name, &bytes[2..]).is_err() || json::check(name, &bytes).is_err());
    assert!(json::check(name, &bytes).is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]

    #[test]
    fn broken_bytes_are_refused_or_read_but_never_panic(
        changes in proptest::collection::vec((proptest::prelude::any::<usize>(), proptest::prelude::any::<u8>()), 1..12),
        cut in proptest::prelude::any::<usize>(),
    ) {
        for (message, text) in [
            ("envoy.config.listener.v3.Listener", include_str!("coverage/listener.yaml")),
            ("envoy.config.cluster.v3.Cluster", include_str!("coverage/cluster.yaml")),
            ("envoy.config.route.v3.RouteConfiguration", include_str!("coverage/routes.yaml")),
        ] {
            let mut bytes = wire(message, text);
            for (at, value) in &changes {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            if cut % 4 == 0 {
                bytes.truncate(cut % bytes.len());
            }
            let _ = decode::listener(&bytes);
            let _ = decode::cluster(&bytes);
            let _ = decode::routes(&bytes);
            let _ = decode::endpoints(&bytes);
            let _ = json::wire_to_value(message, &bytes);
        }
    }
}

/// A TCP proxy as Envoy reads it.
fn tcp_proxy(fields: &str) -> decode::Decoded<mesh_core::model::Listener> {
    listener(&format!(
        "{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c, {fields}}}}}]}}]}}"
    ))
}

#[test]
fn a_tcp_proxy_waits_between_attempts_and_logs_on_the_way() {
    let seconds = std::time::Duration::from_secs;
    let read = |fields: &str| match tcp_proxy(fields)
        .value
        .expect(fields)
        .filter_chains
        .remove(0)
        .network
    {
        Network::Tcp(proxy) => *proxy,
        other => panic!("{other:?}"),
    };
    let old = read("flush_access_log_on_connected: true, access_log_flush_interval: 3s");
    assert!(old.flush_access_log_on_connected && !old.flush_access_log_on_start);
    assert_eq!(old.access_log_flush_interval, Some(seconds(3)));
    let new = read(
        "access_log_options: {flush_access_log_on_start: true, access_log_flush_interval: 4s}, backoff_options: {base_interval: 1s}, max_downstream_connection_duration: 5s, max_downstream_connection_duration_jitter_percentage: {value: 12.5}",
    );
    assert!(new.flush_access_log_on_start && !new.flush_access_log_on_connected);
    assert_eq!(new.access_log_flush_interval, Some(seconds(4)));
    assert_eq!(new.backoff, Some((seconds(1), seconds(10))));
    assert_eq!(new.max_downstream_connection_duration_jitter, 1250);
    for both in [
        "flush_access_log_on_connected: true",
        "access_log_flush_interval: 3s",
    ] {
        let decoded = tcp_proxy(&format!("{both}, access_log_options: {{}}"));
        let path =
            "filter_chains[0].filters[0].typed_config.access_log_options: must not be set beside";
        assert!(refusals(&decoded)[0].starts_with(path), "{both}");
    }
    let decoded = tcp_proxy("backoff_options: {base_interval: 2s, max_interval: 1s}");
    assert_eq!(
        refusals(&decoded),
        [
            "filter_chains[0].filters[0].typed_config.backoff_options.max_interval: must not be less than base_interval"
        ]
    );
}

#[test]
fn a_listener_of_both_families_says_so_at_any_of_its_addresses() {
    let both = "{address: {socket_address: {address: '::', port_value: 80, ipv4_compat: true}}}";
    let any = "address: {socket_address: {address: 127.0.0.1, port_value: 80}}";
    for (text, expected) in [
        (format!("{{{any}, filter_chains: [{{filters: []}}]}}"), false),
        (format!("{{{any}, additional_addresses: [{both}], filter_chains: [{{filters: []}}]}}"), true),
        ("{name: a, address: {socket_address: {address: '::', port_value: 80, ipv4_compat: true}}, filter_chains: [{filters: []}]}".to_owned(), true),
    ] {
        let decoded = listener(&text);
        assert!(!decoded.findings.notes.iter().any(|note| note.path.contains("ipv4_compat")), "{text}");
        assert_eq!(decoded.value.expect("accepted").ipv4_compat, expected, "{text}");
    }
}

#[test]
fn a_chain_without_filters_closes_its_connections() {
    let decoded = listener(
        "{name: in, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: []}]}",
    );
    let chain = &decoded.value.expect("accepted").filter_chains[0];
    assert_eq!(chain.refuse.as_deref(), Some("there is no network filter"));
}

#[test]
fn a_terminal_filter_that_is_not_there_is_named() {
    let decoded = listener(
        "{name: in, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]}]}",
    );
    assert_eq!(
        refusals(&decoded),
        [
            "filter_chains[0].filters: network filter e (envoy.extensions.filters.network.echo.v3.Echo) is not supported; the last filter must be an HTTP connection manager or a TCP proxy"
        ]
    );
}

#[test]
fn metadata_is_noted_where_it_stands() {
    let match_of = "metadata_match: {typed_filter_metadata: {a: {'@type': type.googleapis.com/google.protobuf.Empty}}}";
    let decoded = listener(&format!(
        "{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, {match_of}, weighted_clusters: {{clusters: [{{name: a, weight: 1, {match_of}}}]}}}}}}]}}]}}",
    ));
    let proxy = "filter_chains[0].filters[0].typed_config";
    let reason = "ignored: it has no effect here";
    let mut expected = Vec::new();
    for at in ["", "weighted_clusters.clusters[0]."] {
        for field in ["metadata_match", "metadata_match.typed_filter_metadata"] {
            expected.push(format!("{proxy}.{at}{field}: {reason}"));
        }
    }
    let mut found = notes(&decoded);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
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

#[test]
fn managers_that_envoy_refuses_are_refused_with_their_path() {
    const KIND: &str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let rds = "rds: {route_config_name: r, config_source: {ads: {}}}";
    for (fields, path) in [
        ("rds: {route_config_name: r}", "rds.config_source"),
        (
            &*format!("{rds}, common_http_protocol_options: {{max_response_headers_kb: 9}}"),
            "common_http_protocol_options.max_response_headers_kb",
        ),
        (
            &*format!("{rds}, http2_protocol_options: {{max_header_field_size_kb: 61}}"),
            "http2_protocol_options.max_header_field_size_kb",
        ),
        (
            &*format!("{rds}, stream_flush_timeout: -1s"),
            "stream_flush_timeout",
        ),
    ] {
        let router = r#"[{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]"#;
        let text = format!(
            r#"{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{{name: hcm, typed_config: {{"@type": type.googleapis.com/{KIND}, stat_prefix: in, http_filters: {router}, {fields}}}}}]}}]}}"#
        );
        let decoded = listener(&text);
        let rejections = decoded.findings.rejections.iter();
        let paths: Vec<&str> = rejections.map(|rejection| &*rejection.path).collect();
        let wanted = format!("filter_chains[0].filters[0].typed_config.{path}");
        assert_eq!(paths, [wanted], "{fields}");
    }
}

#[test]
fn a_direct_response_is_as_long_as_its_table_allows() {
    let routes = |most: u32| {
        let text = format!(
            r#"
name: r
max_direct_response_body_size_bytes: {most}
virtual_hosts:
- name: v
  domains: ["*"]
  routes:
  - match: {{prefix: /}}
    direct_response: {{status: 200, body: {{inline_string: hello}}}}
"#
        );
        refusals(&decode::routes(&wire(
            "envoy.config.route.v3.RouteConfiguration",
            &text,
        )))
    };
    assert_eq!(routes(5), [""; 0]);
    let [refused] = &routes(4)[..] else {
        panic!("one refusal")
    };
    assert!(
        refused.contains("routes[0].direct_response.body")
            && refused.contains("5 bytes are over max_direct_response_body_size_bytes, 4"),
        "{refused}"
    );
}
