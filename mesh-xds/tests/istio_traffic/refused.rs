//! What is refused, and has no good version in force, leaves nothing open that it would have protected.

use std::sync::atomic::Ordering;

use mesh_xds::istio::IstioOptions;
use mesh_xds::istio::index::ProxyKind;

use super::support::Temp;
use super::world::{
    free_port, get, guarded_by, outside, policy, proxy, serve_in_part, status, upstream,
};
use super::{OPEN, SHUT};

const AP: &str = "AuthorizationPolicy";
const RA: &str = "RequestAuthentication";
const PA: &str = "PeerAuthentication";

/// Name, objects, what the ports answer and the name under which status says that traffic is refused.
type Case = (&'static str, String, [&'static str; 2], &'static str);

async fn play(net: u8, cases: Vec<Case>, skip: &[&str]) {
    for (index, (name, policy, expected, named)) in cases.into_iter().enumerate() {
        let own = format!("127.77.{net}.{}", index + 1);
        let guarded = guarded_by(&format!("refused-{net}-{index}"), &own, &[], &policy, skip).await;
        let [http, tcp, tls] = guarded.answers().await;
        let seen = format!("{:#?} {:#?}", guarded.rejections, guarded.notes);
        assert_eq!([http.as_str(), tcp.as_str()], expected, "{name}: {seen}");
        assert!(matches!(tls.as_str(), "" | "refused"), "{name}: {tls}");
        assert_ne!(guarded.rejections.len(), 0, "{name}: {seen}");
        let refusing =
            |note: &&String| note.contains("REFUSES TRAFFIC") && !note.contains("Sidecar");
        let note = guarded.notes.iter().find(refusing);
        match note {
            Some(note) => assert!(
                expected == SHUT && note.contains(named) && note.contains("all.yaml:"),
                "{name}: {note}"
            ),
            None => assert_eq!(expected, OPEN, "{name}: {seen}"),
        }
    }
}

#[tokio::test]
async fn a_refused_policy_closes_what_it_would_protect() {
    let own = "selector: {matchLabels: {app: x}}";
    let other = "selector: {matchLabels: {app: y}}";
    let p = "default/p";
    let cases = vec![
        ("unknown field", policy(AP, "default", &format!("{{{own}, rulez: []}}")), SHUT, p),
        ("unknown field, of another workload", policy(AP, "default", &format!("{{{other}, rulez: []}}")), OPEN, p),
        ("invalid", policy(AP, "default", &format!("{{{own}, action: DENY, rules: [{{to: [{{operation: {{}}}}]}}]}}")), SHUT, p),
        ("invalid, of another workload", policy(AP, "default", &format!("{{{other}, action: DENY, rules: [{{to: [{{operation: {{}}}}]}}]}}")), OPEN, p),
        ("misspelt selector", policy(AP, "default", "{selectr: {matchLabels: {app: y}}}"), SHUT, p),
        ("selector that cannot be read", policy(AP, "default", "{selector: {matchLabel: {app: y}}}"), SHUT, p),
        ("unknown action", policy(AP, "default", &format!("{{{own}, action: DENNY}}")), SHUT, p),
        ("of another namespace", policy(AP, "other", "{rulez: []}"), OPEN, p),
        ("of the mesh", policy(AP, "istio-system", "{rulez: []}"), SHUT, "istio-system/p"),
        ("misspelt kind", policy("AuthorizationPolcy", "default", "{}"), SHUT, "AuthorizationPolicy default/p"),
        ("unknown version", policy(AP, "default", "{}").replace("/v1", "/v7"), SHUT, p),
        ("no kind", policy(AP, "default", "{}").replace("kind: AuthorizationPolicy\n", ""), SHUT, "security.istio.io default/p"),
        ("misspelt namespace", policy(AP, "default", "{}").replace("namespace:", "namespce:"), SHUT, "/p"),
        ("misspelt specification", policy(AP, "default", "{}").replace("spec:", "spce:"), SHUT, p),
        ("only recorded", policy(AP, "default", "{action: AUDIT, rulez: []}"), OPEN, p),
        ("of a gateway", policy(AP, "default", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], rulez: []}"), OPEN, p),
        ("both selector and target", policy(AP, "default", &format!("{{{own}, targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g}}]}}")), SHUT, p),
        ("tokens", policy(RA, "default", &format!("{{{own}, jwtRules: [{{isuer: a}}]}}")), SHUT, p),
        ("tokens of another workload", policy(RA, "default", &format!("{{{other}, jwtRules: [{{isuer: a}}]}}")), OPEN, p),
        ("strict", policy(PA, "default", &format!("{{{own}, mtls: {{mode: STRICT}}, port: 1}}")), SHUT, p),
        ("strict, of another workload", policy(PA, "default", &format!("{{{other}, mtls: {{mode: STRICT}}, port: 1}}")), OPEN, p),
        ("perhaps strict", policy(PA, "default", "{mtls: {mode: STRICTLY}}"), SHUT, p),
        (
            "perhaps strict, beside one that opens a port",
            policy(PA, "default", &format!("{{{own}, portLevelMtls: {{HTTP_PORT: {{mode: DISABLE}}}}}}")).replace("name: p", "name: q")
                + &policy(PA, "default", "{mtls: {mode: STRICTLY}}"),
            SHUT,
            p,
        ),
        ("perhaps strict by a misspelt field", policy(PA, "default", "{mtl: {mode: STRICT}}"), SHUT, p),
        ("ports without a selector, none strict", policy(PA, "default", "{portLevelMtls: {80: {mode: DISABLE}}}"), OPEN, p),
        ("ports without a selector, one strict", policy(PA, "default", "{portLevelMtls: {80: {mode: STRICT}}}"), SHUT, p),
        ("in a list", "---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n  metadata: {name: other}\n  spec: {selector: {matchLabels: {app: y}}}\n- apiVersion: security.istio.io/v1\n  kind: AuthorizationPolicy\n  metadata: {name: p}\n  spec: {selector: {matchLabels: {app: x}}, rulez: []}\n".to_owned(), SHUT, p),
    ];
    play(5, cases, &[]).await;
}

#[tokio::test]
async fn insecure_skip_opens_what_a_refused_policy_closes() {
    for (index, (kind, spec)) in [
        (AP, "{rulez: []}"),
        (RA, "{jwtRules: [{isuer: a}]}"),
        (PA, "{mtls: {mode: STRICTLY}}"),
    ]
    .into_iter()
    .enumerate()
    {
        let net = 6 + u8::try_from(index).expect("few");
        play(
            net,
            vec![(kind, policy(kind, "default", spec), OPEN, "")],
            &[kind],
        )
        .await;
        let other = if kind == AP { PA } else { AP };
        let own = format!("127.77.{net}.9");
        let name = format!("refused-skip-{kind}");
        let guarded = guarded_by(&name, &own, &[], &policy(kind, "default", spec), &[other]).await;
        let [http, tcp, _] = guarded.answers().await;
        assert_eq!(
            [http.as_str(), tcp.as_str()],
            SHUT,
            "{kind}: {:#?}",
            guarded.notes
        );
    }
}

/// Files beside the good one that are no YAML, too large, or cannot be read.
#[tokio::test]
async fn a_file_that_is_no_yaml_closes_what_its_words_name() {
    let broken = |namespace: &str| {
        format!(
            "kind: AuthorizationPolicy\nmetadata:\n  name: q\n  namespace: {namespace}\nspec: {{rules: [\n"
        )
    };
    let own = broken("default");
    let other = broken("other");
    let two = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: q}}\nspec: {{selector: {{matchLabels: {{app: y}}}}}}\n---\n{other}"
    );
    let whole = two.replace("app: y", "app: x");
    let json = r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "q", "namespace": "default"#;
    let latin = b"kind: AuthorizationPolicy\nmetadata: {name: q, namespace: default} # caf\xe9\n";
    let nameless = "apiVersion: security.istio.io/v1\nmetadata: [\n";
    let cases: [(&str, &[u8], _, &str); 11] = [
        (
            "a namespace",
            own.as_bytes(),
            SHUT,
            "AuthorizationPolicy default/q",
        ),
        ("another namespace", other.as_bytes(), OPEN, ""),
        (
            "a good document of another workload before",
            two.as_bytes(),
            OPEN,
            "",
        ),
        (
            "a good document of the workload before",
            whole.as_bytes(),
            SHUT,
            "AuthorizationPolicy default/q",
        ),
        (
            "json",
            json.as_bytes(),
            SHUT,
            "AuthorizationPolicy default/q",
        ),
        ("not UTF-8", latin, SHUT, "AuthorizationPolicy default/q"),
        ("no kind", nameless.as_bytes(), SHUT, "security.istio.io "),
        (
            "no namespace",
            b"kind: PeerAuthentication\nmetadata: [\n",
            SHUT,
            "PeerAuthentication (no namespace)",
        ),
        (
            "a tab",
            b"kind: RequestAuthentication\nmetadata:\n\tnamespace: default\n",
            SHUT,
            "RequestAuthentication default/",
        ),
        ("a service", b"kind: Service\nmetadata: [\n", OPEN, ""),
        (
            "a route",
            b"kind: VirtualService\nmetadata: {name: q, namespace: default\n",
            OPEN,
            "",
        ),
    ];
    for (index, (name, content, expected, named)) in cases.into_iter().enumerate() {
        let own = format!("127.77.10.{}", index + 1);
        let files = [("broken.yaml", content)];
        let guarded = guarded_by(&format!("words-{index}"), &own, &files, "", &[]).await;
        let [http, tcp, _] = guarded.answers().await;
        let seen = format!("{:#?} {:#?}", guarded.rejections, guarded.notes);
        assert_eq!([http.as_str(), tcp.as_str()], expected, "{name}: {seen}");
        assert_ne!(guarded.rejections.len(), 0, "{name}: {seen}");
        let refusing =
            |note: &&String| note.contains("REFUSES TRAFFIC") && note.contains("broken.yaml");
        let said = guarded.notes.iter().find(refusing);
        assert_eq!(said.is_some(), expected == SHUT, "{name}: {seen}");
        assert!(
            said.is_none_or(|note| note.contains(named)),
            "{name}: {seen}"
        );
    }
}

#[tokio::test]
async fn a_refused_rule_that_asks_for_tls_lets_no_plain_text_out() {
    let cases = [
        (
            "unknown field",
            "trafficPolicy: {tls: {mode: SIMPLE}}, x: 1",
            "503",
        ),
        ("invalid", "trafficPolicy: {tls: {mode: MUTUAL}}", "503"),
        (
            "invalid elsewhere",
            "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, connectionPool: {tcp: {maxConnections: -1}}}",
            "503",
        ),
        (
            "unknown mode",
            "trafficPolicy: {tls: {mode: SIMPEL}}",
            "503",
        ),
        (
            "misspelt field",
            "trafficPolicy: {tsl: {mode: SIMPLE}}",
            "503",
        ),
        (
            "misspelt policy",
            "trafficPolcy: {tls: {mode: SIMPLE}}",
            "503",
        ),
        (
            "of the port",
            "trafficPolicy: {portLevelSettings: [{port: {number: PORT}, tls: {mode: SIMPLE}}]}, x: 1",
            "503",
        ),
        (
            "of another port",
            "trafficPolicy: {portLevelSettings: [{port: {number: 1}, tls: {mode: SIMPLE}}]}, x: 1",
            "200",
        ),
        (
            "switched off",
            "trafficPolicy: {tls: {mode: DISABLE}}, x: 1",
            "200",
        ),
        (
            "no TLS",
            "trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}",
            "200",
        ),
        ("broken", "trafficPolicy: {tls: {mode: SIMPLE}}]", "503"),
    ];
    for (index, (name, policy, expected)) in cases.into_iter().enumerate() {
        for host in ["api.example.com", "'*.example.com'", "other.example.com"] {
            let own = format!("127.77.12.{}", index + 1);
            let temp = Temp::new(&format!("rule-{index}"));
            let (target, connections) = upstream("127.0.0.1").await;
            let port = free_port(&own);
            let text = outside("caller", &own, port, target);
            let rule = format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r}}\nspec: {{host: {host}, {}}}\n",
                policy.replace("PORT", &port.to_string())
            );
            temp.write("mesh.yaml", &text);
            temp.write("rule.yaml", &rule);
            let options = IstioOptions::new(&temp.0, proxy(ProxyKind::Sidecar, "caller", &own));
            let (rejections, notes) = serve_in_part(options).await;
            assert_ne!(rejections.len(), 0, "{name}");
            let answer = get(&own, port, "api.example.com").await;
            let other = host.starts_with("other");
            let expected = if other { "200" } else { expected };
            assert_eq!(status(&answer), expected, "{name} {host}: {notes:#?}");
            let named = notes.iter().any(|note| {
                note.contains("REFUSES TRAFFIC")
                    && note.contains("DestinationRule default/r")
                    && note.contains("rule.yaml:")
            });
            assert_eq!(named, expected == "503", "{name} {host}: {notes:#?}");
            let made = connections.load(Ordering::Relaxed);
            assert_eq!(made, usize::from(expected == "200"), "{name} {host}");
        }
    }
}

#[tokio::test]
async fn a_refused_tls_server_is_not_served_as_plain_text_by_another_gateway() {
    let cases = [
        (
            "unknown field",
            "{mode: SIMPLE, credentialName: c, x: 1}",
            "",
        ),
        ("invalid", "{mode: SIMPLE}", ""),
        ("unknown mode", "{mode: SIMPEL, credentialName: c}", ""),
        ("a redirect", "{httpsRedirect: true, x: 1}", ""),
        ("of another gateway", "{mode: SIMPLE}", "200"),
    ];
    for (index, (name, tls, expected)) in cases.into_iter().enumerate() {
        let own = format!("127.77.13.{}", index + 1);
        let temp = Temp::new(&format!("server-{index}"));
        let (target, connections) = upstream("127.0.0.1").await;
        let port = free_port(&own);
        let selector = if expected == "200" { "other" } else { "edge" };
        let outside = outside("edge", &own, 80, target);
        let text = format!(
            "{outside}apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: plain}}
spec:
  selector: {{istio: edge}}
  servers: [{{port: {{number: {port}, name: http, protocol: HTTP}}, hosts: ['*']}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: secure}}
spec:
  selector: {{istio: {selector}}}
  servers: [{{port: {{number: {port}, name: https, protocol: HTTPS}}, hosts: [api.example.com], tls: {tls}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: api}}
spec:
  hosts: [api.example.com]
  gateways: [plain, secure]
  http: [{{route: [{{destination: {{host: api.example.com}}}}]}}]
"
        );
        temp.write("mesh.yaml", &text);
        let options = IstioOptions::new(&temp.0, proxy(ProxyKind::Router, "edge", &own));
        let (rejections, notes) = serve_in_part(options).await;
        assert_ne!(rejections.len(), 0, "{name}");
        let answer = get(&own, port, "api.example.com").await;
        let seen = match status(&answer) {
            "refused" => "",
            seen => seen,
        };
        assert_eq!(seen, expected, "{name}: {notes:#?}");
        assert_eq!(
            connections.load(Ordering::Relaxed),
            usize::from(expected == "200")
        );
        let named = notes.iter().any(|note| {
            note.contains("REFUSES TRAFFIC") && note.contains("Gateway default/secure")
        });
        assert_eq!(named, expected != "200", "{name}: {notes:#?}");
    }
}

/// A workload whose ports no Sidecar in force names, beside a refused one.
#[tokio::test]
async fn a_refused_sidecar_closes_the_ports_to_which_it_gives_tls() {
    let cases = [
        (
            "unknown field",
            "{number: PORT, name: https, protocol: HTTPS}",
            "",
            "403",
        ),
        (
            "invalid",
            "{number: PORT, name: http, protocol: HTTP}",
            "",
            "403",
        ),
        (
            "another port",
            "{number: 1, name: https, protocol: HTTPS}",
            "",
            "200",
        ),
        ("no port", "{number: many}", "", "403"),
        (
            "another workload",
            "{number: PORT, name: https, protocol: HTTPS}",
            "workloadSelector: {labels: {app: y}}, ",
            "200",
        ),
    ];
    let application = "127.77.16.1";
    for (index, (name, port, selector, expected)) in cases.into_iter().enumerate() {
        let own = format!("127.77.14.{}", index + 1);
        let temp = Temp::new(&format!("sidecar-{index}"));
        let (target, _) = upstream(application).await;
        let port = port.replace("PORT", &target.to_string());
        let text = format!(
            "apiVersion: v1
kind: Service
metadata: {{name: x}}
spec: {{selector: {{app: x}}, clusterIP: 127.77.15.1, ports: [{{port: {target}, name: http}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: x-1, labels: {{app: x}}}}
status: {{podIP: {own}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: s}}
spec: {{{selector}x: 1, ingress: [{{port: {port}, tls: {{mode: SIMPLE, serverCertificate: c, privateKey: k}}}}]}}
"
        );
        let text = if name == "invalid" {
            text.replace("x: 1, ", "")
        } else {
            text
        };
        temp.write("all.yaml", &text);
        let mut proxy = proxy(ProxyKind::Sidecar, "x-1", &own);
        proxy.application_address = Some(application.to_owned());
        proxy.bind = Some(format!("127.77.17.{}", index + 1));
        let (rejections, notes) = serve_in_part(IstioOptions::new(&temp.0, proxy)).await;
        assert_ne!(rejections.len(), 0, "{name}");
        let answer = get(&own, target, "x").await;
        assert_eq!(status(&answer), expected, "{name}: {notes:#?}");
        let named =
            |note: &String| note.contains("REFUSES TRAFFIC") && note.contains("Sidecar default/s");
        assert_eq!(
            notes.iter().any(named),
            expected == "403" || name == "another port",
            "{name}: {notes:#?}"
        );
    }
}
