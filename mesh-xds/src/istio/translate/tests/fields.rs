//! No field of Istio's API is read in silence: each field that a type reads is written in some document below, and
//! without it the resources differ, or a remark goes away, or the object is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::trace::{Shape, shapes};
use super::*;
use crate::istio::api;
use crate::istio::read::Level;
use crate::yaml;

/// Documents that are judged together.
struct World {
    name: String,
    documents: Vec<Value>,
}

impl World {
    fn new(name: impl Into<String>, text: &str) -> Self {
        let documents: Vec<Value> = text
            .split("\n---")
            .map(|document| yaml::from_str(document).expect("valid YAML"))
            .collect();
        Self {
            name: name.into(),
            documents,
        }
    }
}

/// What comes of a world: resources and remarks.
struct Outcome {
    resources: Vec<Resources>,
    remarks: BTreeSet<String>,
}

impl PartialEq for Outcome {
    fn eq(&self, other: &Self) -> bool {
        // Maps inside an `Any` are encoded in no fixed order: what differs as bytes may be the same.
        let same = |(a, b): (&Resources, &Resources)| {
            a == b || (a.origins == b.origins && a.settings == b.settings && plain(a) == plain(b))
        };
        self.remarks == other.remarks && self.resources.iter().zip(&other.resources).all(same)
    }
}

/// Resources as JSON, with the content of each `Any` in plain form.
fn plain(resources: &Resources) -> Vec<Value> {
    fn all<M: prost::Message>(name: &str, list: &[M]) -> Vec<Value> {
        list.iter()
            .map(|m| crate::json::to_value(name, m).expect("it can be written"))
            .collect()
    }
    [
        all("envoy.config.listener.v3.Listener", &resources.listeners),
        all(
            "envoy.config.route.v3.RouteConfiguration",
            &resources.routes,
        ),
        all("envoy.config.cluster.v3.Cluster", &resources.clusters),
        all(
            "envoy.config.endpoint.v3.ClusterLoadAssignment",
            &resources.endpoints,
        ),
    ]
    .concat()
}

/// # Errors
/// What is refused.
fn outcome(documents: &[Value]) -> Result<Outcome, String> {
    // Each document on a line of its own, so that lines stay when fields go.
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    let text = format!("{SERVICES}---\n{}", lines.join("\n---\n"));
    let parsed = read::parse(
        &Arc::from("test.yaml"),
        &text,
        &read::TextOptions::default(),
    );
    if let Some(refused) = parsed.findings.iter().find(|f| f.level == Level::Refused) {
        return Err(refused.to_string());
    }
    let context = Context::new(&parsed.objects, "cluster.local");
    let workload = context.workload("a", "x-1").expect("the workload is there");
    let mut resources = Vec::new();
    let mut remarks: BTreeSet<String> = parsed
        .findings
        .iter()
        .map(|f| format!("{} {}", f.path, f.message))
        .collect();
    for proxy in [Proxy::sidecar(workload, &context), edge_proxy()] {
        let mut made = translate(&context, &proxy, &Options::default());
        remarks.extend(
            made.notes
                .drain(..)
                .map(|n| format!("{} {}", n.object, n.text)),
        );
        resources.push(made);
    }
    Ok(Outcome { resources, remarks })
}

/// The paths below each kind.
fn schema(kind: &str) -> BTreeMap<String, Shape> {
    match kind {
        "VirtualService" => shapes::<api::VirtualService>(),
        "DestinationRule" => shapes::<api::DestinationRule>(),
        "Gateway" => shapes::<api::Gateway>(),
        "ServiceEntry" => shapes::<api::ServiceEntry>(),
        "WorkloadEntry" => shapes::<api::WorkloadEntry>(),
        "Sidecar" => shapes::<api::Sidecar>(),
        "ProxyConfig" => shapes::<api::ProxyConfig>(),
        _ => BTreeMap::new(),
    }
}

/// A field in a document: its path in the schema, and where its value stands.
struct Occurrence {
    path: String,
    pointer: String,
}

fn occurrences(
    schema: &BTreeMap<String, Shape>,
    value: &Value,
    path: &str,
    pointer: &str,
    found: &mut Vec<Occurrence>,
) {
    let join = |key: &str| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
    match (schema.get(path), value) {
        (Some(Shape::Fields(_)), Value::Object(map)) => {
            for (key, value) in map {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                assert!(schema.contains_key(&path), "{path} is not read");
                occurrences(schema, value, &path, &join(key), found);
            }
        }
        (Some(Shape::List), Value::Array(items)) => {
            let inner = format!("{path}[]");
            if schema.get(&inner) == Some(&Shape::Leaf) {
                found.push(Occurrence {
                    path: inner,
                    pointer: pointer.to_owned(),
                });
                return;
            }
            for (index, item) in items.iter().enumerate() {
                occurrences(schema, item, &inner, &join(&index.to_string()), found);
            }
        }
        (Some(Shape::Map), Value::Object(map)) => {
            let inner = format!("{path}{{}}");
            if schema.get(&inner) == Some(&Shape::Leaf) {
                found.push(Occurrence {
                    path: inner,
                    pointer: pointer.to_owned(),
                });
                return;
            }
            for (key, value) in map {
                occurrences(schema, value, &inner, &join(key), found);
            }
        }
        (Some(Shape::Leaf), _) => found.push(Occurrence {
            path: path.to_owned(),
            pointer: pointer.to_owned(),
        }),
        (shape, _) => panic!("{path} is {shape:?}, not {value}"),
    }
}

fn without(document: &Value, pointer: &str) -> Value {
    let mut document = document.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer below the root");
    let key = key.replace("~1", "/").replace("~0", "~");
    let parent = document.pointer_mut(parent).expect("it is there");
    parent.as_object_mut().expect("a field").remove(&key);
    document
}

/// Whether the field at `pointer` does anything.
fn acts(world: &World, whole: &Outcome, index: usize, pointer: &str) -> bool {
    let mut documents = world.documents.clone();
    documents[index] = without(&documents[index], pointer);
    outcome(&documents).map_or(true, |less| less != *whole)
}

#[test]
fn every_field_acts_or_is_noted() {
    let mut acting = BTreeSet::new();
    let mut silent = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    let mut wrong = Vec::new();
    for world in worlds() {
        let whole = match outcome(&world.documents) {
            Ok(whole) => whole,
            Err(error) => {
                wrong.push(format!("{} is refused: {error}", world.name));
                continue;
            }
        };
        for (index, document) in world.documents.iter().enumerate() {
            let kind = document["kind"].as_str().expect("a kind").to_owned();
            let schema = schema(&kind);
            let mut found = Vec::new();
            if let Some(spec) = document.get("spec").filter(|_| !schema.is_empty()) {
                occurrences(&schema, spec, "", "/spec", &mut found);
            }
            for Occurrence { path, pointer } in found {
                let path = format!("{kind} {path}");
                if acting.contains(&path) {
                    continue;
                }
                let mut pointers = std::iter::once(pointer.as_str()).chain(containers(&pointer));
                if pointers.any(|pointer| acts(&world, &whole, index, pointer)) {
                    silent.remove(&path);
                    acting.insert(path);
                } else {
                    silent.insert(path, format!("{}{pointer}", world.name));
                }
            }
            kinds.insert(kind);
        }
    }
    let excused = |path: &str| SILENT.iter().any(|(known, _)| *known == path);
    for (path, place) in silent.iter().filter(|(path, _)| !excused(path)) {
        wrong.push(format!("{path} does nothing in {place}"));
    }
    for kind in kinds {
        let leaves = schema(&kind).into_iter().filter(|(_, s)| *s == Shape::Leaf);
        let paths = leaves.map(|(path, _)| format!("{kind} {path}"));
        let unseen = paths.filter(|path| !acting.contains(path) && !silent.contains_key(path));
        wrong.extend(
            unseen
                .filter(|path| !REFUSED.iter().any(|(known, _)| known == path))
                .map(|path| format!("{path} is in no document")),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Objects whose fields have one remark, or one effect, together: TLS that cannot be originated or terminated yet refuses
/// traffic whatever it says.
const TOGETHER: [&str; 6] = [
    "tunnel",
    "localityLbSetting",
    "zoneAwareLbSetting",
    "backendUtilization",
    "tls",
    "image",
];

/// The objects of [`TOGETHER`] around a field.
fn containers(pointer: &str) -> impl Iterator<Item = &str> {
    pointer
        .match_indices('/')
        .skip(1)
        .map(|(end, _)| &pointer[..end])
        .filter(|outer| {
            let name = outer.rsplit('/').next();
            name.is_some_and(|name| TOGETHER.contains(&name))
        })
}

/// Fields that do nothing, and why.
const SILENT: &[(&str, &str)] = &[
    ("Gateway servers[].name", "for people"),
    ("Sidecar ingress[].port.name", "for people"),
    ("Sidecar egress[].port.name", "for people"),
];

/// Fields that are always refused, with a spec that has them.
const REFUSED: &[(&str, &str)] = &[
    (
        "VirtualService http[].fault.abort.http2Error",
        "{hosts: [x], http: [{fault: {abort: {http2Error: x}}, route: [{destination: {host: x}}]}]}",
    ),
    (
        "VirtualService http[].fault.delay.exponentialDelay",
        "{hosts: [x], http: [{fault: {delay: {exponentialDelay: 1s}}, route: [{destination: {host: x}}]}]}",
    ),
    (
        "Gateway servers[].port.targetPort",
        "{servers: [{port: {number: 80, name: http, protocol: HTTP, targetPort: 8080}, hosts: ['*']}]}",
    ),
    (
        "Sidecar ingress[].port.targetPort",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTP, targetPort: 8080}}]}",
    ),
    (
        "Sidecar egress[].port.targetPort",
        "{egress: [{port: {number: 80, name: http, protocol: HTTP, targetPort: 8080}, hosts: ['./*']}]}",
    ),
    (
        "Sidecar ingress[].tls.subjectAltNames[]",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {subjectAltNames: [x]}}]}",
    ),
    (
        "Sidecar ingress[].tls.credentialName",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {credentialName: x}}]}",
    ),
    (
        "Sidecar ingress[].tls.credentialNames[]",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {credentialNames: [x]}}]}",
    ),
    (
        "Sidecar ingress[].tls.httpsRedirect",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {httpsRedirect: true}}]}",
    ),
    (
        "Sidecar ingress[].tls.tlsCertificates[].serverCertificate",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {tlsCertificates: [{serverCertificate: x}]}}]}",
    ),
    (
        "Sidecar ingress[].tls.tlsCertificates[].privateKey",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {tlsCertificates: [{privateKey: x}]}}]}",
    ),
    (
        "Sidecar ingress[].tls.tlsCertificates[].caCertificates",
        "{ingress: [{port: {number: 80, name: http, protocol: HTTPS}, tls: {tlsCertificates: [{caCertificates: x}]}}]}",
    ),
];

fn object(kind: &str, spec: &str) -> Vec<Value> {
    let group = match kind {
        "PeerAuthentication" | "RequestAuthentication" | "AuthorizationPolicy" => {
            "security.istio.io/v1"
        }
        "Telemetry" => "telemetry.istio.io/v1",
        "WasmPlugin" | "TrafficExtension" => "extensions.istio.io/v1alpha1",
        "EnvoyFilter" => "networking.istio.io/v1alpha3",
        "ProxyConfig" => "networking.istio.io/v1beta1",
        "IstioOperator" => "install.istio.io/v1alpha1",
        _ => "networking.istio.io/v1",
    };
    let text = format!(
        "\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: o, namespace: a}}\nspec: {spec}\n"
    );
    World::new(kind, &text).documents
}

#[test]
fn fields_that_cannot_act_are_refused_by_name() {
    for (field, spec) in REFUSED {
        let (kind, path) = field.split_once(' ').expect("a kind and a path");
        let Err(error) = outcome(&object(kind, spec)) else {
            panic!("{field} is not refused");
        };
        let path = path.replace("[]", "[0]");
        let path = path.strip_suffix("[0]").unwrap_or(&path);
        let of_list = path.split(".tlsCertificates").next().expect("a first part");
        assert!(
            error.contains(&format!("spec.{of_list}")),
            "{field}: {error}"
        );
    }
}

#[test]
fn kinds_without_effect_are_listed() {
    for (kind, spec) in [
        (
            "EnvoyFilter",
            "{configPatches: [{applyTo: CLUSTER, patch: {operation: REMOVE}}]}",
        ),
        ("Telemetry", "{tracing: [{randomSamplingPercentage: 10}]}"),
        ("WasmPlugin", "{url: 'https://x/y.wasm'}"),
        ("TrafficExtension", "{lua: {inlineCode: x}}"),
        ("WorkloadGroup", "{template: {serviceAccount: x}}"),
        ("IstioOperator", "{profile: demo}"),
        ("AuthorizationPolicy", "{action: AUDIT, rules: [{}]}"),
        ("AuthorizationPolicy", "{rules: [{}]}"),
        ("RequestAuthentication", "{jwtRules: [{issuer: x}]}"),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    ] {
        let outcome = outcome(&object(kind, spec)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let named = |remark: &String| remark.contains(kind);
        assert!(
            outcome.remarks.iter().any(named),
            "{kind}: {:?}",
            outcome.remarks
        );
    }
}

/// Every field of MeshConfig and its `defaultConfig`, with a value that is not the default.
const MESH: &str = include_str!("fields/mesh.yaml");

const MESH_OBJECTS: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: d, namespace: a}
spec: {hosts: [d.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: v1
kind: Service
metadata: {name: z, namespace: b, annotations: {networking.istio.io/exportTo: '*'}}
spec: {clusterIP: 10.0.0.5, ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: z, namespace: b}
spec: {host: z, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: root, namespace: root}
spec: {host: '*.local', exportTo: ['*'], trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s, namespace: a}
spec: {ingress: [{port: {number: 8080, name: http, protocol: HTTP}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x, namespace: a}
spec: {hosts: [x], http: [{rewrite: {authority: x.com}, route: [{destination: {host: x}}]}]}
";

#[test]
fn every_setting_of_the_mesh_acts_or_is_noted() {
    let judge = |mesh: &Value| {
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": mesh.to_string()},
        });
        let mut documents = World::new("gateway", include_str!("fields/gateway.yaml")).documents;
        documents.push(map);
        documents.extend(World::new("mesh", MESH_OBJECTS).documents);
        outcome(&documents)
    };
    let mesh: Value = yaml::from_str(MESH).expect("valid YAML");
    let whole = judge(&mesh).unwrap_or_else(|e| panic!("{e}"));
    let mut silent = Vec::new();
    let mut pointers = vec![String::new()];
    while let Some(pointer) = pointers.pop() {
        let value = mesh.pointer(&pointer).expect("it is there");
        // Without a mode it is REGISTRY_ONLY.
        let first_word = pointer == "/outboundTrafficPolicy/mode";
        if !pointer.is_empty()
            && !first_word
            && judge(&without(&mesh, &pointer)).is_ok_and(|less| less == whole)
        {
            silent.push(pointer.clone());
        }
        // What is below a field with a remark of its own goes with it.
        let path = format!("data.mesh{} ", pointer.replace('/', "."));
        if !pointer.is_empty() && whole.remarks.iter().any(|remark| remark.starts_with(&path)) {
            continue;
        }
        let object = value.as_object().into_iter().flatten();
        pointers.extend(object.map(|(key, _)| format!("{pointer}/{key}")));
    }
    assert_eq!(silent, [""; 0]);
    let known: BTreeSet<&str> = crate::istio::validate::MESH_FIELDS
        .iter()
        .copied()
        .collect();
    let written: BTreeSet<&str> = mesh
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(known.difference(&written).collect::<Vec<_>>(), [&""; 0]);
}

fn worlds() -> Vec<World> {
    let mut worlds = vec![
        World::new(
            "virtual_service",
            include_str!("fields/virtual_service.yaml"),
        ),
        World::new("gateway", include_str!("fields/gateway.yaml")),
        World::new("service_entry", include_str!("fields/service_entry.yaml")),
        World::new("sidecar", include_str!("fields/sidecar.yaml")),
        World::new("pools", include_str!("fields/pools.yaml")),
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
