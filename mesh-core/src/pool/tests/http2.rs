use std::collections::VecDeque;

use h2::{Reason, server};

use super::*;
use crate::{Kind, pool::lost};

/// An upstream that speaks HTTP/2 by hand; its driver runs while requests are awaited.
struct Http2 {
    connection: server::Connection<DuplexStream, Bytes>,
    requests: VecDeque<(Request<h2::RecvStream>, server::SendResponse<Bytes>)>,
}

impl Http2 {
    async fn new(fixture: &mut Fixture, builder: &server::Builder) -> Self {
        let io = fixture.accept().await.0;
        let connection = builder.handshake(io).await.expect("a handshake");
        Self {
            connection,
            requests: VecDeque::new(),
        }
    }

    async fn request(&mut self) -> server::SendResponse<Bytes> {
        let accepted = self
            .connection
            .accept()
            .await
            .expect("a stream")
            .expect("a request");
        assert_eq!(accepted.0.uri().authority().expect("an authority"), "h");
        self.requests.push_back(accepted);
        self.requests.pop_front().expect("just pushed").1
    }

    /// Drives the connection to its end.
    fn run(self) -> tokio::task::JoinHandle<()> {
        let Self { mut connection, .. } = self;
        tokio::spawn(async move { while let Some(Ok(_)) = connection.accept().await {} })
    }
}

fn ok(mut stream: server::SendResponse<Bytes>) {
    let mut body = stream
        .send_response(Response::new(()), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"ok"), true)
        .expect("sent");
}

#[tokio::test(start_paused = true)]
async fn streams_share_one_connection() {
    let mut fixture = fixture(http2);
    let answers: Vec<_> = ["/1", "/2", "/3"].map(|path| fixture.get(path)).into();
    let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
    let streams = [
        upstream.request().await,
        upstream.request().await,
        upstream.request().await,
    ];
    streams.into_iter().for_each(ok);
    let driver = upstream.run();
    for answer in answers {
        assert_eq!(text(answer).await, "ok");
    }
    let stats = fixture.cluster.stats();
    assert_eq!(
        (
            stats.upstream_cx_total.get(),
            stats.upstream_cx_http2_total.get()
        ),
        (1, 1)
    );
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn over_our_limit_of_streams_another_connection_is_made() {
    for (streams, requests) in [(Some(1), None), (None, Some(1))] {
        let mut fixture = fixture(|config| {
            http2(config);
            config.http2.max_concurrent_streams = streams;
            config.max_requests_per_connection = requests;
        });
        let (first, second) = (fixture.get("/1"), fixture.get("/2"));
        let mut one = Http2::new(&mut fixture, &server::Builder::new()).await;
        let mut two = Http2::new(&mut fixture, &server::Builder::new()).await;
        ok(one.request().await);
        ok(two.request().await);
        let drivers = [one.run(), two.run()];
        text(first).await;
        text(second).await;
        drivers.iter().for_each(|driver| driver.abort());
    }
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_limit_of_streams_counts_too_and_streams_are_used_again() {
    let mut fixture = fixture(|config| {
        http2(config);
        config.limits[0].max_connections = 1;
    });
    let first = fixture.get("/1");
    let mut upstream = Http2::new(
        &mut fixture,
        server::Builder::new().max_concurrent_streams(1),
    )
    .await;
    ok(upstream.request().await);
    let (signs, requests) = mpsc::unbounded_channel::<()>();
    let driver = tokio::spawn(serve_each(upstream, requests));
    text(first).await;
    // The limit, which came with the settings, is looked at when a request is sent.
    let second = fixture.get("/2");
    settle().await;
    let third = fixture.get("/3");
    settle().await;
    let stats = fixture.cluster.stats();
    assert_eq!(
        stats.upstream_rq_pending_total.get(),
        2,
        "the first and the third waited"
    );
    for answer in [second, third] {
        signs.send(()).expect("the upstream lives");
        text(answer).await;
    }
    assert_eq!(stats.upstream_cx_total.get(), 1);
    driver.abort();
}

/// Answers one request at each sign; drives the connection all the time.
async fn serve_each(upstream: Http2, mut signs: mpsc::UnboundedReceiver<()>) {
    let Http2 { mut connection, .. } = upstream;
    let mut held = VecDeque::new();
    let mut due = 0;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((_, stream))) => held.push_back(stream),
                _ => return,
            },
            Some(()) = signs.recv() => due += 1,
        }
        while due > 0 && !held.is_empty() {
            due -= 1;
            held.pop_front().into_iter().for_each(ok);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn resets_have_their_kinds() {
    for (reason, kind, sent) in [
        (Reason::REFUSED_STREAM, Kind::RefusedStream, false),
        (Reason::CANCEL, Kind::RemoteReset, true),
        (Reason::INTERNAL_ERROR, Kind::RemoteReset, true),
    ] {
        let mut fixture = fixture(http2);
        let answer = fixture.get("/");
        let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
        upstream.request().await.send_reset(reason);
        let driver = upstream.run();
        let error = failure(answer).await;
        assert_eq!(error.kind(), kind, "{reason:?}");
        assert_eq!(
            lost(&error).expect("told how far it got").sent,
            sent,
            "{reason:?}"
        );
        // What the other side has ended is not reset once more.
        assert_eq!(fixture.cluster.stats().upstream_rq_tx_reset.get(), 0);
        driver.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_the_body_fails_the_body_and_spares_the_connection() {
    let mut fixture = fixture(http2);
    let answer = fixture.get("/");
    let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
    let mut stream = upstream.request().await;
    let mut body = stream
        .send_response(Response::new(()), false)
        .expect("sent");
    body.send_data(Bytes::from_static(b"part"), false)
        .expect("sent");
    let next = fixture.get("/next");
    ok(upstream.request().await);
    body.send_reset(Reason::INTERNAL_ERROR);
    let driver = upstream.run();
    let response = answer.await.expect("the task ends").expect("a response");
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .expect_err("a broken body")
            .kind(),
        Kind::RemoteReset
    );
    assert_eq!(text(next).await, "ok");
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_total.get(), 1);
    assert_eq!(stats.upstream_rq_tx_reset.get(), 0);
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn after_goaway_requests_go_elsewhere() {
    let mut fixture = fixture(http2);
    let first = fixture.get("/");
    let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
    let stream = upstream.request().await;
    upstream.connection.graceful_shutdown();
    ok(stream);
    let driver = upstream.run();
    assert_eq!(text(first).await, "ok");
    driver.await.expect("the connection ends");
    settle().await;
    let second = fixture.get("/");
    let mut fresh = Http2::new(&mut fixture, &server::Builder::new()).await;
    ok(fresh.request().await);
    let driver = fresh.run();
    assert_eq!(text(second).await, "ok");
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_cx_close_notify.get(), 1);
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_limit_of_streams_holds_while_its_first_stream_runs() {
    let mut fixture = fixture(http2);
    let mut one_stream = server::Builder::new();
    one_stream.max_concurrent_streams(1);
    let first = fixture.get("/1");
    let mut one = Http2::new(&mut fixture, &one_stream).await;
    let held = one.request().await;
    let second = fixture.get("/2");
    let mut two = Http2::new(&mut fixture, &one_stream).await;
    ok(two.request().await);
    let two = two.run();
    text(second).await;
    ok(held);
    let one = one.run();
    text(first).await;
    one.abort();
    two.abort();
}

#[tokio::test(start_paused = true)]
async fn streams_that_die_with_their_connection_are_counted() {
    let mut fixture = fixture(http2);
    let answers = [fixture.get("/1"), fixture.get("/2")];
    let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
    let _streams = [upstream.request().await, upstream.request().await];
    drop(upstream);
    for answer in answers {
        assert_eq!(failure(answer).await.kind(), Kind::ConnectionTermination);
    }
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_rq_pending_failure_eject.get(), 2);
    assert_eq!(stats.upstream_cx_close_notify.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_resets_its_stream_only() {
    let mut fixture = fixture(http2);
    let (dropped, kept) = (fixture.get("/"), fixture.get("/"));
    let mut upstream = Http2::new(&mut fixture, &server::Builder::new()).await;
    let (mut first, second) = (upstream.request().await, upstream.request().await);
    dropped.abort();
    ok(second);
    let driver = upstream.run();
    let reset = std::future::poll_fn(|cx| first.poll_reset(cx))
        .await
        .expect("a reset");
    assert_eq!(reset, Reason::CANCEL);
    assert_eq!(text(kept).await, "ok");
    assert_eq!(fixture.cluster.stats().upstream_rq_tx_reset.get(), 1);
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_that_fails_fails_with_it() {
    let fixture = fixture(http2);
    drop(fixture.accept);
    let mut services = [fixture.pool.service(), fixture.pool.service()];
    let [a, b] = &mut services;
    let request = || {
        Request::get("http://h/")
            .body(Body::default())
            .expect("a request")
    };
    let (first, second) = tokio::join!(
        a.call(outgoing(&fixture.cluster, request())),
        b.call(outgoing(&fixture.cluster, request()))
    );
    for result in [first, second] {
        assert_eq!(
            result.expect_err("no connection").kind(),
            Kind::ConnectFailure
        );
    }
    let stats = fixture.cluster.stats();
    assert_eq!(stats.upstream_rq_pending_failure_eject.get(), 2);
}
