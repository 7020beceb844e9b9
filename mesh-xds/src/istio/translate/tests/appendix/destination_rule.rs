//! DestinationRule.

use super::*;

const DR: &str = "DestinationRule";
const GENERAL: &str = "outbound|80||x.a.svc.cluster.local";
const V1: &str = "outbound|80|v1|x.a.svc.cluster.local";

fn rule(spec: &str) -> Resources {
    sidecar(&document(DR, "x", &format!("host: x, {spec}")))
}

/// The cluster of `x` under a policy.
fn cluster(policy: &str) -> Value {
    rule(&format!("trafficPolicy: {{{policy}}}")).cluster(GENERAL)
}

fn policy(text: &str) -> String {
    format!("host: x, trafficPolicy: {{{text}}}")
}

#[test]
fn a_subset_replaces_section_by_section() {
    let resources = rule(
        "trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 5, connectTimeout: 3s}}}, \
         subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 6}}}}]",
    );
    let subset = resources.cluster(V1);
    assert_eq!(subset["lb_policy"], "RANDOM");
    assert_eq!(
        subset["circuit_breakers"]["thresholds"][0]["max_connections"],
        6
    );
    // The section is the subset's as a whole.
    assert_eq!(subset["connect_timeout"], "10s");
}

#[test]
fn a_section_that_a_port_omits_takes_its_default() {
    let found = cluster(
        "loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {connectTimeout: 3s}}, \
         portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 6}}}]",
    );
    assert_eq!(found["lb_policy"], "LEAST_REQUEST");
    assert_eq!(found["connect_timeout"], "10s");
    assert_eq!(
        found["circuit_breakers"]["thresholds"][0]["max_connections"],
        6
    );
}

#[test]
fn pools_are_unlimited_by_default() {
    let found = cluster("loadBalancer: {simple: RANDOM}");
    let most = u64::from(u32::MAX);
    assert_eq!(
        found["circuit_breakers"]["thresholds"][0],
        json!({"max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most})
    );
    assert_eq!(found["connect_timeout"], "10s");
}

#[test]
fn http_connections_are_idle_for_envoys_hour_by_default() {
    let found = cluster("loadBalancer: {simple: RANDOM}");
    assert_eq!(
        found.get("typed_extension_protocol_options"),
        None,
        "{found}"
    );
    let own = cluster("connectionPool: {http: {idleTimeout: 5s}}");
    let options = &own["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(
        options["common_http_protocol_options"]["idle_timeout"],
        "5s"
    );
}

#[test]
fn outlier_detection_has_envoys_defaults_but_for_health() {
    let found = cluster("outlierDetection: {}");
    let outlier = &found["outlier_detection"];
    // 5 errors, 10 s, 30 s and 10 % are what Envoy takes for what is not written.
    for field in [
        "consecutive_5xx",
        "interval",
        "base_ejection_time",
        "max_ejection_percent",
    ] {
        assert_eq!(outlier.get(field), None, "{field}");
    }
    assert_eq!(outlier["enforcing_success_rate"], 0);
    // A minimum of health of 0 %, where Envoy's own is 50 %.
    assert_eq!(
        found["common_lb_config"]["healthy_panic_threshold"],
        json!({})
    );
}

#[test]
fn errors_of_local_origin_need_the_split() {
    refused(
        DR,
        &policy("outlierDetection: {consecutiveLocalOriginFailures: 3}"),
        "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures",
    );
    accepted(
        DR,
        &policy(
            "outlierDetection: {consecutiveLocalOriginFailures: 3, splitExternalLocalOriginErrors: true}",
        ),
    );
}

#[test]
fn a_ring_has_1024_points_and_maglev_a_prime_size() {
    let ring = cluster("loadBalancer: {consistentHash: {useSourceIp: true}}");
    assert_eq!(ring["lb_policy"], "RING_HASH");
    assert_eq!(ring["ring_hash_lb_config"]["minimum_ring_size"], "1024");
    let maglev =
        cluster("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 101}}}");
    assert_eq!(
        (
            &maglev["lb_policy"],
            &maglev["maglev_lb_config"]["table_size"]
        ),
        (&json!("MAGLEV"), &json!("101"))
    );
    refused(
        DR,
        &policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 100}}}"),
        "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
    );
}

#[test]
fn warm_up_is_for_round_robin_and_least_request_only() {
    let slow = |simple: &str| {
        let found = cluster(&format!(
            "loadBalancer: {{simple: {simple}, warmup: {{duration: 10s}}}}"
        ));
        ["round_robin_lb_config", "least_request_lb_config"]
            .iter()
            .find_map(|name| found[name].get("slow_start_config").cloned())
    };
    for simple in ["ROUND_ROBIN", "LEAST_REQUEST"] {
        let config = slow(simple).unwrap_or_else(|| panic!("no slow start for {simple}"));
        assert_eq!(config["slow_start_window"], "10s");
        assert_eq!(config["min_weight_percent"], json!({"value": 10}));
        assert_eq!(config["aggression"]["default_value"], 1);
    }
    assert_eq!(slow("RANDOM"), None);
}

#[test]
fn a_warm_up_of_another_policy_is_named() {
    let said = said(
        DR,
        &policy("loadBalancer: {simple: RANDOM, warmup: {duration: 10s}}"),
    );
    assert!(
        said.iter()
            .any(|(_, text)| text.starts_with("spec.trafficPolicy.loadBalancer.warmup: ")),
        "{said:?}"
    );
}

#[test]
fn distribute_and_failover_exclude_one_another() {
    let locality = |text: &str| {
        policy(&format!(
            "loadBalancer: {{localityLbSetting: {{{text}}}}}, outlierDetection: {{}}"
        ))
    };
    let distribute = "distribute: [{from: a/b, to: {a/b: 70, a/c: 30}}]";
    let failover = "failover: [{from: a, to: b}]";
    accepted(DR, &locality(distribute));
    accepted(DR, &locality(failover));
    refused(
        DR,
        &locality(&format!("{distribute}, {failover}")),
        "spec.trafficPolicy.loadBalancer.localityLbSetting",
    );
    refused(
        DR,
        &locality(&format!(
            "{failover}, failoverPriority: [topology.kubernetes.io/region]"
        )),
        "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]",
    );
}

#[test]
fn weights_of_localities_sum_to_100() {
    refused(
        DR,
        &policy("loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {a: 70, b: 20}}]}}"),
        "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to",
    );
}

#[test]
fn failover_needs_outlier_detection() {
    for setting in ["localityLbSetting", "zoneAwareLbSetting"] {
        for how in [
            "failover: [{from: a, to: b}]",
            "failoverPriority: [version]",
        ] {
            let spec = policy(&format!("loadBalancer: {{{setting}: {{{how}}}}}"));
            warned(
                DR,
                &spec,
                &format!("spec.trafficPolicy.loadBalancer.{setting}"),
            );
        }
    }
}

#[test]
fn a_retry_budget_is_20_percent_and_at_least_3() {
    let found = cluster("retryBudget: {}");
    assert_eq!(
        found["circuit_breakers"]["thresholds"][0]["retry_budget"],
        json!({"budget_percent": {"value": 20}, "min_retry_concurrency": 3})
    );
}

#[test]
fn balancing_by_locality_and_by_zone_exclude_one_another() {
    refused(
        DR,
        &policy("loadBalancer: {localityLbSetting: {}, zoneAwareLbSetting: {}}"),
        "spec.trafficPolicy.loadBalancer",
    );
}
