//! Requests at a steady rate, each of which must be answered as the app does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONNECTION, HOST},
};
use http_body::Body;
use http_body_util::Full;
use mesh_benches::loopback::{self, Client, Failure, Protocol};
use mesh_core::{body::ResponseBody, pool::PoolBody};
use tokio::task::JoinHandle;
use tower::{Service as _, util::BoxCloneSyncService};

/// The embedded client, whose type has no name.
pub(crate) type Embedded =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<PoolBody>>, Infallible>;

/// Requests that go at the same time.
const TASKS: usize = 8;
/// How many of them speak HTTP/2 to a proxy.
const HTTP2: usize = 2;
/// Time between two requests of a task.
const PACE: Duration = Duration::from_millis(20);
/// Every so many requests one is slow, so that some are in flight whenever a reload comes.
const SLOW: u64 = 4;
/// Requests on one connection until a new one takes its place.
const PER_CONNECTION: u64 = 50;

/// How requests reach the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    host: HeaderValue,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Proxy(SocketAddr),
    Embedded(Embedded),
}

impl Caller {
    /// By the proxy that listens on this port, which is the service's too.
    pub(crate) fn proxy(port: u16) -> Result<Self, Failure> {
        Self::new(port, Way::Proxy(([127, 0, 0, 1], port).into()))
    }

    /// By a client in this program.
    pub(crate) fn embedded(port: u16, client: Embedded) -> Result<Self, Failure> {
        Self::new(port, Way::Embedded(client))
    }

    fn new(port: u16, way: Way) -> Result<Self, Failure> {
        let host = HeaderValue::try_from(format!("web:{port}"))?;
        Ok(Self { host, way })
    }

    /// The turn that an answer names; a proxy is asked on a new connection.
    pub(crate) async fn turn(&self) -> Result<String, Failure> {
        let headers = self.line(Protocol::Http1).send(loopback::PATH).await?;
        let turn = headers.get("x-turn").ok_or("an answer without x-turn")?;
        Ok(turn.to_str()?.to_owned())
    }

    fn line(&self, protocol: Protocol) -> Line {
        Line {
            caller: self.clone(),
            protocol,
            client: None,
            sent: 0,
        }
    }
}

/// Requests one after another, to a proxy on one connection.
struct Line {
    caller: Caller,
    protocol: Protocol,
    client: Option<Client<Full<Bytes>>>,
    sent: u64,
}

impl Line {
    /// Sends a request for `path` and reads the answer, whose headers it returns.
    async fn send(&mut self, path: &str) -> Result<HeaderMap, Failure> {
        let request = self.request(path)?;
        match &self.caller.way {
            Way::Embedded(client) => {
                let Ok(response) = client.clone().call(request).await;
                answered(response).await
            }
            Way::Proxy(address) => {
                let client = self.client(*address).await?;
                let headers = answered(client.send(request).await?).await?;
                if headers
                    .get(CONNECTION)
                    .is_some_and(|value| value == "close")
                {
                    self.client = None;
                }
                Ok(headers)
            }
        }
    }

    fn request(&self, path: &str) -> Result<Request<Full<Bytes>>, Failure> {
        let host = self.caller.host.to_str()?;
        let whole = matches!(self.caller.way, Way::Embedded(_)) || self.protocol == Protocol::Http2;
        let uri = if whole {
            format!("http://{host}{path}")
        } else {
            path.to_owned()
        };
        let mut request = Request::get(uri).body(Full::default())?;
        if !whole {
            request.headers_mut().insert(HOST, self.caller.host.clone());
        }
        Ok(request)
    }

    /// The connection, or a new one. A proxy may close an idle connection at any time; nothing is lost by that.
    async fn client(&mut self, address: SocketAddr) -> Result<Client<Full<Bytes>>, Failure> {
        self.sent += 1;
        let kept = match self.client.take() {
            Some(client) if !self.sent.is_multiple_of(PER_CONNECTION) => {
                client.is_open().await.then_some(client)
            }
            _ => None,
        };
        let client = match kept {
            Some(client) => client,
            None => Client::connect(self.protocol, address).await?,
        };
        Ok(self.client.insert(client).clone())
    }
}

/// The headers of a response that is the app's.
async fn answered<B>(mut response: Response<B>) -> Result<HeaderMap, Failure>
where
    B: Body<Data = Bytes, Error: Into<Failure>> + Unpin,
{
    let headers = std::mem::take(response.headers_mut());
    loopback::is_answer(response).await?;
    Ok(headers)
}

/// Requests that go on until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts the tasks.
    pub(crate) fn start(caller: &Caller) -> Self {
        let shared = Arc::new(Shared::default());
        let start = |index| {
            let protocol = if index < HTTP2 {
                Protocol::Http2
            } else {
                Protocol::Http1
            };
            tokio::spawn(keep_on(caller.line(protocol), shared.clone()))
        };
        let tasks = (0..TASKS).map(start).collect();
        Self { shared, tasks }
    }

    /// Ends them: how many requests there were, and what went wrong with those that failed.
    pub(crate) async fn stop(self) -> (u64, Vec<String>) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            if let Err(error) = task.await {
                self.shared.failed(error.to_string());
            }
        }
        let failures = std::mem::take(&mut *lock(&self.shared.failures));
        (self.shared.requests.load(Ordering::Relaxed), failures)
    }
}

impl Shared {
    fn failed(&self, why: String) {
        lock(&self.failures).push(why);
    }
}

async fn keep_on(mut line: Line, shared: Arc<Shared>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut count = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        pace.tick().await;
        count += 1;
        let path = if count.is_multiple_of(SLOW) {
            loopback::SLOW
        } else {
            loopback::PATH
        };
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = line.send(path).await {
            line.client = None;
            shared.failed(format!("{:?}, {path}: {error:?}", line.protocol));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
