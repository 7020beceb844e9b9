use super::*;

fn edge(servers: &str, rules: &str) -> Resources {
    gateway(&format!(
        "\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: a}}\n\
         spec: {{selector: {{istio: ingressgateway}}, servers: [{servers}]}}\n{rules}"
    ))
}

fn rule(name: &str, namespace: &str, hosts: &str, http: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{hosts: [{hosts}], gateways: [a/edge], http: [{http}]}}\n"
    )
}

const TO_X: &str = "{route: [{destination: {host: x.a.svc.cluster.local}}]}";

fn host_names(resources: &Resources, config: &str) -> Vec<String> {
    let config = resources.route_config(config);
    let hosts = config["virtual_hosts"].as_array().expect("virtual hosts");
    hosts
        .iter()
        .map(|host| host["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn hosts_are_those_of_server_and_rule() {
    let servers = "{port: {number: 8080, name: http, protocol: HTTP}, hosts: ['*.a.com', 'b/b.com', './c.com']}";
    let rules = rule("r1", "a", "one.a.com", TO_X)
        + &rule("r2", "a", "b.com", TO_X)
        + &rule("r3", "a", "'*.com'", TO_X);
    let resources = edge(servers, &rules);
    // b.com is only for rules of namespace b; the rule for *.com gives the server's own hosts.
    assert_eq!(
        host_names(&resources, "http.8080"),
        ["c.com:8080", "one.a.com:8080"]
    );
    let config = resources.route_config("http.8080");
    assert_eq!(
        config["virtual_hosts"][0]["domains"],
        json!(["c.com", "*.a.com"]),
        "hosts of one rule are merged"
    );
    assert_eq!(resources.listeners[0].name, "0.0.0.0_8080");
}

#[test]
fn conditions_on_the_gateway_decide() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let http = "{match: [{gateways: [mesh]}], redirect: {uri: /mesh}}, {match: [{gateways: [a/edge], uri: {exact: /e}}], \
                route: [{destination: {host: x.a.svc.cluster.local}}]}";
    let routes = edge(servers, &rule("r", "a", "'*'", http)).routes_of("http.80", "*:80");
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0]["match"]["path"], "/e");
}

#[test]
fn catch_all_routes_of_several_rules_come_last() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let narrow =
        "{match: [{uri: {prefix: /n}}], route: [{destination: {host: x.a.svc.cluster.local}}]}";
    let routes = edge(
        servers,
        &(rule("a-wide", "a", "z.com", TO_X) + &rule("b-narrow", "a", "z.com", narrow)),
    )
    .routes_of("http.80", "z.com:80");
    assert_eq!(routes[0]["match"]["prefix"], "/n");
    assert_eq!(routes[1]["match"]["prefix"], "/");
}

#[test]
fn https_redirect_asks_for_tls() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: [z.com], tls: {httpsRedirect: true}}";
    let config = edge(servers, "").route_config("http.80");
    assert_eq!(config["virtual_hosts"][0]["require_tls"], "ALL");
    assert_eq!(config["virtual_hosts"][0]["domains"], json!(["z.com"]));
}

#[test]
fn a_server_without_rules_answers_404() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let config = edge(servers, "").route_config("http.80");
    assert_eq!(
        config["virtual_hosts"][0],
        json!({"name": "blackhole:80", "domains": ["*"]})
    );
}

#[test]
fn tls_servers_are_chosen_by_name_and_stay_tls() {
    let servers = "{port: {number: 443, name: one, protocol: HTTPS}, hosts: [one.com], tls: {mode: SIMPLE, credentialName: one}}, \
                   {port: {number: 443, name: two, protocol: TLS}, hosts: [two.com], tls: {mode: PASSTHROUGH}}";
    let pass = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: p, namespace: a}\n\
                spec: {hosts: [two.com], gateways: [edge], tls: [{match: [{sniHosts: [two.com]}], route: [{destination: {host: y, port: {number: 9000}}}]}]}\n";
    let resources = edge(servers, &(rule("r", "a", "one.com", TO_X) + pass));
    let listener = resources.listener("0.0.0.0_443");
    let chains = listener["filter_chains"].as_array().expect("chains");
    assert_eq!(chains.len(), 2);
    assert_eq!(
        chains[0]["filter_chain_match"]["server_names"],
        json!(["one.com"])
    );
    assert_eq!(
        chains[0]["transport_socket"]["name"],
        "envoy.transport_sockets.tls"
    );
    assert_eq!(
        chains[1]["filters"][0]["typed_config"]["cluster"],
        "outbound|9000||y.a.svc.cluster.local"
    );
    assert!(chains[1].get("transport_socket").is_none());
    assert_eq!(
        host_names(&resources, "https.443.one.edge.a"),
        ["one.com:443"]
    );
}

#[test]
fn servers_that_cannot_share_a_port_are_named() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}, {port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}";
    let resources = edge(servers, "");
    assert_eq!(resources.listeners.len(), 1);
    let note = resources
        .notes
        .iter()
        .find(|note| note.object == "Gateway a/edge")
        .expect("a note");
    assert!(note.text.contains("server on port 80"), "{note:?}");
}

#[test]
fn gateways_of_other_workloads_do_not_count() {
    let text = "\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: other, namespace: a}\n\
                spec: {selector: {istio: egressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n";
    assert_eq!(gateway(text).listeners, []);
}

#[test]
fn claims_of_tokens_are_matched_as_metadata() {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let http = "{match: [{headers: {'@request.auth.claims[group][id]': {exact: admin}}}], \
                route: [{destination: {host: x.a.svc.cluster.local}}]}";
    let routes = edge(servers, &rule("r", "a", "'*'", http)).routes_of("http.80", "*:80");
    assert!(routes[0]["match"].get("headers").is_none());
    assert_eq!(
        routes[0]["match"]["dynamic_metadata"][0]["path"],
        json!([{"key": "payload"}, {"key": "group"}, {"key": "id"}])
    );
}

#[test]
fn one_host_of_a_tls_server_may_stand_for_all() {
    let servers = "{port: {number: 443, name: all, protocol: HTTPS}, hosts: ['*', one.com], tls: {mode: SIMPLE, credentialName: c}}";
    let listener = edge(servers, &rule("r", "a", "one.com", TO_X)).listener("0.0.0.0_443");
    let chains = listener["filter_chains"].as_array().expect("chains");
    assert_eq!(chains.len(), 1);
    assert!(chains[0].get("filter_chain_match").is_none());
}

#[test]
fn of_one_host_a_gateway_knows_the_oldest_service() {
    let entry = |namespace: &str, year: u32, port: u32| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: e, namespace: {namespace}, creationTimestamp: '{year}-01-01T00:00:00Z'}}\n\
             spec: {{hosts: [e.com], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: DNS}}\n"
        )
    };
    // That it is of the gateway's own namespace says nothing.
    let entries = entry("istio-system", 2020, 81) + &entry("b", 2010, 82);
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let to = "{route: [{destination: {host: e.com}}]}";
    let routes =
        edge(servers, &(rule("r", "a", "z.com", to) + &entries)).routes_of("http.80", "z.com:80");
    assert_eq!(routes[0]["route"]["cluster"], "outbound|82||e.com");
}

#[test]
fn servers_that_share_routes_have_those_of_the_first() {
    let servers = "{port: {number: 8080, name: one, protocol: HTTP}, hosts: [one.com], bind: 127.0.0.1}, \
                   {port: {number: 8080, name: two, protocol: HTTP2}, hosts: [two.com], bind: 127.0.0.1}";
    let config = edge(servers, &rule("r", "a", "'*'", TO_X)).route_config("http.8080.127.0.0.1");
    let hosts = config["virtual_hosts"].as_array().expect("virtual hosts");
    assert_eq!(hosts.len(), 1);
    assert_eq!(hosts[0]["domains"], json!(["one.com", "two.com"]));
}

/// A service that asks for sessions.
const STICKY: &str = "---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a, labels: {istio.io/persistent-session: 'cookie:/path'}}
spec: {clusterIP: 10.0.0.8, ports: [{port: 80, name: http}]}
";

#[test]
fn sessions_of_a_service_hold_for_its_host_and_its_routes() {
    const FILTER: &str = "envoy.filters.http.stateful_session";
    let host = "s.a.svc.cluster.local";
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let sessions = |arms: &str| {
        let rules = rule("r", "a", host, &format!("{{route: [{arms}]}}"));
        let config = edge(servers, &(rules + STICKY)).route_config("http.80");
        let host = config["virtual_hosts"][0].clone();
        let of = |value: &Value| value["typed_per_filter_config"].get(FILTER).is_some();
        (of(&host), of(&host["routes"][0]))
    };
    let (sticky, plain) = (
        "{destination: {host: s.a.svc.cluster.local}, weight: 1}",
        "{destination: {host: x.a.svc.cluster.local}, weight: 1}",
    );
    assert_eq!(sessions(sticky), (true, true));
    assert_eq!(sessions(plain), (false, false));
    assert_eq!(sessions(&format!("{plain}, {sticky}")), (true, true));
    // The last word is that of a service without sessions.
    assert_eq!(sessions(&format!("{sticky}, {plain}")), (true, false));
}

#[test]
fn servers_for_one_name_clash_only_where_both_lead_somewhere() {
    let servers = "{port: {number: 443, name: pass, protocol: TLS}, hosts: [z.com], tls: {mode: PASSTHROUGH}}, \
                   {port: {number: 443, name: own, protocol: HTTPS}, hosts: ['a/z.com'], tls: {mode: SIMPLE, credentialName: c}}";
    let resources = edge(servers, &rule("r", "a", "z.com", TO_X));
    let chains = &resources.listener("0.0.0.0_443")["filter_chains"];
    assert_eq!(chains.as_array().map(Vec::len), Some(1));
    assert_eq!(
        chains[0]["filters"][0]["typed_config"]["rds"]["route_config_name"],
        "https.443.own.edge.a"
    );
    let pass = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: p, namespace: a}\n\
                spec: {hosts: [z.com], gateways: [edge], tls: [{match: [{sniHosts: [z.com]}], route: [{destination: {host: y, port: {number: 9000}}}]}]}\n";
    let resources = edge(servers, &(rule("r", "a", "z.com", TO_X) + pass));
    let chains = &resources.listener("0.0.0.0_443")["filter_chains"];
    assert_eq!(chains.as_array().map(Vec::len), Some(1));
    assert_eq!(
        chains[0]["filters"][0]["typed_config"]["cluster"],
        "outbound|9000||y.a.svc.cluster.local"
    );
    let clash = |note: &super::super::Note| note.text.contains("[\"z.com\"]");
    assert!(resources.notes.iter().any(clash), "{:?}", resources.notes);
}

#[test]
fn a_host_is_redirected_by_one_server() {
    let server = |name: &str, redirect: bool| {
        format!(
            "{{port: {{number: 80, name: {name}, protocol: HTTP}}, hosts: [z.com], tls: {{httpsRedirect: {redirect}}}}}"
        )
    };
    let taken = |servers: &str| {
        let resources = edge(servers, &rule("r", "a", "z.com", TO_X));
        assert_eq!(host_names(&resources, "http.80"), ["z.com:80"]);
        resources
            .notes
            .iter()
            .any(|note| note.text.contains("its hosts are taken"))
    };
    assert!(taken(&format!(
        "{}, {}",
        server("one", true),
        server("two", false)
    )));
    let plain = "{port: {number: 80, name: two, protocol: HTTP}, hosts: [z.com]}";
    assert!(!taken(&format!("{}, {plain}", server("one", true))));
}

/// Listener and connection manager of a gateway whose mesh has these `connectionSettings`.
fn with_settings(settings: &str) -> (serde_json::Value, serde_json::Value) {
    let servers = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let mesh = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
         data: {{mesh: 'defaultConfig: {{connectionSettings: {{{settings}}}}}'}}\n"
    );
    let resources = edge(servers, &(rule("r", "a", "'*'", TO_X) + &mesh));
    let listener = resources.listener("0.0.0.0_80");
    let manager = listener["filter_chains"][0]["filters"][0]["typed_config"].clone();
    (listener, manager)
}

#[test]
fn the_edge_has_limits_of_its_own() {
    let (listener, manager) = with_settings("profile: EDGE, httpIdleTimeout: 7s");
    assert_eq!(listener["per_connection_buffer_limit_bytes"], 32768);
    for (field, wanted) in [
        ("stream_idle_timeout", json!("300s")),
        ("request_timeout", json!("300s")),
        ("request_headers_timeout", json!("60s")),
        ("merge_slashes", json!(true)),
        (
            "path_with_escaped_slashes_action",
            json!("UNESCAPE_AND_REDIRECT"),
        ),
        (
            "common_http_protocol_options",
            json!({"idle_timeout": "7s", "headers_with_underscores_action": "REJECT_REQUEST"}),
        ),
        (
            "http2_protocol_options",
            json!({"max_concurrent_streams": 100, "initial_stream_window_size": 65536, "initial_connection_window_size": 1048576}),
        ),
    ] {
        assert_eq!(manager[field], wanted, "{field}");
    }
    let settings = "httpMaxStreamDuration: 9s, httpStreamIdleTimeout: 5s, httpDrainTimeout: 4s";
    let (listener, manager) = with_settings(settings);
    assert!(listener.get("per_connection_buffer_limit_bytes").is_none());
    assert_eq!(manager["stream_idle_timeout"], "5s");
    assert_eq!(manager["drain_timeout"], "4s");
    let common = json!({"max_stream_duration": "9s"});
    assert_eq!(manager["common_http_protocol_options"], common);
    assert!(manager.get("http2_protocol_options").is_none());
}
