//! VirtualService.

use super::*;

const VS: &str = "VirtualService";
const TO: &str = "route: [{destination: {host: x}}]";

/// The routes of service `x` under these rules.
fn routes(http: &str) -> Vec<Value> {
    sidecar(&document(VS, "x", &format!("hosts: [x], http: [{http}]"))).routes_of("80", X)
}

/// The first of them.
fn route(rule: &str) -> Value {
    routes(&format!("{{{rule}}}")).remove(0)
}

fn http(rule: &str) -> String {
    format!("hosts: [x], http: [{{{rule}}}]")
}

#[test]
fn the_first_matching_rule_wins() {
    let found = routes(
        "{match: [{uri: {prefix: /}}], route: [{destination: {host: y, port: {number: 80}}}]}, {match: [{uri: {exact: /a}}], route: [{destination: {host: x}}]}",
    );
    // What follows a rule that takes everything can never be reached.
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0]["route"]["cluster"],
        "outbound|80||y.a.svc.cluster.local"
    );
    let ordered = routes(
        "{match: [{uri: {prefix: /a}}], redirect: {uri: /1}}, {match: [{uri: {prefix: /a/b}}], redirect: {uri: /2}}",
    );
    let order: Vec<_> = ordered
        .iter()
        .map(|r| r["redirect"]["path_redirect"].clone())
        .collect();
    assert_eq!(order, ["/1", "/2"]);
}

#[test]
fn weights_are_relative_to_their_sum() {
    let arms = "route: [{destination: {host: x}, weight: 3}, {destination: {host: y, port: {number: 80}}, weight: 9}]";
    accepted(VS, &http(arms));
    let clusters = route(arms)["route"]["weighted_clusters"]["clusters"].clone();
    assert_eq!(
        [&clusters[0]["weight"], &clusters[1]["weight"]],
        [&json!(3), &json!(9)]
    );
    refused(
        VS,
        &http("route: [{destination: {host: x}, weight: 0}, {destination: {host: y}, weight: 0}]"),
        "spec.http[0].route",
    );
}

#[test]
fn one_destination_takes_all() {
    for weight in ["", ", weight: 0", ", weight: 7"] {
        let found = route(&format!("route: [{{destination: {{host: x}}{weight}}}]"));
        assert_eq!(
            found["route"]["cluster"], "outbound|80||x.a.svc.cluster.local",
            "{weight}"
        );
    }
}

#[test]
fn keys_of_other_fields_under_headers_are_ignored() {
    let found = route(&format!(
        "match: [{{headers: {{uri: {{exact: a}}, scheme: {{exact: a}}, method: {{exact: a}}, authority: {{exact: a}}, b: {{exact: c}}}}}}], {TO}"
    ));
    assert_eq!(
        found["match"]["headers"],
        json!([{"name": "b", "string_match": {"exact": "c"}}])
    );
}

#[test]
fn ignore_uri_case_is_for_exact_and_prefix_only() {
    for kind in ["exact", "prefix"] {
        let found = route(&format!(
            "match: [{{uri: {{{kind}: /A}}, ignoreUriCase: true}}], {TO}"
        ));
        assert_eq!(found["match"]["case_sensitive"], false, "{kind}");
    }
    let spec = http(&format!(
        "match: [{{uri: {{regex: /A}}, ignoreUriCase: true}}], {TO}"
    ));
    warned(VS, &spec, "spec.http[0].match[0].ignoreUriCase");
}

#[test]
fn port_and_source_labels_need_the_gateway_mesh() {
    // A condition that names gateways is judged by them alone.
    let timeout = |condition: &str| {
        routes(&format!("{{match: [{{{condition}}}], timeout: 7s, {TO}}}"))[0]["route"]["timeout"]
            .clone()
    };
    assert_eq!(
        timeout("gateways: [mesh], port: 80, sourceLabels: {app: x}"),
        "7s"
    );
    assert_eq!(
        timeout("gateways: [edge], port: 80, sourceLabels: {app: x}"),
        "0s"
    );
    assert_eq!(timeout("port: 80, sourceLabels: {app: x}"), "7s");
    assert_eq!(timeout("sourceLabels: {app: other}"), "0s");
    assert_eq!(timeout("port: 81"), "0s");
}

fn delegation(root_match: &str, below: &str) -> Resources {
    sidecar(&format!(
        "{}---{}",
        document(
            VS,
            "x",
            &format!(
                "hosts: [x], http: [{{match: [{{{root_match}}}], delegate: {{name: below, namespace: a}}}}]"
            )
        ),
        document(VS, "below", below)
    ))
}

#[test]
fn a_delegates_match_is_a_subset() {
    let below = |path: &str| format!("http: [{{match: [{{uri: {{prefix: {path}}}}}], {TO}}}]");
    let inside = delegation("uri: {prefix: /a}", &below("/a/b")).routes_of("80", X);
    assert_eq!(inside[0]["match"]["prefix"], "/a/b");
    let outside = delegation("uri: {prefix: /a}", &below("/c"));
    assert!(
        outside
            .notes
            .iter()
            .any(|note| note.text.contains("no subset")),
        "{:?}",
        outside.notes
    );
    // No condition at all is the root's own.
    let same = delegation("uri: {prefix: /a}", &format!("http: [{{{TO}}}]")).routes_of("80", X);
    assert_eq!(same[0]["match"]["prefix"], "/a");
}

#[test]
fn delegates_go_one_level_deep() {
    refused(
        VS,
        "http: [{delegate: {name: deeper}}]",
        "spec.http[0].delegate",
    );
}

#[test]
fn a_delegate_has_no_hosts() {
    accepted(VS, &format!("http: [{{{TO}}}]"));
    // With hosts it is a rule of its own, and nobody's delegate.
    let resources = delegation(
        "uri: {prefix: /a}",
        &format!("hosts: [y], http: [{{{TO}}}]"),
    );
    let routes = resources.routes_of("80", X);
    assert!(
        routes.iter().all(|r| r["match"]["prefix"] != "/a"),
        "{routes:?}"
    );
    assert!(
        resources
            .notes
            .iter()
            .any(|note| note.object == "VirtualService a/x"),
        "{:?}",
        resources.notes
    );
}

#[test]
fn gateways_empty_means_mesh() {
    let of = |gateways: &str| {
        let spec = format!("hosts: [x], {gateways} http: [{{timeout: 7s, {TO}}}]");
        sidecar(&document(VS, "x", &spec)).routes_of("80", X)[0]["route"]["timeout"].clone()
    };
    assert_eq!(of(""), "7s");
    assert_eq!(of("gateways: [mesh],"), "7s");
    assert_eq!(of("gateways: [edge],"), "0s");
}

#[test]
fn short_names_belong_to_the_namespace_of_the_rule() {
    let rule = "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x, namespace: b}\n\
                spec: {hosts: [x.a.svc.cluster.local], http: [{route: [{destination: {host: other}}]}]}\n";
    let cluster = sidecar(rule).routes_of("80", X)[0]["route"]["cluster"].clone();
    assert_eq!(cluster, "outbound|80||other.b.svc.cluster.local");
}

#[test]
fn prefix_rewrite_of_a_redirect_needs_a_prefix_and_excludes_uri() {
    accepted(
        VS,
        &http("match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b}"),
    );
    refused(
        VS,
        &http("match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}"),
        "spec.http[0].redirect.prefixRewrite",
    );
    refused(
        VS,
        &http("match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b, uri: /c}"),
        "spec.http[0].redirect",
    );
}

#[test]
fn header_values_are_case_sensitive_and_keys_lower_case() {
    let found = route(&format!(
        "match: [{{headers: {{X-User: {{exact: Jason}}}}}}], {TO}"
    ));
    let header = &found["match"]["headers"][0];
    assert_eq!(header["string_match"], json!({"exact": "Jason"}));
    // Envoy compares names in any case; the spelling is kept.
    assert!(
        header["name"]
            .as_str()
            .is_some_and(|name| name.eq_ignore_ascii_case("x-user"))
    );
}

#[test]
fn there_is_no_timeout_by_default() {
    assert_eq!(route(TO)["route"]["timeout"], "0s");
}

#[test]
fn a_try_has_the_time_of_the_route_by_default_and_at_least_1ms() {
    let policy =
        &route(&format!("timeout: 5s, retries: {{attempts: 2}}, {TO}"))["route"]["retry_policy"];
    assert_eq!(policy.get("per_try_timeout"), None);
    refused(
        VS,
        &http(&format!(
            "retries: {{attempts: 1, perTryTimeout: 999us}}, {TO}"
        )),
        "spec.http[0].retries.perTryTimeout",
    );
    accepted(
        VS,
        &http(&format!(
            "retries: {{attempts: 1, perTryTimeout: 1ms}}, {TO}"
        )),
    );
}

#[test]
fn back_off_begins_with_envoys_25ms() {
    // Nothing is written, so that Envoy's own default counts.
    assert_eq!(
        route(TO)["route"]["retry_policy"].get("retry_back_off"),
        None
    );
    let own =
        &route(&format!("retries: {{attempts: 1, backoff: 40ms}}, {TO}"))["route"]["retry_policy"];
    assert_eq!(own["retry_back_off"]["base_interval"], "0.040s");
}

#[test]
fn retries_ignore_previous_hosts_by_default() {
    let named = |retries: &str| {
        let found = route(&format!("{retries} {TO}"));
        found["route"]["retry_policy"]["retry_host_predicate"][0]["name"].clone()
    };
    assert_eq!(
        named("retries: {attempts: 1},"),
        "envoy.retry_host_predicates.previous_hosts"
    );
    assert_eq!(
        named("retries: {attempts: 1, retryIgnorePreviousHosts: false},"),
        Value::Null
    );
}

#[test]
fn default_retries_are_istiods() {
    let policy = &route(TO)["route"]["retry_policy"];
    assert_eq!(
        policy["retry_on"],
        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    );
    assert_eq!(
        (
            &policy["num_retries"],
            &policy["host_selection_retry_max_attempts"]
        ),
        (&json!(2), &json!("5"))
    );
    let own = &route(&format!("retries: {{attempts: 4}}, {TO}"))["route"]["retry_policy"];
    assert_eq!(
        (&own["num_retries"], &own["retry_on"]),
        (&json!(4), &policy["retry_on"])
    );
}

#[test]
fn inbound_requests_are_retried_before_they_arrived_only() {
    let resources = sidecar(&document(
        "Sidecar",
        "x",
        "ingress: [{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:9090'}]",
    ));
    let manager =
        &resources.listener("127.1.0.1_8080")["filter_chains"][0]["filters"][0]["typed_config"];
    let policy = &manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"];
    assert_eq!(policy["retry_on"], "reset-before-request");
}

#[test]
fn a_status_code_does_not_match_a_reset() {
    let on = |retry_on: &str| {
        let found = route(&format!(
            "retries: {{attempts: 1, retryOn: '{retry_on}'}}, {TO}"
        ));
        found["route"]["retry_policy"].clone()
    };
    let code = on("503");
    // Istiod leaves an empty word before it, which Envoy passes over.
    assert_eq!(code["retry_on"], ",retriable-status-codes");
    assert_eq!(code["retriable_status_codes"], json!([503]));
    assert_eq!(on("reset")["retry_on"], "reset");
}

#[test]
fn a_fault_needs_a_delay_or_an_abort() {
    refused(
        VS,
        &http(&format!("fault: {{}}, {TO}")),
        "spec.http[0].fault",
    );
}

#[test]
fn the_exponential_delay_is_refused() {
    refused(
        VS,
        &http(&format!("fault: {{delay: {{exponentialDelay: 1s}}}}, {TO}")),
        "spec.http[0].fault.delay.exponentialDelay",
    );
}

#[test]
fn unmatched_preflights_are_forwarded_by_default() {
    let cors = |extra: &str| {
        let found = route(&format!(
            "corsPolicy: {{allowOrigins: [{{exact: a}}]{extra}}}, {TO}"
        ));
        found["typed_per_filter_config"]["envoy.filters.http.cors"]["forward_not_matching_preflights"].clone()
    };
    assert_eq!(cors(""), true);
    assert_eq!(cors(", unmatchedPreflights: FORWARD"), true);
    assert_eq!(cors(", unmatchedPreflights: IGNORE"), false);
}
