use super::{waiting::Never, *};
use crate::Kind;

pub(super) fn one_connection(config: &mut model::Cluster) {
    config.limits[0].max_connections = 1;
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_of_connections_requests_wait_in_turn() {
    let mut fixture = fixture(one_connection);
    let answers: Vec<_> = ["/1", "/2", "/3"].map(|path| fixture.get(path)).into();
    let mut upstream = fixture.accept().await;
    for (answer, path) in answers.into_iter().zip(["/1", "/2", "/3"]) {
        assert!(upstream.serve().await.starts_with(&format!("GET {path} ")));
        text(answer).await;
    }
    let stats = fixture.cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_total.get(),
            stats.upstream_cx_overflow.get(),
            stats.upstream_rq_pending_total.get()
        ),
        (1, 4, 3)
    );
    let endpoint = fixture.cluster.endpoints().all()[0].clone();
    let requests = (
        stats.upstream_rq_total.get(),
        endpoint.stats().rq_total.get(),
        endpoint.stats().rq_pending_active.get(),
    );
    assert_eq!(requests, (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn over_the_limit_of_waiting_requests_they_are_refused_at_once() {
    let mut fixture = fixture(|config| {
        one_connection(config);
        config.limits[0].max_pending_requests = 1;
    });
    let first = fixture.get("/1");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    let second = fixture.get("/2");
    settle().await;
    assert_eq!(failure(fixture.get("/3")).await.kind(), Kind::Overflow);
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    text(first).await;
    upstream.serve().await;
    text(second).await;
    assert_eq!(
        fixture.cluster.stats().upstream_rq_pending_overflow.get(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_connects_itself_when_the_connection_dies() {
    let mut fixture = fixture(one_connection);
    let first = fixture.get("/1");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    let second = fixture.get("/2");
    settle().await;
    drop(upstream);
    assert_eq!(failure(first).await.kind(), Kind::ConnectionTermination);
    fixture.accept().await.serve().await;
    text(second).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_given_to_one_who_left_goes_to_the_next() {
    let mut fixture = fixture(one_connection);
    let first = fixture.get("/1");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    let (second, third) = (fixture.get("/2"), fixture.get("/3"));
    settle().await;
    second.abort();
    settle().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    text(first).await;
    assert!(upstream.serve().await.starts_with("GET /3 "));
    text(third).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_closes_after_its_number_of_requests() {
    let mut fixture = fixture(|config| config.max_requests_per_connection = Some(2));
    let first = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    let second = fixture.get("/");
    upstream.serve().await;
    text(second).await;
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "not for its age");
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_max_requests.get(), 1);
    let third = fixture.get("/");
    fixture.accept().await.serve().await;
    text(third).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_and_a_used_one_does_not() {
    let mut fixture = fixture(|config| config.idle_timeout = Some(Duration::from_secs(8)));
    let first = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let next = fixture.get("/");
        upstream.serve().await;
        text(next).await;
    }
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    let idle = begun.elapsed().as_secs_f64();
    assert!((8.0..=10.1).contains(&idle), "{idle}");
    assert_eq!(fixture.cluster.stats().upstream_cx_idle_timeout.get(), 1);
    assert_eq!(
        fixture
            .cluster
            .limits(Priority::Default)
            .1
            .connections
            .get(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_exchange_outlives_the_idle_time() {
    let mut fixture = fixture(|config| config.idle_timeout = Some(Duration::from_secs(8)));
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(text(answer).await, "ok");
    // It begins with the end of the exchange.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let next = fixture.get("/next");
    assert!(upstream.serve().await.starts_with("GET /next "));
    text(next).await;
    upstream.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_after_its_longest_life_but_not_within_an_exchange() {
    let mut fixture =
        fixture(|config| config.max_connection_duration = Some(Duration::from_secs(4)));
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(text(answer).await, "ok");
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_max_duration_reached.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn connections_to_a_removed_endpoint_close() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(answer).await;
    fixture.cluster.set_endpoints(&Default::default());
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "at once");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_with_a_removed_endpoint_is_the_last() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    fixture.cluster.set_endpoints(&Default::default());
    settle().await;
    let begun = tokio::time::Instant::now();
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    assert_eq!(text(answer).await, "ok");
    upstream.closed().await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "at once");
}

#[tokio::test(start_paused = true)]
async fn only_a_cluster_that_wants_it_closes_the_connections_of_endpoints_that_stay() {
    for closes in [false, true] {
        let mut fixture = fixture(|config| config.close_on_host_set_change = closes);
        let answer = fixture.get("/");
        let mut upstream = fixture.accept().await;
        upstream.serve().await;
        text(answer).await;
        let mut assignment = fixture.cluster.config().load_assignment.clone();
        let group = &mut assignment.localities[0].endpoints;
        let mut further = group[0].clone();
        further.address = Address::Socket(([127, 0, 0, 1], 2).into());
        group.push(further);
        fixture.cluster.set_endpoints(&assignment);
        settle().await;
        let open = fixture.cluster.stats().upstream_cx_active.get();
        assert_eq!(open, u64::from(!closes));
    }
}

#[tokio::test(start_paused = true)]
async fn connections_close_when_an_endpoint_is_taken_out_and_not_for_its_health_alone() {
    let mut fixture = fixture(|config| config.close_on_host_failure = true);
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(answer).await;
    let mut assignment = fixture.cluster.config().load_assignment.clone();
    assignment.localities[0].endpoints[0].health = model::HealthStatus::Unhealthy;
    fixture.cluster.set_endpoints(&assignment);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_active.get(), 1);
    fixture.cluster.endpoints().all()[0].set_ejected(true);
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "at once");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_pool_closes_idle_connections() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(answer).await;
    drop(fixture.pool);
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn connecting_fails_in_time_and_by_name() {
    let refused = fixture(|_| {});
    drop(refused.accept);
    let mut service = refused.pool.service();
    let request = Request::get("/").body(Body::default()).expect("a request");
    let error = service
        .call(outgoing(&refused.cluster, request))
        .await
        .expect_err("no connection");
    assert_eq!(error.kind(), Kind::ConnectFailure);
    assert_eq!(
        refused
            .cluster
            .limits(Priority::Default)
            .1
            .connections
            .get(),
        0
    );
    let stats = refused.cluster.stats();
    let counted = (
        stats.upstream_cx_connect_fail.get(),
        stats.upstream_rq_pending_total.get(),
        stats.upstream_rq_total.get(),
    );
    assert_eq!(counted, (1, 1, 0), "no connection, so no request");

    let begun = tokio::time::Instant::now();
    let request = Request::get("/").body(Body::default()).expect("a request");
    let error = Pool::new(Never)
        .service()
        .call(outgoing(&refused.cluster, request))
        .await
        .expect_err("no connection");
    assert_eq!(error.kind(), Kind::ConnectTimeout);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(refused.cluster.stats().upstream_cx_connect_timeout.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_have_a_limit_of_its_own() {
    let mut fixture = fixture(|config| config.per_host_max_connections = Some(1));
    let first = fixture.get("/1");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    let second = fixture.get("/2");
    settle().await;
    let stats = fixture.cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_overflow.get(),
            stats.upstream_rq_pending_active.get()
        ),
        (1, 1)
    );
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await;
    text(first).await;
    upstream.serve().await;
    text(second).await;
    let stats = fixture.cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_total.get(),
            stats.upstream_rq_pending_active.get()
        ),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_an_endpoint_counts_connections_on_their_way() {
    let mut fixture = fixture(|config| config.per_host_max_connections = Some(1));
    let answers = [fixture.get("/1"), fixture.get("/2")];
    let mut upstream = fixture.accept().await;
    for answer in answers {
        upstream.serve().await;
        text(answer).await;
    }
    assert_eq!(fixture.cluster.stats().upstream_cx_total.get(), 1);
}

/// A body whose frames come from the test.
struct Frames(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.get_mut()
            .0
            .poll_recv(cx)
            .map(|frame| frame.map(|data| Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_answered_early_serves_nobody_before_its_upload_ends() {
    let (sender, mut accept) = mpsc::unbounded_channel();
    let pool: Pool<Memory, Frames> = Pool::new(Memory(sender));
    let cluster = cluster(Address::Socket(([127, 0, 0, 1], 1).into()), one_connection);
    let send = |path: &str| {
        let (frames, body) = mpsc::unbounded_channel();
        let request = Request::post(path)
            .header("host", "h")
            .body(Frames(body))
            .expect("a request");
        let endpoint = cluster.pick(&PickKey::default()).expect("an endpoint");
        let outgoing = Outgoing {
            connect: None,
            request,
            cluster: cluster.clone(),
            endpoint,
            priority: Priority::Default,
            downstream: None,
            record: None,
        };
        let mut service = pool.service();
        (
            frames,
            tokio::spawn(async move { service.call(outgoing).await }),
        )
    };
    let (upload, first) = send("/1");
    let mut upstream = Http1(accept.recv().await.expect("a connection"));
    upstream.serve().await;
    assert_eq!(text(first).await, "ok");
    let (next_upload, second) = send("/2");
    drop(next_upload);
    settle().await;
    assert_eq!(
        cluster.stats().upstream_rq_pending_active.get(),
        1,
        "it waits"
    );
    drop(upload);
    let mut end = [0; 5];
    upstream
        .0
        .read_exact(&mut end)
        .await
        .expect("the end of the upload");
    assert_eq!(&end, b"0\r\n\r\n");
    assert!(upstream.serve().await.starts_with("POST /2 "));
    assert_eq!(text(second).await, "ok");
}

/// Answers seven requests, and closes with the last.
async fn serve_seven(mut io: tokio::net::TcpStream) {
    for turn in 0..7 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match io.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let close = if turn == 6 {
            "connection: close\r\n"
        } else {
            ""
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{close}content-length: 2\r\n\r\nok");
        if io.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Many requests from several threads over real sockets, with connections closed by the upstream now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_under_load_from_several_threads() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound");
    let address = Address::Socket(listener.local_addr().expect("an address"));
    let server = tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(serve_seven(io));
        }
    });
    let cluster = cluster(address, |config| config.limits[0].max_connections = 10);
    let pool: Pool<_, Body> = Pool::new(crate::transport::TcpConnector);
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (mut service, cluster) = (pool.service(), cluster.clone());
            tokio::spawn(async move {
                for _ in 0..60 {
                    let request = Request::get("/")
                        .header("host", "h")
                        .body(Body::default())
                        .expect("a request");
                    let response = service
                        .call(outgoing(&cluster, request))
                        .await
                        .expect("a response");
                    response.into_body().collect().await.expect("a body");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no client failed");
    }
    drop(pool);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let state = cluster.limits(Priority::Default).1;
    while cluster.stats().upstream_cx_active.get() > 0 || state.connections.get() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "connections leak");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(
        (
            state.pending.get(),
            cluster.stats().upstream_rq_pending_active.get()
        ),
        (0, 0)
    );
    server.abort();
}
