use super::*;

fn rule(spec: &str) -> Resources {
    let yaml = format!(
        "\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: x, namespace: a}}\nspec: {{host: x, {spec}}}\n"
    );
    sidecar(&yaml)
}

const GENERAL: &str = "outbound|80||x.a.svc.cluster.local";
const V1: &str = "outbound|80|v1|x.a.svc.cluster.local";

#[test]
fn a_subset_has_the_endpoints_with_its_labels() {
    let resources = rule("subsets: [{name: v1, labels: {version: v1}}]");
    let assignments = resources.endpoints.iter();
    let mut of_subset = assignments.filter(|assignment| assignment.cluster_name == V1);
    let endpoints = of_subset.next().expect("endpoints");
    assert_eq!(endpoints.endpoints[0].lb_endpoints.len(), 1);
}

#[test]
fn outlier_detection_switches_off_what_istio_has_no_field_for() {
    let resources = rule(
        "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, interval: 1s}}",
    );
    let cluster = resources.cluster(GENERAL);
    let outlier = &cluster["outlier_detection"];
    assert_eq!(outlier["enforcing_success_rate"], 0);
    assert_eq!(outlier["enforcing_consecutive_5xx"], 0);
    assert_eq!(outlier["enforcing_consecutive_gateway_failure"], 100);
    assert_eq!(
        cluster["common_lb_config"]["healthy_panic_threshold"],
        json!({}),
        "a minimum of 0 %"
    );
}

#[test]
fn hashing_is_asked_for_on_cluster_and_route() {
    let resources = rule("trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}");
    let cluster = resources.cluster(GENERAL);
    assert_eq!(cluster["lb_policy"], "RING_HASH");
    assert_eq!(cluster["ring_hash_lb_config"]["minimum_ring_size"], "1024");
    let route = &resources.routes_of("80", X)[0];
    assert_eq!(
        route["route"]["hash_policy"],
        json!([{"header": {"header_name": "user"}}])
    );
}

#[test]
fn tls_is_written_down_and_never_left_out() {
    let resources = rule("trafficPolicy: {tls: {mode: SIMPLE, sni: x.com}}");
    let socket = &resources.cluster(GENERAL)["transport_socket"];
    assert_eq!(socket["name"], "envoy.transport_sockets.tls");
    assert_eq!(socket["typed_config"]["sni"], "x.com");
}

#[test]
fn resources_lead_back_to_the_file() {
    let resources = rule("trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    let name = resources.cluster(GENERAL)["metadata"]["filter_metadata"]["istio"]["config"].clone();
    assert_eq!(
        name,
        "/apis/networking.istio.io/v1/namespaces/a/destination-rule/x"
    );
    let origin = &resources.origins[name.as_str().expect("a name")];
    assert_eq!(&*origin.file, "test.yaml");
}

/// Endpoints in two localities, called by a workload in one of them.
const LOCALITIES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: a}
spec:
  hosts: [far.com]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.3.0.1, locality: r/z1}, {address: 10.3.0.2, locality: r/z2}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: far, namespace: a}
spec: {host: far.com, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}
";

#[test]
fn failover_between_localities_is_noted_when_it_would_act() {
    let noted = |yaml: &str, locality: &str| {
        let context = context(yaml);
        let workload = context.workload("a", "x-1").expect("the workload is there");
        let proxy = Proxy {
            locality: locality.to_owned(),
            ..Proxy::sidecar(workload, &context)
        };
        let resources = translate(&context, &proxy, &Options::default());
        resources.notes.iter().any(|note| {
            note.object == "DestinationRule a/far"
                && note.text.contains("failover between localities")
        })
    };
    assert!(noted(LOCALITIES, "r/z1"));
    assert!(!noted(LOCALITIES, ""), "the caller has no locality");
    let alike = LOCALITIES.replace("r/z2", "r/z1");
    assert!(!noted(&alike, "r/z1"), "there is one locality");
    let plain = LOCALITIES.replace(
        "outlierDetection: {consecutive5xxErrors: 3}",
        "loadBalancer: {simple: RANDOM}",
    );
    assert!(!noted(&plain, "r/z1"), "failover needs outlier detection");
}

#[test]
fn workloads_that_istiod_would_send_mutual_tls_are_named() {
    let pod = "\napiVersion: v1\nkind: Pod\nmetadata: {name: meshed, namespace: a, labels: {security.istio.io/tlsMode: istio}}\n\
               status: {podIP: 127.1.0.9}\n";
    let resources = sidecar(pod);
    let named = |note: &super::super::Note| {
        note.object == "workload a/meshed" && note.text.contains("plain text")
    };
    assert!(resources.notes.iter().any(named), "{:?}", resources.notes);
}

/// The inbound cluster of port 80 of `x-1`, under a Sidecar object with that content besides its ingress.
fn inbound(sidecar_spec: &str, rule: &str) -> Value {
    let yaml = format!(
        "\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: x, namespace: a}}\n\
         spec: {{workloadSelector: {{labels: {{app: x}}}}, ingress: [{{port: {{number: 80, protocol: HTTP, name: http}}, \
         defaultEndpoint: '127.0.0.1:8080'}}]{sidecar_spec}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: x, namespace: a}}\n\
         spec: {{host: x, {rule}}}\n"
    );
    sidecar(&yaml).cluster("inbound|80||")
}

#[test]
fn the_pool_of_a_rule_is_for_both_ends() {
    let rule = "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}, http: {h2UpgradePolicy: UPGRADE}}, \
                outlierDetection: {consecutive5xxErrors: 3}, loadBalancer: {simple: RANDOM}";
    let limit = "/circuit_breakers/thresholds/0/max_connections";
    let cluster = inbound("", &format!("{rule}}}"));
    assert_eq!(cluster.pointer(limit), Some(&json!(7)));
    // The application is called as its port says, and there is nothing to choose or to eject.
    for key in [
        "typed_extension_protocol_options",
        "lb_policy",
        "outlier_detection",
    ] {
        assert_eq!(cluster.get(key), None, "{cluster}");
    }
    let config = "/metadata/filter_metadata/istio/config";
    assert_eq!(
        cluster.pointer(config),
        Some(&json!(
            "/apis/networking.istio.io/v1/namespaces/a/destination-rule/x"
        ))
    );
    let port =
        "portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 8}}}]";
    let cluster = inbound("", &format!("{rule}, {port}}}"));
    assert_eq!(cluster.pointer(limit), Some(&json!(8)));
    let own = ", inboundConnectionPool: {tcp: {maxConnections: 9}}";
    let cluster = inbound(own, &format!("{rule}}}"));
    assert_eq!(cluster.pointer(limit), Some(&json!(9)));
    // One with a selector is for the traffic of the workloads that it selects.
    let selecting = format!("workloadSelector: {{matchLabels: {{app: x}}}}, {rule}}}");
    let cluster = inbound("", &selecting);
    assert_eq!(cluster.pointer(limit), Some(&json!(u32::MAX)));
}

#[test]
fn a_proxy_header_goes_ahead_of_what_else_is_spoken() {
    let socket = |policy: &str| {
        let cluster = rule(&format!("trafficPolicy: {{{policy}}}")).cluster(GENERAL);
        cluster["transport_socket"].clone()
    };
    let plain = socket("proxyProtocol: {version: V2}");
    assert_eq!(
        plain["name"],
        "envoy.transport_sockets.upstream_proxy_protocol"
    );
    assert_eq!(plain["typed_config"]["config"], json!({"version": "V2"}));
    let inner = "/typed_config/transport_socket/name";
    assert_eq!(
        plain.pointer(inner),
        Some(&json!("envoy.transport_sockets.raw_buffer"))
    );
    let tls = socket("proxyProtocol: {}, tls: {mode: SIMPLE}");
    assert_eq!(
        tls.pointer(inner),
        Some(&json!("envoy.transport_sockets.tls"))
    );
}

#[test]
fn a_port_s_settings_leave_nothing_of_the_whole_policy() {
    let resources = rule(
        "trafficPolicy: {retryBudget: {percent: 50}, proxyProtocol: {version: V2}, \
         portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}",
    );
    let cluster = resources.cluster(GENERAL);
    assert_eq!(cluster["lb_policy"], "RANDOM");
    assert_eq!(
        cluster["circuit_breakers"]["thresholds"][0]["retry_budget"],
        Value::Null
    );
    assert_eq!(cluster["transport_socket"], Value::Null);
}

#[test]
fn a_port_s_settings_of_a_subset_leave_what_is_not_of_ports() {
    let resources = rule(
        "trafficPolicy: {tls: {mode: SIMPLE}, proxyProtocol: {version: V2}}, subsets: [{name: v1, labels: {version: v1}, \
         trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}]",
    );
    for (name, wanted) in [(GENERAL, "tls"), (V1, "raw_buffer")] {
        let cluster = resources.cluster(name);
        let inner = cluster.pointer("/transport_socket/typed_config/transport_socket/name");
        let wanted = format!("envoy.transport_sockets.{wanted}");
        assert_eq!(inner, Some(&json!(wanted)), "{name}");
    }
}

#[test]
fn a_rule_s_word_counts_more_than_the_mesh_s() {
    let mesh = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: '{h2UpgradePolicy: UPGRADE}'}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x, namespace: a}
";
    let of = |spec: &str, name: &str| {
        let pool =
            format!("{mesh}spec: {{host: x, trafficPolicy: {{connectionPool: {{{spec}}}}}}}\n");
        sidecar(&pool).cluster(name)
    };
    let http2 = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/\
                 explicit_http_config/http2_protocol_options";
    let bytes = "outbound|9000||y.a.svc.cluster.local";
    for (spec, name, wanted) in [
        ("http: {maxRetries: 1}", GENERAL, true),
        ("http: {h2UpgradePolicy: DO_NOT_UPGRADE}", GENERAL, false),
        // Bytes are not upgraded for all.
        ("http: {maxRetries: 1}", bytes, false),
    ] {
        let seen = of(spec, name).pointer(http2).is_some();
        assert_eq!(seen, wanted, "{spec} {name}");
    }
    let cluster = of("tcp: {maxConnectionDuration: 3s}", GENERAL);
    let options = &cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        options["common_http_protocol_options"]["max_connection_duration"],
        "3s"
    );
}

#[test]
fn a_subset_of_what_passes_by_goes_on_passing_by() {
    let resources = rule(
        "trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}, \
         subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 1s}}}}]",
    );
    for name in [GENERAL, V1] {
        let cluster = resources.cluster(name);
        assert_eq!(cluster["type"], "ORIGINAL_DST", "{name}");
        assert_eq!(cluster["lb_policy"], "CLUSTER_PROVIDED", "{name}");
        assert_eq!(cluster["round_robin_lb_config"], Value::Null, "{name}");
    }
    assert!(
        resources
            .endpoints
            .iter()
            .all(|assignment| assignment.cluster_name != V1)
    );
    // And it may do so alone.
    let resources = rule(
        "subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}]",
    );
    assert_eq!(resources.cluster(GENERAL)["type"], "EDS");
    assert_eq!(resources.cluster(V1)["type"], "ORIGINAL_DST");
}

#[test]
fn only_what_can_be_called_is_a_cluster() {
    let resources = sidecar(
        "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {clusterIP: 10.0.0.9, ports: [{port: 53, protocol: UDP, name: dns}, {port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: a}
spec: {type: ExternalName, externalName: s.a.svc.cluster.local, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: d, namespace: a}
spec: {hosts: [d.test], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}],
  workloadSelector: {labels: {app: none}}}
",
    );
    let names = |host: &str| -> Vec<&str> {
        let all = resources.clusters.iter().map(|cluster| &*cluster.name);
        all.filter(|name| name.ends_with(host)).collect()
    };
    let s = "|s.a.svc.cluster.local";
    assert_eq!(names(s), [format!("outbound|80|{s}")]);
    assert_eq!(names("|alias.a.svc.cluster.local"), [""; 0]);
    assert_eq!(names("|d.test"), [""; 0]);
}

#[test]
fn codes_that_count_as_errors_are_matched() {
    let codes = |codes: &str| {
        let resources = rule(&format!(
            "trafficPolicy: {{outlierDetection: {{outlierDetectionHttpErrorCodes: [{codes}]}}}}"
        ));
        let options = &resources.cluster(GENERAL)["typed_extension_protocol_options"];
        let options = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        options["outlier_detection"]["error_matcher"].clone()
    };
    let one = |code: &str| json!({"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": code}}]}});
    assert_eq!(codes(""), Value::Null);
    assert_eq!(codes("429"), one("429"));
    assert_eq!(
        codes("429, 503"),
        json!({"or_match": {"rules": [one("429"), one("503")]}})
    );
}

#[test]
fn what_bytes_decide_is_not_upgraded() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {clusterIP: 10.0.0.9, ports: [{port: 80, name: http}, {port: 81, name: any}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: s, namespace: a}
spec: {host: s, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}
";
    let resources = sidecar(yaml);
    let options = |port: u16| {
        let cluster = resources.cluster(&format!("outbound|{port}||s.a.svc.cluster.local"));
        cluster["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].clone()
    };
    assert!(options(80)["explicit_http_config"]["http2_protocol_options"].is_object());
    assert!(options(81)["use_downstream_protocol_config"].is_object());
}

#[test]
fn the_mesh_s_policy_holds_where_a_rule_says_nothing() {
    let yaml = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    defaultTrafficPolicy:
      connectionPool: {tcp: {maxConnections: 33}, http: {http2MaxRequests: 44}}
      outlierDetection: {consecutive5xxErrors: 7}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x, namespace: a}
spec:
  host: x
  trafficPolicy: {connectionPool: {http: {maxRetries: 5}}}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}
";
    let resources = sidecar(yaml);
    let limit = |name: &str, limit: &str| {
        resources.cluster(name)["circuit_breakers"]["thresholds"][0][limit].clone()
    };
    let errors =
        |name: &str| resources.cluster(name)["outlier_detection"]["consecutive_5xx"].clone();
    // A section of the rule stands for the whole section.
    assert_eq!(limit(GENERAL, "max_connections"), u32::MAX);
    assert_eq!(limit(GENERAL, "max_retries"), 5);
    assert_eq!((errors(GENERAL), errors(V1)), (json!(7), json!(3)));
    let other = "outbound|80||y.a.svc.cluster.local";
    assert_eq!(limit(other, "max_connections"), 33);
    assert_eq!(errors(other), 7);
    assert_eq!(limit("PassthroughCluster", "max_requests"), 44);
    assert_eq!(errors("PassthroughCluster"), Value::Null);
}

#[test]
fn connections_that_keep_their_address_may_change_their_port() {
    let resources = sidecar(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: a}
spec:
  hosts: [e.test]
  addresses: [127.9.0.1]
  location: MESH_EXTERNAL
  resolution: NONE
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 81, name: b, protocol: HTTP}]
",
    );
    let cluster = resources.cluster("outbound|80||e.test");
    assert_eq!(cluster["type"], "ORIGINAL_DST");
    assert_eq!(
        cluster["original_dst_lb_config"],
        json!({"upstream_port_override": 8080})
    );
    let plain = resources.cluster("outbound|81||e.test");
    assert_eq!(plain["original_dst_lb_config"], Value::Null);
}

#[test]
fn names_are_resolved_to_the_family_of_the_proxy() {
    let text = |annotations: &str| {
        format!(
            "\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: e, namespace: a, annotations: {{{annotations}}}}}\n\
             spec: {{hosts: [e.test], location: MESH_EXTERNAL, resolution: DNS, ports: [{{number: 80, name: http, protocol: HTTP}}]}}\n"
        )
    };
    let family = |addresses: &[&str], annotations: &str| {
        let context = context(&text(annotations));
        let workload = context.workload("a", "x-1").expect("the workload is there");
        let proxy = Proxy {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ..Proxy::sidecar(workload, &context)
        };
        let made = translate(&context, &proxy, &Options::default());
        let cluster = made.cluster("outbound|80||e.test");
        let text = |field: &str| cluster[field].as_str().unwrap_or_default().to_owned();
        (text("type"), text("dns_lookup_family"))
    };
    let pair = |kind: &str, family: &str| (kind.to_owned(), family.to_owned());
    assert_eq!(family(&["127.0.0.1"], ""), pair("STRICT_DNS", "V4_ONLY"));
    assert_eq!(family(&["::1"], ""), pair("STRICT_DNS", "V6_ONLY"));
    assert_eq!(
        family(&["127.0.0.1", "::1"], ""),
        pair("STRICT_DNS", "V4_ONLY")
    );
    assert_eq!(
        family(
            &["127.0.0.1"],
            "istio.io/connect-strategy: race_first_tcp_connect"
        ),
        pair("LOGICAL_DNS", "ALL")
    );
}

#[test]
fn that_a_service_is_external_stands_at_the_whole_service_only() {
    let resources = sidecar(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: a}
spec: {hosts: [e.test], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: e, namespace: a}
spec: {host: e.test, subsets: [{name: all}]}
",
    );
    let external = |name: &str| {
        resources.cluster(name)["metadata"]["filter_metadata"]["istio"]["external"].clone()
    };
    assert_eq!(external("outbound|80||e.test"), true);
    assert_eq!(external("outbound|80|all|e.test"), Value::Null);
}

#[test]
fn statistics_call_clusters_as_the_mesh_says() {
    let yaml = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    outboundClusterStatName: '%SERVICE%_%SERVICE_NAME%_%SERVICE_FQDN%_%SUBSET_NAME%_%SERVICE_PORT%_%SERVICE_PORT_NAME%_%TARGET_PORT%'
    inboundClusterStatName: 'in_%SERVICE%_%TARGET_PORT%'
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x, namespace: a}
spec: {host: x, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: a}
spec: {hosts: [e.test], resolution: DNS, ports: [{number: 81, name: web, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: a}
spec: {ingress: [{port: {number: 90, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:8080'}]}
";
    let resources = sidecar(yaml);
    let name = |cluster: &str| resources.cluster(cluster)["alt_stat_name"].clone();
    assert_eq!(name(V1), "x.a_x_x.a.svc.cluster.local_v1_80_http_0;");
    assert_eq!(
        name("outbound|81||e.test"),
        "e.test_e.test_e.test__81_web_0;"
    );
    assert_eq!(name("inbound|90||"), "in_own.a_90;");
    assert_eq!(name("PassthroughCluster"), "PassthroughCluster;");
}

#[test]
fn names_of_two_entries_with_one_host_stay_at_their_port_numbers() {
    let entry = |name: &str, number: u16, port: &str| {
        format!(
            "\n---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: a}}\n\
             spec: {{hosts: [e.test], resolution: DNS, ports: [{{number: {number}, name: {port}, protocol: HTTP}}]}}\n"
        )
    };
    let resources = sidecar(&(entry("one", 80, "http") + &entry("two", 81, "http")));
    for number in [80, 81] {
        let cluster = resources.cluster(&format!("outbound|{number}||e.test"));
        let endpoints = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"];
        assert_eq!(endpoints.as_array().map(Vec::len), Some(1), "{endpoints}");
        let address = &endpoints[0]["endpoint"]["address"]["socket_address"];
        assert_eq!(address["port_value"], number);
    }
}
