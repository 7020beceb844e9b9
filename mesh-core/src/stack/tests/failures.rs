//! Upstreams that fail and clients that leave, through a listener, the whole stack and a pool, over real sockets. The whole
//! table, with Envoy's answers beside ours, is in `docs/UPSTREAM_FAILURES.md`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{cluster_config, forward};
use crate::{
    body::RequestBody,
    config::{Change, Update},
    model,
    pool::Pool,
    server::tests::support::{PATIENCE, Running, http_chain, listener},
    snapshot::Compiler,
    stack::Proxy,
    transport::{TcpConnector, TokioExec},
};

/// What an upstream does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Reads the head, sends this, and waits for the end.
    Say(&'static str),
    /// Reads the head, sends this, and closes.
    Close(&'static str),
}

/// An upstream that tells when its peer is gone.
async fn upstream(does: Does) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match socket.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let (Does::Say(text) | Does::Close(text)) = does;
                socket.write_all(text.as_bytes()).await.expect("written");
                if let Does::Say(_) = does {
                    let mut rest = [0; 4096];
                    while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
                    let _ = tell.send(());
                }
            });
        }
    });
    (address, told)
}

/// A listener in front of one upstream, and its access log.
struct Mesh {
    server: Running,
    log: PathBuf,
}

impl Mesh {
    fn start(address: SocketAddr, change: impl FnOnce(&mut model::Forward)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "mesh-failures-{}-{}.log",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let log = std::env::temp_dir().join(name);
        let mut compiler = Compiler::default();
        let (_, outcome) = compiler.apply(Update {
            changes: vec![Change::Cluster(Arc::new(cluster_config("up", address)))],
            ..Update::default()
        });
        assert!(outcome.rejections.is_empty(), "{:?}", outcome.rejections);
        let mut route = forward("up");
        if let model::Action::Forward(forward) = &mut route.action {
            change(forward);
        }
        let format = model::Format {
            text: "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n".into(),
        };
        let manager = model::HttpConnectionManager {
            stat_prefix: "test".into(),
            access_log: vec![model::AccessLog {
                sink: model::LogSink::File(log.clone()),
                format: Some(model::FormatKind::Text(format)),
                filter: None,
                omit_empty: false,
            }],
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
        let pool: Pool<_, RequestBody<Incoming>> = Pool::new(TcpConnector);
        let clusters = compiler.directory().clone();
        let factory = Proxy::new(pool.service(), TcpConnector, clusters, TokioExec);
        let server = Running::with(listener(vec![http_chain(manager)]), compiler, factory);
        Self { server, log }
    }

    /// The one log line, once nothing is in flight any more.
    async fn line(&self) -> String {
        let clusters = self.server.compiler.directory().clone();
        let up = clusters.get("up").expect("the cluster");
        let ended = async {
            loop {
                let active = self.server.stat("http.test.downstream_rq_active")
                    + up.stats().upstream_rq_active.get();
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                if active == 0 && text.ends_with('\n') {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let text = timeout(PATIENCE, ended)
            .await
            .expect("a line, and nothing in flight");
        assert_eq!(text.lines().count(), 1, "{text}");
        text.trim_end().to_owned()
    }

    async fn http2(&self) -> SendRequest<BoxBody<Bytes, std::io::Error>> {
        let addr = self.server.address.socket().expect("a TCP listener");
        let socket = TcpStream::connect(addr).await.expect("it listens");
        let io = TokioIo::new(socket);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = handshake.expect("a connection");
        tokio::spawn(connection);
        sender
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // It is not there if nothing was logged.
        let _ = std::fs::remove_file(&self.log);
    }
}

fn get() -> Request<BoxBody<Bytes, std::io::Error>> {
    let body = Empty::new().map_err(|never| match never {}).boxed();
    Request::get("http://a/").body(body).expect("a request")
}

/// A request whose body never ends.
fn endless() -> Request<BoxBody<Bytes, std::io::Error>> {
    let first = Ok(http_body::Frame::data(Bytes::from_static(b"part")));
    let stream = futures_stream(first);
    Request::post("http://a/")
        .body(BodyExt::boxed(StreamBody::new(stream)))
        .expect("a request")
}

type Part = Result<http_body::Frame<Bytes>, std::io::Error>;

/// One part, and then nothing for ever.
fn futures_stream(first: Part) -> impl futures_core::Stream<Item = Part> + Send + Sync {
    struct Stuck(Option<Part>);
    impl futures_core::Stream for Stuck {
        type Item = Part;

        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Part>> {
            match self.0.take() {
                Some(part) => std::task::Poll::Ready(Some(part)),
                None => std::task::Poll::Pending,
            }
        }
    }
    Stuck(Some(first))
}

async fn answer(
    sender: &mut SendRequest<BoxBody<Bytes, std::io::Error>>,
) -> hyper::Result<Response<Incoming>> {
    timeout(PATIENCE, sender.send_request(get()))
        .await
        .expect("an answer")
}

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
const CHUNK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What the upstream does; the status that the client sees, whether the body breaks off, and the line in the log.
const DEATHS: [(Does, u16, bool, &str); 8] = [
    (
        Does::Close(""),
        503,
        false,
        "503 UC upstream_reset_before_response_started{connection_termination}",
    ),
    (
        Does::Close("HTTP/1.1 200 OK\r\ncontent-"),
        502,
        false,
        "502 UPE upstream_reset_before_response_started{protocol_error}",
    ),
    (
        Does::Say("SSH-2.0\r\n\r\n"),
        502,
        false,
        "502 UPE upstream_reset_before_response_started{protocol_error}",
    ),
    (Does::Say(""), 504, false, "504 UT response_timeout"),
    (
        Does::Close(HALF),
        200,
        true,
        "200 UPE upstream_reset_after_response_started{protocol_error}",
    ),
    (
        Does::Close(CHUNK),
        200,
        true,
        "200 UPE upstream_reset_after_response_started{protocol_error}",
    ),
    (Does::Say(HALF), 200, true, "200 UT response_timeout"),
    (Does::Close(WHOLE), 200, false, "200 - via_upstream"),
];

#[tokio::test]
async fn an_upstream_that_dies_has_its_status_flag_and_line() {
    for (does, status, cut, line) in DEATHS {
        for http2 in [false, true] {
            let (address, _told) = upstream(does).await;
            let mesh = Mesh::start(address, |forward| {
                forward.timeout = Some(Duration::from_millis(300))
            });
            if http2 {
                let mut sender = mesh.http2().await;
                let response = answer(&mut sender).await.expect("a response");
                assert_eq!(response.status(), status, "{does:?}");
                assert_eq!(
                    response.into_body().collect().await.is_err(),
                    cut,
                    "{does:?}"
                );
                // The stream died, the connection lives.
                assert!(!sender.is_closed(), "{does:?}");
            } else {
                let mut client = mesh.server.connect().await;
                client.get("/").await;
                let head = client.until("\r\n\r\n").await;
                assert!(
                    head.starts_with(&format!("HTTP/1.1 {status} ")),
                    "{does:?}: {head}"
                );
                if cut {
                    let rest = client.rest().await;
                    assert!(
                        rest.contains("hello") && !rest.contains("0\r\n\r\n"),
                        "{does:?}: {rest}"
                    );
                }
            }
            assert_eq!(mesh.line().await, line, "{does:?} http2: {http2}");
        }
    }
}

#[tokio::test]
async fn a_refused_connection_is_named_in_the_details() {
    let (_held, address) = super::refusing();
    let mesh = Mesh::start(address, |_| {});
    let response = answer(&mut mesh.http2().await).await.expect("a response");
    assert_eq!(response.status(), 503);
    let reason = "remote_connection_failure|delayed_connect_error:_Connection_refused";
    assert_eq!(
        mesh.line().await,
        format!("503 UF upstream_reset_before_response_started{{{reason}}}")
    );
}

#[tokio::test]
async fn an_early_answer_ends_the_exchange_on_both_sides() {
    let (address, mut told) = upstream(Does::Say(WHOLE)).await;
    let mesh = Mesh::start(address, |_| {});
    let mut client = mesh.server.connect().await;
    client
        .send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\npart")
        .await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("connection: close\r\n") && answer.ends_with("hello"),
        "{answer}"
    );
    timeout(PATIENCE, told.recv())
        .await
        .expect("the upstream connection is closed");
    assert_eq!(mesh.line().await, "200 - via_upstream");

    let mesh = Mesh::start(address, |_| {});
    let mut sender = mesh.http2().await;
    let response = timeout(PATIENCE, sender.send_request(endless())).await;
    let response = response.expect("an answer").expect("a response");
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes(),
        "hello"
    );
    timeout(PATIENCE, told.recv())
        .await
        .expect("the upstream connection is closed");
    assert_eq!(mesh.line().await, "200 - via_upstream");
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_declared_breaks_the_protocol() {
    for declared in ["0", "3", "10"] {
        let (address, _told) = upstream(Does::Say("")).await;
        let mesh = Mesh::start(address, |_| {});
        let mut sender = mesh.http2().await;
        let first = Ok(http_body::Frame::data(Bytes::from_static(b"hello")));
        let body = if declared == "10" {
            http_body_util::Full::new(Bytes::from_static(b"hello"))
                .map_err(|never| match never {})
                .boxed()
        } else {
            BodyExt::boxed(StreamBody::new(futures_stream(first)))
        };
        let request = Request::post("http://a/").header("content-length", declared);
        let sent = sender.send_request(request.body(body).expect("a request"));
        let answer = timeout(PATIENCE, sent).await.expect("an answer");
        assert!(answer.is_err(), "the stream is reset");
        assert_eq!(mesh.line().await, "0 DPE http2.remote_reset", "{declared}");
        assert!(!sender.is_closed(), "the connection lives");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_exchange_along() {
    // Whether it reads, and what the log says of HTTP/1.1 and of a stream of HTTP/2.
    for (does, status) in [(Does::Say(""), 0), (Does::Say(HALF), 200)] {
        for sending in [false, true] {
            let (address, mut told) = upstream(does).await;
            let mesh = Mesh::start(address, |_| {});
            let mut client = mesh.server.connect().await;
            client
                .send(match sending {
                    true => b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\npart",
                    false => b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(),
                })
                .await;
            if status > 0 {
                client.until("hello").await;
            } else {
                mesh.server.until("http.test.downstream_rq_active", 1).await;
            }
            drop(client);
            timeout(PATIENCE, told.recv())
                .await
                .expect("the upstream connection is closed");
            let line = format!("{status} DC downstream_remote_disconnect");
            assert_eq!(mesh.line().await, line, "{does:?} sending: {sending}");

            if sending && status > 0 {
                // This client resets a stream only when it has nothing to send.
                continue;
            }
            let mesh = Mesh::start(address, |_| {});
            let mut sender = mesh.http2().await;
            let request = if sending { endless() } else { get() };
            let mut waiting = Box::pin(sender.send_request(request));
            let got = tokio::select! {
                response = &mut waiting => Some(response.expect("a response")),
                () = mesh.server.until("http.test.downstream_rq_active", 1), if status == 0 => None,
            };
            let mut body = got.map(Response::into_body);
            if let Some(body) = &mut body {
                body.frame().await.expect("a part").expect("of the body");
            }
            // Neither the answer nor its body is wanted any more: the stream is reset, the connection stays.
            drop((waiting, body));
            timeout(PATIENCE, told.recv())
                .await
                .expect("the upstream connection is closed");
            assert_eq!(
                mesh.line().await,
                format!("{status} DR http2.remote_reset"),
                "{does:?} sending: {sending}"
            );
            assert!(!sender.is_closed());
        }
    }
}
