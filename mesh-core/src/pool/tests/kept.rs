//! Which connections serve again, for whom, and what is counted of them.

use super::*;
use crate::{
    Kind,
    model::{ConnectConfig, ProxyProtocolVersion, TransportSocket},
    transport::ConnInfo,
};

impl Fixture {
    /// Whether a request that nobody answers makes a connection.
    async fn connects(&mut self, request: Outgoing<Body>) -> bool {
        let mut service = self.pool.service();
        let answer = tokio::spawn(async move { service.call(request).await });
        settle().await;
        answer.abort();
        self.accept.try_recv().is_ok()
    }

    fn request(&self) -> Outgoing<Body> {
        let request = Request::get("/").header("host", "h");
        outgoing(
            &self.cluster,
            request.body(Body::default()).expect("a request"),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_says_whether_its_connection_serves_again() {
    for (limit, start, wanted) in [
        (None, "HTTP/1.1 200 OK\r\n", true),
        (Some(1), "HTTP/1.1 200 OK\r\n", false),
        (Some(2), "HTTP/1.1 200 OK\r\n", true),
        (Some(0), "HTTP/1.1 200 OK\r\n", true),
        (None, "HTTP/1.1 200 OK\r\nconnection: x, close\r\n", false),
        (None, "HTTP/1.0 200 OK\r\n", false),
        (None, "HTTP/1.0 200 OK\r\nconnection: x\r\n", false),
        (None, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n", true),
    ] {
        let mut fixture = fixture(|config| config.max_requests_per_connection = limit);
        let first = fixture.get("/");
        let mut upstream = fixture.accept().await;
        upstream.head().await;
        upstream
            .write(&format!("{start}content-length: 0\r\n\r\n"))
            .await;
        // Nobody asks for the end of a body that has none.
        drop(first.await.expect("the task ends").expect("a response"));
        settle().await;
        let next = fixture.request();
        assert_eq!(fixture.connects(next).await, !wanted, "{limit:?} {start}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_in_another_manner_has_connections_of_its_own() {
    let mut fixture = fixture(|_| {});
    let first = fixture.get("/");
    let mut old = fixture.accept().await;
    assert!(old.serve().await.contains("\r\nhost: h\r\n"));
    text(first).await;
    let mut config = (**fixture.cluster.config()).clone();
    config.http1.proper_case = true;
    fixture.cluster = Arc::new(Cluster::new(Arc::new(config), Some(&fixture.cluster)));
    let second = fixture.get("/");
    let mut new = fixture.accept().await;
    assert!(new.serve().await.contains("\r\nHost: h\r\n"));
    text(second).await;
    let begun = tokio::time::Instant::now();
    old.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn connections_to_who_is_not_well_close_where_the_cluster_says_so() {
    for close in [false, true] {
        let mut fixture = fixture(|config| config.close_on_host_failure = close);
        let first = fixture.get("/");
        let mut upstream = fixture.accept().await;
        upstream.serve().await;
        text(first).await;
        let next = fixture.request();
        let endpoint = next.endpoint.clone();
        endpoint.set_ejected(true);
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(endpoint.stats().cx_active.get(), u64::from(!close));
        assert_eq!(fixture.connects(next).await, close);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_outlives_its_pool_closes_with_its_exchange() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        .await;
    let response = answer.await.expect("the task ends").expect("a response");
    drop(fixture.pool);
    upstream.write("ok").await;
    response.into_body().collect().await.expect("a whole body");
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_names_its_client_serves_no_other() {
    let inner = Box::new(TransportSocket::RawBuffer);
    let named = TransportSocket::ProxyProtocol(ProxyProtocolVersion::V1, inner);
    let mut fixture = fixture(|config| config.transport = named);
    let client = || {
        let address = |port| Address::Socket(([10, 0, 0, 1], port).into());
        Some(Arc::new(ConnInfo::new(address(80), address(5))))
    };
    let (one, other) = (client(), client());
    let of = |fixture: &Fixture, downstream: &Option<Arc<ConnInfo>>| Outgoing {
        downstream: downstream.clone(),
        ..fixture.request()
    };
    let mut service = fixture.pool.service();
    let first = of(&fixture, &one);
    let first = tokio::spawn(async move { service.call(first).await });
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    let stranger = of(&fixture, &other);
    assert!(fixture.connects(stranger).await);
    let again = of(&fixture, &one);
    assert!(!fixture.connects(again).await);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_waits_in_the_queue_and_is_counted() {
    for (pending, wanted) in [(1, Ok(())), (0, Err(Kind::Overflow))] {
        let fixture = fixture(|config| config.limits[0].max_pending_requests = pending);
        let request = Request::connect("h:1").body(Body::default());
        let tunnel = Outgoing {
            connect: Some(ConnectConfig::default()),
            ..outgoing(&fixture.cluster, request.expect("a request"))
        };
        let answer = fixture.pool.service().call(tunnel).await;
        assert_eq!(answer.map(drop).map_err(|error| error.kind()), wanted);
        let stats = fixture.cluster.stats();
        let made = u64::from(wanted.is_ok());
        assert_eq!(stats.upstream_rq_total.get(), made);
        assert_eq!(stats.upstream_rq_pending_overflow.get(), 1 - made);
    }
}

#[tokio::test(start_paused = true)]
async fn who_got_a_connection_did_not_leave_the_queue() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    fixture.accept().await.serve().await;
    text(answer).await;
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_rq_pending_total.get(), 1);
    assert_eq!(stats.upstream_rq_cancelled.get(), 0);
    assert_eq!(stats.times().upstream_cx_connect_ms.count(), 1);
}
