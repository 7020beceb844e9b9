//! A listener with a service that echoes, and what is seen of it.

use std::{
    convert::Infallible,
    future::Ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tower::util::ServiceFn;

use crate::{
    config::{Change, Update},
    model::{self, Address, FilterChain, HttpConnectionManager, Network},
    server::*,
    snapshot::{self, Compiler},
    tcp::TcpEnd,
    transport::{Exec, TokioExec},
};

/// What no test may wait longer for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What an observer was told.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) unserved: Mutex<Vec<Unserved>>,
    pub(crate) rejected: Mutex<Vec<Rejected>>,
    pub(crate) tcp: Mutex<Vec<TcpEnd>>,
}

impl ConnObserver for Seen {
    fn unserved(&self, _event: &ConnEvent<'_>, reason: &Unserved) {
        self.unserved.lock().expect("no panic").push(reason.clone());
    }

    fn rejected(&self, _event: &ConnEvent<'_>, rejected: &Rejected) {
        self.rejected
            .lock()
            .expect("no panic")
            .push(rejected.clone());
    }

    fn tcp(&self, _event: &ConnEvent<'_>, end: &TcpEnd) {
        self.tcp.lock().expect("no panic").push(end.clone());
    }
}

pub(crate) type Echo =
    ServiceFn<fn(Request<Incoming>) -> Ready<Result<Response<Full<Bytes>>, Infallible>>>;

/// Answers with method, path and body length hint, and ignores the body.
fn echo(request: Request<Incoming>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let text = format!("{} {}", request.method(), request.uri());
    std::future::ready(Ok(Response::new(Full::from(text))))
}

pub(crate) fn echoes() -> fn(&Accepted) -> Echo {
    |_| tower::service_fn(echo as fn(_) -> _)
}

/// A listener that runs.
pub(crate) struct Running {
    pub(crate) handle: ListenerHandle,
    pub(crate) stats: Arc<ServerStats>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) address: Address,
    pub(crate) compiler: Compiler,
    pub(crate) accepting: JoinHandle<std::io::Result<()>>,
}

/// A chain that serves HTTP.
pub(crate) fn http_chain(manager: HttpConnectionManager) -> FilterChain {
    chain(Network::Http(Box::new(manager)))
}

pub(crate) fn chain(network: Network) -> FilterChain {
    FilterChain {
        name: "chain".into(),
        matches: Default::default(),
        transport: Default::default(),
        transport_connect_timeout: None,
        network,
        refuse: None,
    }
}

pub(crate) fn listener(chains: Vec<FilterChain>) -> model::Listener {
    let any = Address::Socket(([127, 0, 0, 1], 0).into());
    model::Listener {
        filter_chains: chains,
        ..model::Listener::new("test", any)
    }
}

pub(crate) fn compile(compiler: &mut Compiler, config: model::Listener) -> Arc<snapshot::Listener> {
    let name = config.name.clone();
    let (snapshot, outcome) = compiler.apply(Update {
        changes: vec![Change::Listener(Arc::new(config))],
        ..Update::default()
    });
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    snapshot.listeners()[&name].clone()
}

impl Running {
    pub(crate) fn http(manager: HttpConnectionManager) -> Self {
        Self::start(listener(vec![http_chain(manager)]))
    }

    pub(crate) fn start(config: model::Listener) -> Self {
        Self::with(config, Compiler::default(), echoes())
    }

    pub(crate) fn with<F>(config: model::Listener, mut compiler: Compiler, factory: F) -> Self
    where
        F: Factory + Unpin + Send + 'static,
        TokioExec: StreamExec<F> + Exec<ConnTask<F, TokioExec>>,
    {
        let socket = bind(&config.address, &BindOptions::from(&config)).expect("a free port");
        let (stats, seen) = (Arc::<ServerStats>::default(), Arc::<Seen>::default());
        let current = compile(&mut compiler, config);
        let handle = ListenerHandle::new(current, stats.clone(), seen.clone());
        let address = socket.address().clone();
        let serving = serve(socket, handle.clone(), factory, TokioExec);
        Self {
            accepting: tokio::spawn(serving),
            handle,
            stats,
            seen,
            address,
            compiler,
        }
    }

    pub(crate) fn replace(&mut self, config: model::Listener) {
        let next = compile(&mut self.compiler, config);
        self.handle.replace(next);
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(&self.address).await
    }

    /// Sends bytes and reads until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    pub(crate) fn rejected(&self) -> Vec<Rejected> {
        self.seen.rejected.lock().expect("no panic").clone()
    }

    pub(crate) fn unserved(&self) -> Vec<Unserved> {
        self.seen.unserved.lock().expect("no panic").clone()
    }

    /// Waits until a statistic has reached `value`.
    pub(crate) async fn until(&self, name: &str, value: u64) {
        let reached = async {
            while self.stat(name) < value {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.expect("it is reached");
    }

    /// A statistic under its full name.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let mut found = None;
        self.stats.each(|known, value| {
            if known == name {
                found = Some(value);
            }
        });
        found.unwrap_or_else(|| panic!("no statistic {name}"))
    }

    /// Waits until all connections are gone.
    pub(crate) async fn idle(&self) {
        timeout(PATIENCE, self.handle.idle())
            .await
            .expect("connections end");
    }
}

/// A client that writes and reads bytes.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) async fn connect(address: &Address) -> Self {
        let addr = address.socket().expect("a TCP listener");
        Self(TcpStream::connect(addr).await.expect("it listens"))
    }

    pub(crate) async fn get(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        self.send(head.as_bytes()).await;
    }

    /// Fills `bytes`; whether so many came before the end.
    pub(crate) async fn read(&mut self, bytes: &mut [u8]) -> bool {
        let read = timeout(PATIENCE, self.0.read_exact(bytes)).await;
        read.expect("bytes come, or the end").is_ok()
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already, which is what some tests want to see.
        let _ = self.0.write_all(bytes).await;
    }

    /// Reads to the end of the connection, whether it is closed or reset.
    pub(crate) async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut bytes))
            .await
            .expect("the server closes");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads until `end` has come.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let count = timeout(PATIENCE, self.0.read(&mut byte))
                .await
                .expect("bytes come")
                .expect("no error");
            assert!(
                count > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&bytes)
            );
            bytes.push(byte[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
