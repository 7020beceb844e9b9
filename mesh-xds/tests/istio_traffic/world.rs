//! A proxy that serves what a folder says, upstreams that count, and what a client sees.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
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

use super::support::Temp;

/// A port that was free a moment ago at `address`, and another one each time: nothing holds it until the mesh binds it.
pub(super) fn free_port(address: &str) -> u16 {
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
pub(super) async fn upstream(address: &str) -> (u16, Arc<AtomicUsize>) {
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
pub(super) async fn serve(options: IstioOptions) -> Vec<String> {
    let (rejections, notes) = serve_in_part(options).await;
    assert_eq!(rejections, Vec::<String>::new());
    notes
}

/// Serves what a folder says; returns what is refused of it, and what there is to know about the rest.
pub(super) async fn serve_in_part(options: IstioOptions) -> (Vec<String>, Vec<String>) {
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
pub(super) async fn get(address: &str, port: u16, host: &str) -> String {
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

pub(super) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

pub(super) fn proxy(kind: ProxyKind, name: &str, bind: &str) -> ProxySpec {
    ProxySpec {
        kind,
        namespace: "default".to_owned(),
        name: name.to_owned(),
        bind: Some(bind.to_owned()),
        ..ProxySpec::default()
    }
}

/// A Pod named `name` at `own`, and a service outside on port `port`, behind the port `target` of this machine.
pub(super) fn outside(name: &str, own: &str, port: u16, target: u16) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{istio: {name}}}}}
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
"
    )
}

/// The sidecar of a workload with a plain port, a TCP port and a TLS port, under `policy`.
pub(super) struct Guarded {
    pub(super) own: String,
    pub(super) http: u16,
    pub(super) tcp: u16,
    pub(super) tls: u16,
    pub(super) rejections: Vec<String>,
    pub(super) notes: Vec<String>,
}

pub(super) async fn guarded(name: &str, own: &str, policy: &str, skip: &[&str]) -> Guarded {
    let guarded = guarded_by(name, own, &[], policy, skip).await;
    assert_eq!(guarded.rejections, Vec::<String>::new());
    guarded
}

/// As [`guarded`], with files beside the one that holds `policy`.
pub(super) async fn guarded_by(
    name: &str,
    own: &str,
    files: &[(&str, &[u8])],
    policy: &str,
    skip: &[&str],
) -> Guarded {
    let temp = Temp::new(name);
    for (file, content) in files {
        temp.write(file, content);
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
    temp.write("all.yaml", &text);
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
    pub(super) async fn answers(&self) -> [String; 3] {
        let mut answers = [const { String::new() }; 3];
        for (answer, port) in answers.iter_mut().zip([self.http, self.tcp, self.tls]) {
            let seen = get(&self.own, port, "x").await;
            *answer = status(&seen).to_owned();
        }
        answers
    }
}

pub(super) fn policy(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {spec}\n"
    )
}
