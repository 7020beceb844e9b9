use envoy_types::pb::envoy::config::{
    bootstrap::v3::Bootstrap,
    cluster::v3::{Cluster, cluster},
    route::v3::{RouteConfiguration, route, route_match},
};
use prost::Name;

use super::*;

const BOOTSTRAP: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          generate_request_id: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route: {cluster: app}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - {name: a, type: STATIC, connect_timeout: 0.25s}
  - name: b
    type: EDS
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 8192}]}
    metadata: {filter_metadata: {istio: {config: x, list: [1, null, {deep: true}]}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 1000}}
"#;

fn yaml<M: Message + Name + Default>(text: &str) -> Result<M, yaml::Error> {
    from_yaml(&M::full_name(), text)
}

#[test]
fn a_bootstrap_in_yaml_becomes_messages() {
    let bootstrap: Bootstrap = yaml(BOOTSTRAP).expect("valid");
    let resources = bootstrap.static_resources.expect("set");
    assert_eq!(resources.listeners.len(), 1);
    let b = &resources.clusters[1];
    assert_eq!(
        b.cluster_discovery_type,
        Some(cluster::ClusterDiscoveryType::Type(3))
    );
    assert_eq!(b.connect_timeout.map(|d| d.seconds), Some(5));
    let limits = &b.circuit_breakers.as_ref().expect("set").thresholds[0];
    assert_eq!(limits.max_connections.map(|v| v.value), Some(8192));
    assert_eq!(b.typed_extension_protocol_options.len(), 1);
}

#[test]
fn json_survives_a_round_trip() {
    let bootstrap: Bootstrap = yaml(BOOTSTRAP).expect("valid");
    let value = to_value(&Bootstrap::full_name(), &bootstrap).expect("a Bootstrap");
    let chain = &value["static_resources"]["listeners"][0]["filter_chains"][0];
    assert_eq!(
        chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
            ["cluster"],
        "app"
    );
    let cluster = &value["static_resources"]["clusters"][1];
    assert_eq!(cluster["type"], "EDS");
    assert_eq!(cluster["connect_timeout"], "5s");
    assert_eq!(
        cluster["metadata"]["filter_metadata"]["istio"]["list"],
        serde_json::json!([1, null, {"deep": true}])
    );
    let again: Bootstrap = parse_str(&value.to_string()).expect("its own output");
    assert_eq!(to_value(&Bootstrap::full_name(), &again), Ok(value));
}

#[test]
fn elements_are_handed_out_one_by_one() {
    let mut seen = Vec::new();
    let taps = [(
        "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
        "clusters",
    )];
    let name = Bootstrap::full_name();
    let rest: Bootstrap = stream_yaml(&name, BOOTSTRAP, &taps, &mut |element| {
        let cluster = Cluster::decode(element.bytes).map_err(|error| error.to_string())?;
        seen.push((element.path.to_owned(), cluster.name));
        Ok(())
    })
    .expect("valid");
    let resources = rest.static_resources.expect("set");
    assert_eq!(
        (resources.clusters.len(), resources.listeners.len()),
        (0, 1)
    );
    assert_eq!(
        seen,
        [
            ("static_resources.clusters[0]".to_owned(), "a".to_owned()),
            ("static_resources.clusters[1]".to_owned(), "b".to_owned())
        ]
    );
}

#[test]
fn mistakes_are_refused_with_their_path() {
    for (text, path, reason) in [
        (
            "{name: a, lb_polcy: MAGLEV}",
            "lb_polcy",
            "did you mean `lb_policy`",
        ),
        (
            "{lb_policy: FASTEST}",
            "lb_policy",
            "one of ROUND_ROBIN, LEAST_REQUEST",
        ),
        ("{connect_timeout: 5}", "connect_timeout", "a duration"),
        ("{connect_timeout: 5m}", "connect_timeout", "a duration"),
        ("{name: [a]}", "name", "a list is not a string"),
        ("{name: 1}", "name", "1 is not a string"),
        (
            "{per_connection_buffer_limit_bytes: -1}",
            "per_connection_buffer_limit_bytes",
            "unsigned",
        ),
        (
            "{type: EDS, cluster_type: {name: x}}",
            "type",
            "only one of",
        ),
        ("{name: a, name: b}", "", ""),
        (
            "{load_assignment: {endpoints: [{lb_endpoints: [{endpont: {}}]}]}}",
            "load_assignment.endpoints[0].lb_endpoints[0].endpont",
            "unknown field",
        ),
        (
            "{transport_socket: {name: x, typed_config: {'@type': type.googleapis.com/no.such.Type}}}",
            "transport_socket.typed_config",
            "unknown type",
        ),
        (
            "{transport_socket: {name: x, typed_config: {a: 1}}}",
            "transport_socket.typed_config",
            "@type",
        ),
        ("{health_checks: x}", "health_checks", "is not"),
        (
            "{metadata: {filter_metadata: [a]}}",
            "filter_metadata",
            "a map",
        ),
        ("{health_checks: [null]}", "health_checks", "null"),
    ] {
        let error = yaml::<Cluster>(text).expect_err(text);
        assert!(error.path().to_string().ends_with(path), "{text}: {error}");
        assert!(error.message().contains(reason), "{text}: {error}");
        assert!(error.location().is_some(), "{text}: {error}");
    }
}

/// As in Envoy's own parser.
#[test]
fn a_list_of_one_needs_no_brackets_and_a_wrapped_value_may_be_an_object() {
    let plain = "{name: a, health_checks: [{timeout: 1s}], circuit_breakers: {thresholds: [{max_requests: 7}]}, respect_dns_ttl: true, lb_subset_config: {subset_selectors: [{keys: [k]}]}}";
    let short = "{name: a, health_checks: {timeout: {seconds: 1}}, circuit_breakers: {thresholds: {max_requests: {value: 7}}}, respect_dns_ttl: 'true', lb_subset_config: {subset_selectors: {keys: k}}}";
    assert_eq!(
        yaml::<Cluster>(short).expect("read"),
        yaml::<Cluster>(plain).expect("read")
    );
    let mut seen = Vec::new();
    let text = "static_resources: {clusters: {name: only}}";
    let taps = [(
        "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
        "clusters",
    )];
    let rest: Bootstrap = stream_yaml(&Bootstrap::full_name(), text, &taps, &mut |element| {
        let cluster = Cluster::decode(element.bytes).map_err(|error| error.to_string())?;
        seen.push((element.path.to_owned(), cluster.name));
        Ok(())
    })
    .expect("read");
    assert_eq!(
        seen,
        [("static_resources.clusters".to_owned(), "only".to_owned())]
    );
    assert!(rest.static_resources.expect("set").clusters.is_empty());
}

#[test]
fn null_is_absent_and_the_type_may_come_last() {
    let text = r#"{"name": null, "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"path": "/x"}, "route": {"cluster": "c", "timeout": "0s", "max_stream_duration": {}},
         "typed_per_filter_config": {"f": {"disabled": true,
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"},
            "d": {"value": "1.5s", "@type": "type.googleapis.com/google.protobuf.Duration"}}}]}]}"#;
    let routes: RouteConfiguration = parse_str(text).expect("valid");
    let rule = &routes.virtual_hosts[0].routes[0];
    assert!(
        matches!(&rule.r#match.as_ref().expect("set").path_specifier,
        Some(route_match::PathSpecifier::Path(path)) if path == "/x")
    );
    let Some(route::Action::Route(action)) = &rule.action else {
        panic!("{rule:?}")
    };
    assert_eq!(action.timeout.map(|d| (d.seconds, d.nanos)), Some((0, 0)));
    assert_eq!(rule.typed_per_filter_config["f"].value, [0x18, 1]);
    let value = to_value(&RouteConfiguration::full_name(), &routes).expect("its type");
    let filters = &value["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"];
    assert_eq!(filters["d"]["value"], "1.500s");
    assert_eq!(filters["f"]["disabled"], true);
}

#[test]
fn both_typed_structs_are_read() {
    for package in ["udpa.type.v1", "xds.type.v3"] {
        let text = format!(
            r#"{{"name":"x","typed_config":{{"@type":"type.googleapis.com/{package}.TypedStruct","type_url":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router","value":{{"dynamic_stats":false}}}}}}"#
        );
        let config: envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig =
            from_str("envoy.config.core.v3.TypedExtensionConfig", &text).expect("read");
        let any = config.typed_config.expect("set");
        let (name, _) = resolve_any(&any.type_url, &any.value).expect("resolved");
        assert_eq!(name, "envoy.extensions.filters.http.router.v3.Router");
    }
}

#[test]
fn rules_of_the_api_are_checked_on_wire_bytes() {
    let name = Cluster::full_name();
    for (text, path, reason) in [
        ("{name: ''}", "name", "must not be empty"),
        (
            "{name: a, connect_timeout: 0s}",
            "connect_timeout",
            "greater than 0",
        ),
        ("{name: a, lb_policy: 77}", "lb_policy", "no known value"),
        (
            "{name: a, load_assignment: {cluster_name: a, policy: {overprovisioning_factor: 0}}}",
            "load_assignment.policy.overprovisioning_factor",
            "greater than 0",
        ),
        (
            "{name: a, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1}]}",
            "health_checks[0]",
            "must be set",
        ),
    ] {
        let cluster: Cluster = yaml(text).expect(text);
        let violation = check(&name, &cluster.encode_to_vec()).expect_err(text);
        assert_eq!(violation.path, path, "{text}: {violation}");
        assert!(violation.reason.contains(reason), "{text}: {violation}");
    }
    let bootstrap: Bootstrap = yaml(BOOTSTRAP).expect("valid");
    assert_eq!(
        check(&Bootstrap::full_name(), &bootstrap.encode_to_vec()),
        Ok(())
    );
    // Field number 2,000 is no field of Cluster.
    let violation = check(&name, &[0x0a, 1, b'a', 0x80, 0x7d, 1]).expect_err("unknown number");
    assert!(
        violation.reason.contains("unknown field number 2000"),
        "{violation}"
    );
    assert!(check(&name, &[0x0a, 5]).is_err(), "cut off");
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120));
    let text = format!(r#"{{"name":"a","metadata":{{"filter_metadata":{{"x":{deep}}}}}}}"#);
    let error = parse_str::<Cluster>(&text).expect_err("too deep");
    assert!(
        error.to_string().contains("deep") || error.to_string().contains("recursion"),
        "{error}"
    );
}

#[test]
fn a_typed_struct_becomes_the_type_that_it_names() {
    let url = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let any =
        typed_struct(url, serde_json::json!({"suppress_envoy_headers": true})).expect("an object");
    let (name, bytes) = resolve_any(&any.type_url, &any.value).expect("a Router");
    assert_eq!(name, "envoy.extensions.filters.http.router.v3.Router");
    assert_eq!(&*bytes, [0x20, 1]);
    let bad = typed_struct(url, serde_json::json!({"suppress": true})).expect("an object");
    let error = resolve_any(&bad.type_url, &bad.value).expect_err("no such field");
    assert!(error.contains("unknown field"), "{error}");
    let other = typed_struct(
        "type.googleapis.com/stats.PluginConfig",
        serde_json::json!({"a": 1}),
    );
    let other = other.expect("an object");
    let (name, _) = resolve_any(&other.type_url, &other.value).expect("kept");
    assert_eq!(name, "stats.PluginConfig");
}
