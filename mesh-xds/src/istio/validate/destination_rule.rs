//! DestinationRule and the traffic policies in it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::{At, Check};
use super::{rules, selector};
use crate::decode::lb::is_prime;
use crate::istio::api::DestinationRule;
use crate::istio::api::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, ConsistentHashLb, Failover,
    H2UpgradePolicy, HttpSettings, LoadBalancerSettings, LocalityLoadBalancerSetting,
    OutlierDetection, SimpleLb, TcpSettings, TrafficPolicy, TunnelSettings, WarmupConfiguration,
    ZoneAwareLoadBalancerSetting,
};

const TOPOLOGY: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

pub(super) fn check(c: &mut Check, at: &At<'_>, rule: &DestinationRule, namespace: &str) {
    c.rule(&at.key("host"), rules::wildcard_domain(&rule.host));
    if let Some(policy) = &rule.traffic_policy {
        traffic_policy(c, &at.key("trafficPolicy"), policy, namespace);
    }
    let mut names = BTreeSet::new();
    for (i, subset) in rule.subsets.iter().enumerate() {
        let at = at.item("subsets", i);
        if !names.insert(&subset.name) {
            c.error(
                &at.key("name"),
                format_args!("duplicate subset `{}`", subset.name),
            );
        }
        if !rules::is_dns_label(&subset.name) {
            c.error(
                &at.key("name"),
                format_args!("invalid subset name `{}`", subset.name),
            );
        }
        for (key, error) in rules::labels(&subset.labels) {
            c.error(&at.key("labels").key(&key), error);
        }
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(c, &at.key("trafficPolicy"), policy, namespace);
        }
    }
    for (i, error) in rules::export_to(namespace, &rule.export_to, false) {
        c.error(&at.item("exportTo", i), error);
    }
    if rule.workload_selector.is_some() && !rule.export_to.is_empty() {
        let own = |entry: &String| entry == "." || entry == namespace;
        if !rule.export_to.iter().all(own) {
            c.error(
                &at.key("exportTo"),
                "a rule with workloadSelector cannot be exported beyond its namespace",
            );
        }
    }
    selector::match_labels_in(
        c,
        &at.key("workloadSelector"),
        rule.workload_selector.as_ref(),
    );
}

fn traffic_policy(c: &mut Check, at: &At<'_>, policy: &TrafficPolicy, namespace: &str) {
    if *policy == TrafficPolicy::default() {
        return c.error(at, "a traffic policy needs at least one field");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        return c.error(at, "only one of tunnel and proxyProtocol can be set");
    }
    let outlier = policy.outlier_detection.as_ref();
    outlier_detection(c, at, outlier);
    connection_pool(
        c,
        &at.key("connectionPool"),
        policy.connection_pool.as_ref(),
    );
    load_balancer(c, at, policy.load_balancer.as_ref(), outlier.is_some());
    client_tls(c, at, policy.tls.as_ref(), namespace);
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let at = at.item("portLevelSettings", i);
        if port.port.is_none() {
            c.error(&at.key("port"), "a port is required");
        }
        let outlier = port.outlier_detection.as_ref();
        if outlier.is_none()
            && port.connection_pool.is_none()
            && port.load_balancer.is_none()
            && port.tls.is_none()
        {
            c.error(&at, "the policy of a port needs at least one field");
            continue;
        }
        outlier_detection(c, &at, outlier);
        connection_pool(c, &at.key("connectionPool"), port.connection_pool.as_ref());
        load_balancer(c, &at, port.load_balancer.as_ref(), outlier.is_some());
        client_tls(c, &at, port.tls.as_ref(), namespace);
    }
    if let Some(settings) = &policy.tunnel {
        tunnel(c, &at.key("tunnel"), settings);
        c.inactive(
            &at.key("tunnel"),
            "no tunnel is made yet: connections go to the destination itself",
        );
    }
}

fn tunnel(c: &mut Check, at: &At<'_>, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        c.not_one_of(
            &at.key("protocol"),
            "protocol",
            &tunnel.protocol,
            &["CONNECT", "POST"],
        );
    }
    if rules::ip(&tunnel.target_host).is_err() {
        c.rule(&at.key("targetHost"), rules::fqdn(&tunnel.target_host));
    }
    c.rule(&at.key("targetPort"), rules::port(tunnel.target_port));
}

/// Outlier detection, also of MeshConfig.
pub(super) fn outlier_detection(c: &mut Check, at: &At<'_>, outlier: Option<&OutlierDetection>) {
    let Some(outlier) = outlier else {
        return;
    };
    let at = at.key("outlierDetection");
    durations(
        c,
        &at,
        &[
            ("baseEjectionTime", outlier.base_ejection_time),
            ("interval", outlier.interval),
        ],
    );
    if outlier.consecutive_errors != 0 {
        let message =
            "consecutiveErrors has no effect: use consecutiveGatewayErrors or consecutive5xxErrors";
        c.inactive(&at.key("consecutiveErrors"), message);
    }
    if !outlier.outlier_detection_http_error_codes.is_empty() {
        c.inactive(
            &at.key("outlierDetectionHttpErrorCodes"),
            "the codes do not count as errors yet",
        );
    }
    let local = outlier
        .consecutive_local_origin_failures
        .is_some_and(|n| n > 0);
    if local && !outlier.split_external_local_origin_errors {
        c.error(
            &at.key("consecutiveLocalOriginFailures"),
            "needs splitExternalLocalOriginErrors: true",
        );
    }
    c.rule(
        &at.key("maxEjectionPercent"),
        rules::percent(outlier.max_ejection_percent),
    );
    c.rule(
        &at.key("minHealthPercent"),
        rules::percent(outlier.min_health_percent),
    );
}

fn durations(c: &mut Check, at: &At<'_>, fields: &[(&str, Option<Duration>)]) {
    for (field, duration) in fields {
        if let Some(duration) = duration {
            c.rule(&at.key(field), rules::duration(*duration));
        }
    }
}

/// Connection pool settings, also of Sidecar.
pub(super) fn connection_pool(c: &mut Check, at: &At<'_>, pool: Option<&ConnectionPoolSettings>) {
    let Some(pool) = pool else {
        return;
    };
    if pool.http.is_none() && pool.tcp.is_none() {
        c.error(at, "one of tcp and http is required");
    }
    if let Some(http) = &pool.http {
        pool_http(c, &at.key("http"), http);
    }
    if let Some(tcp) = &pool.tcp {
        pool_tcp(c, &at.key("tcp"), tcp);
    }
}

fn pool_http(c: &mut Check, at: &At<'_>, http: &HttpSettings) {
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        not_negative(c, at, field, value);
    }
    durations(c, at, &[("idleTimeout", http.idle_timeout)]);
    if http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol {
        c.error(
            &at.key("useClientProtocol"),
            "cannot be true when h2UpgradePolicy is UPGRADE",
        );
    }
    if let Some(keepalive) = &http.http2_keep_alive {
        let at = at.key("http2KeepAlive");
        for (field, duration) in [
            ("interval", keepalive.interval),
            ("timeout", keepalive.timeout),
        ] {
            match duration {
                Some(duration) => c.rule(&at.key(field), rules::duration(duration)),
                None => c.error(&at.key(field), format_args!("{field} is required")),
            }
        }
    }
}

fn pool_tcp(c: &mut Check, at: &At<'_>, tcp: &TcpSettings) {
    not_negative(c, at, "maxConnections", tcp.max_connections);
    // 0 switches the idle timeout off.
    let idle = tcp.idle_timeout.filter(|t| t.as_millis() != 0);
    let fields = [
        ("connectTimeout", tcp.connect_timeout),
        ("maxConnectionDuration", tcp.max_connection_duration),
        ("idleTimeout", idle),
    ];
    durations(c, at, &fields);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        durations(
            c,
            &at.key("tcpKeepalive"),
            &[("time", keepalive.time), ("interval", keepalive.interval)],
        );
    }
}

fn not_negative(c: &mut Check, at: &At<'_>, field: &str, value: i32) {
    if value < 0 {
        c.error(&at.key(field), format_args!("{field} must not be negative"));
    }
}

fn load_balancer(
    c: &mut Check,
    at: &At<'_>,
    settings: Option<&LoadBalancerSettings>,
    outlier: bool,
) {
    let Some(settings) = settings else {
        return;
    };
    let at = at.key("loadBalancer");
    let kinds = [
        settings.simple.is_some(),
        settings.consistent_hash.is_some(),
        settings.backend_utilization.is_some(),
    ];
    if kinds.iter().filter(|set| **set).count() > 1 {
        let message = "only one of simple, consistentHash and backendUtilization can be set";
        c.error(&at, message);
    }
    if let Some(hash) = &settings.consistent_hash {
        consistent_hash(c, &at.key("consistentHash"), hash);
    }
    if settings.backend_utilization.is_some() {
        c.inactive(
            &at.key("backendUtilization"),
            "has no effect, as in Istio: what endpoints report of their load is not read",
        );
    }
    if settings.locality_lb_setting.is_some() && settings.zone_aware_lb_setting.is_some() {
        c.error(
            &at,
            "only one of localityLbSetting and zoneAwareLbSetting can be set",
        );
    }
    if let Some(locality) = &settings.locality_lb_setting {
        locality_lb(c, &at.key("localityLbSetting"), locality, outlier);
    }
    if let Some(zone) = &settings.zone_aware_lb_setting {
        zone_aware(c, &at.key("zoneAwareLbSetting"), zone, outlier);
    }
    slow_start(c, &at, settings);
}

/// Which balancers let new endpoints warm up.
fn slow_start(c: &mut Check, at: &At<'_>, settings: &LoadBalancerSettings) {
    let slow = matches!(
        settings.simple.unwrap_or_default(),
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest | SimpleLb::RoundRobin
    ) && settings.consistent_hash.is_none();
    for (field, set) in [
        ("warmup", settings.warmup.is_some()),
        (
            "warmupDurationSecs",
            settings.warmup_duration_secs.is_some(),
        ),
    ] {
        if set && !slow {
            c.inactive(
                &at.key(field),
                "has no effect: only ROUND_ROBIN and LEAST_REQUEST warm up",
            );
        }
    }
    if let Some(settings) = &settings.warmup {
        warmup(c, &at.key("warmup"), settings);
    }
}

fn consistent_hash(c: &mut Check, at: &At<'_>, hash: &ConsistentHashLb) {
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip.is_some(),
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|set| **set).count() > 1 {
        c.error(at, "only one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName can be set");
    }
    if let Some(cookie) = &hash.http_cookie {
        let at = at.key("httpCookie");
        if cookie.name.is_empty() {
            c.error(&at.key("name"), "the cookie needs a name");
        }
        let mut names = BTreeSet::new();
        for (i, attribute) in cookie.attributes.iter().enumerate() {
            let at = at.item("attributes", i);
            if attribute.name.is_empty() {
                c.error(&at.key("name"), "the attribute needs a name");
            } else if !names.insert(&attribute.name) {
                c.error(
                    &at.key("name"),
                    format_args!("duplicate attribute `{}`", attribute.name),
                );
            }
        }
    }
    if hash.ring_hash.is_some() && hash.maglev.is_some() {
        c.error(at, "only one of ringHash and maglev can be set");
    }
    if hash.minimum_ring_size.is_some_and(|size| size != 0) {
        let at = at.key("minimumRingSize");
        c.warn(&at, "minimumRingSize is deprecated here, use ringHash");
        if hash.ring_hash.is_some() || hash.maglev.is_some() {
            c.error(&at, "cannot stand beside ringHash or maglev");
        }
    }
    if let Some(maglev) = &hash.maglev {
        const MOST: u64 = 5_000_011;
        let size = maglev.table_size.unwrap_or(0);
        if size >= MOST || !is_prime(size) {
            c.error(
                &at.key("maglev").key("tableSize"),
                format_args!("the size must be a prime number less than {MOST}"),
            );
        }
    }
}

fn warmup(c: &mut Check, at: &At<'_>, warmup: &WarmupConfiguration) {
    match warmup.duration {
        Some(duration) => c.rule(&at.key("duration"), rules::duration(duration)),
        None => c.error(&at.key("duration"), "duration is required"),
    }
    if warmup.minimum_percent.is_some_and(|p| p.0 > 100.0) {
        c.error(
            &at.key("minimumPercent"),
            "minimumPercent must be at most 100",
        );
    }
    if warmup.aggression.is_some_and(|a| a.0 <= 0.0) {
        c.error(&at.key("aggression"), "aggression must be greater than 0");
    }
}

/// Locality settings, also of MeshConfig. Failover acts only with outlier detection.
pub(super) fn locality_lb(
    c: &mut Check,
    at: &At<'_>,
    lb: &LocalityLoadBalancerSetting,
    outlier: bool,
) {
    if lb.enabled != Some(false) {
        c.inactive(at, NO_LOCALITY);
    }
    if !lb.distribute.is_empty() && !lb.failover.is_empty() {
        return c.error(at, "only one of distribute and failover can be set");
    }
    if !lb.failover.is_empty() {
        for (i, label) in lb
            .failover_priority
            .iter()
            .enumerate()
            .filter(|(_, l)| TOPOLOGY.contains(&l.as_str()))
        {
            c.error(
                &at.item("failoverPriority", i),
                format_args!("`{label}` cannot stand beside failover"),
            );
        }
    }
    for (i, distribute) in lb.distribute.iter().enumerate() {
        let at = at.item("distribute", i);
        let at = at.key("to");
        let mut total = 0_u64;
        for (locality, weight) in &distribute.to {
            if *weight == 0 || *weight > 100 {
                c.error(
                    &at.key(locality),
                    format_args!("weight {weight} is not in the range 1..100"),
                );
            }
            total += u64::from(*weight);
        }
        if total != 100 {
            c.error(
                &at,
                format_args!("the weights add up to {total}, not to 100"),
            );
        }
        c.rule(&at, localities(distribute.to.keys()));
    }
    c.rule(
        &at.key("distribute"),
        localities(lb.distribute.iter().map(|d| &d.from)),
    );
    failover_needs_outlier(c, at, &lb.failover, &lb.failover_priority, outlier);
}

/// Why a setting about localities has no effect.
const NO_LOCALITY: &str = "localities do not count yet: endpoints of all localities are used alike";

/// Zone-aware settings, also of MeshConfig.
pub(super) fn zone_aware(
    c: &mut Check,
    at: &At<'_>,
    lb: &ZoneAwareLoadBalancerSetting,
    outlier: bool,
) {
    if lb.enabled != Some(false) {
        c.inactive(at, NO_LOCALITY);
    }
    for (i, label) in lb
        .failover_priority
        .iter()
        .enumerate()
        .filter(|(_, l)| TOPOLOGY.contains(&l.as_str()))
    {
        c.error(
            &at.item("failoverPriority", i),
            format_args!("`{label}` is not for zone-aware balancing, which follows it anyway"),
        );
    }
    failover_needs_outlier(c, at, &lb.failover, &lb.failover_priority, outlier);
}

fn failover_needs_outlier(
    c: &mut Check,
    at: &At<'_>,
    failover: &[Failover],
    priority: &[String],
    outlier: bool,
) {
    if !outlier && (!failover.is_empty() || !priority.is_empty()) {
        c.warn(at, "failover has no effect without outlierDetection");
    }
    for (i, pair) in failover.iter().enumerate() {
        let at = at.item("failover", i);
        if pair.from == pair.to {
            c.error(&at, "from and to must be different regions");
        }
        for (field, region) in [("from", &pair.from), ("to", &pair.to)] {
            if region.contains('/') {
                c.error(
                    &at.key(field),
                    format_args!("`{region}` is more than a region"),
                );
            }
            if region.contains('*') {
                c.error(&at.key(field), "a region must not contain `*`");
            }
        }
    }
}

/// `region`, `region/zone`, `region/zone/subzone`; `*` at the end; none covers another.
fn localities<'l>(localities: impl Iterator<Item = &'l String>) -> Result<(), String> {
    let mut seen: Vec<Vec<&str>> = Vec::new();
    for locality in localities {
        if locality.matches('*').count() > 1 || (locality.contains('*') && !locality.ends_with('*'))
        {
            return Err(format!(
                "`*` in locality `{locality}` must stand once, at the end"
            ));
        }
        let mut parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.iter().any(|p| p.is_empty()) {
            return Err(format!(
                "locality `{locality}` has an empty region, zone or subzone"
            ));
        }
        if parts.last() == Some(&"*") {
            parts.pop();
        }
        if seen
            .iter()
            .any(|other| other.starts_with(&parts) || parts.starts_with(other))
        {
            return Err(format!("locality `{locality}` overlaps with another one"));
        }
        seen.push(parts);
    }
    Ok(())
}

fn client_tls(c: &mut Check, at: &At<'_>, tls: Option<&ClientTlsSettings>, namespace: &str) {
    let Some(tls) = tls else {
        return;
    };
    let at = at.key("tls");
    credential(c, &at, tls, namespace);
    let remote = !tls.credential_name.is_empty();
    if tls.insecure_skip_verify == Some(true) {
        let verify = !tls.ca_certificates.is_empty() || !tls.subject_alt_names.is_empty();
        let excluded = match tls.mode {
            ClientTlsMode::Simple => verify || remote,
            ClientTlsMode::Mutual => verify,
            _ => false,
        };
        if excluded {
            c.error(
                &at.key("insecureSkipVerify"),
                "cannot be true together with what verification needs",
            );
        }
    }
    if remote && matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        let files = [
            &tls.client_certificate,
            &tls.ca_certificates,
            &tls.private_key,
            &tls.ca_crl,
        ];
        if files.iter().any(|f| !f.is_empty()) {
            c.error(
                &at.key("credentialName"),
                "certificates, keys and CRL cannot stand beside credentialName",
            );
        }
        return;
    }
    if tls.mode == ClientTlsMode::Mutual {
        for (field, value) in [
            ("clientCertificate", &tls.client_certificate),
            ("privateKey", &tls.private_key),
        ] {
            if value.is_empty() {
                c.error(
                    &at.key(field),
                    format_args!("{field} is required for MUTUAL"),
                );
            }
        }
    }
}

/// A ConfigMap that holds certificates is one of the rule's own namespace.
fn credential(c: &mut Check, at: &At<'_>, tls: &ClientTlsSettings, namespace: &str) {
    if let Some(reference) = tls.credential_name.strip_prefix("configmap://") {
        let owner = reference
            .split_once('/')
            .map_or(namespace, |(owner, _)| owner);
        if reference.is_empty()
            || reference.ends_with('/')
            || owner != namespace
            || namespace.is_empty()
        {
            c.error(
                &at.key("credentialName"),
                format_args!("a ConfigMap must be of the rule's own namespace `{namespace}`"),
            );
        }
    }
}
