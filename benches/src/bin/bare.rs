//! The floor that meshd is measured against: hyper's server and client connections with pooling, on one current-thread
//! runtime, and none of our layers.
//!
//! Usage: `bare [--http2] LISTEN_PORT UPSTREAM_PORT`, both on 127.0.0.1.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn Error>;
/// Upstream HTTP/2 connections; streams take turns on them.
const H2_CONNECTIONS: usize = 1;

fn main() -> Result<(), Failure> {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let http2 = arguments.first().is_some_and(|first| first == "--http2");
    if http2 {
        arguments.remove(0);
    }
    let [listen, upstream] = arguments.as_slice() else {
        return Err("usage: bare [--http2] LISTEN_PORT UPSTREAM_PORT".into());
    };
    let listen = SocketAddr::from(([127, 0, 0, 1], listen.parse()?));
    let upstream = SocketAddr::from(([127, 0, 0, 1], upstream.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let mut end = signal(SignalKind::terminate())?;
        let serve = async {
            if http2 {
                serve_http2(listen, upstream).await
            } else {
                serve_http1(listen, upstream).await
            }
        };
        tokio::select! {
            ended = serve => ended,
            // An orderly end, at which a program under training writes its profile.
            _ = end.recv() => Ok(()),
        }
    })
}

async fn serve_http1(listen: SocketAddr, upstream: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    let pool = Pool1 {
        idle: Rc::default(),
        upstream,
    };
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let pool = pool.clone();
        let service = service_fn(move |request| {
            let pool = pool.clone();
            async move {
                Ok::<_, Infallible>(
                    pool.call(request)
                        .await
                        .unwrap_or_else(|_| Answer::bad_gateway()),
                )
            }
        });
        spawn_local(async move {
            // A broken downstream connection ends this task; there is nobody to tell.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn serve_http2(listen: SocketAddr, upstream: SocketAddr) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await?;
    let pool = Pool2 {
        connections: Rc::default(),
        upstream,
    };
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let pool = pool.clone();
        let service = service_fn(move |request| {
            let pool = pool.clone();
            async move {
                Ok::<_, Infallible>(
                    pool.call(request)
                        .await
                        .unwrap_or_else(|_| Answer::bad_gateway()),
                )
            }
        });
        let mut builder = http2::Builder::new(Local);
        builder
            .max_concurrent_streams(1000)
            .timer(TokioTimer::new());
        spawn_local(async move {
            // As above.
            let _ = builder
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

/// Starts futures on the thread that runs us.
#[derive(Clone, Copy)]
struct Local;

impl<F> hyper::rt::Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

/// Idle HTTP/1 connections to the one upstream, the most recent one first.
#[derive(Clone)]
struct Pool1 {
    idle: Rc<RefCell<Vec<client1::SendRequest<Incoming>>>>,
    upstream: SocketAddr,
}

impl Pool1 {
    async fn call(&self, mut request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        let mut sender = self.checkout().await?;
        origin_form(&mut request)?;
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| Answer::Pooled {
            body,
            sender: Some(sender),
            pool: self.clone(),
        }))
    }

    async fn checkout(&self) -> Result<client1::SendRequest<Incoming>, Failure> {
        loop {
            let Some(mut sender) = self.idle.borrow_mut().pop() else {
                break;
            };
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let socket = TcpStream::connect(self.upstream).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = client1::handshake(TokioIo::new(socket)).await?;
        spawn_local(connection);
        Ok(sender)
    }
}

/// The body of a response.
enum Answer {
    /// From HTTP/1: gives its connection back at its end.
    Pooled {
        body: Incoming,
        sender: Option<client1::SendRequest<Incoming>>,
        pool: Pool1,
    },
    /// From HTTP/2.
    Plain(Incoming),
    /// None, for an error.
    Nothing,
}

impl Answer {
    fn bad_gateway() -> Response<Self> {
        let mut response = Response::new(Self::Nothing);
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Pooled { body, .. } | Self::Plain(body) => Pin::new(body).poll_frame(cx),
            Self::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pooled { body, .. } | Self::Plain(body) => body.is_end_stream(),
            Self::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pooled { body, .. } | Self::Plain(body) => body.size_hint(),
            Self::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Self::Pooled { body, sender, pool } = self
            && body.is_end_stream()
            && let Some(sender) = sender.take()
        {
            pool.idle.borrow_mut().push(sender);
        }
    }
}

/// HTTP/2 connections to the one upstream, used in turn.
#[derive(Clone)]
struct Pool2 {
    connections: Rc<RefCell<VecDeque<client2::SendRequest<Incoming>>>>,
    upstream: SocketAddr,
}

impl Pool2 {
    async fn call(&self, request: Request<Incoming>) -> Result<Response<Answer>, Failure> {
        let mut sender = self.checkout().await?;
        Ok(sender.send_request(request).await?.map(Answer::Plain))
    }

    async fn checkout(&self) -> Result<client2::SendRequest<Incoming>, Failure> {
        if let Some(sender) = self.next() {
            return Ok(sender);
        }
        let socket = TcpStream::connect(self.upstream).await?;
        socket.set_nodelay(true)?;
        let mut builder = client2::Builder::new(Local);
        let (sender, connection) = builder
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(socket))
            .await?;
        spawn_local(connection);
        self.connections.borrow_mut().push_back(sender.clone());
        Ok(sender)
    }

    /// The next open connection, once there are enough.
    fn next(&self) -> Option<client2::SendRequest<Incoming>> {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < H2_CONNECTIONS {
            return None;
        }
        let sender = connections
            .pop_front()
            .filter(|sender| !sender.is_closed())?;
        connections.push_back(sender.clone());
        Some(sender)
    }
}

/// HTTP/1 servers take a path; the authority travels in `host`.
fn origin_form(request: &mut Request<Incoming>) -> Result<(), Failure> {
    if request.uri().authority().is_some() {
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse::<Uri>()?;
    }
    Ok(())
}
