use super::*;

#[test]
fn nothing_follows_a_rule_that_takes_everything() {
    let routes = x_routes(
        "  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: y}}]\n\
         \x20 - route: [{destination: {host: x}}]\n\
         \x20 - match: [{uri: {exact: /never}}]\n    route: [{destination: {host: y}}]\n",
    );
    assert_eq!(routes.len(), 2);
    assert_eq!(
        routes[0]["match"],
        json!({"prefix": "/a", "case_sensitive": true})
    );
    assert_eq!(routes[1]["match"], json!({"prefix": "/"}));
}

#[test]
fn one_destination_takes_all_and_arms_without_weight_take_none() {
    let one = x_routes("  - route: [{destination: {host: x}, weight: 10}]\n");
    assert_eq!(
        one[0]["route"]["cluster"],
        "outbound|80||x.a.svc.cluster.local"
    );
    let some = x_routes(
        "  - route:\n    - {destination: {host: x, subset: v1}, weight: 1}\n    - {destination: {host: x, subset: v2}, weight: 3}\n\
         \x20   - {destination: {host: y}, weight: 0}\n",
    );
    let arms = some[0]["route"]["weighted_clusters"]["clusters"]
        .as_array()
        .expect("arms");
    let weights: Vec<_> = arms
        .iter()
        .map(|arm| (arm["name"].as_str(), arm["weight"].as_u64()))
        .collect();
    assert_eq!(
        weights,
        [
            (Some("outbound|80|v1|x.a.svc.cluster.local"), Some(1)),
            (Some("outbound|80|v2|x.a.svc.cluster.local"), Some(3))
        ]
    );
}

#[test]
fn a_service_with_several_ports_is_asked_on_the_port_of_the_request() {
    let routes = x_routes("  - route: [{destination: {host: y}}]\n");
    assert_eq!(
        routes[0]["route"]["cluster"],
        "outbound|80||y.a.svc.cluster.local"
    );
}

#[test]
fn an_empty_condition_means_presence() {
    let routes = x_routes(
        "  - match: [{headers: {a: {}}, withoutHeaders: {c: {}, d: {exact: v}}}]\n\
         \x20   route: [{destination: {host: x}}]\n",
    );
    assert_eq!(
        routes[0]["match"]["headers"],
        json!([
            {"name": "a", "present_match": true},
            {"name": "c", "present_match": true, "invert_match": true},
            {"name": "d", "string_match": {"exact": "v"}, "invert_match": true, "treat_missing_header_as_empty": true},
        ])
    );
}

#[test]
fn conditions_on_the_caller_are_decided_here() {
    let routes = x_routes(
        "  - match: [{sourceLabels: {version: v2}}]\n    route: [{destination: {host: y}}]\n\
         \x20 - match: [{sourceNamespace: b}]\n    route: [{destination: {host: y}}]\n\
         \x20 - match: [{port: 81}]\n    route: [{destination: {host: y}}]\n\
         \x20 - match: [{gateways: [edge]}]\n    route: [{destination: {host: y}}]\n\
         \x20 - match: [{sourceLabels: {version: v1}, sourceNamespace: a, port: 80, uri: {exact: /z}}]\n\
         \x20   route: [{destination: {host: x}}]\n",
    );
    assert_eq!(routes.len(), 1);
    assert_eq!(routes[0]["match"]["path"], "/z");
}

#[test]
fn retries_are_two_by_default_and_none_by_zero_attempts() {
    let default = &x_routes("  - route: [{destination: {host: x}}]\n")[0]["route"];
    assert_eq!(default["timeout"], "0s");
    assert_eq!(default["retry_policy"]["num_retries"], 2);
    assert_eq!(
        default["retry_policy"]["retry_on"],
        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    );
    let none = &x_routes("  - route: [{destination: {host: x}}]\n    retries: {attempts: 0}\n")[0]
        ["route"];
    assert!(none.get("retry_policy").is_none());
}

#[test]
fn status_codes_among_retry_conditions_are_told_apart() {
    let policy = &x_routes(
        "  - route: [{destination: {host: x}}]\n    timeout: 5s\n\
         \x20   retries: {attempts: 3, retryOn: 'reset,503,418', perTryTimeout: 1s, backoff: 40ms, retryIgnorePreviousHosts: false, \
         retryRemoteLocalities: true}\n",
    )[0]["route"]["retry_policy"];
    assert_eq!(policy["retry_on"], "reset,retriable-status-codes");
    assert_eq!(policy["retriable_status_codes"], json!([503, 418]));
    assert_eq!(policy["per_try_timeout"], "1s");
    assert_eq!(policy["retry_back_off"]["base_interval"], "0.040s");
    assert!(policy.get("retry_host_predicate").is_none());
    assert_eq!(
        policy["retry_priority"]["name"],
        "envoy.retry_priorities.previous_priorities"
    );
}

#[test]
fn redirects_replace_a_prefix_or_the_path() {
    let prefix = &x_routes(
        "  - match: [{uri: {prefix: /a}}]\n    redirect: {prefixRewrite: /b, redirectCode: 308}\n",
    )[0];
    assert_eq!(
        prefix["redirect"],
        json!({"prefix_rewrite": "/b", "response_code": "PERMANENT_REDIRECT"})
    );
    let path =
        &x_routes("  - redirect: {uri: /c, authority: other.com, derivePort: FROM_REQUEST_PORT}\n")
            [0];
    assert_eq!(
        path["redirect"],
        json!({"path_redirect": "/c", "host_redirect": "other.com"})
    );
}

#[test]
fn faults_are_scaled_to_the_right_denominator() {
    let route = &x_routes(
        "  - route: [{destination: {host: x}}]\n\
         \x20   fault: {delay: {fixedDelay: 7s, percentage: {value: 12.5}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}\n",
    )[0];
    let fault = &route["typed_per_filter_config"]["envoy.filters.http.fault"];
    assert_eq!(
        fault["delay"]["percentage"],
        json!({"numerator": 125_000, "denominator": "MILLION"})
    );
    assert_eq!(fault["delay"]["fixed_delay"], "7s");
    assert_eq!(fault["abort"]["grpc_status"], 14);
}

#[test]
fn a_mirror_without_percentage_copies_all_and_with_zero_nothing() {
    let mirrors = |percentage: &str| {
        let rule = format!(
            "  - route: [{{destination: {{host: x}}}}]\n    mirror: {{host: y}}\n{percentage}"
        );
        x_routes(&rule)[0]["route"]["request_mirror_policies"].clone()
    };
    assert_eq!(
        mirrors("")[0]["runtime_fraction"]["default_value"],
        json!({"numerator": 100})
    );
    assert_eq!(mirrors("    mirrorPercentage: {value: 0}\n"), Value::Null);
}

#[test]
fn a_new_authority_is_a_rewrite_and_no_header() {
    let route = &x_routes(
        "  - route: [{destination: {host: x}}]\n    headers: {request: {set: {':authority': other.com, a: b}, remove: [c]}}\n",
    )[0];
    assert_eq!(route["route"]["host_rewrite_literal"], "other.com");
    assert_eq!(
        route["request_headers_to_add"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(route["request_headers_to_remove"], json!(["c"]));
}

#[test]
fn unknown_hosts_are_passed_on_or_refused() {
    let allowed =
        sidecar("\napiVersion: v1\nkind: Service\nmetadata: {name: z, namespace: a}\nspec: {}\n");
    assert_eq!(
        allowed.routes_of("80", "allow_any")[0]["route"]["cluster"],
        "PassthroughCluster"
    );
    let refused = sidecar(
        "\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: a}\n\
         spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n",
    );
    assert_eq!(
        refused.routes_of("80", "block_all")[0]["direct_response"]["status"],
        502
    );
}

#[test]
fn rules_on_port_80_count_for_hosts_that_no_service_has() {
    let resources = sidecar(
        "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: z, namespace: a}\n\
         spec: {hosts: [z.com], http: [{route: [{destination: {host: x}}]}]}\n",
    );
    assert_eq!(resources.routes_of("80", "z.com:80").len(), 1);
}

#[test]
fn a_missing_subset_is_named() {
    let resources = sidecar(
        "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: a}\n\
         spec: {hosts: [x], http: [{route: [{destination: {host: x, subset: v9}}]}]}\n",
    );
    let note = resources
        .notes
        .iter()
        .find(|note| note.object == "VirtualService a/x")
        .expect("a note");
    assert!(
        note.text
            .starts_with("subset v9 of x.a.svc.cluster.local:80 does not exist"),
        "{note:?}"
    );
    assert_eq!(&*note.origin.file, "test.yaml");
}

#[test]
fn a_hashed_destination_is_asked_again_also_when_the_hash_names_nothing() {
    let policy = |hash: &str| {
        let yaml = format!(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: x, namespace: a}}
spec: {{hosts: [x], http: [{{route: [{{destination: {{host: x}}}}]}}]}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: x, namespace: a}}
spec: {{host: x, trafficPolicy: {{loadBalancer: {hash}}}}}
"
        );
        sidecar(&yaml).routes_of("80", X)[0]["route"]["retry_policy"].clone()
    };
    let avoids = |hash: &str| policy(hash).get("retry_host_predicate").is_some();
    assert!(avoids("{simple: RANDOM}"));
    assert!(!avoids("{consistentHash: {useSourceIp: true}}"));
    assert!(!avoids("{consistentHash: {minimumRingSize: 100}}"));
}

#[test]
fn addresses_of_a_service_entry_are_names_for_callers_of_any_family() {
    let context = context(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: e, namespace: a}
spec: {hosts: [e.com], addresses: ['2001:db8::5'], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
",
    );
    let workload = context.workload("a", "x-1").expect("the workload is there");
    let mut proxy = Proxy::sidecar(workload, &context);
    let domains = |proxy: &Proxy, host: &str| {
        let resources = translate(&context, proxy, &Options::default());
        let config = resources.route_config("80");
        let hosts = config["virtual_hosts"].as_array().expect("hosts").clone();
        let found = hosts.iter().find(|candidate| candidate["name"] == host);
        found.expect("the host")["domains"].to_string()
    };
    assert!(domains(&proxy, "e.com:80").contains("[2001:db8::5]"));
    assert!(domains(&proxy, X).contains("10.0.0.1"));
    proxy.addresses = vec!["2001:db8::1".to_owned()];
    assert!(!domains(&proxy, X).contains("10.0.0.1"));
}
