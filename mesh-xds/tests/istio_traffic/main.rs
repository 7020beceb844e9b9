//! What a folder of Istio YAML does to live traffic: what protects it fails closed, through sockets.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use mesh_core::body::RequestBody;
use mesh_core::pool::Pool;
use mesh_core::server::{self, BindOptions, ListenerHandle, ServerStats, Unobserved};
use mesh_core::snapshot::Mesh;
use mesh_core::stack::Proxy;
use mesh_core::transport::{TcpConnector, TokioExec};
use mesh_xds::istio::index::ProxyKind;
use mesh_xds::istio::{IstioOptions, IstioSource, ProxySpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

mod refused;

/// A folder of its own for each test, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-traffic-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that was free a moment ago at `address`, and another one each time: nothing holds it until the mesh binds it.
fn free_port(address: &str) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let ip: IpAddr = address.parse().expect("an address");
    loop {
        let socket = std::net::TcpListener::bind(SocketAddr::new(ip, 0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        if GIVEN.lock().expect("no test panics here").insert(port) {
            return port;
        }
    }
}

/// Answers one request of each connection with 200, and counts connections.
async fn upstream(address: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
                    // A client that has gone away needs no answer.
                    let _ = stream.write_all(answer).await;
                }
            });
        }
    });
    (port, count)
}

/// Serves what a folder says, of which nothing is refused; returns what there is to know about it.
async fn serve(options: IstioOptions) -> Vec<String> {
    let (rejections, notes) = serve_in_part(options).await;
    assert_eq!(rejections, Vec::<String>::new());
    notes
}

/// Serves what a folder says; returns what is refused of it, and what there is to know about the rest.
async fn serve_in_part(options: IstioOptions) -> (Vec<String>, Vec<String>) {
    let source = IstioSource::new(options).expect("a folder");
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());
    let snapshot = mesh.watch().changed().await;
    let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    for listener in snapshot.listeners().values() {
        let config = listener.config();
        let socket =
            server::bind(&config.address, &BindOptions::from(&**config)).expect("a free port");
        let stats = Arc::new(ServerStats::default());
        let handle = ListenerHandle::new(listener.clone(), stats, Arc::new(Unobserved));
        tokio::spawn(server::serve(socket, handle, proxy.clone(), TokioExec));
    }
    let status = mesh.status().load();
    let rejections = status.rejections.iter().map(ToString::to_string);
    let notes = status.notes.iter();
    let notes = notes.map(|n| format!("{} {}: {}", n.resource, n.path, n.reason));
    (rejections.collect(), notes.collect())
}

/// The answer to a request, up to the end of the connection; empty if there is none, `refused` if nobody listens.
async fn get(address: &str, port: u16, host: &str) -> String {
    let Ok(mut stream) = TcpStream::connect((address, port)).await else {
        return "refused".to_owned();
    };
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A reset after nothing was said is an empty answer too.
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("an answer, or the end of the connection, in time");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn proxy(kind: ProxyKind, name: &str, bind: &str) -> ProxySpec {
    ProxySpec {
        kind,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        bind: Some(bind.to_owned()),
        ..ProxySpec::default()
    }
}

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
        let text = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: caller}}
status: {{podIP: {own}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api}}
spec:
  hosts: [api.example.com]
  resolution: STATIC
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {target}}}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: originate}}
spec: {{host: api.example.com, trafficPolicy: {{tls: {{mode: {mode}{more}}}}}}}
"
        );
        fs::write(temp.0.join("mesh.yaml"), text).expect("written");
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

/// A gateway's own Pod at `own`, and a service outside behind the port `target`.
fn edge(own: &str, target: u16) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: edge, labels: {{istio: edge}}}}
status: {{podIP: {own}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api}}
spec:
  hosts: [api.example.com]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {target}}}}}]
"
    )
}

#[tokio::test]
async fn a_tls_port_is_not_served_as_plain_text() {
    let own = "127.77.2.1";
    let temp = Temp::new("tls-server");
    let (target, connections) = upstream("127.0.0.1").await;
    let (plain, https, passed) = (free_port(own), free_port(own), free_port(own));
    let edge = edge(own, target);
    let text = format!(
        "{edge}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge}}
spec:
  selector: {{istio: edge}}
  servers:
  - {{port: {{number: {plain}, name: http, protocol: HTTP}}, hosts: [api.example.com]}}
  - {{port: {{number: {https}, name: https, protocol: HTTPS}}, hosts: [api.example.com], tls: {{mode: SIMPLE, credentialName: c}}}}
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
    fs::write(temp.0.join("mesh.yaml"), text).expect("written");
    let options = IstioOptions::new(&temp.0, proxy(ProxyKind::Router, "edge", own));
    let notes = serve(options).await;
    assert_eq!(status(&get(own, plain, "api.example.com").await), "200");
    let before = connections.load(Ordering::Relaxed);
    for port in [https, passed] {
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

/// The sidecar of a workload with a plain port, a TCP port and a TLS port, under `policy`.
struct Guarded {
    own: String,
    http: u16,
    tcp: u16,
    tls: u16,
    rejections: Vec<String>,
    notes: Vec<String>,
}

async fn guarded(name: &str, own: &str, policy: &str, skip: &[&str]) -> Guarded {
    let guarded = guarded_by(name, own, &[], policy, skip).await;
    assert_eq!(guarded.rejections, Vec::<String>::new());
    guarded
}

/// As [`guarded`], with files beside the one that holds `policy`.
async fn guarded_by(
    name: &str,
    own: &str,
    files: &[(&str, &[u8])],
    policy: &str,
    skip: &[&str],
) -> Guarded {
    let temp = Temp::new(name);
    for (file, content) in files {
        fs::write(temp.0.join(file), content).expect("written");
    }
    let (target, _) = upstream("127.0.0.1").await;
    let (http, tcp, tls) = (free_port(own), free_port(own), free_port(own));
    let text = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: x-1, labels: {{app: x}}}}
status: {{podIP: {own}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: x}}
spec:
  workloadSelector: {{labels: {{app: x}}}}
  ingress:
  - {{port: {{number: {http}, name: http, protocol: HTTP}}, defaultEndpoint: '127.0.0.1:{target}'}}
  - {{port: {{number: {tcp}, name: tcp, protocol: TCP}}, defaultEndpoint: '127.0.0.1:{target}'}}
  - {{port: {{number: {tls}, name: tls, protocol: TLS}}, defaultEndpoint: '127.0.0.1:{target}', tls: {{mode: SIMPLE, serverCertificate: /c, privateKey: /k}}}}
  egress: [{{hosts: ['~/*']}}]
{}",
        policy.replace("HTTP_PORT", &http.to_string())
    );
    fs::write(temp.0.join("all.yaml"), text).expect("written");
    let mut options = IstioOptions::new(&temp.0, proxy(ProxyKind::Sidecar, "x-1", own));
    options.insecure_skip = skip.iter().map(|kind| (*kind).to_owned()).collect();
    let (rejections, notes) = serve_in_part(options).await;
    Guarded {
        own: own.to_owned(),
        http,
        tcp,
        tls,
        rejections,
        notes,
    }
}

impl Guarded {
    /// The answers of the HTTP, the TCP and the TLS port.
    async fn answers(&self) -> [String; 3] {
        let mut answers = [const { String::new() }; 3];
        for (answer, port) in answers.iter_mut().zip([self.http, self.tcp, self.tls]) {
            let seen = get(&self.own, port, "x").await;
            *answer = status(&seen).to_owned();
        }
        answers
    }
}

fn policy(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
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
