//! No field of Istio's API is read in silence: each field that a type reads is written in some document below, and
//! without it the resources differ, or a remark goes away, or the object is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::trace::{Shape, shapes};
use super::*;
use crate::istio::api;
use crate::istio::read::Level;
use crate::yaml;

mod worlds;

use worlds::worlds;

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
