//! Listeners, connection managers and TCP proxies.

use mesh_core::model::{
    HttpFilterKind, Listener, ListenerFilter, LogFilter, Network, NetworkAnswer,
};
use mesh_xds::decode::Decoded;

use crate::{filters, listener, notes, refusals, with_filters};

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
            "filter_chains[1].filter_chain_match: overlaps with that of filter_chains[0]",
        ),
        (
            format!(
                "{{name: a, {at}, filter_chains: [{{filter_chain_match: {{server_names: [a.x, b.x], source_ports: [1, 2]}}, {tcp}}}, {{filter_chain_match: {{server_names: [b.x], source_ports: [2]}}, {tcp}}}]}}"
            ),
            "filter_chains[1].filter_chain_match: overlaps with that of filter_chains[0]",
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
            format!(
                "{{name: a, {at}, filter_chain_matcher: {{matcher_tree: {{input: {{name: i, typed_config: {{'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x}}}}, exact_match_map: {{map: {{x: {{action: {{name: c, typed_config: {{'@type': type.googleapis.com/google.protobuf.StringValue, value: c}}}}}}}}}}}}}}, filter_chains: [{{name: c, {tcp}}}]}}"
            ),
            "filter_chain_matcher.matcher_tree.input: input \"envoy.type.matcher.v3.HttpRequestHeaderMatchInput\" is not supported",
        ),
        (
            format!("{{name: a, {at}, udp_listener_config: {{}}, filter_chains: [{{{tcp}}}]}}"),
            "udp_listener_config: not supported",
        ),
    ] {
        assert_eq!(refusals(&listener(&text)), [expected], "{text}");
    }
    let apart = listener(&format!(
        "{{{at}, filter_chains: [{{filter_chain_match: {{server_names: [a.x], source_ports: [1]}}, {tcp}}}, {{filter_chain_match: {{server_names: [a.x]}}, {tcp}}}]}}"
    ));
    assert_eq!(refusals(&apart), [""; 0]);
    let unnamed = listener(&format!("{{{at}, filter_chains: [{{{tcp}}}]}}"));
    let value = unnamed.value.expect("accepted");
    assert_eq!(&*value.name, "127.0.0.1:80", "known by its address");
}

/// As in Envoy the first chain speaks for all, and the default chain where there is no other.
#[test]
fn the_older_field_asks_for_a_proxy_header() {
    let proxied = "{use_proxy_proto: true, filters: []}";
    let plain = "{filter_chain_match: {destination_port: 1}, filters: []}";
    for (chains, expected) in [
        (format!("filter_chains: [{proxied}]"), true),
        (format!("default_filter_chain: {proxied}"), true),
        (format!("filter_chains: [{plain}, {proxied}]"), false),
        (
            format!("filter_chains: [{plain}], default_filter_chain: {proxied}"),
            false,
        ),
    ] {
        let decoded = listener(&format!(
            "{{address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, {chains}}}"
        ));
        let filter = ListenerFilter::ProxyProtocol {
            allow_without: false,
            disallowed: None,
            stat_prefix: "".into(),
        };
        let wanted: Vec<_> = expected.then_some(filter).into_iter().collect();
        let found = decoded.value.expect("accepted").listener_filters;
        assert_eq!(found, wanted, "{chains}");
    }
}

/// Also where what stands behind it would have no effect here.
#[test]
fn the_router_is_the_last_filter_and_is_on() {
    const ROUTER: &str = r#"{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}"#;
    let last = "filter_chains[0].filters[0].typed_config.http_filters[1]: stands behind the router, which must be the last filter";
    let stats = r#"- {name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig}}"#;
    for filters in [
        format!("- {ROUTER}}}\n      {stats}"),
        format!("- {ROUTER}}}"),
    ] {
        let refused = with_filters(&filters);
        assert_eq!(refusals(&refused)[0], last, "{filters}");
    }
    let disabled = with_filters(&format!("- {ROUTER}, disabled: true}}"));
    let path = "filter_chains[0].filters[0].typed_config.http_filters[0].disabled: ";
    assert!(refusals(&disabled)[0].starts_with(path), "{disabled:?}");
}

/// A TCP proxy as Envoy reads it.
fn tcp_proxy(fields: &str) -> Decoded<Listener> {
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
fn a_filter_on_metadata_passes_what_it_says_for_requests_without() {
    for (config, passes) in [
        ("{}", true),
        ("{match_if_key_not_found: false}", false),
        (
            "{matcher: {filter: a, path: [{key: b}], value: {bool_match: true}}, match_if_key_not_found: true}",
            true,
        ),
    ] {
        let log = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
        let echo = "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo";
        let decoded = listener(&format!(
            "{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, access_log: [{{name: a, filter: {{metadata_filter: {config}}}, typed_config: {{'@type': {log}}}}}], filter_chains: [{{filters: [{{name: e, typed_config: {{'@type': {echo}}}}}]}}]}}"
        ));
        let [note] = &decoded.findings.notes[..] else {
            panic!("one note: {:?}", decoded.findings);
        };
        assert_eq!(&*note.path, "access_log[0].filter.metadata_filter.matcher");
        let value = decoded.value.expect("accepted");
        let filter = value.access_log[0].filter.as_ref();
        let Some(LogFilter::Metadata(matcher, absent)) = filter else {
            panic!("{filter:?}");
        };
        assert_eq!(
            (matcher.is_some(), *absent),
            (config.contains("matcher"), passes)
        );
    }
}

#[test]
fn connections_may_be_answered_without_an_upstream() {
    for (config, answer) in [
        (
            "direct_response.v3.Config, response: {inline_string: hello}",
            NetworkAnswer::Direct("hello".into()),
        ),
        (
            "direct_response.v3.Config",
            NetworkAnswer::Direct("".into()),
        ),
        ("echo.v3.Echo", NetworkAnswer::Echo),
    ] {
        let decoded = listener(&format!(
            "{{name: in, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{{name: e, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.{config}}}}}]}}]}}"
        ));
        let found = &decoded.findings;
        assert!(
            found.notes.is_empty() && found.rejections.is_empty(),
            "{found:?}"
        );
        let listener = decoded.value.expect("accepted");
        assert_eq!(listener.filter_chains[0].network, Network::Answer(answer));
    }
}

#[test]
fn a_terminal_filter_that_is_not_there_is_named() {
    let decoded = listener(
        "{name: in, address: {socket_address: {address: 127.0.0.1, port_value: 80}}, filter_chains: [{filters: [{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy, stat_prefix: m}}]}]}",
    );
    assert_eq!(
        refusals(&decoded),
        [
            "filter_chains[0].filters: network filter e (envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy) is not supported; the last filter must be an HTTP connection manager, a TCP proxy, direct_response or echo"
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
        (
            &*format!(
                "{rds}, http_protocol_options: {{header_key_format: {{stateful_formatter: {{name: x, typed_config: {{\"@type\": type.googleapis.com/google.protobuf.Empty}}}}}}}}"
            ),
            "http_protocol_options.header_key_format.stateful_formatter",
        ),
        (
            &*format!("{rds}, strip_matching_host_port: true, strip_any_host_port: true"),
            "strip_any_host_port",
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
