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
