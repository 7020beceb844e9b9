//! Gateway, ServiceEntry, WorkloadEntry, Sidecar, security and telemetry.

use super::*;
use crate::istio::index::SidecarScope;

const HTTP: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

fn server(text: &str) -> String {
    format!(
        "selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, {text}}}]"
    )
}

#[test]
fn hosts_of_servers_have_a_namespace() {
    for host in ["a/*.foo.com", "./foo.com", "'*/foo.com'", "'*'"] {
        accepted("Gateway", &server(&format!("hosts: [{host}]")));
    }
    refused(
        "Gateway",
        &server("hosts: [short]"),
        "spec.servers[0].hosts[0]",
    );
    // A rule of another namespace gets no route.
    let rule = "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: NS}\n\
                spec: {hosts: [foo.com], gateways: [a/g], http: [{route: [{destination: {host: x.a.svc.cluster.local}}]}]}\n";
    let hosts = |namespace: &str| {
        let text = format!(
            "{}---{}",
            document("Gateway", "g", &server("hosts: [b/foo.com]")),
            rule.replace("NS", namespace)
        );
        let config = gateway(&text).route_config("http.80");
        config["virtual_hosts"][0]["name"].clone()
    };
    assert_eq!(hosts("b"), "foo.com:80");
    assert_eq!(hosts("c"), "blackhole:80");
}

#[test]
fn names_of_ports_of_a_gateway_are_unique() {
    refused(
        "Gateway",
        "servers: [{port: {number: 80, name: p, protocol: HTTP}, hosts: ['*']}, {port: {number: 81, name: p, protocol: HTTP}, hosts: ['*']}]",
        "spec.servers[1].port.name",
    );
}

#[test]
fn a_server_has_one_source_of_certificates() {
    let tls = |text: &str| {
        format!(
            "servers: [{{port: {{number: 443, name: p, protocol: HTTPS}}, hosts: ['*'], tls: {{mode: SIMPLE, {text}}}}}]"
        )
    };
    let ways = [
        "credentialName: c",
        "credentialNames: [c, d]",
        "tlsCertificates: [{serverCertificate: /a, privateKey: /b}, {serverCertificate: /c, privateKey: /d}]",
    ];
    for (index, way) in ways.iter().enumerate() {
        accepted("Gateway", &tls(way));
        let other = ways[(index + 1) % ways.len()];
        refused(
            "Gateway",
            &tls(&format!("{way}, {other}")),
            "spec.servers[0].tls",
        );
    }
    refused("Gateway", &tls(""), "spec.servers[0].tls");
}

#[test]
fn each_resolution_asks_for_its_own() {
    let entry = |host: &str, resolution: &str, more: &str| {
        format!("hosts: [{host}], resolution: {resolution}, {HTTP}{more}")
    };
    accepted("ServiceEntry", &entry("a.com", "NONE", ""));
    refused(
        "ServiceEntry",
        &entry("a.com", "NONE", ", endpoints: [{address: 1.1.1.1}]"),
        "spec",
    );
    accepted(
        "ServiceEntry",
        &entry("a.com", "STATIC", ", endpoints: [{address: 1.1.1.1}]"),
    );
    refused(
        "ServiceEntry",
        &entry("a.com", "STATIC", ", endpoints: [{address: b.com}]"),
        "spec.endpoints[0].address",
    );
    accepted(
        "ServiceEntry",
        &entry("a.com", "DNS", ", endpoints: [{address: b.com}]"),
    );
    refused("ServiceEntry", &entry("'*.a.com'", "DNS", ""), "spec");
    accepted(
        "ServiceEntry",
        &entry(
            "a.com",
            "DNS_ROUND_ROBIN",
            ", endpoints: [{address: b.com}]",
        ),
    );
    refused(
        "ServiceEntry",
        &entry(
            "a.com",
            "DNS_ROUND_ROBIN",
            ", endpoints: [{address: b.com}, {address: c.com}]",
        ),
        "spec",
    );
    accepted("ServiceEntry", &entry("'*.a.com'", "DYNAMIC_DNS", ""));
    refused(
        "ServiceEntry",
        &entry("a.com", "DYNAMIC_DNS", ""),
        "spec.hosts[0]",
    );
}

#[test]
fn a_unix_socket_has_exactly_one_port() {
    let entry = |ports: &str| {
        format!(
            "hosts: [a.com], resolution: STATIC, ports: [{ports}], endpoints: [{{address: 'unix:///x'}}]"
        )
    };
    let one = "{number: 80, name: p, protocol: HTTP}";
    accepted("ServiceEntry", &entry(one));
    refused(
        "ServiceEntry",
        &entry(&format!("{one}, {{number: 81, name: q, protocol: HTTP}}")),
        "spec.endpoints[0].address",
    );
}

#[test]
fn endpoints_and_workload_selector_exclude_one_another() {
    let spec = format!(
        "hosts: [a.com], resolution: STATIC, {HTTP}, endpoints: [{{address: 1.1.1.1}}], workloadSelector: {{labels: {{a: b}}}}"
    );
    refused("ServiceEntry", &spec, "spec");
}

#[test]
fn a_workload_without_address_needs_a_network() {
    refused("WorkloadEntry", "labels: {a: b}", "spec.address");
    warned("WorkloadEntry", "network: n", "spec.address");
}

#[test]
fn unix_sockets_are_absolute_or_abstract() {
    accepted("WorkloadEntry", "address: 'unix:///x'");
    accepted("WorkloadEntry", "address: 'unix://@x'");
    refused("WorkloadEntry", "address: 'unix://x'", "spec.address");
}

fn imported(sidecars: &str) -> Vec<String> {
    let context = context(sidecars);
    let workload = context.workload("a", "x-1").expect("the workload is there");
    let scope = SidecarScope::new(&context, &Proxy::sidecar(workload, &context));
    scope
        .services
        .iter()
        .map(|service| service.name.clone())
        .collect()
}

#[test]
fn one_sidecar_without_selector_per_namespace_counts() {
    let older = document(
        "Sidecar",
        "one",
        "egress: [{hosts: [./x.a.svc.cluster.local]}]",
    )
    .replace(
        "name: one",
        "name: one, creationTimestamp: '2020-01-01T00:00:00Z'",
    );
    let newer = document("Sidecar", "two", "egress: [{hosts: ['~/*']}]").replace(
        "name: two",
        "name: two, creationTimestamp: '2021-01-01T00:00:00Z'",
    );
    assert_eq!(imported(&format!("{newer}---{older}")), ["x"]);
}

#[test]
fn a_second_sidecar_without_selector_is_named() {
    let both = format!(
        "{}---{}",
        document("Sidecar", "one", "egress: [{hosts: ['./*']}]"),
        document("Sidecar", "two", "egress: [{hosts: ['~/*']}]")
    );
    let resources = sidecar(&both);
    let named = resources
        .notes
        .iter()
        .any(|note| note.object == "Sidecar a/two" && note.text.contains("Sidecar a/one"));
    assert!(named, "{:?}", resources.notes);
}

#[test]
fn the_sidecar_of_the_root_namespace_is_the_default() {
    let root = document(
        "Sidecar",
        "root",
        "egress: [{hosts: [./x.a.svc.cluster.local]}]",
    )
    .replace("namespace: a", "namespace: istio-system");
    assert_eq!(imported(&root), ["x"]);
    let own = document(
        "Sidecar",
        "own",
        "egress: [{hosts: [./y.a.svc.cluster.local]}]",
    );
    assert_eq!(imported(&format!("{root}---{own}")), ["y"]);
}

#[test]
fn a_listener_with_a_port_binds_it() {
    let resources = sidecar(&document(
        "Sidecar",
        "own",
        "egress: [{port: {number: 80, name: http, protocol: HTTP}, bind: 127.0.0.9, hosts: ['./*']}, {hosts: ['~/*']}]",
    ));
    let names: Vec<_> = resources
        .listeners
        .iter()
        .map(|l| l.name.as_str())
        .collect();
    assert_eq!(names, ["127.0.0.9_80"]);
}

#[test]
fn a_tilde_imports_nothing() {
    assert_eq!(
        imported(&document("Sidecar", "own", "egress: [{hosts: ['~/*']}]")),
        [""; 0]
    );
}

#[test]
fn only_services_of_the_registry_are_reached_when_asked() {
    for (mode, status) in [("REGISTRY_ONLY", json!(502)), ("ALLOW_ANY", Value::Null)] {
        let resources = sidecar(&document(
            "Sidecar",
            "own",
            &format!("outboundTrafficPolicy: {{mode: {mode}}}"),
        ));
        let config = resources.route_config("80");
        let hosts = config["virtual_hosts"].as_array().expect("there are hosts");
        let any = hosts
            .iter()
            .find(|host| host["domains"] == json!(["*"]))
            .expect("one for every host");
        assert_eq!(
            any["routes"][0]["direct_response"]["status"], status,
            "{mode}"
        );
    }
}

fn peer(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn shut(policies: &str) -> bool {
    !sidecar(policies).refusing().is_empty()
}

#[test]
fn mutual_tls_that_is_unset_is_inherited() {
    let root = peer("istio-system", "root", "mtls: {mode: STRICT}");
    assert!(shut(&format!(
        "{root}---{}",
        peer("a", "own", "mtls: {mode: UNSET}")
    )));
    assert!(shut(&format!("{root}---{}", peer("a", "own", ""))));
    assert!(!shut(&format!(
        "{root}---{}",
        peer("a", "own", "mtls: {mode: PERMISSIVE}")
    )));
    // At the top it is PERMISSIVE.
    assert!(!shut(&peer("istio-system", "root", "mtls: {mode: UNSET}")));
}

#[test]
fn mutual_tls_by_port_needs_a_selector() {
    refused(
        "PeerAuthentication",
        "portLevelMtls: {8080: {mode: STRICT}}",
        "spec.portLevelMtls",
    );
    let selector = "selector: {matchLabels: {app: x}}";
    accepted(
        "PeerAuthentication",
        &format!("{selector}, portLevelMtls: {{8080: {{mode: STRICT}}}}"),
    );
    assert!(shut(&peer(
        "a",
        "own",
        &format!("{selector}, portLevelMtls: {{8080: {{mode: STRICT}}}}")
    )));
}

#[test]
fn a_peer_authentication_with_selector_in_the_root_namespace_is_ignored() {
    assert!(!shut(&peer(
        "istio-system",
        "root",
        "selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}"
    )));
}

#[test]
fn an_allow_policy_without_rules_denies_all_and_a_deny_policy_needs_one() {
    accepted("AuthorizationPolicy", "action: ALLOW");
    refused("AuthorizationPolicy", "action: DENY", "spec.rules");
}

#[test]
fn templates_of_paths_end_with_the_greedy_one() {
    let path = |path: &str| format!("rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]");
    for good in [
        "/a",
        "/a*",
        "*a",
        "*",
        "/a/{*}/b",
        "/a/{*}/{**}",
        "/a/{**}/b",
    ] {
        accepted("AuthorizationPolicy", &path(good));
    }
    for bad in ["/a/{**}/{*}", "/a/{*}b", "/a/{x}"] {
        refused(
            "AuthorizationPolicy",
            &path(bad),
            "spec.rules[0].to[0].operation.paths[0]",
        );
    }
}

#[test]
fn keys_of_conditions_are_known() {
    for (key, value) in [
        ("request.headers[a]", "b"),
        ("source.ip", "10.0.0.0/8"),
        ("source.namespace", "a"),
        ("source.principal", "a"),
        ("source.serviceAccount", "a/b"),
        ("remote.ip", "10.0.0.0/8"),
        ("request.auth.principal", "a"),
        ("request.auth.audiences", "a"),
        ("request.auth.presenter", "a"),
        ("request.auth.claims[a]", "b"),
        ("destination.ip", "10.0.0.1"),
        ("destination.port", "80"),
        ("connection.sni", "a.com"),
    ] {
        accepted(
            "AuthorizationPolicy",
            &format!("rules: [{{when: [{{key: '{key}', values: ['{value}']}}]}}]"),
        );
    }
    refused(
        "AuthorizationPolicy",
        "rules: [{when: [{key: request.header, values: [a]}]}]",
        "spec.rules[0].when[0].key",
    );
}

#[test]
fn sampling_is_a_percentage() {
    accepted("Telemetry", "tracing: [{randomSamplingPercentage: 0.01}]");
    for bad in ["-1", "100.1"] {
        refused(
            "Telemetry",
            &format!("tracing: [{{randomSamplingPercentage: {bad}}}]"),
            "spec.tracing[0].randomSamplingPercentage",
        );
    }
}

#[test]
fn upsert_needs_a_value_and_remove_forbids_it() {
    let tag =
        |text: &str| format!("metrics: [{{overrides: [{{tagOverrides: {{t: {{{text}}}}}}}]}}]");
    let path = "spec.metrics[0].overrides[0].tagOverrides.t.value";
    accepted("Telemetry", &tag("operation: UPSERT, value: x"));
    refused("Telemetry", &tag("operation: UPSERT"), path);
    accepted("Telemetry", &tag("operation: REMOVE"));
    refused("Telemetry", &tag("operation: REMOVE, value: x"), path);
}
