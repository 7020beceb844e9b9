//! Proxied connections over real sockets.

mod logs;

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::TcpEnd;
use crate::{
    Kind,
    cluster::Cluster,
    config::{Change, Update},
    model::{
        self, Address, ClusterChoice, ClusterLoadAssignment, HealthStatus, LbEndpoint,
        ListenerFilter, LocalityEndpoints, Network, TcpProxy,
    },
    server::{Accepted, Factory, tests::support::*},
    snapshot::{Clusters, Compiler},
    transport::{PlainAcceptor, TcpConnector},
};

/// Serves TCP chains only.
#[derive(Clone)]
struct Tcp(Clusters);

impl Factory for Tcp {
    type Body = http_body_util::Full<bytes::Bytes>;
    type Service = Echo;
    type Connector = TcpConnector;
    type Acceptor = PlainAcceptor;

    fn http(&self, accepted: &Accepted) -> Echo {
        echoes()(accepted)
    }

    fn tcp(&self, _accepted: &Accepted) -> Option<(Clusters, TcpConnector)> {
        Some((self.0.clone(), TcpConnector))
    }

    fn acceptor(&self) -> &PlainAcceptor {
        &PlainAcceptor
    }
}

fn proxy() -> TcpProxy {
    TcpProxy {
        idle_timeout: None,
        ..TcpProxy::new("test", ClusterChoice::Name("upstream".into()))
    }
}

fn cluster(endpoints: &[Address], change: impl FnOnce(&mut model::Cluster)) -> Change {
    let mut cluster = model::Cluster::new("upstream", model::Discovery::Static);
    cluster.load_assignment = ClusterLoadAssignment {
        cluster: "upstream".into(),
        localities: vec![LocalityEndpoints {
            endpoints: endpoints
                .iter()
                .map(|address| LbEndpoint {
                    address: address.clone(),
                    hostname: "".into(),
                    weight: 1,
                    health: HealthStatus::Unknown,
                    metadata: Default::default(),
                })
                .collect(),
            ..Default::default()
        }],
        ..Default::default()
    };
    change(&mut cluster);
    Change::Cluster(Arc::new(cluster))
}

fn start(proxy: TcpProxy, cluster: Change) -> (Running, Arc<Cluster>) {
    start_with(proxy, cluster, Vec::new())
}

fn start_with(
    proxy: TcpProxy,
    cluster: Change,
    filters: Vec<ListenerFilter>,
) -> (Running, Arc<Cluster>) {
    let mut compiler = Compiler::default();
    compiler.apply(Update {
        changes: vec![cluster],
        ..Update::default()
    });
    let clusters = compiler.directory().clone();
    let handle = clusters.get("upstream").expect("it was added");
    let config = model::Listener {
        listener_filters: filters,
        ..listener(vec![chain(Network::Tcp(Box::new(proxy)))])
    };
    (Running::with(config, compiler, Tcp(clusters)), handle)
}

async fn upstream() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = Address::Socket(listener.local_addr().expect("bound"));
    (listener, address)
}

/// An address where nobody listens, nor can anybody: the port is held until the tests are over.
fn nobody() -> Address {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a free port");
    let address = socket.local_addr().expect("bound");
    std::mem::forget(socket);
    Address::Socket(address)
}

async fn ended(server: &Running) -> TcpEnd {
    let end = async {
        loop {
            if let Some(end) = server.seen.tcp.lock().expect("no panic").first() {
                return end.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, end).await.expect("the connection ends")
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_way_ends_by_itself() {
    let (listener, address) = upstream().await;
    let (server, cluster) = start(proxy(), cluster(&[address], |_| {}));
    let mut client = server.connect().await;
    client.send(b"question").await;
    client.0.shutdown().await.expect("half closed");
    let (mut socket, _) = listener.accept().await.expect("connected");
    let mut got = Vec::new();
    socket.read_to_end(&mut got).await.expect("read");
    assert_eq!(got, b"question");
    // The other way still goes, and more than fits into any buffer.
    let long = vec![b'x'; 8 << 20];
    let write = async {
        socket.write_all(&long).await.expect("written");
        drop(socket);
    };
    let ((), answer) = tokio::join!(write, client.rest());
    assert_eq!(answer.len(), long.len());
    server.idle().await;
    let end = ended(&server).await;
    assert!(end.flags.is_empty() && end.failure.is_none(), "{end:?}");
    assert_eq!(
        (end.upstream_sent, end.upstream_received),
        (8, long.len() as u64)
    );
    assert_eq!(server.stat("tcp.test.downstream_cx_rx_bytes_total"), 8);
    let stats = cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_total.get(),
            stats.upstream_cx_active.get(),
            stats.upstream_rq_total.get(),
            stats.upstream_cx_rx_bytes_total.get(),
        ),
        (1, 0, 1, long.len() as u64)
    );
    assert_eq!(
        cluster.limits(model::Priority::Default).1.connections.get(),
        0
    );
    assert_eq!(cluster.limits(model::Priority::Default).1.requests.get(), 0);
}

#[tokio::test]
async fn the_upstream_may_speak_first() {
    let (listener, address) = upstream().await;
    let (server, _) = start(proxy(), cluster(&[address], |_| {}));
    let mut client = server.connect().await;
    let (mut socket, _) = listener.accept().await.expect("connected");
    socket.write_all(b"220 ready\r\n").await.expect("written");
    client.until("220 ready\r\n").await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_ends_the_connection_with_its_flags() {
    let mut twice = proxy();
    twice.max_connect_attempts = 2;
    let (server, cluster) = start(twice, cluster(&[nobody()], |_| {}));
    assert_eq!(server.connect().await.rest().await, "");
    let end = ended(&server).await;
    assert_eq!(end.failure, Some(Kind::ConnectFailure));
    assert_eq!(end.flags.to_string(), "UF,URX");
    assert_eq!(end.attempts, 2);
    let stats = cluster.stats();
    let counted = [
        stats.upstream_cx_connect_fail.get(),
        stats.upstream_cx_total.get(),
        stats.upstream_cx_destroy_remote.get(),
        stats.upstream_cx_connect_attempts_exceeded.get(),
        stats.upstream_rq_total.get(),
    ];
    assert_eq!(counted, [2, 2, 2, 1, 0]);
}

/// A reset that arrives as an end would make a whole message of a part.
#[tokio::test]
async fn a_reset_of_either_side_is_one_for_the_other() {
    for upstream_resets in [true, false] {
        let (listener, address) = upstream().await;
        let (server, _) = start(proxy(), cluster(&[address], |_| {}));
        let mut client = server.connect().await;
        let (mut socket, _) = listener.accept().await.expect("connected");
        client.send(b"ping").await;
        let mut said = [0; 4];
        socket.read_exact(&mut said).await.expect("read");
        let (breaks, mut sees) = match upstream_resets {
            true => (socket, client.0),
            false => (client.0, socket),
        };
        breaks.set_zero_linger().expect("set");
        drop(breaks);
        let end = timeout(PATIENCE, sees.read(&mut said)).await;
        let error = end.expect("an end").expect_err("not an orderly one");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let flags = ended(&server).await.flags.to_string();
        assert_eq!(flags.contains("UR"), upstream_resets, "{flags}");
    }
}

#[tokio::test]
async fn another_attempt_may_find_another_endpoint() {
    let (listener, address) = upstream().await;
    let mut twice = proxy();
    twice.max_connect_attempts = 2;
    let (server, _) = start(twice, cluster(&[nobody(), address], |_| {}));
    for _ in 0..2 {
        let client = server.connect().await;
        timeout(PATIENCE, listener.accept())
            .await
            .expect("in time")
            .expect("connected");
        drop(client);
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let mut elsewhere = proxy();
    elsewhere.cluster = ClusterChoice::Name("unknown".into());
    let refused = |cluster: &mut model::Cluster| cluster.refuse = Some("needs mTLS".into());
    let full = |cluster: &mut model::Cluster| cluster.limits[0].max_connections = 0;
    let cases = [
        (elsewhere, cluster(&[], |_| {}), Kind::NoCluster, "NC"),
        (proxy(), cluster(&[], |_| {}), Kind::NoHealthyUpstream, "UH"),
        (
            proxy(),
            cluster(&[nobody()], refused),
            Kind::FailClosed,
            "UF",
        ),
        (proxy(), cluster(&[nobody()], full), Kind::Overflow, "UO"),
    ];
    for (proxy, cluster, kind, flags) in cases {
        let (server, _) = start(proxy, cluster);
        assert_eq!(server.connect().await.rest().await, "", "{kind:?}");
        let end = ended(&server).await;
        assert_eq!((end.failure, &*end.flags.to_string()), (Some(kind), flags));
    }
}

/// Connections that wait are limited, and the limit of requests is for requests.
#[tokio::test]
async fn limits_of_requests_and_of_those_that_wait() {
    let (listener, address) = upstream().await;
    let full = |cluster: &mut model::Cluster| cluster.limits[0].max_pending_requests = 0;
    let mut twice = proxy();
    twice.max_connect_attempts = 2;
    let (server, handle) = start(twice, cluster(std::slice::from_ref(&address), full));
    assert_eq!(server.connect().await.rest().await, "");
    let end = ended(&server).await;
    assert_eq!((&*end.flags.to_string(), end.attempts), ("URX", 2));
    let stats = handle.stats();
    assert_eq!(stats.upstream_rq_pending_overflow.get(), 2);
    assert_eq!(stats.upstream_cx_connect_attempts_exceeded.get(), 1);
    assert_eq!(stats.upstream_cx_total.get(), 0);
    let (_, state) = handle.limits(model::Priority::Default);
    let used = [&state.connections, &state.requests, &state.pending];
    assert_eq!(used.map(|counter| counter.get()), [0; 3]);

    let none = |cluster: &mut model::Cluster| cluster.limits[0].max_requests = 0;
    let (server, handle) = start(proxy(), cluster(&[address], none));
    let mut client = server.connect().await;
    let (mut socket, _) = listener.accept().await.expect("connected");
    socket.write_all(b"hello").await.expect("written");
    client.until("hello").await;
    let (_, state) = handle.limits(model::Priority::Default);
    assert_eq!((state.requests.get(), state.pending.get()), (1, 0));
}

#[tokio::test]
async fn idle_and_old_connections_are_closed() {
    let (listener, address) = upstream().await;
    let mut idle = proxy();
    idle.idle_timeout = Some(Duration::from_millis(50));
    let mut old = proxy();
    old.max_downstream_connection_duration = Some(Duration::from_millis(50));
    for (proxy, statistic, flag) in [
        // Envoy has no flag for idle connections.
        (idle, "tcp.test.idle_timeout", ""),
        (old, "tcp.test.max_downstream_connection_duration", "DT"),
    ] {
        let (server, _) = start(proxy, cluster(std::slice::from_ref(&address), |_| {}));
        let mut client = server.connect().await;
        let (_socket, _) = listener.accept().await.expect("connected");
        assert_eq!(client.rest().await, "");
        assert_eq!(server.stat(statistic), 1);
        let flags = ended(&server).await.flags;
        assert_eq!(flags.to_string().trim_matches('-'), flag);
    }
}

/// The idle time counts while the first attempt to connect is under way.
#[tokio::test]
async fn a_connection_is_idle_while_it_waits_for_its_upstream() {
    // Nobody accepts here, and the queue is full.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    full.bind(&any.into()).expect("bound");
    full.listen(0).expect("it listens");
    let addr = full.local_addr().expect("bound").as_socket().expect("IP");
    let _first = tokio::net::TcpStream::connect(addr).await.expect("queued");
    let mut idle = proxy();
    idle.idle_timeout = Some(Duration::from_millis(100));
    let patient = |cluster: &mut model::Cluster| cluster.connect_timeout = PATIENCE * 2;
    let (server, _) = start(idle, cluster(&[Address::Socket(addr)], patient));
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(server.stat("tcp.test.idle_timeout"), 1);
}

#[tokio::test]
async fn further_attempts_wait_for_a_part_of_a_time_that_doubles() {
    let mut patient = proxy();
    patient.max_connect_attempts = 3;
    patient.backoff = Some((Duration::from_secs(3600), Duration::from_secs(7200)));
    patient.max_downstream_connection_duration = Some(Duration::from_millis(200));
    let (server, cluster) = start(patient, cluster(&[nobody()], |_| {}));
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(
        ended(&server).await.attempts,
        1,
        "the next would come much later"
    );
    assert_eq!(
        cluster.stats().upstream_cx_connect_attempts_exceeded.get(),
        0
    );
    let mut quick = proxy();
    quick.max_connect_attempts = 3;
    quick.backoff = Some((Duration::from_millis(1), Duration::from_millis(2)));
    let (server, _) = start(quick, self::cluster(&[nobody()], |_| {}));
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(ended(&server).await.attempts, 3);
}

#[test]
fn weights_share_the_connections() {
    let arm = |name: &str, weight| model::WeightedCluster {
        name: name.into(),
        header: None,
        weight,
        headers: Default::default(),
        host_rewrite: None,
        metadata_match: Default::default(),
        filters: Vec::new(),
    };
    let choice = ClusterChoice::Weighted(model::WeightedClusters {
        arms: vec![arm("a", 1), arm("none", 0), arm("b", 3)],
        total: 4,
        runtime_key_prefix: "".into(),
        random_header: None,
        use_hash: false,
    });
    let names: Vec<_> = (0..5)
        .map(|random| super::upstream::cluster_name(&choice, random))
        .collect();
    let names: Vec<_> = names
        .into_iter()
        .map(|name| &**name.expect("one is chosen"))
        .collect();
    assert_eq!(names, ["a", "b", "b", "b", "a"]);
}

/// A listener that tells HTTP from other bytes by the first of them.
fn sniffing(tcp: TcpProxy) -> model::Listener {
    let manager = model::HttpConnectionManager {
        stat_prefix: "http".into(),
        ..Default::default()
    };
    let mut http = http_chain(manager);
    http.name = "http".into();
    http.matches.application_protocols = vec!["http/1.1".into(), "h2c".into()];
    let mut config = listener(vec![http, chain(Network::Tcp(Box::new(tcp)))]);
    config.listener_filters = vec![
        model::ListenerFilter::TlsInspector,
        model::ListenerFilter::HttpInspector,
    ];
    // Only what is said ends it.
    config.listener_filters_timeout = Duration::ZERO;
    config
}

fn serve_sniffing(endpoint: &Address) -> (Running, Arc<Cluster>) {
    let mut compiler = Compiler::default();
    compiler.apply(Update {
        changes: vec![cluster(std::slice::from_ref(endpoint), |_| {})],
        ..Update::default()
    });
    let clusters = compiler.directory().clone();
    let handle = clusters.get("upstream").expect("it was added");
    let server = Running::with(sniffing(proxy()), compiler, Tcp(clusters));
    (server, handle)
}

#[tokio::test]
async fn sniffing_ends_when_the_upstream_speaks_first() {
    let (listening, address) = upstream().await;
    let (server, cluster) = serve_sniffing(&address);
    let mut client = server.connect().await;
    let (mut socket, _) = timeout(PATIENCE, listening.accept())
        .await
        .expect("the upstream is asked")
        .expect("connected");
    assert_eq!(
        server.stat("tcp.test.downstream_cx_total"),
        0,
        "not known yet"
    );
    socket.write_all(b"220 ready\r\n").await.expect("written");
    client.until("220 ready\r\n").await;
    client.send(b"QUIT\r\n").await;
    let mut bytes = [0; 6];
    socket.read_exact(&mut bytes).await.expect("read");
    assert_eq!(&bytes, b"QUIT\r\n");
    drop((client, socket));
    server.idle().await;
    let end = ended(&server).await;
    assert_eq!(
        (end.attempts, end.upstream_received, end.upstream_sent),
        (1, 11, 6)
    );
    assert_eq!(server.stat("tcp.test.downstream_cx_total"), 1);
    assert_eq!(cluster.stats().upstream_cx_total.get(), 1);
    assert_eq!(cluster.stats().upstream_cx_active.get(), 0);
}

#[tokio::test]
async fn sniffing_ends_at_the_first_bytes_and_asks_no_upstream_without_need() {
    let (listening, address) = upstream().await;
    let (server, cluster) = serve_sniffing(&address);
    // HTTP at once: the upstream of the other chain is never asked.
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;
    assert_eq!(cluster.stats().upstream_cx_total.get(), 0);
    // Other bytes, as few as tell them from HTTP.
    let mut other = server.connect().await;
    other.send(b"\x01\x02").await;
    let (mut socket, _) = listening.accept().await.expect("connected");
    let mut bytes = [0; 2];
    socket.read_exact(&mut bytes).await.expect("read");
    assert_eq!(bytes, [1, 2]);
    drop((other, socket));
    // HTTP after a silence: what was asked in the meantime is let go, uncounted.
    let mut late = server.connect().await;
    let (mut socket, _) = timeout(PATIENCE, listening.accept())
        .await
        .expect("the upstream is asked")
        .expect("connected");
    late.get("/b").await;
    late.until("GET /b").await;
    assert_eq!(socket.read(&mut bytes).await.expect("the end"), 0);
    drop((client, late));
    server.idle().await;
    assert_eq!(server.stat("tcp.test.downstream_cx_total"), 1);
    assert_eq!(server.stat("http.http.downstream_cx_total"), 2);
    assert_eq!(server.seen.tcp.lock().expect("no panic").len(), 1);
    assert_eq!(cluster.stats().upstream_cx_active.get(), 0);
    assert_eq!(
        cluster.limits(model::Priority::Default).1.connections.get(),
        0
    );
}

#[tokio::test]
async fn a_silent_client_of_an_unreachable_upstream_may_still_speak() {
    let (server, cluster) = serve_sniffing(&nobody());
    let mut client = server.connect().await;
    let asked = async {
        while cluster.stats().upstream_cx_connect_fail.get() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked)
        .await
        .expect("the upstream is asked");
    client.get("/late").await;
    client.until("GET /late").await;
}

#[tokio::test]
async fn a_declared_tcp_port_is_never_sniffed() {
    // No inspector: not one byte is waited for, and HTTP passes as bytes.
    let (listening, address) = upstream().await;
    let (server, _) = start(proxy(), cluster(&[address], |_| {}));
    let mut client = server.connect().await;
    let (mut socket, _) = timeout(PATIENCE, listening.accept())
        .await
        .expect("before any byte")
        .expect("connected");
    client.get("/a").await;
    let mut bytes = [0; 14];
    socket.read_exact(&mut bytes).await.expect("read");
    assert_eq!(&bytes, b"GET /a HTTP/1.");
}

/// As in Envoy. Sent on to the address that it came to, it would come back for ever.
#[tokio::test]
async fn a_connection_that_nobody_redirected_has_no_original_destination() {
    let original = |config: &mut model::Cluster| {
        config.discovery = model::Discovery::OriginalDst(Default::default());
    };
    let (server, handle) = start(proxy(), cluster(&[], original));
    assert_eq!(server.connect().await.rest().await, "");
    let end = ended(&server).await;
    assert_eq!(end.failure, Some(Kind::NoHealthyUpstream));
    assert_eq!(handle.stats().upstream_cx_total.get(), 0);

    // A PROXY protocol header says where it was meant to go.
    let (listener, address) = upstream().await;
    let filter = ListenerFilter::ProxyProtocol {
        allow_without: false,
        disallowed: None,
        stat_prefix: "".into(),
    };
    let (server, _) = start_with(proxy(), cluster(&[], original), vec![filter]);
    let port = address.socket().expect("TCP").port();
    let mut client = server.connect().await;
    let header = format!("PROXY TCP4 127.0.0.9 127.0.0.1 9 {port}\r\nhello");
    client.send(header.as_bytes()).await;
    let (mut stream, _) = timeout(PATIENCE, listener.accept())
        .await
        .expect("it comes")
        .expect("accepted");
    let mut seen = [0; 5];
    let read = timeout(PATIENCE, stream.read_exact(&mut seen)).await;
    read.expect("bytes come").expect("read");
    assert_eq!(&seen, b"hello");
}
