//! One example for each rule that trips people; whole suites of recorded answers are played by the conformance runner.

use crate::istio::read::{Level, TextOptions, parse};

/// Refusals and warnings of an object, as `path: message`.
fn judge(kind: &str, spec: &str) -> (Vec<String>, Vec<String>) {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => "security",
        "Telemetry" => "telemetry",
        "WasmPlugin" | "TrafficExtension" => "extensions",
        _ => "networking",
    };
    let version = match kind {
        "ProxyConfig" => "v1beta1",
        "EnvoyFilter" => "v1alpha3",
        "WasmPlugin" | "TrafficExtension" => "v1alpha1",
        _ => "v1",
    };
    let body: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    let text = format!(
        "apiVersion: {group}.istio.io/{version}\nkind: {kind}\nmetadata: {{name: x, namespace: ns1}}\nspec:\n{body}"
    );
    let parsed = parse(&"a.yaml".into(), &text, &TextOptions::default());
    let of = |level| {
        let found = parsed.findings.iter().filter(|f| f.level == level);
        found
            .map(|f| format!("{}: {}", f.path, f.message))
            .collect()
    };
    (of(Level::Refused), of(Level::Warning))
}

#[track_caller]
fn refused(kind: &str, spec: &str, path: &str) {
    let (refused, _) = judge(kind, spec);
    assert!(
        refused.iter().any(|r| r.starts_with(&format!("{path}: "))),
        "{path} not refused: {refused:?}"
    );
}

#[track_caller]
fn accepted(kind: &str, spec: &str) -> Vec<String> {
    let (refused, warnings) = judge(kind, spec);
    assert!(refused.is_empty(), "{refused:?}");
    warnings
}

fn http(route: &str) -> String {
    let body: String = route.lines().map(|l| format!("  {l}\n")).collect();
    format!("hosts: [reviews]\nhttp:\n- name: r\n{body}")
}

const TO: &str = "route: [{destination: {host: reviews}}]";

#[test]
fn virtual_service_weights_hosts_and_gateways() {
    let arms = |a, b| {
        format!(
            "route:\n- {{destination: {{host: a}}, weight: {a}}}\n- {{destination: {{host: b}}, weight: {b}}}"
        )
    };
    accepted("VirtualService", &http(&arms(0, 1)));
    accepted("VirtualService", &http(&arms(70, 50)));
    refused("VirtualService", &http(&arms(0, 0)), "spec.http[0].route");
    refused(
        "VirtualService",
        &http(&arms(-1, 1)),
        "spec.http[0].route[0].weight",
    );
    refused(
        "VirtualService",
        "hosts: ['*']\nhttp: [{route: [{destination: {host: a}}]}]",
        "spec.hosts[0]",
    );
    accepted(
        "VirtualService",
        "hosts: ['*']\ngateways: [gw]\nhttp: [{route: [{destination: {host: a}}]}]",
    );
    refused(
        "VirtualService",
        "hosts: ['*.foo.com', a.foo.com]\nhttp: [{route: [{destination: {host: a}}]}]",
        "spec.hosts[1]",
    );
    refused(
        "VirtualService",
        "hosts: [bad_host]\nhttp: [{route: [{destination: {host: a}}]}]",
        "spec.hosts[0]",
    );
    refused(
        "VirtualService",
        "gateways: [gw]\nhttp: [{route: [{destination: {host: a}}]}]",
        "spec.gateways",
    );
    // istiod would understand it, but its own check does not let it pass.
    refused(
        "VirtualService",
        "hosts: [a]\ngateways: [./gw]\nhttp: [{route: [{destination: {host: a}}]}]",
        "spec.gateways[0]",
    );
    refused("VirtualService", "hosts: [a]", "spec");
    refused(
        "VirtualService",
        &http("route: [{destination: {host: a, port: {number: 70000}}}]"),
        "spec.http[0].route[0].destination.port.number",
    );
}

#[test]
fn virtual_service_exclusive_actions() {
    refused(
        "VirtualService",
        &http(&format!("{TO}\nredirect: {{uri: /x}}")),
        "spec.http[0].route",
    );
    refused(
        "VirtualService",
        &http("delegate: {name: d}\nredirect: {uri: /x}"),
        "spec.http[0].redirect",
    );
    refused(
        "VirtualService",
        "http:\n- delegate: {name: d}\n  route: [{destination: {host: a}}]",
        "spec.http[0].delegate",
    );
    accepted("VirtualService", &http("delegate: {name: d}"));
    refused(
        "VirtualService",
        &http("match: [{uri: {exact: /a}}]\nredirect: {prefixRewrite: /b}"),
        "spec.http[0].redirect.prefixRewrite",
    );
    let told = accepted(
        "VirtualService",
        &http("redirect: {uri: /a, redirectCode: 304}"),
    );
    assert!(told[0].starts_with("spec.http[0].redirect.redirectCode: 304"));
    refused(
        "VirtualService",
        &http("redirect: {uri: /a, prefixRewrite: /b}"),
        "spec.http[0].redirect",
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nrewrite: {{uri: /a, uriRegexRewrite: {{match: a, rewrite: b}}}}"
        )),
        "spec.http[0].rewrite",
    );
}

#[test]
fn the_body_of_a_direct_response_is_base64_where_it_is_of_bytes() {
    let body = |bytes: &str| {
        http(&format!(
            "directResponse: {{status: 200, body: {{bytes: '{bytes}'}}}}"
        ))
    };
    accepted("VirtualService", &body("aGVsbG8="));
    let path = "spec.http[0].directResponse.body.bytes";
    refused("VirtualService", &body("hello, world"), path);
}

#[test]
fn virtual_service_matches_and_regexes() {
    refused(
        "VirtualService",
        &http(&format!("{TO}\nmatch: [{{uri: {{regex: '(a'}}}}]")),
        "spec.http[0].match[0].uri.regex",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\nmatch: [{{uri: {{regex: '(?=a)'}}}}]")),
        "spec.http[0].match[0].uri.regex",
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nmatch: [{{headers: {{a: {{prefix: ''}}}}}}]"
        )),
        "spec.http[0].match[0].headers.a.prefix",
    );
    accepted(
        "VirtualService",
        &http(&format!(
            "{TO}\nmatch: [{{uri: {{prefix: ''}}, headers: {{a: {{}}}}}}]"
        )),
    );
    let warnings = accepted(
        "VirtualService",
        &http(&format!(
            "{TO}\nmatch: [{{uri: {{regex: a}}, ignoreUriCase: true}}]"
        )),
    );
    assert!(
        warnings[0].starts_with("spec.http[0].match[0].ignoreUriCase"),
        "{warnings:?}"
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nmatch: [{{headers: {{'@request.auth.claims.iss': {{exact: x}}}}}}]"
        )),
        "spec.http[0].match[0].headers[\"@request.auth.claims.iss\"]",
    );
}

#[test]
fn virtual_service_headers_are_names() {
    let set = |name: &str| {
        http(&format!(
            "{TO}\nheaders: {{request: {{set: {{'{name}': x}}}}}}"
        ))
    };
    accepted("VirtualService", &set(":authority"));
    let path = "spec.http[0].headers.request.set[\"a b\"]";
    refused("VirtualService", &set("a b"), path);
}

#[test]
fn virtual_service_timing_and_faults() {
    refused(
        "VirtualService",
        &http(&format!("{TO}\ntimeout: 0.1ms")),
        "spec.http[0].timeout",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\ntimeout: 5")),
        "spec.http[0].timeout",
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nretries: {{attempts: 1, perTryTimeout: 100us}}"
        )),
        "spec.http[0].retries.perTryTimeout",
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nretries: {{attempts: 1, retryOn: '5xx,bad'}}"
        )),
        "spec.http[0].retries.retryOn",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\nretries: {{attempts: 0, retryOn: 5xx}}")),
        "spec.http[0].retries",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\nfault: {{}}")),
        "spec.http[0].fault",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\nfault: {{delay: {{exponentialDelay: 1s}}}}")),
        "spec.http[0].fault.delay.exponentialDelay",
    );
    refused(
        "VirtualService",
        &http(&format!("{TO}\nfault: {{abort: {{httpStatus: 600}}}}")),
        "spec.http[0].fault.abort.httpStatus",
    );
    refused(
        "VirtualService",
        &http(&format!(
            "{TO}\nfault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}"
        )),
        "spec.http[0].fault.delay.percentage.value",
    );
}

#[test]
fn rules_that_are_never_reached_are_warned_of() {
    let spec = format!("hosts: [a]\nhttp:\n- {TO}\n- match: [{{uri: {{exact: /x}}}}]\n  {TO}");
    assert!(accepted("VirtualService", &spec)[0].starts_with("spec.http[1]: never reached"));
    let spec = format!(
        "hosts: [a]\nhttp:\n- match: [{{uri: {{prefix: /a}}}}]\n  {TO}\n- match: [{{uri: {{prefix: /a/b}}}}]\n  {TO}"
    );
    assert!(
        accepted("VirtualService", &spec)[0].starts_with("spec.http[1].match[0]: never reached")
    );
}

#[test]
fn destination_rule_policies() {
    let policy = |p: &str| format!("host: a\ntrafficPolicy: {{{p}}}");
    refused("DestinationRule", &policy(""), "spec.trafficPolicy");
    refused(
        "DestinationRule",
        &policy("outlierDetection: {consecutiveLocalOriginFailures: 3}"),
        "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
    );
    refused(
        "DestinationRule",
        &policy("outlierDetection: {maxEjectionPercent: 101}"),
        "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
    );
    refused(
        "DestinationRule",
        &policy("loadBalancer: {consistentHash: {maglev: {tableSize: 65536}}}"),
        "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
    );
    accepted(
        "DestinationRule",
        &policy("loadBalancer: {consistentHash: {maglev: {tableSize: 65537}}}"),
    );
    refused(
        "DestinationRule",
        &policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 50}}]}}"),
        "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
    );
    refused(
        "DestinationRule",
        &policy("loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {}}"),
        "spec.trafficPolicy.loadBalancer",
    );
    let warnings = accepted(
        "DestinationRule",
        &policy("loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}"),
    );
    assert!(
        warnings[0].contains("without outlierDetection"),
        "{warnings:?}"
    );
    refused(
        "DestinationRule",
        "host: a\nsubsets: [{name: v1}, {name: v1}]",
        "spec.subsets[1].name",
    );
    refused(
        "DestinationRule",
        &policy("portLevelSettings: [{tls: {mode: DISABLE}}]"),
        "spec.trafficPolicy.portLevelSettings[0].port",
    );
    refused(
        "DestinationRule",
        "host: a\nexportTo: ['*', ns2]",
        "spec.exportTo[0]",
    );
}

#[test]
fn gateway_servers() {
    let server = |s: &str| format!("servers: [{{{s}}}]");
    accepted(
        "Gateway",
        &server("port: {number: 80, name: http, protocol: HTTP}, hosts: ['ns1/*.foo.com']"),
    );
    refused(
        "Gateway",
        &server("port: {number: 80, name: http, protocol: HTTPX}, hosts: ['*']"),
        "spec.servers[0].port.protocol",
    );
    refused(
        "Gateway",
        &server("port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*']"),
        "spec.servers[0].tls",
    );
    refused(
        "Gateway",
        &server(
            "port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: a, credentialNames: [b]}",
        ),
        "spec.servers[0].tls",
    );
    refused(
        "Gateway",
        "servers:\n- {port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}\n- {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}",
        "spec.servers[1].port.name",
    );
    refused(
        "Gateway",
        &server("port: {number: 80, name: http, protocol: HTTP}, hosts: [short]"),
        "spec.servers[0].hosts[0]",
    );
}

#[test]
fn service_and_workload_entries() {
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
    accepted(
        "ServiceEntry",
        &format!("hosts: [a.com]\nresolution: DNS\n{ports}"),
    );
    refused(
        "ServiceEntry",
        &format!(
            "hosts: [a.com]\nresolution: STATIC\n{ports}\nendpoints: [{{address: 1.1.1.1}}]\nworkloadSelector: {{labels: {{a: b}}}}"
        ),
        "spec",
    );
    refused(
        "ServiceEntry",
        &format!("hosts: [a.com]\nresolution: DYNAMIC_DNS\n{ports}"),
        "spec.hosts[0]",
    );
    accepted(
        "ServiceEntry",
        &format!("hosts: ['*.a.com']\nresolution: DYNAMIC_DNS\n{ports}"),
    );
    refused(
        "ServiceEntry",
        "hosts: [a.com]\nresolution: STATIC\nports: [{number: 80, name: a, protocol: HTTP}, {number: 81, name: b, protocol: HTTP}]\nendpoints: [{address: 'unix:///x'}]",
        "spec.endpoints[0].address",
    );
    refused(
        "ServiceEntry",
        "hosts: [a.com]\nresolution: DNS\nports: [{number: 80, name: a, protocol: HTTP}, {number: 80, name: b, protocol: HTTP}]",
        "spec.ports[1].number",
    );
    refused("WorkloadEntry", "labels: {a: b}", "spec.address");
    let warnings = accepted("WorkloadEntry", "network: other");
    assert!(warnings[0].starts_with("spec.address"), "{warnings:?}");
    refused("WorkloadEntry", "address: unix://relative", "spec.address");
    accepted("WorkloadEntry", "address: 'unix://@abstract'");
}

#[test]
fn sidecar_listeners_and_proxy_config() {
    refused("Sidecar", "{}", "spec");
    refused(
        "Sidecar",
        "egress: [{hosts: ['./*']}, {port: {number: 80, protocol: HTTP, name: a}, hosts: ['./*']}]",
        "spec.egress[0]",
    );
    refused(
        "Sidecar",
        "egress: [{hosts: [reviews]}]",
        "spec.egress[0].hosts[0]",
    );
    accepted("Sidecar", "egress: [{hosts: ['./*', '~/*']}]");
    refused(
        "Sidecar",
        "ingress: [{port: {number: 80, protocol: HTTP, name: a}, defaultEndpoint: '10.0.0.1:80'}]",
        "spec.ingress[0].defaultEndpoint",
    );
    refused(
        "Sidecar",
        "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}",
        "spec.outboundTrafficPolicy.mode",
    );
    refused("ProxyConfig", "concurrency: -1", "spec.concurrency");
}

#[test]
fn security_and_telemetry() {
    refused(
        "PeerAuthentication",
        "portLevelMtls: {8080: {mode: STRICT}}",
        "spec.portLevelMtls",
    );
    accepted(
        "PeerAuthentication",
        "selector: {matchLabels: {app: a}}\nportLevelMtls: {8080: {mode: STRICT}}",
    );
    refused("AuthorizationPolicy", "action: DENY", "spec.rules");
    accepted("AuthorizationPolicy", "{}");
    refused(
        "AuthorizationPolicy",
        "rules: [{from: []}]",
        "spec.rules[0].from",
    );
    refused(
        "AuthorizationPolicy",
        "rules: [{to: [{operation: {paths: ['/a/{**}/{*}']}}]}]",
        "spec.rules[0].to[0].operation.paths[0]",
    );
    refused(
        "AuthorizationPolicy",
        "rules: [{when: [{key: request.header, values: [a]}]}]",
        "spec.rules[0].when[0].key",
    );
    refused(
        "AuthorizationPolicy",
        "rules: [{when: [{key: 'request.headers[]', values: [a]}]}]",
        "spec.rules[0].when[0].key",
    );
    refused(
        "Telemetry",
        "metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: x}}}]}]",
        "spec.metrics[0].overrides[0].tagOverrides.a.value",
    );
    refused(
        "Telemetry",
        "tracing: [{randomSamplingPercentage: 101}]",
        "spec.tracing[0].randomSamplingPercentage",
    );
}

#[test]
fn no_gateway_is_judged_after_one_without_a_namespace() {
    let gateways = |names: &str| format!("gateways: [{names}]\nhosts: [a.b]\nhttp: [{{{TO}}}]");
    refused("VirtualService", &gateways("'*/gw'"), "spec.gateways[0]");
    refused(
        "VirtualService",
        &gateways("ns/gw, a_b"),
        "spec.gateways[1]",
    );
    let warnings = accepted("VirtualService", &gateways("gw, '*/gw', a_b"));
    let places: Vec<_> = warnings
        .iter()
        .filter_map(|w| w.split(": ").next())
        .collect();
    assert!(places.contains(&"spec.gateways[1]"), "{warnings:?}");
    assert!(places.contains(&"spec.gateways[2]"), "{warnings:?}");
}

#[test]
fn one_kind_of_balancing_is_chosen() {
    let balancer = |inner: &str| format!("host: a\ntrafficPolicy: {{loadBalancer: {{{inner}}}}}");
    accepted(
        "DestinationRule",
        &balancer("backendUtilization: {weightUpdatePeriod: 1s}"),
    );
    refused(
        "DestinationRule",
        &balancer("simple: RANDOM, backendUtilization: {}"),
        "spec.trafficPolicy.loadBalancer",
    );
}

#[test]
fn a_patch_says_what_it_does() {
    let patch = |inner: &str| format!("configPatches: [{{{inner}}}]");
    for good in [
        "applyTo: CLUSTER, patch: {operation: REMOVE}",
        "applyTo: CLUSTER, patch: {operation: MERGE, value: {}}",
        "match: {context: WAYPOINT}",
        "applyTo: FILTER_CHAIN, patch: {operation: REMOVE}, match: {listener: {filterChain: {transportSocket: tls}}}",
    ] {
        accepted("EnvoyFilter", &patch(good));
    }
    for (bad, path) in [
        ("patch: {operation: REMOVE}", "applyTo"),
        ("applyTo: CLUSTER", "patch"),
        ("applyTo: CLUSTER, patch: {}", "patch.operation"),
        ("applyTo: CLUSTER, patch: {operation: ADD}", "patch.value"),
        (
            "applyTo: CLUSTER, patch: {operation: REMOVE}, match: {proxy: {proxyVersion: '['}}",
            "match.proxy.proxyVersion",
        ),
    ] {
        let path = format!("spec.configPatches[0].{path}");
        refused("EnvoyFilter", &patch(bad), &path);
    }
}

#[test]
fn what_is_empty_or_null_is_refused_where_istio_does() {
    refused(
        "PeerAuthentication",
        "selector: {matchLabels: {a: b}}\nportLevelMtls: {}",
        "spec.portLevelMtls",
    );
    for kind in ["WasmPlugin", "TrafficExtension"] {
        let (told, _) = judge(kind, "match: [null]");
        assert!(told.iter().any(|told| told.contains("item 0")), "{told:?}");
    }
}

#[test]
fn enums_are_those_of_the_api() {
    accepted("WasmPlugin", "url: oci://a.b/c\nmatch: [{mode: UNDEFINED}]");
    let rule = |presence: &str| format!("jwtRules: [{{issuer: a, presence: {presence}}}]");
    accepted("RequestAuthentication", &rule("REQUIRED"));
    let (told, _) = judge("RequestAuthentication", &rule("NEEDED"));
    assert!(told[0].contains("unknown value `NEEDED`"), "{told:?}");
}

#[test]
fn cors_takes_lists_of_headers_in_one_item() {
    let cors = |names: &str| format!("{TO}\ncorsPolicy: {{allowHeaders: ['{names}']}}");
    accepted("VirtualService", &http(&cors("a,b")));
    refused(
        "VirtualService",
        &http(&cors("a, b")),
        "spec.http[0].corsPolicy.allowHeaders[0]",
    );
}
