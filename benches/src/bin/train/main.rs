//! Traffic for a profile: what `meshd` and `bare` meet all day, over every path of data.
//!
//! Usage: `train MESHD BARE`, programs that write a profile when they end. Every request must be answered as the app does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use mesh_benches::loopback::{self, Client, Failure, Protocol, free_port};
use tokio::task::JoinSet;

/// Connections to a listener.
const CONNECTIONS: usize = 16;
/// Requests on each: together enough that starting and reading configuration weigh little.
const REQUESTS: usize = 1500;
/// How long a program may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked after.
const POLL: Duration = Duration::from_millis(10);

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [meshd, bare] = arguments.as_slice() else {
        return Err("usage: train MESHD BARE".into());
    };
    let http1 = loopback::app(Protocol::Http1)?;
    let http2 = loopback::app(Protocol::Http2)?;
    loopback::runtime()?.block_on(async {
        train_meshd(meshd, http1, http2).await?;
        for (protocol, app) in [(Protocol::Http1, http1), (Protocol::Http2, http2)] {
            train_bare(bare, protocol, app).await?;
        }
        Ok(())
    })
}

async fn train_meshd(program: &Path, http1: SocketAddr, http2: SocketAddr) -> Result<(), Failure> {
    let [plain, rules, streams, bytes] = [free_port()?, free_port()?, free_port()?, free_port()?];
    let file = [
        ("@HTTP1@", http1.port()),
        ("@HTTP2@", http2.port()),
        ("@PLAIN@", plain),
        ("@RULES@", rules),
        ("@STREAMS@", streams),
        ("@BYTES@", bytes),
    ]
    .iter()
    .fold(
        include_str!("train.yaml").to_owned(),
        |text, (name, port)| text.replace(name, &port.to_string()),
    );
    let mut command = Command::new(program);
    command.args(["--concurrency", "1", "-l", "error", "--config-yaml", &file]);
    let running = Running::start(command)?;
    for (protocol, port) in [
        (Protocol::Http1, plain),
        (Protocol::Http2, streams),
        (Protocol::Http1, rules),
        (Protocol::Http2, rules),
        (Protocol::Http1, bytes),
    ] {
        load(protocol, port).await?;
    }
    running.end().await
}

async fn train_bare(program: &Path, protocol: Protocol, app: SocketAddr) -> Result<(), Failure> {
    let port = free_port()?;
    let mut command = Command::new(program);
    if protocol == Protocol::Http2 {
        command.arg("--http2");
    }
    command.args([port.to_string(), app.port().to_string()]);
    let running = Running::start(command)?;
    load(protocol, port).await?;
    running.end().await
}

/// Sends requests on all connections at once, those of each one after another.
async fn load(protocol: Protocol, port: u16) -> Result<(), Failure> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = connect(protocol, address).await?;
        tasks.spawn(async move {
            for _ in 0..REQUESTS {
                let response = client.send(request(protocol, address)).await?;
                loopback::is_answer(response).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Connects as soon as the program listens.
async fn connect(protocol: Protocol, address: SocketAddr) -> Result<Client<Full<Bytes>>, Failure> {
    let start = Instant::now();
    loop {
        match Client::connect(protocol, address).await {
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
            connected => return connected,
        }
    }
}

/// A request with the headers that clients send.
fn request(protocol: Protocol, address: SocketAddr) -> Request<Full<Bytes>> {
    let mut request = loopback::get(&loopback::uri(protocol, address));
    let headers = request.headers_mut();
    for (name, value) in [
        (header::USER_AGENT, "train/1.0"),
        (header::ACCEPT, "*/*"),
        (header::ACCEPT_ENCODING, "gzip, br"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    request
}

/// A program under training; killed when dropped early.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self, Failure> {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("cannot start {command:?}: {error}"))?;
        Ok(Self(child))
    }

    /// Asks it to end, which is when it writes its profile.
    async fn end(mut self) -> Result<(), Failure> {
        let asked = Command::new("kill").arg(self.0.id().to_string()).status()?;
        if !asked.success() {
            return Err("a program under training has gone".into());
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                return match status.success() {
                    true => Ok(()),
                    false => Err(format!("a program under training ended with {status}").into()),
                };
            }
            tokio::time::sleep(POLL).await;
        }
        Err("a program under training does not end".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
