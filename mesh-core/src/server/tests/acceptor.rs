//! The seam for TLS: a fake acceptor behind the TLS inspector and the filter chain match.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::support::*;
use crate::{
    model::{
        FilterChain, HttpConnectionManager, ListenerFilter, Name, TlsContext, TransportSocket,
    },
    server::*,
    snapshot::Clusters,
    transport::{
        AcceptError, Acceptor, Handshake, Io, Prefixed, Security, Stream, TcpConnector, Terminated,
        detect::tests::{self as detect, records},
    },
};

/// What a client "encrypts" with, byte by byte.
const KEY: u8 = 0x20;

/// Takes a hello, answers with one byte, then hides each byte. The identity is the name of the chain; `anonymous` has none.
#[derive(Clone)]
struct FakeTls {
    hello: usize,
}

enum FakeIo {
    Plain(Stream),
    Hidden(Prefixed<Stream>, Name),
}

impl Acceptor for FakeTls {
    type Io = FakeIo;
    type Future = Pin<Box<dyn Future<Output = Result<Terminated<FakeIo>, AcceptError>> + Send>>;

    fn refuses(&self, transport: &TransportSocket) -> Option<Name> {
        let known = matches!(
            transport,
            TransportSocket::Tls(_) | TransportSocket::RawBuffer
        );
        (!known).then(|| "unknown transport".into())
    }

    fn plain(&self, io: Prefixed<Stream>) -> Prefixed<FakeIo> {
        io.map(FakeIo::Plain)
    }

    fn accept(&self, mut io: Prefixed<Stream>, on: &Handshake<'_>) -> Self::Future {
        let mut security = Security {
            peer_identity: (&*on.chain.name != "anonymous")
                .then(|| format!("spiffe://td/{}", on.chain.name).into()),
            ..on.conn.security.clone()
        };
        let len = self.hello;
        Box::pin(async move {
            let mut hello = vec![0; len];
            io.read_exact(&mut hello).await?;
            if security.server_name.as_deref() == Some("liar") {
                return Err(AcceptError::Handshake("certificate unknown".into()));
            }
            io.write_all(b"!").await?;
            // The client's first wish is fulfilled.
            security.application_protocols.truncate(1);
            let alpn = security.application_protocols.first().cloned();
            Ok(Terminated::new(
                FakeIo::Hidden(io, alpn.unwrap_or_default()),
                security,
            ))
        })
    }
}

impl Io for FakeIo {
    fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Hidden(_, alpn) if !alpn.is_empty() => Some(alpn.as_bytes()),
            _ => None,
        }
    }
}

impl AsyncRead for FakeIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Hidden(io, _) => {
                let before = buf.filled().len();
                std::task::ready!(Pin::new(io).poll_read(cx, buf))?;
                buf.filled_mut()[before..]
                    .iter_mut()
                    .for_each(|byte| *byte ^= KEY);
                std::task::Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for FakeIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Hidden(io, _) => Pin::new(io).poll_write(cx, &hidden(bytes)),
        }
    }

    fn poll_flush(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Hidden(io, _) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Hidden(io, _) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// The first record of a TLS client.
fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
    records(&detect::hello(name, protocols), 1000)
}

fn hidden(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ KEY).collect()
}

/// Answers with what is known of the connection.
#[derive(Clone)]
struct Telling(FakeTls);

impl Factory for Telling {
    type Body = http_body_util::Full<bytes::Bytes>;
    type Service = tower::util::BoxCloneService<
        ::http::Request<hyper::body::Incoming>,
        ::http::Response<Self::Body>,
        std::convert::Infallible,
    >;
    type Connector = TcpConnector;
    type Acceptor = FakeTls;

    fn http(&self, accepted: &Accepted) -> Self::Service {
        let (chain, conn) = (accepted.filter_chain().name.clone(), accepted.conn.clone());
        tower::util::BoxCloneService::new(tower::service_fn(
            move |request: ::http::Request<hyper::body::Incoming>| {
                let Security {
                    tls,
                    server_name,
                    application_protocols,
                    peer_identity,
                    ..
                } = &conn.security;
                let text = format!(
                    "{:?} {chain} {tls} {server_name:?} {application_protocols:?} {peer_identity:?};",
                    request.version()
                );
                std::future::ready(Ok(::http::Response::new(text.into())))
            },
        ))
    }

    fn tcp(&self, _accepted: &Accepted) -> Option<(Clusters, TcpConnector)> {
        None
    }

    fn acceptor(&self) -> &FakeTls {
        &self.0
    }
}

fn chain(name: &str, tls: bool) -> FilterChain {
    let manager = HttpConnectionManager {
        stat_prefix: "test".into(),
        ..HttpConnectionManager::default()
    };
    let mut chain = http_chain(manager);
    chain.name = name.into();
    chain.matches.transport_protocol = if tls { "tls" } else { "raw_buffer" }.into();
    if tls {
        chain.transport = TransportSocket::Tls(Box::default());
        chain.matches.server_names = vec![name.into()];
    }
    chain
}

fn start(hello: &[u8], limit: Option<Duration>) -> Running {
    let mut chains = vec![
        chain("plain", false),
        chain("a.test", true),
        chain("liar", true),
    ];
    let mut demanding = [chain("b.test", true), chain("anonymous", true)];
    for chain in &mut demanding {
        chain.transport = TransportSocket::Tls(Box::new(TlsContext {
            require_client_certificate: true,
            ..TlsContext::default()
        }));
    }
    chains.extend(demanding);
    for chain in &mut chains {
        chain.transport_connect_timeout = limit;
    }
    let mut config = listener(chains);
    config.listener_filters = vec![ListenerFilter::TlsInspector];
    let factory = Telling(FakeTls { hello: hello.len() });
    Running::with(config, Default::default(), factory)
}

#[tokio::test]
async fn the_hello_chooses_the_chain_and_the_handshake_tells_who_the_peer_is() {
    let hello = hello("b.test", &["http/1.1", "h2"]);
    let server = start(&hello, None);
    let mut client = server.connect().await;
    client.send(&hello).await;
    client.until("!").await;
    client
        .send(&hidden(
            b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        ))
        .await;
    let mut bytes = Vec::new();
    client.0.read_to_end(&mut bytes).await.expect("an answer");
    let answer = String::from_utf8(hidden(&bytes)).expect("text");
    let told = r#"HTTP/1.1 b.test true Some("b.test") ["http/1.1"] Some("spiffe://td/b.test");"#;
    assert!(answer.ends_with(told), "{answer}");
    // A plain connection of the same listener passes by the handshake.
    let answer = server
        .exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        answer.ends_with("HTTP/1.1 plain false None [] None;"),
        "{answer}"
    );
    assert_eq!(server.unserved(), []);
}

#[tokio::test]
async fn the_protocol_that_was_agreed_on_decides_the_codec() {
    let hello = hello("a.test", &["h2"]);
    let server = start(&hello, None);
    let mut client = server.connect().await;
    client.send(&hello).await;
    client.until("!").await;
    // An HTTP/2 server speaks first, before any byte that could be sniffed.
    let mut head = [0; 9];
    assert!(client.read(&mut head).await);
    assert_eq!(head[3] ^ KEY, 4, "SETTINGS");
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_cx_http2_total"), 1);
}

#[tokio::test]
async fn a_handshake_that_fails_or_never_ends_is_reported_and_served_nothing() {
    let bad = hello("liar", &[]);
    let server = start(&bad, None);
    assert_eq!(server.exchange(&bad).await, "");
    server.idle().await;
    assert_eq!(
        server.unserved(),
        [Unserved::Handshake("certificate unknown".into())]
    );
    let stat = "listener.127.0.0.1_0.downstream_cx_handshake_failed";
    assert_eq!(server.stat(stat), 1);

    let good = hello("a.test", &[]);
    let mut longer = good.clone();
    longer.push(0);
    // The acceptor waits for one byte more than the client sends.
    let server = start(&longer, Some(Duration::from_millis(50)));
    assert_eq!(server.exchange(&good).await, "");
    server.idle().await;
    assert_eq!(
        server.unserved(),
        [Unserved::Handshake("no handshake within 50ms".into())]
    );
}

#[tokio::test]
async fn a_certificate_that_is_demanded_is_not_left_to_the_acceptor() {
    let hello = hello("anonymous", &[]);
    let server = start(&hello, None);
    assert_eq!(server.exchange(&hello).await, "!");
    server.idle().await;
    assert_eq!(
        server.unserved(),
        [Unserved::Handshake(
            "no client certificate was verified".into()
        )]
    );
    let stat = "listener.127.0.0.1_0.downstream_cx_handshake_failed";
    assert_eq!(server.stat(stat), 1);
}

#[tokio::test]
async fn an_abort_ends_a_handshake() {
    let mut longer = hello("a.test", &[]);
    let sent = longer.clone();
    longer.push(0);
    let server = start(&longer, None);
    let mut client = server.connect().await;
    client.send(&sent).await;
    server
        .until("listener.127.0.0.1_0.downstream_cx_active", 1)
        .await;
    server.handle.abort();
    assert_eq!(client.rest().await, "");
    server.idle().await;
}
