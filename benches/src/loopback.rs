//! Real HTTP over loopback: an app, a client, and between them the mesh or bare hyper, which has no timers either, so that
//! what it allocates is the least that hyper does.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::server::conn;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{
    body::RequestBody,
    pool::Pool,
    server::{self, BindOptions, ListenerHandle, ServerStats, Unobserved},
    snapshot::Mesh,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};
use mesh_xds::file::FileSource;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

/// What any of this may fail with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the app answers.
pub const ANSWER: &str = "hello";
/// A path that is answered at once, as any but [`SLOW`].
pub const PATH: &str = "/hello";
/// A path that is answered after a while.
pub const SLOW: &str = "/slow";
/// How long that takes.
const WHILE: Duration = Duration::from_millis(100);

/// Which protocol is spoken on all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A runtime on the thread of the caller.
///
/// # Errors
///
/// The system refuses what it needs.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// An app that answers every request with [`ANSWER`], on a thread of its own for as long as the program runs.
///
/// # Errors
///
/// Loopback has no port left.
pub fn app(protocol: Protocol) -> Result<SocketAddr, Failure> {
    let answer = |request: Request<Incoming>| async move {
        if request.uri().path() == SLOW {
            tokio::time::sleep(WHILE).await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(ANSWER)))
    };
    let runtime = runtime()?;
    let address = runtime.block_on(serve(protocol, service_fn(answer)))?;
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(address)
}

/// A loopback port that is ours until we end: nobody is given it who asks for any, and a program that is told of it may listen
/// there, beside a socket that does not.
///
/// # Errors
///
/// Loopback has no port left.
pub fn free_port() -> std::io::Result<u16> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    Ok(Box::leak(Box::new(socket)).local_addr()?.port())
}

/// Sends requests by one connection of hyper's, one after another. Returns the headers of the last answer.
///
/// # Errors
///
/// One was not answered as the app does.
pub async fn send(
    protocol: Protocol,
    address: SocketAddr,
    count: u32,
) -> Result<HeaderMap, Failure> {
    let client = Client::connect(protocol, address).await?;
    let uri = uri(protocol, address);
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let mut response = client.send(get(&uri)).await?;
        headers = std::mem::take(response.headers_mut());
        is_answer(response).await?;
    }
    Ok(headers)
}

/// What a client writes: HTTP/1 sends a path, HTTP/2 the authority too.
pub fn uri(protocol: Protocol, address: SocketAddr) -> Uri {
    let text = match protocol {
        Protocol::Http1 => PATH.to_owned(),
        Protocol::Http2 => format!("http://{address}{PATH}"),
    };
    text.parse().expect("an address and a path make a URI")
}

/// A proxy in front of `app` that is hyper's connections only: one of the server for each client, one of the client for all.
///
/// # Errors
///
/// The app cannot be reached, or loopback has no port left.
pub async fn bare_proxy(protocol: Protocol, app: SocketAddr) -> Result<SocketAddr, Failure> {
    let client = Client::connect(protocol, app).await?;
    let forward = move |request| {
        let client = client.clone();
        async move { client.send(request).await }
    };
    serve(protocol, service_fn(forward)).await
}

/// The mesh on an Envoy file with one cluster at `app` and these further lines in its one route.
///
/// # Errors
///
/// The file cannot be used.
pub fn mesh(protocol: Protocol, app: SocketAddr, route: &str) -> Result<Mesh, Failure> {
    let source = FileSource::parse("envoy.yaml", &envoy_file(protocol, app, route))?;
    let first = source.first().cloned().unwrap_or_default();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(first);
    Ok(mesh)
}

/// Opens the one listener of `mesh`, as `meshd` serves it.
///
/// # Errors
///
/// There is no such listener, or it cannot be bound.
pub fn mesh_proxy(mesh: &Mesh) -> Result<SocketAddr, Failure> {
    let pool: Pool<TcpConnector, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let clusters = mesh.clusters().clone();
    let proxy = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    let snapshot = mesh.snapshot();
    let listener = snapshot.listeners().get("in").ok_or("no listener")?;
    let config = listener.config();
    let socket = server::bind(&config.address, &BindOptions::from(&**config))?;
    let address = socket.address().socket().ok_or("not a TCP listener")?;
    let stats = Arc::new(ServerStats::default());
    let handle = ListenerHandle::new(listener.clone(), stats, Arc::new(Unobserved));
    tokio::spawn(server::serve(socket, handle, proxy, TokioExec));
    Ok(address)
}

fn envoy_file(protocol: Protocol, app: SocketAddr, route: &str) -> String {
    let (codec, options) = match protocol {
        Protocol::Http1 => ("HTTP1", "http_protocol_options: {}"),
        Protocol::Http2 => ("HTTP2", "http2_protocol_options: {}"),
    };
    include_str!("loopback.yaml")
        .replace("@CODEC@", codec)
        .replace("@OPTIONS@", options)
        .replace("@PORT@", &app.port().to_string())
        .replace("@ROUTE@", route)
}

/// Serves connections on a port of its own.
async fn serve<S>(protocol: Protocol, service: S) -> Result<SocketAddr, Failure>
where
    S: HttpService<Incoming, Error: Into<Failure>, Future: Send, ResBody: Send>
        + Clone
        + Send
        + 'static,
    S::ResBody: Body<Data: Send, Error: Into<Failure>> + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let io = TokioIo::new(socket);
            let service = service.clone();
            // A connection that breaks ends its task; the client sees it.
            tokio::spawn(async move {
                match protocol {
                    Protocol::Http1 => conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await
                        .is_ok(),
                    Protocol::Http2 => conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await
                        .is_ok(),
                }
            });
        }
    });
    Ok(address)
}

/// One client connection of hyper's.
#[derive(Debug)]
pub struct Client<B> {
    sender: Arc<Mutex<Sender<B>>>,
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
        }
    }
}

#[derive(Debug)]
enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

impl<B> Sender<B> {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Http1(sender) => sender.poll_ready(context),
            Self::Http2(sender) => sender.poll_ready(context),
        }
    }
}

impl<B> Client<B>
where
    B: Body<Data: Send, Error: Into<Failure>> + Send + Unpin + 'static,
{
    /// Connects to `address`.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub async fn connect(protocol: Protocol, address: SocketAddr) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let io = TokioIo::new(socket);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Self {
            sender: Arc::new(Mutex::new(sender)),
        })
    }

    /// Sends a request; those of HTTP/1 one after another.
    ///
    /// # Errors
    ///
    /// As hyper says.
    pub async fn send(&self, request: Request<B>) -> hyper::Result<Response<Incoming>> {
        poll_fn(|context| self.lock().poll_ready(context)).await?;
        enum Either<A, B> {
            A(A),
            B(B),
        }
        let response = match &mut *self.lock() {
            Sender::Http1(sender) => Either::A(sender.send_request(request)),
            Sender::Http2(sender) => Either::B(sender.send_request(request)),
        };
        match response {
            Either::A(response) => response.await,
            Either::B(response) => response.await,
        }
    }

    /// Whether the connection takes further requests.
    pub async fn is_open(&self) -> bool {
        poll_fn(|context| self.lock().poll_ready(context))
            .await
            .is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Sender<B>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A plain GET for `uri`.
pub fn get(uri: &Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri.clone();
    let host = http::HeaderValue::from_static("a.test");
    request.headers_mut().insert(http::header::HOST, host);
    request
}

/// Reads a response to its end.
///
/// # Errors
///
/// The body broke off, or the response is not the app's.
pub async fn is_answer<B>(response: Response<B>) -> Result<(), Failure>
where
    B: Body<Data = Bytes, Error: Into<Failure>> + Unpin,
{
    let status = response.status();
    let mut body = response.into_body();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        seen += frame.map_err(Into::into)?.data_ref().map_or(0, Bytes::len);
    }
    if status == StatusCode::OK && seen == ANSWER.len() {
        Ok(())
    } else {
        Err(format!("{status} with {seen} bytes is not the answer of the app").into())
    }
}
