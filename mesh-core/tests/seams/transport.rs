//! A connector around the plain socket, as one that speaks TLS is.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use mesh_core::{
    config::{Change, MemorySource, Update},
    model::{Cluster, ClusterLoadAssignment, Discovery, TransportSocket},
    snapshot::Mesh,
    transport::{ConnectError, Connector, Io, Stream, Target, open},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tower_service::Service;

use crate::everything_to;

/// Takes every transport, and says that this protocol was agreed on.
#[derive(Clone, Copy)]
struct Agreed(&'static str);

struct AgreedIo(Stream, &'static str);

impl Connector for Agreed {
    type Io = AgreedIo;
    type Future = Pin<Box<dyn Future<Output = Result<AgreedIo, ConnectError>> + Send>>;

    fn connect(&self, to: &Target) -> Self::Future {
        let (to, alpn) = (to.clone(), self.0);
        Box::pin(async move {
            assert!(matches!(to.transport(), TransportSocket::Tls(_)));
            Ok(AgreedIo(open(&to).await?, alpn))
        })
    }
}

impl Io for AgreedIo {
    fn alpn(&self) -> Option<&[u8]> {
        Some(self.1.as_bytes())
    }
}

impl AsyncRead for AgreedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buf)
    }
}

impl AsyncWrite for AgreedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Answers each connection's first request.
async fn server() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    address
}

/// Status and body of a call through a cluster that speaks HTTP/1 over TLS.
async fn call(connector: Agreed) -> (u16, Bytes) {
    let mut cluster = Cluster::new("c", Discovery::Static);
    cluster.load_assignment = ClusterLoadAssignment::of("c", [server().await]);
    cluster.transport = TransportSocket::Tls(Box::default());
    let (source, handle) = MemorySource::new();
    let (mesh, driver) = Mesh::builder().source(source).build();
    tokio::spawn(driver.run());
    handle.push(Update {
        changes: vec![
            Change::Cluster(Arc::new(cluster)),
            Change::Routes(Arc::new(everything_to("80", "c"))),
        ],
        ..Update::default()
    });
    mesh.ready(Duration::from_secs(5)).await.expect("ready");
    let request = http::Request::get("http://host/").body(Empty::<Bytes>::new());
    let Ok(response) = mesh.client(connector).call(request.expect("valid")).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body");
    (status, body.to_bytes())
}

#[tokio::test]
async fn a_connector_of_ones_own_carries_what_the_plain_one_refuses() {
    assert_eq!(call(Agreed("http/1.1")).await, (200, "ok".into()));
}

#[tokio::test]
async fn a_peer_that_agreed_on_another_protocol_is_sent_nothing() {
    let (status, body) = call(Agreed("h2")).await;
    assert_eq!(status, 503);
    assert!(body.starts_with(b"upstream connect error"), "{body:?}");
}
