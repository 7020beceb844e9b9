use super::super::listener::Chain;
use super::*;

const NOTHING: &str =
    "\napiVersion: v1\nkind: Service\nmetadata: {name: z, namespace: a}\nspec: {}\n";

#[test]
fn services_of_one_port_share_an_http_listener() {
    let resources = sidecar(NOTHING);
    let names: Vec<_> = resources
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["127.0.0.1_80", "127.0.0.1_9000"]);
    let http =
        &resources.listener("127.0.0.1_80")["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(http["rds"]["route_config_name"], "80");
    let tcp =
        &resources.listener("127.0.0.1_9000")["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(tcp["cluster"], "outbound|9000||y.a.svc.cluster.local");
}

#[test]
fn every_named_route_configuration_and_cluster_is_there() {
    let resources = sidecar(NOTHING);
    let text = resources
        .listeners
        .iter()
        .map(|listener| resources.listener(&listener.name).to_string())
        .collect::<String>();
    for config in &resources.routes {
        assert!(
            text.contains(&format!("\"route_config_name\":\"{}\"", config.name)),
            "{}",
            config.name
        );
    }
    for name in text
        .split("\"cluster\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
    {
        assert!(
            resources
                .clusters
                .iter()
                .any(|cluster| cluster.name == name),
            "{name}"
        );
    }
}

#[test]
fn ports_of_unknown_protocol_are_sniffed() {
    let resources = sidecar(
        "\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
         spec: {clusterIP: 10.0.0.3, ports: [{port: 7000, name: any}]}\n",
    );
    let listener = resources.listener("127.0.0.1_7000");
    assert_eq!(
        listener["listener_filters"][0]["name"],
        "envoy.filters.listener.http_inspector"
    );
    assert_eq!(
        listener["filter_chains"][0]["filter_chain_match"],
        json!({"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]})
    );
    assert!(
        listener["default_filter_chain"]["filters"][0]["name"] == "envoy.filters.network.tcp_proxy"
    );
    let config = resources.route_config("s.a.svc.cluster.local:7000");
    assert_eq!(config["virtual_hosts"][0]["domains"], json!(["*"]));
}

const SIDECAR: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: a}
spec:
  ingress:
  - {port: {number: 8080, protocol: HTTP, name: http}, bind: 127.1.0.1, defaultEndpoint: '0.0.0.0:8081'}
  - {port: {number: 8082, protocol: TCP, name: tcp}, defaultEndpoint: 'unix:///run/app.sock'}
  egress:
  - {port: {number: 80, protocol: HTTP, name: http}, bind: 127.1.1.1, hosts: ['*/*']}
";

#[test]
fn a_sidecar_object_binds_what_it_says() {
    let resources = sidecar(SIDECAR);
    let names: Vec<_> = resources
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["127.1.1.1_80", "127.1.0.1_8080", "127.1.0.1_8082"]);
    let endpoint = |cluster: &str| {
        resources.cluster(cluster)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            ["address"]
            .clone()
    };
    // 0.0.0.0 is the workload's own address.
    assert_eq!(
        endpoint("inbound|8080||"),
        json!({"socket_address": {"address": "127.1.0.1", "port_value": 8081}})
    );
    assert_eq!(
        endpoint("inbound|8082||"),
        json!({"pipe": {"path": "/run/app.sock"}})
    );
}

#[test]
fn inbound_requests_that_never_arrived_are_sent_again() {
    let resources = sidecar(SIDECAR);
    let config = &resources.listener("127.1.0.1_8080")["filter_chains"][0]["filters"][0]["typed_config"]
        ["route_config"];
    let route = &config["virtual_hosts"][0]["routes"][0];
    assert_eq!(
        route["route"]["retry_policy"],
        json!({"retry_on": "reset-before-request", "num_retries": 2})
    );
    assert_eq!(route["decorator"]["operation"], "own.a:8080/*");
}

fn guarded(policy: &str) -> Resources {
    sidecar(&format!("{SIDECAR}---\n{policy}"))
}

fn http_answer(resources: &Resources) -> Value {
    let config = &resources.listener("127.1.0.1_8080")["filter_chains"][0]["filters"][0]["typed_config"]
        ["route_config"];
    config["virtual_hosts"][0]["routes"][0]["direct_response"]["status"].clone()
}

#[test]
fn a_workload_under_a_policy_refuses_traffic() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\nspec: {}\n";
    let resources = guarded(policy);
    assert_eq!(resources.refusing(), ["AuthorizationPolicy a/p"]);
    assert_eq!(http_answer(&resources), 403);
    let tcp = &resources.listener("127.1.0.1_8082")["filter_chains"][0]["filters"][0]["typed_config"]
        ["cluster"];
    assert_eq!(*tcp, "BlackHoleCluster");
    // Not when it is for other workloads, in another namespace, or only an audit.
    let elsewhere =
        guarded(&policy.replace("spec: {}", "spec: {selector: {matchLabels: {app: other}}}"));
    assert_eq!(http_answer(&elsewhere), Value::Null);
    assert_eq!(
        http_answer(&guarded(&policy.replace("namespace: a", "namespace: b"))),
        Value::Null
    );
    assert_eq!(
        http_answer(&guarded(
            &policy.replace("spec: {}", "spec: {action: AUDIT, rules: [{}]}")
        )),
        Value::Null
    );
}

#[test]
fn strict_mutual_tls_refuses_plain_traffic_by_port() {
    let root = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: istio-system}\n\
                spec: {mtls: {mode: STRICT}}\n";
    assert_eq!(http_answer(&guarded(root)), 403);
    // The namespace comes before the mesh.
    let permissive = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: q, namespace: a}\n\
                      spec: {mtls: {mode: PERMISSIVE}}\n";
    assert_eq!(
        http_answer(&guarded(&format!("{root}{permissive}"))),
        Value::Null
    );
    // A selector in the root namespace does not count.
    let selected = root.replace("spec: {", "spec: {selector: {matchLabels: {app: x}}, ");
    assert_eq!(http_answer(&guarded(&selected)), Value::Null);
    // A port of the workload may be an exception.
    let port = root.replace("istio-system", "a").replace(
        "spec: {",
        "spec: {selector: {matchLabels: {app: x}}, portLevelMtls: {8080: {mode: DISABLE}}, ",
    );
    let resources = guarded(&port);
    assert_eq!(http_answer(&resources), Value::Null);
    let tcp = &resources.listener("127.1.0.1_8082")["filter_chains"][0]["filters"][0]["typed_config"]
        ["cluster"];
    assert_eq!(*tcp, "BlackHoleCluster");
}

#[test]
fn what_the_user_skips_is_not_enforced() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\nspec: {}\n";
    let context = context(&format!("{SIDECAR}---\n{policy}"));
    let workload = context.workload("a", "x-1").expect("the workload is there");
    let options = Options {
        insecure_skip: ["AuthorizationPolicy".to_owned()].into(),
    };
    let resources = translate(&context, &Proxy::sidecar(workload, &context), &options);
    assert_eq!(http_answer(&resources), Value::Null);
    assert!(
        resources
            .notes
            .iter()
            .any(|note| note.object == "AuthorizationPolicy a/p")
    );
}

#[test]
fn an_application_address_opens_the_ports_of_the_services() {
    let context = context(NOTHING);
    let workload = context.workload("a", "x-1").expect("the workload is there");
    let proxy = Proxy {
        application_address: Some("127.1.2.1".to_owned()),
        bind: Some("127.1.3.1".to_owned()),
        ..Proxy::sidecar(workload, &context)
    };
    let resources = translate(&context, &proxy, &Options::default());
    let names: Vec<_> = resources
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["127.1.3.1_80", "127.1.3.1_9000", "127.1.0.1_80"]);
}

#[test]
fn tcp_rules_split_connections() {
    let resources = sidecar(
        "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: y, namespace: a}\n\
         spec: {hosts: [y], tcp: [{match: [{port: 9000}], route: [{destination: {host: y, port: {number: 9000}}, weight: 20}, \
         {destination: {host: x, port: {number: 80}}, weight: 80}]}]}\n",
    );
    let proxy =
        &resources.listener("127.0.0.1_9000")["filter_chains"][0]["filters"][0]["typed_config"];
    let arms = proxy["weighted_clusters"]["clusters"]
        .as_array()
        .expect("arms");
    assert_eq!(arms.len(), 2);
    assert_eq!(arms[0]["weight"], 20);
}

#[test]
fn tls_services_on_one_port_are_told_apart_by_name() {
    let entry = |name: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: a}}\n\
             spec: {{hosts: [{name}.com], ports: [{{number: 443, name: tls, protocol: TLS}}], resolution: DNS}}\n"
        )
    };
    let resources = sidecar(&format!("{NOTHING}{}{}", entry("one"), entry("two")));
    let listener = resources.listener("127.0.0.1_443");
    assert_eq!(
        listener["filter_chains"][0]["filter_chain_match"]["server_names"],
        json!(["two.com"])
    );
    assert_eq!(
        listener["default_filter_chain"]["filters"][0]["typed_config"]["cluster"],
        "outbound|443||one.com"
    );
}

#[test]
fn headers_of_the_proxy_are_as_its_configuration_asks() {
    let made = |headers: &str| {
        let resources = sidecar(&format!(
            "\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data: {{mesh: 'defaultConfig: {{proxyHeaders: {headers}}}'}}\n"
        ));
        let listener = resources.listener("127.0.0.1_80");
        let manager = listener["filter_chains"][0]["filters"][0]["typed_config"].clone();
        let host = resources.route_config("80")["virtual_hosts"][0].clone();
        (manager, host)
    };
    let (manager, host) = made("{}");
    for field in [
        "server_header_transformation",
        "server_name",
        "generate_request_id",
    ] {
        assert_eq!(manager.get(field), None, "{manager}");
    }
    assert_eq!(host["include_request_attempt_count"], true);
    assert_eq!(
        host["routes"][0]["route"].get("append_x_forwarded_host"),
        None
    );
    let (manager, host) = made(
        "{server: {disabled: true}, requestId: {disabled: true}, attemptCount: {disabled: true}, \
         envoyDebugHeaders: {disabled: true}, xForwardedHost: {enabled: true}, xForwardedPort: {enabled: true}}",
    );
    assert_eq!(manager["server_header_transformation"], "PASS_THROUGH");
    assert_eq!(manager["generate_request_id"], false);
    assert_eq!(manager["append_x_forwarded_port"], true);
    let router = manager["http_filters"]
        .as_array()
        .and_then(|filters| filters.last());
    let router = &router.expect("a router")["typed_config"];
    assert_eq!(router["suppress_envoy_headers"], true);
    assert_eq!(host.get("include_request_attempt_count"), None);
    let (manager, _) = made("{server: {value: me}}");
    assert_eq!(manager["server_name"], "me");
}

#[test]
fn tls_and_http_share_a_port_by_the_server_name() {
    let resources = sidecar(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: t, namespace: a, creationTimestamp: '2029-01-01T00:00:00Z'}
spec: {hosts: [t.com], ports: [{number: 80, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: v1
kind: Service
metadata: {name: late, namespace: a, creationTimestamp: '2030-01-01T00:00:00Z'}
spec: {clusterIP: 10.0.0.9, ports: [{port: 80, name: http}]}
",
    );
    let listener = resources.listener("127.0.0.1_80");
    assert_eq!(
        listener["filter_chains"][0]["filter_chain_match"]["server_names"],
        json!(["t.com"])
    );
    let http = &listener["default_filter_chain"]["filters"][0]["typed_config"];
    assert_eq!(http["rds"]["route_config_name"], "80");
    assert_eq!(
        resources
            .routes_of("80", "late.a.svc.cluster.local:80")
            .len(),
        1
    );
    let taken = |note: &&super::super::Note| note.text.contains("already taken");
    assert_eq!(resources.notes.iter().find(taken), None);
}

#[test]
fn a_sniffed_service_on_a_tcp_port_keeps_its_http() {
    let resources = sidecar(
        "
apiVersion: v1
kind: Service
metadata: {name: any, namespace: a, creationTimestamp: '2030-01-01T00:00:00Z'}
spec: {clusterIP: 10.0.0.9, ports: [{port: 9000, name: any}]}
",
    );
    let listener = resources.listener("127.0.0.1_9000");
    let chains = listener["filter_chains"].as_array().expect("chains");
    assert_eq!(chains.len(), 1);
    assert_eq!(
        chains[0]["filters"][0]["typed_config"]["rds"]["route_config_name"],
        "any.a.svc.cluster.local:9000"
    );
    assert_eq!(
        listener["default_filter_chain"]["filters"][0]["typed_config"]["cluster"],
        "outbound|9000||y.a.svc.cluster.local"
    );
    let note = resources
        .notes
        .iter()
        .find(|note| note.object == "service any.a.svc.cluster.local");
    assert!(note.is_some_and(|note| note.text.contains("already taken")));
}

#[test]
fn a_sniffed_service_takes_no_http_from_others() {
    let resources = sidecar(
        "
apiVersion: v1
kind: Service
metadata: {name: any, namespace: a, creationTimestamp: '2030-01-01T00:00:00Z'}
spec: {clusterIP: 10.0.0.9, ports: [{port: 80, name: any}]}
",
    );
    let listener = resources.listener("127.0.0.1_80");
    assert_eq!(listener["filter_chains"].as_array().map(Vec::len), Some(1));
    assert!(listener.get("default_filter_chain").is_none());
}

#[test]
fn networks_are_equal_without_the_bits_that_do_not_count() {
    let chain = |network: &str| Chain {
        networks: vec![network.to_owned()],
        ..Chain::default()
    };
    assert!(chain("1.2.3.4/8").conflicts_with(&chain("1.9.9.9/8")));
    assert!(!chain("1.2.3.4/8").conflicts_with(&chain("1.2.3.4/9")));
    assert!(chain("2001:db8::1/32").conflicts_with(&chain("2001:db8:1::/32")));
    assert!(chain("1.2.3.4").conflicts_with(&chain("1.2.3.4/32")));
    assert!(chain("0.0.0.0/0").conflicts_with(&chain("1.2.3.4/0")));
}

#[test]
fn retries_on_the_way_in_are_as_the_mesh_says() {
    let policy = |mesh: &str| {
        let resources = guarded(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata: {{mesh: '{mesh}'}}\n"
        ));
        let config = &resources.listener("127.1.0.1_8080")["filter_chains"][0]["filters"][0]["typed_config"]
            ["route_config"];
        config["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"].clone()
    };
    assert_eq!(
        policy(
            "defaultInboundHttpRetryPolicy: {attempts: 5, retryOn: \"reset,503\", perTryTimeout: 1s, backoff: 30ms}"
        ),
        json!({
            "retry_on": "reset,retriable-status-codes", "num_retries": 5, "retriable_status_codes": [503],
            "retry_back_off": {"base_interval": "0.030s"},
        })
    );
    assert_eq!(
        policy("defaultInboundHttpRetryPolicy: {attempts: 0}"),
        Value::Null
    );
}

#[test]
fn route_configurations_are_those_that_a_listener_names() {
    // The port is taken by a service that carries bytes.
    let resources = sidecar(
        "
apiVersion: v1
kind: Service
metadata: {name: late, namespace: a, creationTimestamp: '2030-01-01T00:00:00Z'}
spec: {clusterIP: 10.0.0.9, ports: [{port: 9000, name: http}]}
",
    );
    assert!(resources.routes.iter().all(|config| config.name != "9000"));
}

#[test]
fn a_rewritten_host_is_kept_where_the_proxy_is_to_keep_it() {
    let resources = sidecar(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'defaultConfig: {proxyHeaders: {xForwardedHost: {enabled: true}}}'}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x, namespace: a}
spec:
  hosts: [x]
  http:
  - match: [{uri: {prefix: /rewritten}}]
    rewrite: {authority: z.com}
    route: [{destination: {host: x}}]
  - headers: {request: {set: {':authority': z.com}}}
    route: [{destination: {host: x}}]
",
    );
    let keeps = |host: &str| -> Vec<bool> {
        let routes = resources.routes_of("80", host);
        let kept = |route: &Value| route["route"]["append_x_forwarded_host"] == true;
        routes.iter().map(kept).collect()
    };
    assert_eq!(keeps(X), [true, false]);
    assert_eq!(keeps("y.a.svc.cluster.local:80"), [false]);
    assert_eq!(keeps("allow_any"), [true]);
}

#[test]
fn only_where_http_is_looked_for_the_detection_has_a_time_limit() {
    let mesh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                data: {mesh: 'protocolDetectionTimeout: 2s'}\n";
    let sniffed = "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: a}\n\
                   spec: {clusterIP: 10.0.0.3, ports: [{port: 7000, name: any}]}\n";
    let limit = |resources: &Resources, name: &str| {
        resources.listener(name)["listener_filters_timeout"].clone()
    };
    let resources = sidecar(&format!("\n{mesh}{sniffed}"));
    assert_eq!(limit(&resources, "127.0.0.1_80"), "0s");
    assert_eq!(limit(&resources, "127.0.0.1_7000"), "2s");
    assert_eq!(limit(&guarded(mesh), "127.1.0.1_8080"), "2s");
}

#[test]
fn a_proxy_with_ipv6_alone_listens_there() {
    let ingress = |endpoint: &str| {
        format!(
            "\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: own, namespace: a}}\n\
             spec: {{ingress: [{{port: {{number: 8080, protocol: HTTP, name: http}}, defaultEndpoint: '{endpoint}'}}]}}\n"
        )
    };
    let made = |yaml: &str, addresses: &[&str]| {
        let context = context(yaml);
        let workload = context.workload("a", "x-1").expect("the workload is there");
        let proxy = Proxy {
            addresses: addresses
                .iter()
                .map(|&address| address.to_owned())
                .collect(),
            ..Proxy::sidecar(workload, &context)
        };
        translate(&context, &proxy, &Options::default())
    };
    let resources = made(NOTHING, &["2001:db8::1"]);
    let names = resources
        .listeners
        .iter()
        .map(|listener| listener.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["::1_80", "::1_9000"]);
    let application = |endpoint: &str, addresses: &[&str]| {
        let resources = made(&ingress(endpoint), addresses);
        let cluster = resources.cluster("inbound|8080||");
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            ["socket_address"]["address"]
            .as_str()
            .expect("an address")
            .to_owned()
    };
    let (four, six) = (&["10.0.0.7"][..], &["2001:db8::1"][..]);
    let both = &["2001:db8::1", "10.0.0.7"][..];
    for (endpoint, addresses, wanted) in [
        ("127.0.0.1:1", four, "127.0.0.1"),
        ("127.0.0.1:1", six, "::1"),
        ("127.0.0.1:1", both, "127.0.0.1"),
        ("[::1]:1", four, "127.0.0.1"),
        ("[::1]:1", both, "::1"),
        ("0.0.0.0:1", both, "10.0.0.7"),
        ("0.0.0.0:1", six, "127.0.0.1"),
        ("[::]:1", both, "2001:db8::1"),
        ("[::]:1", four, "::1"),
    ] {
        assert_eq!(
            application(endpoint, addresses),
            wanted,
            "{endpoint} {addresses:?}"
        );
    }
    let proxy = Proxy {
        addresses: vec!["2001:db8::2".to_owned()],
        ..edge_proxy()
    };
    let edge = "\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: a}\n\
                spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}\n";
    let resources = translate(&context(edge), &proxy, &Options::default());
    assert_eq!(resources.listeners[0].name, "::_80");
}

#[test]
fn a_listener_beside_all_egress_listeners_knows_no_host() {
    let resources = sidecar(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'proxyHttpPort: 15002'}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: a}
spec: {egress: [{port: {number: 80, protocol: HTTP, name: http}, hosts: ['*/*']}]}
",
    );
    let http =
        &resources.listener("127.0.0.1_15002")["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(http["rds"]["route_config_name"], "http_proxy");
    let config = resources.route_config("http_proxy");
    assert_eq!(config["virtual_hosts"].as_array().map(Vec::len), Some(1));
    assert_eq!(config["virtual_hosts"][0]["name"], "allow_any");
}
