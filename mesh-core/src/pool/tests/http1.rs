use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    Kind,
    pool::{ConnTask, lost},
    transport::Exec,
};

#[tokio::test(start_paused = true)]
async fn a_connection_serves_request_after_request() {
    let mut fixture = fixture(|_| {});
    let first = fixture.get("/1");
    let mut upstream = fixture.accept().await;
    assert!(
        upstream
            .serve()
            .await
            .starts_with("GET /1 HTTP/1.1\r\nhost: h\r\n")
    );
    assert_eq!(text(first).await, "ok");
    for turn in 2..5 {
        let next = fixture.get("/n");
        upstream.serve().await;
        assert_eq!(text(next).await, "ok", "{turn}");
    }
    let stats = fixture.cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_total.get(),
            stats.upstream_cx_http1_total.get(),
            stats.upstream_cx_active.get()
        ),
        (1, 1, 1)
    );
    assert!(
        stats.upstream_cx_rx_bytes_total.get() > 100
            && stats.upstream_cx_tx_bytes_total.get() > 100
    );
}

/// Counts the turns of connections' tasks.
#[derive(Clone, Default)]
struct Turns(Arc<AtomicUsize>);

impl Exec<ConnTask> for Turns {
    fn start(&self, mut task: ConnTask) {
        let turns = self.0.clone();
        tokio::spawn(poll_fn(move |cx| {
            turns.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(cx)
        }));
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Turns {
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connections_task_has_one_turn_for_a_request_and_one_for_its_response() {
    let (sender, mut accept) = mpsc::unbounded_channel();
    let turns = Turns::default();
    let pool = Pool::with_exec(Memory(sender), turns.clone());
    let cluster = cluster(Address::Socket(([127, 0, 0, 1], 1).into()), |_| {});
    let send = || {
        let request = Request::get("/").header("host", "h");
        let outgoing = outgoing(&cluster, request.body(Body::default()).expect("a request"));
        let mut service = pool.service();
        tokio::spawn(async move { service.call(outgoing).await })
    };
    let first = send();
    let mut upstream = Http1(accept.recv().await.expect("a connection"));
    upstream.serve().await;
    assert_eq!(text(first).await, "ok");
    settle().await;
    for _ in 0..3 {
        let before = turns.0.load(Ordering::Relaxed);
        let next = send();
        upstream.serve().await;
        assert_eq!(text(next).await, "ok");
        settle().await;
        assert_eq!(turns.0.load(Ordering::Relaxed) - before, 2);
    }
    // A body in two pieces asks for a turn for the second, and none is missed.
    let next = send();
    upstream.head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok")
        .await;
    settle().await;
    upstream.write("ok").await;
    assert_eq!(text(next).await, "okok");
    // The end of the connection is seen all the same.
    settle().await;
    drop(upstream);
    settle().await;
    assert_eq!(cluster.stats().upstream_cx_active.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_requests_at_one_time_use_two_connections_and_both_are_kept() {
    let mut fixture = fixture(|_| {});
    let (a, b) = (fixture.get("/a"), fixture.get("/b"));
    let (mut first, mut second) = (fixture.accept().await, fixture.accept().await);
    first.serve().await;
    second.serve().await;
    text(a).await;
    text(b).await;
    let (c, d) = (fixture.get("/c"), fixture.get("/d"));
    first.serve().await;
    second.serve().await;
    text(c).await;
    text(d).await;
    assert_eq!(fixture.cluster.stats().upstream_cx_total.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_body_early_closes_the_connection() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\npart")
        .await;
    drop(answer.await.expect("the task ends").expect("a response"));
    upstream.closed().await;
    let again = fixture.get("/");
    fixture.accept().await.serve().await;
    assert_eq!(text(again).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_closes_the_connection_and_frees_its_places() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    answer.abort();
    upstream.closed().await;
    settle().await;
    assert_eq!(fixture.cluster.stats().upstream_cx_active.get(), 0);
    assert_eq!(
        fixture
            .cluster
            .limits(Priority::Default)
            .1
            .connections
            .get(),
        0
    );
    assert_eq!(fixture.cluster.limits(Priority::Default).1.pending.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_the_upstream_closed_is_not_used() {
    let mut fixture = fixture(|_| {});
    let first = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    drop(upstream);
    settle().await;
    let second = fixture.get("/");
    fixture.accept().await.serve().await;
    assert_eq!(text(second).await, "ok");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_the_close_of_a_kept_connection_goes_to_a_new_one_or_says_so() {
    let mut fixture = fixture(|_| {});
    let first = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    // The close is not seen by the connection's task before the request is handed to it.
    drop(upstream);
    let second = fixture.get("/");
    match tokio::time::timeout(Duration::from_secs(1), fixture.accept.recv()).await {
        Ok(fresh) => {
            Http1(fresh.expect("the pool lives")).serve().await;
            assert_eq!(text(second).await, "ok");
            let sent = fixture.cluster.stats().upstream_rq_total.get();
            assert_eq!(sent, 2, "the second is one request");
        }
        Err(_) => {
            let error = failure(second).await;
            assert_eq!(error.kind(), Kind::ConnectionTermination);
            assert!(lost(&error).expect("told how far it got").reused);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reused_connection_that_dies_after_the_request_says_so() {
    let mut fixture = fixture(|_| {});
    let first = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(first).await;
    let second = fixture.get("/");
    upstream.head().await;
    drop(upstream);
    let error = failure(second).await;
    assert_eq!(error.kind(), Kind::ConnectionTermination);
    let lost = lost(&error).expect("told how far it got");
    assert!(lost.sent && lost.reused);
}

#[tokio::test(start_paused = true)]
async fn each_way_to_fail_has_its_kind() {
    for (bytes, kind) in [
        ("", Kind::ConnectionTermination),
        ("HTTP/1.1 200 OK\r\ncontent-le", Kind::UpstreamProtocol),
        ("H", Kind::UpstreamProtocol),
        // A whole interim response is no part of the awaited one.
        ("HTTP/1.1 103 Early\r\n\r\n", Kind::ConnectionTermination),
        ("SSH-2.0-x\r\n", Kind::UpstreamProtocol),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
        // Lengths that another parser could read in another way.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 2\r\n\r\nok",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
            Kind::UpstreamProtocol,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: x\r\n\r\n",
            Kind::UpstreamProtocol,
        ),
    ] {
        let mut fixture = fixture(|_| {});
        let answer = fixture.get("/");
        let mut upstream = fixture.accept().await;
        upstream.head().await;
        upstream.write(bytes).await;
        drop(upstream);
        assert_eq!(failure(answer).await.kind(), kind, "{bytes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_old_upstream_says_is_of_our_own_version() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    upstream.write("HTTP/1.0 200 OK\r\n\r\nall").await;
    drop(upstream);
    let response = answer.await.expect("the task ends").expect("a response");
    assert_eq!(response.version(), http::Version::HTTP_11);
    let body = response.into_body().collect().await.expect("a whole body");
    assert_eq!(body.to_bytes(), "all");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_dies_in_the_body_fails_the_body() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart")
        .await;
    drop(upstream);
    let response = answer.await.expect("the task ends").expect("a response");
    let error = response
        .into_body()
        .collect()
        .await
        .expect_err("a broken body");
    assert_eq!(error.kind(), Kind::UpstreamProtocol);
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_connection_close_is_the_last() {
    let mut fixture = fixture(|_| {});
    let answer = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.head().await;
    upstream
        .write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await;
    text(answer).await;
    let begun = tokio::time::Instant::now();
    upstream.closed().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "not for its age");
    let next = fixture.get("/");
    let mut upstream = fixture.accept().await;
    upstream.serve().await;
    text(next).await;
    drop(upstream);
    settle().await;
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_destroy.get(), 2);
    assert_eq!(stats.upstream_cx_close_notify.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_hands_over_both_ends() {
    let mut fixture = fixture(|_| {});
    let request = Request::get("/ws")
        .header("host", "h")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(Body::default())
        .expect("a request");
    let answer = fixture.send(request);
    let mut upstream = fixture.accept().await;
    assert!(upstream.head().await.contains("upgrade: websocket"));
    upstream.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello").await;
    let response = answer.await.expect("the task ends").expect("a response");
    assert_eq!(response.status(), 101);
    let upgraded = hyper::upgrade::on(response).await.expect("an upgrade");
    let mut io = hyper_util::rt::TokioIo::new(upgraded);
    let mut hello = [0; 5];
    io.read_exact(&mut hello).await.expect("read");
    assert_eq!(&hello, b"hello");
    io.write_all(b"again").await.expect("written");
    upstream.0.read_exact(&mut hello).await.expect("read");
    assert_eq!(&hello, b"again");
    assert_eq!(
        fixture.cluster.stats().upstream_cx_active.get(),
        1,
        "the socket still lives"
    );
    drop(io);
    upstream.closed().await;
    assert_eq!(fixture.cluster.stats().upstream_cx_active.get(), 0);
}

/// As in Envoy, where a cluster does not say that they pass.
#[tokio::test(start_paused = true)]
async fn trailers_pass_where_the_cluster_says_so() {
    for passes in [false, true] {
        let mut fixture = fixture(|config| config.http1.enable_trailers = passes);
        // The connection serves another request all the same.
        let mut upstream = None;
        for _ in 0..2 {
            let answer = fixture.get("/");
            if upstream.is_none() {
                upstream = Some(fixture.accept().await);
            }
            let upstream = upstream.as_mut().expect("a connection");
            upstream.head().await;
            upstream
                .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: yes\r\n\r\n")
                .await;
            let response = answer.await.expect("no panic").expect("a response");
            let body = response.into_body().collect().await.expect("a body");
            let end = body.trailers().and_then(|all| all.get("x-end").cloned());
            assert_eq!(end.is_some(), passes);
            assert_eq!(body.to_bytes(), "ok");
        }
        assert_eq!(fixture.cluster.stats().upstream_cx_total.get(), 1);
    }
}
