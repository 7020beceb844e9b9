//! `meshd` as a process of its own, and the little HTTP that asks it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Nothing in a test may take longer.
pub const LONG: Duration = Duration::from_secs(120);

/// A temporary folder, which is gone when the value is.
pub struct Temp(PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("meshd-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a writable temporary folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file beside its place and moves it there.
    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let new = self.path(".new");
        fs::write(&new, text).expect("a writable folder");
        fs::rename(&new, self.path(name)).expect("a writable folder");
        self.path(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running process; it is killed when the value is dropped.
pub struct Meshd {
    child: Child,
    pub admin: SocketAddr,
}

impl Meshd {
    /// Starts `meshd -c FILE` with further flags, and waits until it serves.
    pub fn start(temp: &Temp, file: &Path, flags: &[&str]) -> Self {
        let at = temp.path("admin-address");
        let _ = fs::remove_file(&at);
        let child = command(file, flags)
            .args(["-l", "error"])
            .arg("--admin-address-path")
            .arg(&at)
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo built the program");
        Self::served(child, || fs::read_to_string(&at).ok()?.parse().ok())
    }

    /// Waits until the process says at its admin server that it is ready.
    fn served(child: Child, find: impl Fn() -> Option<SocketAddr>) -> Self {
        let admin = ([0, 0, 0, 0], 0).into();
        let mut meshd = Self { child, admin };
        until("it is ready", || {
            if let Some(status) = meshd.child.try_wait().expect("our own child") {
                panic!("ended with {status}: {}", said(&mut meshd.child));
            }
            meshd.admin = find().unwrap_or(admin);
            let ready = request(meshd.admin, "GET", "/ready");
            ready.is_some_and(|answer| answer.status == 200)
        });
        meshd
    }

    /// Starts `meshd sidecar` for a workload of a folder, with further flags, and waits until it serves.
    pub fn sidecar(folder: &Path, workload: &str, flags: &[&str]) -> Self {
        let admin = free_address();
        let child = sidecar(folder, workload, admin).args(flags).spawn();
        Self::served(child.expect("cargo built the program"), || Some(admin))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the admin server answers.
    pub fn get(&self, path: &str) -> Answer {
        request(self.admin, "GET", path).expect("the admin server answers")
    }

    pub fn post(&self, path: &str) -> Answer {
        request(self.admin, "POST", path).expect("the admin server answers")
    }

    /// The address of the listener `name`.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let text = self.get("/listeners").body;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}::")));
        line.expect("the listener").parse().expect("an address")
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.id().to_string())
            .status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Meshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut text);
    }
    text
}

pub fn command(file: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshd"));
    command.arg("-c").arg(file).args(flags);
    command.stdin(Stdio::null());
    command
}

/// `meshd sidecar`, its admin server at `admin`.
pub fn sidecar(folder: &Path, workload: &str, admin: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshd"));
    command.args(["sidecar", "--workload", workload, "--config"]);
    command.arg(folder).arg("--admin").arg(admin.to_string());
    command.args(["--readiness", "none", "--metrics", "none"]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// One request on a connection of its own; `None` if there is no whole answer.
pub fn request(to: SocketAddr, method: &str, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(LONG)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Whether what is held may go on.
type Gate = Arc<(Mutex<bool>, Condvar)>;

/// A loopback address that refuses connections and that nobody is given who asks for any port, until this process ends; who is
/// told of it may listen there, beside a socket that does not.
pub fn free_address() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    Box::leak(Box::new(socket)).local_addr().expect("bound")
}

/// Serves HTTP on a thread: `/held` waits until somebody has asked for `/release`, `/N` answers the status N, everything else 200.
pub fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let gate = Gate::default();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let gate = Arc::clone(&gate);
            thread::spawn(move || serve(stream, &gate));
        }
    });
    address
}

fn serve(mut stream: TcpStream, gate: &Gate) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            return;
        }
        bytes.extend_from_slice(&buffer[..read]);
        while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            bytes.drain(..end + 4);
            let path = head.split(' ').nth(1).unwrap_or_default();
            let mut open = gate.0.lock().expect("no test panics here");
            if path == "/release" {
                *open = true;
                gate.1.notify_all();
            }
            if path == "/held" {
                let closed = |open: &mut bool| !*open;
                open = gate
                    .1
                    .wait_while(open, closed)
                    .expect("no test panics here");
            }
            drop(open);
            let status = path.trim_start_matches('/').parse().unwrap_or(200_u16);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nhello");
            let last = head.to_ascii_lowercase().contains("connection: close");
            if stream.write_all(answer.as_bytes()).is_err() || last {
                return;
            }
        }
    }
}

/// Waits until something holds.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A bootstrap: an HTTP listener `in` (inbound), a TCP listener `tcp`, the cluster `app` behind both.
pub fn bootstrap(port: u16, upstream: SocketAddr) -> String {
    let app = upstream.port();
    format!(
        r#"node: {{id: n1, cluster: c1, locality: {{zone: z1}}}}
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: in
    traffic_direction: INBOUND
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            name: local
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: app}}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 1s
    circuit_breakers: {{thresholds: [{{max_requests: 100, track_remaining: true}}]}}
    load_assignment:
      cluster_name: app
      endpoints:
      - locality: {{region: r, zone: z}}
        lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {app}}}}}}}}}]
"#
    )
}
