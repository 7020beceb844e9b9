//! Documents in which each field of Istio's API is written.

use super::World;

pub(super) fn worlds() -> Vec<World> {
    let mut worlds = vec![
        World::new("virtual_service", include_str!("virtual_service.yaml")),
        World::new("gateway", include_str!("gateway.yaml")),
        World::new("service_entry", include_str!("service_entry.yaml")),
        World::new("sidecar", include_str!("sidecar.yaml")),
        World::new("pools", include_str!("pools.yaml")),
        World::new("destination_rule", HIDDEN_RULE),
        World::new("proxy_config", PROXY_CONFIGS),
    ];
    for (index, policy) in POLICIES.lines().filter(|l| !l.is_empty()).enumerate() {
        for (site, spec) in [
            ("trafficPolicy", format!("trafficPolicy: {{{policy}}}")),
            (
                "port",
                format!(
                    "trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, {policy}}}]}}"
                ),
            ),
            (
                "subset",
                format!(
                    "subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{{policy}}}}}]"
                ),
            ),
            (
                "subset port",
                format!(
                    "subsets: [{{name: v1, labels: {{version: v1}}, trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, {policy}}}]}}}}]"
                ),
            ),
        ] {
            let only_whole = policy.starts_with("tunnel")
                || policy.starts_with("proxyProtocol")
                || policy.starts_with("retryBudget");
            if only_whole && site.contains("port") {
                continue;
            }
            let text = format!(
                "\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: x, namespace: a}}\nspec: {{host: x, {spec}}}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: v1, namespace: a}}\nspec: {{hosts: [y], http: [{{route: [{{destination: {{host: x, subset: v1, port: {{number: 80}}}}}}]}}]}}\n"
            );
            worlds.push(World::new(format!("policy {index} of {site}"), &text));
        }
    }
    for (index, tls) in SERVER_TLS.lines().filter(|l| !l.is_empty()).enumerate() {
        worlds.push(World::new(format!("server TLS {index} of a gateway"), &format!(
            "\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: a}}\nspec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], tls: {{{tls}}}}}]}}\n"
        )));
        let not_for_sidecars = [
            "subjectAltNames",
            "credentialName",
            "tlsCertificates",
            "httpsRedirect",
        ];
        if not_for_sidecars.iter().any(|field| tls.contains(field)) {
            continue;
        }
        worlds.push(World::new(format!("server TLS {index} of a sidecar"), &format!(
            "\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: edge, namespace: a}}\nspec: {{workloadSelector: {{labels: {{app: x}}}}, ingress: [{{port: {{number: 443, name: https, protocol: HTTPS}}, defaultEndpoint: '127.0.0.1:8080', tls: {{{tls}}}}}]}}\n"
        )));
    }
    worlds
}

const PROXY_CONFIGS: &str = "
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: a, namespace: a}
spec: {selector: {matchLabels: {app: other}}, concurrency: 3}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: b, namespace: a}
spec: {concurrency: 4, environmentVariables: {A: b}, image: {imageType: debug}}
";

const HIDDEN_RULE: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hidden, namespace: b}
spec: {host: z, exportTo: [.], trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: v1
kind: Service
metadata: {name: z, namespace: b}
spec: {clusterIP: 10.0.0.5, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: other, namespace: a}
spec: {host: x, workloadSelector: {matchLabels: {app: other}}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
";

/// One policy a line.
const POLICIES: &str = "
loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 20, aggression: 2}, localityLbSetting: {enabled: true, distribute: [{from: a/b/c, to: {a/b/c: 60, a/b/d: 40}}]}}
loadBalancer: {localityLbSetting: {failover: [{from: a, to: b}]}}, outlierDetection: {consecutive5xxErrors: 6}
loadBalancer: {localityLbSetting: {failoverPriority: [version]}}, outlierDetection: {consecutive5xxErrors: 6}
loadBalancer: {warmupDurationSecs: 10s, zoneAwareLbSetting: {enabled: true, failover: [{from: a, to: b}], failoverPriority: [version], minClusterSize: 7}}, outlierDetection: {consecutive5xxErrors: 6}
loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 7}}}
loadBalancer: {consistentHash: {httpCookie: {name: user, path: /p, ttl: 3s, attributes: [{name: SameSite, value: Lax}]}, maglev: {tableSize: 101}}}
loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 7}}
loadBalancer: {consistentHash: {httpQueryParameterName: q}}
loadBalancer: {backendUtilization: {weightStabilizationPeriod: 1s, weightExpirationPeriod: 2s, weightUpdatePeriod: 3s, errorUtilizationPenaltyPercent: 4, metricNamesForComputingUtilization: [m]}}
connectionPool: {tcp: {maxConnections: 10, connectTimeout: 1s, tcpKeepalive: {time: 60s, probes: 3, interval: 10s}, idleTimeout: 1h, maxConnectionDuration: 2h}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 2, maxRequestsPerConnection: 3, maxRetries: 4, idleTimeout: 5s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 7, http2KeepAlive: {interval: 1s, timeout: 1s}}}
connectionPool: {tcp: {idleTimeout: 1h}, http: {useClientProtocol: true}}
outlierDetection: {consecutive5xxErrors: 6, consecutiveGatewayErrors: 3, interval: 1s, baseEjectionTime: 10s, maxEjectionPercent: 50, minHealthPercent: 10, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2, outlierDetectionHttpErrorCodes: [500, 501]}
outlierDetection: {consecutiveErrors: 7}
retryBudget: {percent: 10, minRetryConcurrency: 2, budgetInterval: 5s}
tunnel: {protocol: POST, targetHost: t.com, targetPort: 443}
proxyProtocol: {version: V2}
tls: {mode: SIMPLE, caCertificates: /ca, caCrl: /crl, subjectAltNames: [x], sni: x}
tls: {mode: MUTUAL, clientCertificate: /cert, privateKey: /key, insecureSkipVerify: true}
tls: {mode: MUTUAL, credentialName: c}
";

const SERVER_TLS: &str = "
mode: MUTUAL, serverCertificate: /cert, privateKey: /key, caCertificates: /ca, subjectAltNames: [x], verifyCertificateSpki: [y], verifyCertificateHash: [z], minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_2, cipherSuites: [AES128-SHA], ecdhCurves: [P-256]
mode: MUTUAL, serverCertificate: /cert, privateKey: /key, caCertificates: /ca, caCrl: /crl
mode: MUTUAL, credentialName: c, caCertCredentialName: d
mode: SIMPLE, credentialNames: [c, d]
mode: SIMPLE, tlsCertificates: [{serverCertificate: /cert, privateKey: /key, caCertificates: /ca}, {serverCertificate: /cert2, privateKey: /key2, caCertificates: /ca2}]
mode: SIMPLE, credentialName: c, httpsRedirect: true
mode: SIMPLE, credentialName: c, insecureSkipVerify: true
mode: MUTUAL, serverCertificate: /cert, privateKey: /key, caCertificates: /ca, verifyCertificateSpki: [y], verifyCertificateHash: [z], minProtocolVersion: TLSV1_0, maxProtocolVersion: TLSV1_2, cipherSuites: [AES128-SHA], ecdhCurves: [P-256]
mode: MUTUAL, serverCertificate: /cert, privateKey: /key, caCertificates: /ca, caCertCredentialName: d
mode: SIMPLE, serverCertificate: /cert, privateKey: /key, insecureSkipVerify: true
";
