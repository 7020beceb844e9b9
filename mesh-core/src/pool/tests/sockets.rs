use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::{
    Kind,
    model::{ProxyProtocolVersion, TlsContext, TransportSocket},
    telemetry::{context::RecordContext, record::Record},
    transport::{ConnInfo, TcpConnector},
};

fn get() -> Request<Body> {
    Request::get("/")
        .header("host", "h")
        .body(Body::default())
        .expect("a request")
}

async fn call(
    cluster: &Arc<Cluster>,
    downstream: Option<Arc<ConnInfo>>,
) -> Result<Response<PoolBody>, Error> {
    let pool = Pool::new(TcpConnector);
    let mut outgoing = outgoing(cluster, get());
    outgoing.downstream = downstream;
    let mut service = pool.service();
    service.call(outgoing).await
}

/// Answers one request, and says what came.
async fn answer(mut io: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(io.read_u8().await.expect("a byte"));
    }
    io.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .expect("written");
    String::from_utf8(seen).expect("text")
}

#[tokio::test]
async fn tcp_is_reached_by_address_and_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    for address in [
        Address::Socket(addr),
        Address::Host("localhost".into(), addr.port()),
    ] {
        let cluster = cluster(address, |_| {});
        let server = async { answer(listener.accept().await.expect("accepted").0).await };
        let (_, response) = tokio::join!(server, call(&cluster, None));
        assert_eq!(response.expect("a response").status(), 204);
    }
}

#[tokio::test]
async fn who_asks_is_told_which_connection_carries_a_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    let cluster = cluster(Address::Socket(addr), |_| {});
    let record = Record::begin(None, http::Version::HTTP_11, false);
    let mut outgoing = outgoing(&cluster, get());
    outgoing.record = Some(record.clone());
    let pool = Pool::new(TcpConnector);
    let mut service = pool.service();
    let server = async {
        let (socket, peer) = listener.accept().await.expect("accepted");
        answer(socket).await;
        peer
    };
    let (peer, response) = tokio::join!(server, service.call(outgoing));
    response.expect("a response");
    let late = record.late();
    let context = RecordContext::new(&record, &late);
    let mut line = Vec::new();
    let text = "%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT% %UPSTREAM_PROTOCOL%";
    let format = crate::route::format::Formatter::parse(text).expect("it parses");
    format.write(&context, b"-", &mut line);
    let wanted = format!("{peer} {} HTTP/1.1", peer.port());
    assert_eq!(String::from_utf8_lossy(&line), wanted);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unix_sockets_are_reached_by_path_and_by_abstract_name() {
    let name = format!("@mesh-core-pool-{}", std::process::id());
    let path = std::env::temp_dir().join(&name[1..]);
    let by_path = UnixListener::bind(&path).expect("bound");
    let by_name = UnixListener::bind(format!("\0{}", &name[1..])).expect("bound");
    for (listener, path) in [(by_path, path.clone()), (by_name, name.into())] {
        let cluster = cluster(Address::Pipe(path), |_| {});
        let server = async { answer(listener.accept().await.expect("accepted").0).await };
        let (_, response) = tokio::join!(server, call(&cluster, None));
        assert_eq!(response.expect("a response").status(), 204);
    }
    std::fs::remove_file(path).expect("removed");
}

#[tokio::test]
async fn a_proxy_header_names_the_downstream_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let cluster = cluster(
        Address::Socket(listener.local_addr().expect("an address")),
        |config| {
            config.transport = TransportSocket::ProxyProtocol(
                ProxyProtocolVersion::V1,
                Box::new(TransportSocket::RawBuffer),
            );
        },
    );
    let socket = |text: &str| Address::Socket(text.parse().expect("an address"));
    let downstream = Arc::new(ConnInfo::new(
        socket("10.0.0.2:80"),
        socket("10.0.0.1:5000"),
    ));
    let server = async { answer(listener.accept().await.expect("accepted").0).await };
    let (seen, response) = tokio::join!(server, call(&cluster, Some(downstream)));
    response.expect("a response");
    assert!(
        seen.starts_with("PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nGET / HTTP/1.1\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_cluster_that_needs_tls_is_refused_by_name_and_nothing_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let cluster = cluster(
        Address::Socket(listener.local_addr().expect("an address")),
        |config| {
            config.transport = TransportSocket::Tls(Box::<TlsContext>::default());
        },
    );
    let error = call(&cluster, None).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::FailClosed);
    assert!(error.to_string().contains("cluster c needs TLS"), "{error}");
    let accepted =
        std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_ready()))
            .await;
    assert!(!accepted, "not even a connection");
}
