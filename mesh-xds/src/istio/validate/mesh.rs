//! MeshConfig: ranges of what is used, and which fields are not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::check::{At, Check};
use super::destination_rule::{connection_pool, locality_lb, outlier_detection, zone_aware};
use super::{http, proxy_fields, rules};
use crate::istio::api::MeshConfig;
use crate::istio::api::mesh_config::{AccessLogEncoding, MeshProxyConfig};
use crate::istio::api::virtual_service::HttpRetry;
use crate::istio::index::proxy_config;
use crate::yaml::nearest;

pub(super) fn check(c: &mut Check, config: &MeshConfig) {
    ports(c, config);
    times(c, config);
    let json = config.access_log_encoding == AccessLogEncoding::Json;
    let format = &config.access_log_format;
    if json
        && !format.is_empty()
        && serde_json::from_str::<BTreeMap<String, String>>(format).is_err()
    {
        c.inactive(
            &At::root("accessLogFormat"),
            "it is no JSON object of texts, so the default format is used",
        );
    }
    if let Some(lb) = &config.locality_lb_setting {
        locality_lb(c, &At::root("localityLbSetting"), lb, true);
    }
    if let Some(retry) = &config.default_http_retry_policy {
        // Istio does not judge it: what is odd in it takes nothing else out of force.
        let mut found = Check::default();
        http::retry(&mut found, &At::root("defaultHttpRetryPolicy"), retry);
        c.take_as_warnings(found);
    }
    if let Some(retry) = &config.default_inbound_http_retry_policy {
        inbound_retry(c, &At::root("defaultInboundHttpRetryPolicy"), retry);
    }
    let policy = config.outbound_traffic_policy.as_ref();
    if policy.is_some_and(|policy| policy.tls.is_some()) {
        c.inactive(
            &At::root("outboundTrafficPolicy").key("tls"),
            "it has no effect: TLS is not originated for hosts that nobody declared",
        );
    }
    if let Some(policy) = &config.default_traffic_policy {
        let at = At::root("defaultTrafficPolicy");
        let pool = policy.connection_pool.as_ref();
        connection_pool(c, &at.key("connectionPool"), pool);
        outlier_detection(c, &at, policy.outlier_detection.as_ref());
    }
    for (field, value) in &config.ignored {
        unread(c, &At::root(field), field, MESH_FIELDS);
        judged(c, &At::root(field), field, value);
    }
    if let Some(config) = &config.default_config {
        proxy(c, &At::root("defaultConfig"), config);
    }
}

fn ports(c: &mut Check, config: &MeshConfig) {
    for (field, port) in [
        ("proxyListenPort", config.proxy_listen_port),
        ("proxyInboundListenPort", config.proxy_inbound_listen_port),
        ("proxyHttpPort", config.proxy_http_port),
    ] {
        // 0 is the default.
        if port != 0 {
            if field != "proxyInboundListenPort" {
                c.rule(&At::root(field), rules::port(port));
            }
            if field != "proxyHttpPort" {
                c.inactive(
                    &At::root(field),
                    "no port of its own without interception: it has no effect",
                );
            }
        }
    }
}

fn times(c: &mut Check, config: &MeshConfig) {
    if let Some(timeout) = config.connect_timeout {
        c.rule(&At::root("connectTimeout"), rules::duration(timeout));
        if timeout > Duration::from_secs(3600) {
            c.error(
                &At::root("connectTimeout"),
                "the timeout must be at most 1h",
            );
        }
    }
    let detection = config.protocol_detection_timeout.unwrap_or_default();
    if !detection.subsec_nanos().is_multiple_of(1_000_000) {
        c.error(
            &At::root("protocolDetectionTimeout"),
            "the duration must be of whole milliseconds",
        );
    }
}

/// The settings of a proxy in the annotation of its Pod.
pub(super) fn annotation(c: &mut Check, metadata: &At<'_>, annotations: &BTreeMap<String, String>) {
    let Some(text) = annotations.get(proxy_config::ANNOTATION) else {
        return;
    };
    let at = metadata.key("annotations");
    let at = at.key(proxy_config::ANNOTATION);
    match proxy_config::parse_annotation(text) {
        Ok(config) => proxy(c, &at, &config),
        Err(error) => c.error(&at, format_args!("it is no ProxyConfig: {error}")),
    }
}

fn proxy(c: &mut Check, at: &At<'_>, proxy: &MeshProxyConfig) {
    for (field, port) in [
        ("proxyAdminPort", proxy.proxy_admin_port),
        ("statusPort", proxy.status_port),
    ] {
        if port != 0 {
            c.rule(&at.key(field), rules::port(port));
        }
    }
    if proxy.status_port != 0 {
        c.inactive(
            &at.key("statusPort"),
            "it has no effect: meshd's own readiness and metrics have flags for their addresses",
        );
    }
    if proxy.concurrency.is_some_and(|number| number < 0) {
        c.error(&at.key("concurrency"), "concurrency must not be negative");
    }
    if let Some(drain) = proxy.drain_duration {
        let at = at.key("drainDuration");
        c.rule(&at, rules::duration(drain));
        if drain.subsec_nanos() != 0 {
            c.error(&at, "the duration must be of whole seconds");
        }
    }
    if let Some(topology) = &proxy.gateway_topology {
        let at = at.key("gatewayTopology");
        for field in topology.ignored.keys() {
            unread(c, &at.key(field), field, TOPOLOGY_FIELDS);
        }
    }
    if let Some(headers) = &proxy.proxy_headers {
        let at = at.key("proxyHeaders");
        for field in headers.ignored.keys() {
            unread(c, &at.key(field), field, HEADERS_FIELDS);
        }
    }
    if let Some(settings) = &proxy.connection_settings {
        let at = at.key("connectionSettings");
        proxy_fields::connection_settings(c, &at, settings);
        for field in settings.ignored.keys() {
            unread(c, &at.key(field), field, CONNECTION_FIELDS);
        }
    }
    for (field, value) in &proxy.ignored {
        let at = at.key(field);
        proxy_fields::judged(c, &at, field, value);
        unread(c, &at, field, PROXY_FIELDS);
    }
}

/// What Istio refuses in fields that have no effect here.
fn judged(c: &mut Check, at: &At<'_>, field: &str, value: &Value) {
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    match field.replace('_', "").to_lowercase().as_str() {
        "trustdomain" => c.rule(at, trust_domain(value.as_str().unwrap_or_default())),
        "trustdomainaliases" => {
            for (i, alias) in texts(value).iter().enumerate() {
                c.rule(&at.index(i), trust_domain(alias));
            }
        }
        "servicesettings" => {
            let settings = value.as_array().into_iter().flatten();
            for (i, setting) in settings.enumerate() {
                for (k, host) in texts(&setting["hosts"]).iter().enumerate() {
                    let at = at.index(i);
                    c.rule(&at.item("hosts", k), rules::wildcard_domain(host));
                }
            }
        }
        "meshmtls" => {
            for curves in ["ecdhCurves", "ecdh_curves"] {
                if !texts(&value[curves]).is_empty() {
                    let message = "curves cannot be chosen for mutual TLS of the mesh";
                    c.error(&at.key(curves), message);
                }
            }
        }
        "zoneawarelbsetting" => match serde_json::from_value(value.clone()) {
            Ok(setting) => zone_aware(c, at, &setting, true),
            Err(error) => c.error(at, error),
        },
        _ => {}
    }
}

fn inbound_retry(c: &mut Check, at: &At<'_>, retry: &HttpRetry) {
    http::retry(c, at, retry);
    if retry.attempts == 0 && retry.backoff.is_some() {
        let message = "a policy with attempts 0 (disabled) must have no other field";
        c.error(&at.key("backoff"), message);
    }
    for (field, set) in [
        ("perTryTimeout", retry.per_try_timeout.is_some()),
        (
            "retryRemoteLocalities",
            retry.retry_remote_localities.is_some(),
        ),
        (
            "retryIgnorePreviousHosts",
            retry.retry_ignore_previous_hosts.is_some(),
        ),
    ] {
        if set {
            c.inactive(
                &at.key(field),
                "it has no effect on the way in, where there is one application",
            );
        }
    }
}

/// A trust domain: labels as those of a domain name; the last one may be a number.
fn trust_domain(name: &str) -> rules::Rule {
    let labels: Vec<&str> = name.split('.').collect();
    let last = labels.len() - 1;
    let fits = |(i, label): (usize, &&str)| {
        rules::is_dns_label(label) || (i == last && i > 0 && label.is_empty())
    };
    if labels.iter().enumerate().all(fits) {
        Ok(())
    } else {
        Err(format!("invalid trust domain `{name}`"))
    }
}

/// A field that exists has no effect; one that does not is refused.
fn unread(c: &mut Check, at: &At<'_>, field: &str, known: &[&str]) {
    let lower = field.replace('_', "").to_lowercase();
    if known.iter().any(|k| k.to_lowercase() == lower) {
        c.inactive(at, format_args!("{field} has no effect"));
        return;
    }
    c.unknown(at, field, nearest(field, known.iter().copied()));
}

/// Fields of MeshConfig (`mesh/v1alpha1/config.proto`).
pub(crate) const MESH_FIELDS: &[&str] = &[
    "proxyListenPort",
    "proxyInboundListenPort",
    "proxyHttpPort",
    "connectTimeout",
    "hboneIdleTimeout",
    "protocolDetectionTimeout",
    "tcpKeepalive",
    "ingressClass",
    "ingressService",
    "ingressControllerMode",
    "ingressSelector",
    "enableTracing",
    "accessLogFile",
    "accessLogFormat",
    "accessLogEncoding",
    "enableEnvoyAccessLogService",
    "disableEnvoyListenerLog",
    "defaultConfig",
    "outboundTrafficPolicy",
    "inboundTrafficPolicy",
    "configSources",
    "enableAutoMtls",
    "trustDomain",
    "trustDomainAliases",
    "caCertificates",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "defaultDestinationRuleExportTo",
    "rootNamespace",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "dnsRefreshRate",
    "h2UpgradePolicy",
    "inboundClusterStatName",
    "outboundClusterStatName",
    "certificates",
    "serviceSettings",
    "serviceScopeConfigs",
    "enablePrometheusMerge",
    "verifyCertificateAtClient",
    "ca",
    "extensionProviders",
    "defaultProviders",
    "discoverySelectors",
    "pathNormalization",
    "defaultHttpRetryPolicy",
    "defaultInboundHttpRetryPolicy",
    "meshMTLS",
    "tlsDefaults",
    "defaultTrafficPolicy",
    "serviceEntryVisibility",
];

/// Fields of ProxyConfig (`mesh/v1alpha1/proxy.proto`).
const PROXY_FIELDS: &[&str] = &[
    "configPath",
    "binaryPath",
    "serviceCluster",
    "tracingServiceName",
    "drainDuration",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "zipkinAddress",
    "statsdUdpAddress",
    "envoyMetricsServiceAddress",
    "proxyAdminPort",
    "availabilityZone",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "statNameLength",
    "concurrency",
    "proxyBootstrapTemplatePath",
    "interceptionMode",
    "tracing",
    "sds",
    "envoyAccessLogService",
    "envoyMetricsService",
    "proxyMetadata",
    "runtimeValues",
    "statusPort",
    "extraStatTags",
    "gatewayTopology",
    "terminationDrainDuration",
    "meshId",
    "readinessProbe",
    "proxyStatsMatcher",
    "holdApplicationUntilProxyStarts",
    "caCertificatesPem",
    "image",
    "privateKeyProvider",
    "proxyHeaders",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "statsCompression",
    "connectionSettings",
];

/// Fields of `proxyHeaders` (`mesh/v1alpha1/proxy.proto`).
const HEADERS_FIELDS: &[&str] = &[
    "forwardedClientCert",
    "setCurrentClientCertDetails",
    "requestId",
    "server",
    "attemptCount",
    "envoyDebugHeaders",
    "metadataExchangeHeaders",
    "preserveHttp1HeaderCase",
    "xForwardedHost",
    "xForwardedPort",
];

/// Fields of `connectionSettings` (`mesh/v1alpha1/proxy.proto`).
const CONNECTION_FIELDS: &[&str] = &[
    "profile",
    "listenerPerConnectionBufferLimitBytes",
    "clusterPerConnectionBufferLimitBytes",
    "httpIdleTimeout",
    "httpMaxConnectionDuration",
    "httpDrainTimeout",
    "httpRequestTimeout",
    "httpRequestHeadersTimeout",
    "httpStreamIdleTimeout",
    "httpMaxStreamDuration",
    "httpMaxConcurrentStreams",
    "http2InitialStreamWindowSize",
    "http2InitialConnectionWindowSize",
    "httpHeadersWithUnderscoresAction",
    "httpMergeSlashes",
    "httpPathWithEscapedSlashesAction",
    "listenerConnectionLimit",
    "globalDownstreamConnectionLimit",
];

/// Fields of `gatewayTopology` (`mesh/v1alpha1/proxy.proto`).
const TOPOLOGY_FIELDS: &[&str] = &[
    "numTrustedProxies",
    "forwardClientCertDetails",
    "proxyProtocol",
];

#[cfg(test)]
mod tests {
    use crate::istio::read::{Level, TextOptions, parse};

    #[test]
    fn mesh_settings_name_unknown_and_unused_fields() {
        let text = "accessLogFile: /dev/stdout\nenableTracin: true\ningressClass: istio\ndefaultConfig: {holdApplicationUntilProxyStarts: true}\n";
        let parsed = parse(&"mesh.yaml".into(), text, &TextOptions::default());
        let found: Vec<String> = parsed.findings.iter().map(ToString::to_string).collect();
        assert!(
            found
                .iter()
                .any(|f| f.starts_with("mesh.yaml:2:1: ")
                    && f.contains("did you mean `enableTracing`")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|f| f.contains("ingressClass has no effect")),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .any(|f| f.contains("defaultConfig.holdApplicationUntilProxyStarts")),
            "{found:?}"
        );
    }

    /// The paths of what is refused of these settings.
    fn judge(settings: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n    {settings}\n"
        );
        let parsed = parse(&"a.yaml".into(), &text, &TextOptions::default());
        let refused = parsed.findings.iter().filter(|f| f.level == Level::Refused);
        refused.map(|f| f.path.to_string()).collect()
    }

    /// Also where they have no effect.
    #[test]
    fn settings_of_the_mesh_that_istio_takes_are_taken() {
        for good in [
            "trustDomain: a.b.",
            "trustDomainAliases: [a, 10.1]",
            "serviceSettings: [{hosts: ['*.a.b']}]",
            "meshMTLS: {minProtocolVersion: TLSV1_3}",
            "defaultInboundHttpRetryPolicy: {attempts: 2, retryOn: 5xx}",
            "defaultHttpRetryPolicy: {attempts: 0, retryOn: 5xx}",
            "outboundTrafficPolicy: {mode: ALLOW_ANY, tls: {mode: SIMPLE}}",
            "proxyInboundListenPort: 66000",
            "defaultConfig: {discoveryAddress: 'istiod.istio-system.svc:15012', statsdUdpAddress: ''}",
            "defaultConfig: {tracing: {zipkin: {address: '$(HOST_IP):9411'}}, controlPlaneAuthPolicy: MUTUAL_TLS}",
            "defaultConfig: {privateKeyProvider: {qat: {pollDelay: 0.02s}}, statsdUdpAddress: '[::1]:9'}",
            "defaultConfig: {connectionSettings: {httpIdleTimeout: 0s, http2InitialStreamWindowSize: 65535}}",
        ] {
            assert_eq!(judge(good), [""; 0], "{good}");
        }
    }

    #[test]
    fn settings_of_the_mesh_that_istio_refuses_are_refused() {
        for (bad, path) in [
            (
                "defaultConfig: {discoveryAddress: istiod}",
                "data.mesh.defaultConfig.discoveryAddress",
            ),
            (
                "defaultConfig: {statsdUdpAddress: 'a_b:9'}",
                "data.mesh.defaultConfig.statsdUdpAddress",
            ),
            (
                "defaultConfig: {tracing: {zipkin: {address: 'a:99999'}}}",
                "data.mesh.defaultConfig.tracing.zipkin.address",
            ),
            (
                "defaultConfig: {controlPlaneAuthPolicy: INHERIT}",
                "data.mesh.defaultConfig.controlPlaneAuthPolicy",
            ),
            (
                "defaultConfig: {privateKeyProvider: {}}",
                "data.mesh.defaultConfig.privateKeyProvider",
            ),
            (
                "defaultConfig: {privateKeyProvider: {cryptomb: {pollDelay: 0s}}}",
                "data.mesh.defaultConfig.privateKeyProvider.cryptomb.pollDelay",
            ),
            (
                "defaultConfig: {connectionSettings: {httpIdleTimeout: -1s}}",
                "data.mesh.defaultConfig.connectionSettings.httpIdleTimeout",
            ),
            (
                "defaultConfig: {connectionSettings: {listenerConnectionLimit: 0}}",
                "data.mesh.defaultConfig.connectionSettings.listenerConnectionLimit",
            ),
            ("trustDomain: ''", "data.mesh.trustDomain"),
            ("trust_domain: ''", "data.mesh.trust_domain"),
            (
                "trustDomainAliases: [a, b_c]",
                "data.mesh.trustDomainAliases[1]",
            ),
            (
                "serviceSettings: [{hosts: [a_b]}]",
                "data.mesh.serviceSettings[0].hosts[0]",
            ),
            (
                "meshMTLS: {ecdhCurves: [P-256]}",
                "data.mesh.meshMTLS.ecdhCurves",
            ),
            (
                "defaultInboundHttpRetryPolicy: {backoff: 1s}",
                "data.mesh.defaultInboundHttpRetryPolicy.backoff",
            ),
            (
                "defaultTrafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}",
                "data.mesh.defaultTrafficPolicy.connectionPool.tcp.maxConnections",
            ),
            (
                "zoneAwareLbSetting: {failoverPriority: [topology.istio.io/subzone]}",
                "data.mesh.zoneAwareLbSetting.failoverPriority[0]",
            ),
        ] {
            assert_eq!(judge(bad), [path], "{bad}");
        }
    }
}
