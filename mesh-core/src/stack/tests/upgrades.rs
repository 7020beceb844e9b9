//! Upgrades through a listener, the whole stack and a pool, over real sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, ext::Protocol, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{cluster_config, forward};
use crate::{
    body::RequestBody,
    config::{Change, Update},
    model::{self, ConnectConfig, UpstreamProtocol},
    pool::Pool,
    server::tests::support::{Client, PATIENCE, Running, http_chain, listener},
    snapshot::Compiler,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};

/// What an upstream saw.
type Told = mpsc::UnboundedReceiver<String>;

async fn next(told: &mut Told) -> String {
    let told = timeout(PATIENCE, told.recv()).await;
    told.expect("the upstream sees something").expect("it runs")
}

/// Serves each connection with `serve`, which tells what it sees.
async fn upstream<F>(
    serve: impl Fn(TcpStream, mpsc::UnboundedSender<String>) -> F + Send + 'static,
) -> (SocketAddr, Told)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, tell.clone()));
        }
    });
    (address, told)
}

/// Echoes until the end, then says `last`.
async fn echo<I: AsyncRead + AsyncWrite + Unpin>(mut io: I, tell: mpsc::UnboundedSender<String>) {
    let mut buffer = [0; 1024];
    loop {
        match io.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => io.write_all(&buffer[..count]).await.expect("written"),
            Err(_) => {
                let _ = tell.send("gone".into());
                return;
            }
        }
    }
    let _ = tell.send("end".into());
    // The proxy may have closed both directions.
    let _ = io.write_all(b"last").await;
    let _ = io.shutdown().await;
}

/// Agrees to every upgrade, and echoes.
async fn agrees(socket: TcpStream, tell: mpsc::UnboundedSender<String>, http2: bool) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let protocol = request.extensions().get::<Protocol>();
            let protocol = protocol.map(|protocol| protocol.as_str().to_owned());
            let upgrade = request.headers().get("upgrade").cloned();
            let _ = tell.send(format!(
                "{} {} {protocol:?} {upgrade:?}",
                request.method(),
                request.uri()
            ));
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                if let Ok(upgraded) = upgraded.await {
                    echo(TokioIo::new(upgraded), tell).await;
                }
            });
            let mut response = Response::new(Full::<Bytes>::default());
            if let Some(upgrade) = upgrade {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert("connection", HeaderValue::from_static("upgrade"));
                headers.insert("upgrade", upgrade);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let io = TokioIo::new(socket);
    let served = if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .enable_connect_protocol()
            .serve_connection(io, service)
            .await
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(io, service).with_upgrades().await
    };
    // A connection that is cut is one of the cases.
    drop(served);
}

/// A route to `to` that allows `kind`.
fn allowing(
    to: &str,
    kind: &str,
    connect: Option<ConnectConfig>,
    change: impl FnOnce(&mut model::Forward),
) -> model::Route {
    let mut route = forward(to);
    if let model::Action::Forward(forward) = &mut route.action {
        forward.upgrades = vec![model::Upgrade {
            kind: kind.into(),
            enabled: true,
            connect,
        }];
        change(forward);
    }
    if kind == "connect" {
        route.matches.path = model::PathMatch::Connect;
    }
    route
}

/// A listener with this route, in front of the cluster `up` at `address`.
fn start(address: SocketAddr, http2: bool, route: model::Route) -> Running {
    let mut config = cluster_config("up", address);
    if http2 {
        config.protocol = UpstreamProtocol::Http2;
    }
    let mut compiler = Compiler::default();
    let (_, outcome) = compiler.apply(Update {
        changes: vec![Change::Cluster(Arc::new(config))],
        ..Update::default()
    });
    assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
    let mut manager = model::HttpConnectionManager {
        stat_prefix: "test".into(),
        routes: model::RouteSource::Inline(Arc::new(model::RouteConfiguration {
            virtual_hosts: vec![model::VirtualHost {
                name: "all".into(),
                domains: vec!["*".into()],
                routes: model::RouteRules::List(vec![route]),
                ..Default::default()
            }],
            ..Default::default()
        })),
        ..Default::default()
    };
    manager.http2.allow_connect = true;
    let pool: Pool<_, RequestBody<Incoming>> = Pool::new(TcpConnector);
    let clusters = compiler.directory().clone();
    let factory = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
    Running::with(listener(vec![http_chain(manager)]), compiler, factory)
}

/// Waits until nothing is in flight any more, on either side.
async fn settled(server: &Running) {
    let clusters = server.compiler.directory().clone();
    let up = clusters.get("up").expect("the cluster");
    let names = [
        "http.test.downstream_rq_active",
        "http.test.downstream_cx_upgrades_active",
    ];
    let quiet = async {
        while names.iter().any(|name| server.stat(name) > 0)
            || up.stats().upstream_rq_active.get() > 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, quiet).await.expect("everything ends");
    let ended = |by: &str| server.stat(&format!("http.test.downstream_cx_destroy{by}"));
    assert_eq!(ended(""), ended("_local") + ended("_remote"));
}

async fn http1_connect(server: &Running) -> (Client, String) {
    let mut client = server.connect().await;
    client
        .send(b"CONNECT target:80 HTTP/1.1\r\nhost: target:80\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await;
    (client, head)
}

/// The answer to CONNECT over HTTP/2, and its stream if it is 200.
async fn http2_connect(
    server: &Running,
    protocol: Option<&'static str>,
) -> (StatusCode, Option<TokioIo<Upgraded>>) {
    let addr = server.address.socket().expect("a TCP listener");
    let socket = TcpStream::connect(addr).await.expect("it listens");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let uri = protocol.map_or("target:80", |_| "http://target/chat");
    let mut request = Request::new(Full::<Bytes>::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = uri.parse().expect("a target");
    if let Some(protocol) = protocol {
        request
            .extensions_mut()
            .insert(Protocol::from_static(protocol));
    }
    let response = timeout(PATIENCE, sender.send_request(request)).await;
    let response = response.expect("an answer").expect("a response");
    let status = response.status();
    let stream = match status {
        StatusCode::OK => Some(TokioIo::new(
            hyper::upgrade::on(response).await.expect("a stream"),
        )),
        _ => None,
    };
    (status, stream)
}

async fn says<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, text: &[u8]) {
    io.write_all(text).await.expect("written");
    let mut heard = vec![0; text.len()];
    let read = timeout(PATIENCE, io.read_exact(&mut heard)).await;
    read.expect("an echo").expect("whole");
    assert_eq!(heard, text);
}

async fn rest<I: AsyncRead + Unpin>(io: &mut I) -> Vec<u8> {
    let mut heard = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, io.read_to_end(&mut heard))
        .await
        .expect("an end");
    heard
}

#[tokio::test]
async fn connect_over_http1_ends_here_and_counts() {
    let (address, mut told) = upstream(echo).await;
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |_| {});
    let server = start(address, false, route);
    let (mut client, head) = http1_connect(&server).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    says(&mut client.0, b"ping").await;
    for (name, value) in [
        ("upgrades_total", 1),
        ("upgrades_active", 1),
        ("http1_active", 0),
    ] {
        assert_eq!(
            server.stat(&format!("http.test.downstream_cx_{name}")),
            value,
            "{name}"
        );
    }
    assert_eq!(server.stat("http.test.downstream_rq_active"), 1);
    // A client that closes its side over HTTP/1.1 has left.
    client.0.shutdown().await.expect("shut");
    assert_eq!(next(&mut told).await, "end");
    assert_eq!(rest(&mut client.0).await, b"");
    settled(&server).await;
    server.idle().await;
}

#[tokio::test]
async fn connect_over_http2_ends_here_and_half_closes() {
    let (address, mut told) = upstream(echo).await;
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |_| {});
    let server = start(address, false, route);
    let (status, stream) = http2_connect(&server, None).await;
    assert_eq!(status, StatusCode::OK);
    let mut stream = stream.expect("a stream");
    says(&mut stream, b"ping").await;
    stream.shutdown().await.expect("ended");
    assert_eq!(next(&mut told).await, "end");
    assert_eq!(rest(&mut stream).await, b"last");
    settled(&server).await;
}

#[tokio::test]
async fn a_proxy_protocol_header_goes_first() {
    let (address, mut told) = upstream(echo).await;
    let config = ConnectConfig {
        proxy_protocol: Some(model::ProxyProtocolVersion::V1),
        ..ConnectConfig::default()
    };
    let server = start(
        address,
        false,
        allowing("up", "connect", Some(config), |_| {}),
    );
    let (mut client, _) = http1_connect(&server).await;
    let header = client.until("\r\n").await;
    let own = client.0.local_addr().expect("an address").port();
    let port = server.address.socket().expect("a TCP listener").port();
    assert_eq!(
        header,
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}\r\n")
    );
    drop(client);
    assert_eq!(next(&mut told).await, "end");
    settled(&server).await;
}

#[tokio::test]
async fn connect_to_a_closed_port_is_503_and_closes() {
    let (_held, address) = super::refusing();
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |_| {});
    let server = start(address, false, route);
    let (mut client, head) = http1_connect(&server).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert!(client.rest().await.ends_with("remote connection failure"));
    let (status, _) = http2_connect(&server, None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    settled(&server).await;
}

#[tokio::test]
async fn an_idle_tunnel_ends() {
    let (address, mut told) = upstream(echo).await;
    let idle = Some(Duration::from_millis(100));
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |forward| {
        forward.idle_timeout = idle;
    });
    let server = start(address, false, route);
    let (mut client, _) = http1_connect(&server).await;
    says(&mut client.0, b"ping").await;
    assert_eq!(rest(&mut client.0).await, b"");
    assert_eq!(next(&mut told).await, "end");
    settled(&server).await;
}

#[tokio::test]
async fn the_route_timeout_does_not_end_a_tunnel() {
    let short = |forward: &mut model::Forward| forward.timeout = Some(Duration::from_millis(500));
    let (address, _told) = upstream(echo).await;
    let route = allowing("up", "connect", Some(ConnectConfig::default()), short);
    let server = start(address, false, route);
    let (mut tunnel, _) = http1_connect(&server).await;
    let (address, _told) = upstream(|socket, tell| agrees(socket, tell, false)).await;
    let server = start(address, false, allowing("up", "websocket", None, short));
    let mut upgraded = server.connect().await;
    upgraded
        .send(b"GET /chat HTTP/1.1\r\nhost: target\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let head = upgraded.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // Time has to pass on real sockets: nothing tells that something did not happen.
    tokio::time::sleep(Duration::from_millis(700)).await;
    says(&mut tunnel.0, b"still here").await;
    says(&mut upgraded.0, b"still here").await;
}

#[tokio::test]
async fn post_ends_here_where_it_may() {
    let (address, mut told) = upstream(echo).await;
    let config = ConnectConfig {
        allow_post: true,
        ..ConnectConfig::default()
    };
    let mut route = allowing("up", "connect", Some(config), |_| {});
    route.matches.path = model::PathMatch::Prefix("/".into());
    let server = start(address, false, route);
    let mut client = server.connect().await;
    client
        .send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nping")
        .await;
    let answer = client.until("0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("ping") && answer.contains("last"),
        "{answer}"
    );
    assert_eq!(next(&mut told).await, "end");
    settled(&server).await;
}

#[tokio::test]
async fn an_upgrade_is_an_extended_connect_to_an_http2_upstream() {
    let (address, mut told) = upstream(|socket, tell| agrees(socket, tell, true)).await;
    let server = start(address, true, allowing("up", "websocket", None, |_| {}));
    let mut client = server.connect().await;
    client
        .send(b"GET /chat HTTP/1.1\r\nhost: target\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await;
    let head = client.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    let seen = next(&mut told).await;
    assert_eq!(seen, "CONNECT http://target/chat Some(\"websocket\") None");
    says(&mut client.0, b"ping").await;
    drop(client);
    settled(&server).await;
}

#[tokio::test]
async fn an_extended_connect_is_an_upgrade_to_an_http1_upstream() {
    let (address, mut told) = upstream(|socket, tell| agrees(socket, tell, false)).await;
    let server = start(address, false, allowing("up", "websocket", None, |_| {}));
    let (status, stream) = http2_connect(&server, Some("websocket")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(next(&mut told).await, "GET /chat None Some(\"websocket\")");
    let mut stream = stream.expect("a stream");
    says(&mut stream, b"ping").await;
    assert_eq!(server.stat("http.test.downstream_cx_upgrades_active"), 1);
    drop(stream);
    assert_eq!(next(&mut told).await, "end");
    settled(&server).await;
}

#[tokio::test]
async fn connect_goes_on_to_either_protocol() {
    for http2 in [false, true] {
        let (address, mut told) = upstream(move |socket, tell| agrees(socket, tell, http2)).await;
        let server = start(address, http2, allowing("up", "connect", None, |_| {}));
        let (mut client, head) = http1_connect(&server).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(next(&mut told).await, "CONNECT target:80 None None");
        says(&mut client.0, b"ping").await;
        drop(client);
        let (status, stream) = http2_connect(&server, None).await;
        assert_eq!(status, StatusCode::OK);
        let mut stream = stream.expect("a stream");
        says(&mut stream, b"ping").await;
        stream.shutdown().await.expect("ended");
        assert_eq!(rest(&mut stream).await, b"last");
        drop(stream);
        settled(&server).await;
    }
}

#[tokio::test]
async fn a_client_that_resets_its_stream_ends_the_tunnel() {
    let (address, mut told) = upstream(echo).await;
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |_| {});
    let server = start(address, false, route);
    let (_, stream) = http2_connect(&server, None).await;
    let mut stream = stream.expect("a stream");
    says(&mut stream, b"ping").await;
    // Neither half is ended, so the codec resets the stream.
    drop(stream);
    assert_eq!(next(&mut told).await, "end");
    settled(&server).await;
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_counted() {
    let (address, _told) = upstream(echo).await;
    let server = start(address, false, allowing("up", "other", None, |_| {}));
    let ask = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = server.exchange(ask).await;
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert_eq!(server.stat("http.test.downstream_rq_ws_on_non_ws_route"), 1);
    assert_eq!(server.stat("http.test.downstream_cx_upgrades_total"), 0);
    settled(&server).await;
}

#[tokio::test]
async fn a_tunnel_that_breaks_is_reset_over_http2_after_what_came() {
    let (address, _told) = upstream(|mut socket: TcpStream, _| async move {
        let mut said = [0; 4];
        socket.read_exact(&mut said).await.expect("read");
        socket.write_all(b"pong").await.expect("written");
        // What was read by nobody, or this, makes a reset of the end.
        socket.set_zero_linger().expect("set");
    })
    .await;
    let route = allowing("up", "connect", Some(ConnectConfig::default()), |_| {});
    let server = start(address, false, route);
    let addr = server.address.socket().expect("a TCP listener");
    let socket = TcpStream::connect(addr).await.expect("it listens");
    let (sender, connection) = h2::client::handshake(socket).await.expect("a connection");
    tokio::spawn(connection);
    let request = Request::connect("target:80").body(()).expect("a request");
    let mut sender = sender.ready().await.expect("ready");
    let (response, mut stream) = sender.send_request(request, false).expect("sent");
    let response = timeout(PATIENCE, response).await.expect("an answer");
    let mut body = response.expect("a response").into_body();
    stream
        .send_data(Bytes::from_static(b"ping"), false)
        .expect("sent");
    let mut heard = Vec::new();
    let end = loop {
        match timeout(PATIENCE, body.data()).await.expect("an end") {
            Some(Ok(data)) => heard.extend_from_slice(&data),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert_eq!(heard, b"pong");
    let end = end.expect("a reset, not an end");
    assert!(end.is_reset() && end.is_remote(), "{end}");
    settled(&server).await;
}
