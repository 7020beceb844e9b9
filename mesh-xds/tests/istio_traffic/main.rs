//! What a folder of Istio YAML does to live traffic: what protects it fails closed, through sockets.

use std::sync::atomic::Ordering;

use mesh_xds::istio::IstioOptions;
use mesh_xds::istio::index::ProxyKind;

mod refused;
#[path = "../support/mod.rs"]
mod support;
mod world;

use support::Temp;
use world::{free_port, get, guarded, outside, policy, proxy, serve, status, upstream};

#[tokio::test]
async fn tls_to_an_upstream_that_cannot_be_originated_is_503_and_named() {
    for (index, (mode, more)) in [
        ("SIMPLE", ""),
        ("MUTUAL", ", clientCertificate: /c, privateKey: /k"),
        ("ISTIO_MUTUAL", ""),
        ("SIMPLE", "}, proxyProtocol: {version: V2"),
        ("DISABLE", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let own = format!("127.77.1.{}", index + 1);
        let temp = Temp::new(&format!("origin-{mode}"));
        let (target, connections) = upstream("127.0.0.1").await;
        let port = free_port(&own);
        let outside = outside("caller", &own, port, target);
        let text = format!(
            "{outside}apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originate}}
spec: {{host: api.example.com, trafficPolicy: {{tls: {{mode: {mode}{more}}}}}}}
"
        );
        temp.write("mesh.yaml", &text);
        let options = IstioOptions::new(&temp.0, proxy(ProxyKind::Sidecar, "caller", &own));
        let notes = serve(options).await;
        let answer = get(&own, port, "api.example.com").await;
        let named = notes.iter().any(|note| {
            note.starts_with("DestinationRule default/originate")
                && note.contains("REFUSES TRAFFIC")
        });
        if mode == "DISABLE" {
            assert_eq!((status(&answer), named), ("200", false), "{answer}");
            continue;
        }
        assert_eq!(status(&answer), "503", "{mode}: {answer}");
        assert_eq!(
            connections.load(Ordering::Relaxed),
            0,
            "{mode}: plain text was sent"
        );
        assert!(named, "{mode}: {notes:#?}");
        assert!(
            notes.iter().any(|note| note.contains("mesh.yaml:")),
            "{mode}: {notes:#?}"
        );
    }
}

#[tokio::test]
async fn a_tls_port_is_not_served_as_plain_text() {
    let own = "127.77.2.1";
    let temp = Temp::new("tls-server");
    let (target, connections) = upstream("127.0.0.1").await;
    let (plain, https) = (free_port(own), free_port(own));
    let (mutual, passed) = (free_port(own), free_port(own));
    let outside = outside("edge", own, 80, target);
    let text = format!(
        "{outside}apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: edge}}
  servers:
  - {{port: {{number: {plain}, name: http, protocol: HTTP}}, hosts: [api.example.com]}}
  - {{port: {{number: {https}, name: https, protocol: HTTPS}}, hosts: [api.example.com], tls: {{mode: SIMPLE, credentialName: c}}}}
  - {{port: {{number: {mutual}, name: https-mutual, protocol: HTTPS}}, hosts: [api.example.com], tls: {{mode: MUTUAL, credentialName: c}}}}
  - {{port: {{number: {passed}, name: tls, protocol: TLS}}, hosts: [api.example.com], tls: {{mode: MUTUAL, credentialName: c}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api}}
spec:
  hosts: [api.example.com]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: api.example.com}}}}]}}]
  tcp: [{{route: [{{destination: {{host: api.example.com}}}}]}}]
"
    );
    temp.write("mesh.yaml", &text);
    let options = IstioOptions::new(&temp.0, proxy(ProxyKind::Router, "edge", own));
    let notes = serve(options).await;
    assert_eq!(status(&get(own, plain, "api.example.com").await), "200");
    let before = connections.load(Ordering::Relaxed);
    for port in [https, mutual, passed] {
        let answer = get(own, port, "api.example.com").await;
        assert!(
            matches!(answer.as_str(), "" | "refused"),
            "port {port}: {answer}"
        );
        let named = |note: &&String| {
            note.contains("Gateway default/edge") && note.contains(&port.to_string())
        };
        let note = notes
            .iter()
            .find(named)
            .unwrap_or_else(|| panic!("{notes:#?}"));
        assert!(note.contains("REFUSES TRAFFIC"), "{note}");
    }
    assert_eq!(connections.load(Ordering::Relaxed), before);
}

const OPEN: [&str; 2] = ["200", "200"];
const SHUT: [&str; 2] = ["403", ""];

#[tokio::test]
async fn a_protected_workload_refuses_traffic() {
    let of_port = "{selector: {matchLabels: {app: x}}, portLevelMtls: {HTTP_PORT: {mode: DISABLE}}, mtls: {mode: STRICT}}";
    let ap = "AuthorizationPolicy";
    let ra = "RequestAuthentication";
    let pa = "PeerAuthentication";
    let cases = [
        ("no policy", String::new(), OPEN),
        (
            "of the workload",
            policy(ap, "default", "{selector: {matchLabels: {app: x}}}"),
            SHUT,
        ),
        ("of the namespace", policy(ap, "default", "{}"), SHUT),
        (
            "of the mesh",
            policy(ap, "istio-system", "{action: DENY, rules: [{}]}"),
            SHUT,
        ),
        (
            "of another workload",
            policy(ap, "default", "{selector: {matchLabels: {app: y}}}"),
            OPEN,
        ),
        ("of another namespace", policy(ap, "other", "{}"), OPEN),
        (
            "only recorded",
            policy(ap, "default", "{action: AUDIT, rules: [{}]}"),
            OPEN,
        ),
        (
            "a dry run",
            policy(ap, "default", "{}").replace(
                "namespace",
                "annotations: {istio.io/dry-run: 'true'}, namespace",
            ),
            OPEN,
        ),
        (
            "no dry run",
            policy(ap, "default", "{}").replace(
                "namespace",
                "annotations: {istio.io/dry-run: 'false'}, namespace",
            ),
            SHUT,
        ),
        (
            "of a gateway by name",
            policy(
                ap,
                "default",
                "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]}",
            ),
            OPEN,
        ),
        (
            "tokens",
            policy(ra, "default", "{jwtRules: [{issuer: a}]}"),
            SHUT,
        ),
        (
            "tokens of another workload",
            policy(ra, "default", "{selector: {matchLabels: {app: y}}}"),
            OPEN,
        ),
        (
            "strict workload",
            policy(
                pa,
                "default",
                "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}",
            ),
            SHUT,
        ),
        (
            "strict namespace",
            policy(pa, "default", "{mtls: {mode: STRICT}}"),
            SHUT,
        ),
        (
            "strict mesh",
            policy(pa, "istio-system", "{mtls: {mode: STRICT}}"),
            SHUT,
        ),
        (
            "permissive",
            policy(pa, "default", "{mtls: {mode: PERMISSIVE}}"),
            OPEN,
        ),
        (
            "strict but for a port",
            policy(pa, "default", of_port),
            ["200", ""],
        ),
    ];
    for (index, (name, policy, expected)) in cases.into_iter().enumerate() {
        let own = format!("127.77.3.{}", index + 1);
        let guarded = guarded(&format!("guard-{index}"), &own, &policy, &[]).await;
        let [http, tcp, tls] = guarded.answers().await;
        assert_eq!(
            [http.as_str(), tcp.as_str()],
            expected,
            "{name}: {:#?}",
            guarded.notes
        );
        assert!(
            matches!(tls.as_str(), "" | "refused"),
            "{name}: the TLS port says {tls}"
        );
        let refusing =
            |note: &String| note.contains("REFUSES TRAFFIC") && note.contains("default/p");
        let mesh =
            |note: &String| note.contains("REFUSES TRAFFIC") && note.contains("istio-system/p");
        let named = guarded
            .notes
            .iter()
            .any(|note| refusing(note) || mesh(note));
        assert_eq!(named, expected != OPEN, "{name}: {:#?}", guarded.notes);
    }
}

#[tokio::test]
async fn insecure_skip_lets_traffic_of_each_kind_through() {
    for (index, (kind, spec)) in [
        ("AuthorizationPolicy", "{}"),
        ("RequestAuthentication", "{jwtRules: [{issuer: a}]}"),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    ]
    .into_iter()
    .enumerate()
    {
        let policy = policy(kind, "default", spec);
        let own = format!("127.77.4.{}", 2 * index + 1);
        let skipped = guarded(&format!("skip-{kind}"), &own, &policy, &[kind]).await;
        let [http, tcp, _] = skipped.answers().await;
        assert_eq!(
            [http.as_str(), tcp.as_str()],
            OPEN,
            "{kind}: {:#?}",
            skipped.notes
        );
        let said = |note: &String| note.contains(kind) && note.contains("--insecure-skip");
        assert!(
            skipped.notes.iter().any(said),
            "{kind}: {:#?}",
            skipped.notes
        );
        // One kind does not open the door for another.
        let other = if kind == "PeerAuthentication" {
            "AuthorizationPolicy"
        } else {
            "PeerAuthentication"
        };
        let own = format!("127.77.4.{}", 2 * index + 2);
        let guarded = guarded(&format!("skip-other-{kind}"), &own, &policy, &[other]).await;
        let [http, tcp, _] = guarded.answers().await;
        assert_eq!(
            [http.as_str(), tcp.as_str()],
            SHUT,
            "{kind}: {:#?}",
            guarded.notes
        );
    }
}
