//! HTTP/1 connections: messages, limits and lives.

use std::time::Duration;

use super::support::*;
use crate::{Kind, model::HttpConnectionManager};

fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        ..HttpConnectionManager::default()
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    for path in ["/a", "/b"] {
        client.get(path).await;
        client.until(&format!("GET {path}")).await;
    }
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_rq_active"), 0);
    assert_eq!(server.stat("http.test.downstream_cx_http1_total"), 1);
    assert_eq!(server.stat("http.test.downstream_cx_http1_active"), 0);
    assert_eq!(server.stat("http.test.downstream_cx_active"), 0);
    assert_eq!(server.stat("http.test.downstream_cx_destroy_remote"), 1);
    assert!(server.stat("http.test.downstream_cx_rx_bytes_total") > 50);
    assert!(server.stat("http.test.downstream_cx_tx_bytes_total") > 50);
    assert_eq!(server.rejected(), []);
}

#[tokio::test]
async fn pipelined_requests_are_all_answered() {
    let server = Running::http(manager());
    let answer = server
        .exchange(
            b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\nGET /3 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
    let places: Vec<_> = ["GET /1", "GET /2", "GET /3"]
        .map(|text| answer.find(text))
        .into();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{answer}"
    );
}

/// What heads of a POST are, and their lines. Each is understood differently by some servers, so none may pass.
const AMBIGUOUS: [(&str, &str); 15] = [
    (
        "two lengths",
        "host: x\r\ncontent-length: 1\r\ncontent-length: 2",
    ),
    ("a list of lengths", "host: x\r\ncontent-length: 1, 2"),
    ("a signed length", "host: x\r\ncontent-length: +1"),
    (
        "a length beyond 64 bits",
        "host: x\r\ncontent-length: 99999999999999999999",
    ),
    (
        "chunked not last",
        "host: x\r\ntransfer-encoding: chunked, gzip",
    ),
    (
        "an unknown encoding",
        "host: x\r\ntransfer-encoding: xchunked",
    ),
    ("a space before the colon", "host : x"),
    ("a folded line", "host: x\r\na: b\r\n c"),
    ("a NUL in a value", "host: x\r\na: b\0c"),
    ("a lone CR in a value", "host: x\r\na: b\rc: d"),
    ("a control byte in a name", "host: x\r\na\x01: b"),
    ("an empty name", "host: x\r\n: b"),
    ("no host", "a: b"),
    ("two hosts", "host: x\r\nhost: y"),
    ("two equal hosts", "host: x\r\nhost: x"),
];

/// The same of whole heads, with the status of the answer.
const AMBIGUOUS_HEADS: [(&str, &str, u16); 5] = [
    (
        "encoding in HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "a space in the method",
        "GE T / HTTP/1.1\r\nhost: x\r\n\r\n",
        400,
    ),
    ("no version", "GET /\r\nhost: x\r\n\r\n", 400),
    (
        "an unknown version",
        "GET / HTTP/1.7\r\nhost: x\r\n\r\n",
        400,
    ),
    (
        "HTTP/1.0, which is not accepted",
        "GET / HTTP/1.0\r\nhost: x\r\n\r\n",
        426,
    ),
];

#[tokio::test]
async fn ambiguous_heads_are_refused_and_reported() {
    let posts = AMBIGUOUS.map(|(what, lines)| {
        let head = format!("POST / HTTP/1.1\r\n{lines}\r\n\r\n");
        (what, head, 400)
    });
    let heads = AMBIGUOUS_HEADS.map(|(what, head, status)| (what, head.to_owned(), status));
    for (what, bytes, status) in posts.into_iter().chain(heads) {
        let server = Running::http(manager());
        let answer = server.exchange(bytes.as_bytes()).await;
        let status_line = answer.lines().next().unwrap_or_default();
        assert!(
            status_line.contains(&format!(" {status} ")),
            "{what}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
        server.idle().await;
        let rejected = server.rejected();
        assert_eq!(rejected.len(), 1, "{what}: {rejected:?}");
        assert_eq!(rejected[0].status, status, "{what}: {rejected:?}");
    }
}

#[tokio::test]
async fn chunked_wins_over_a_length_where_both_are_allowed_and_nothing_after_it_is_a_second_request()
 {
    let mut allowing = manager();
    allowing.http1.allow_chunked_length = true;
    let server = Running::http(allowing);
    let answer = server
        .exchange(
            b"POST /one HTTP/1.1\r\nhost: x\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\nGET /two HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .await;
    assert!(answer.contains("POST /one"), "{answer}");
    assert!(!answer.contains("/two"), "{answer}");
}

#[tokio::test]
async fn too_large_heads_are_answered_and_reported() {
    let mut small = manager();
    small.max_request_headers_bytes = 1024;
    small.max_headers_count = 10;
    let many: String = (0..50).map(|n| format!("h{n}: v\r\n")).collect();
    let (large, many_headers) = (Kind::HeadersTooLarge, Kind::TooManyHeaders);
    let cases = [
        (large, format!("a: {}\r\n\r\n", "a".repeat(70_000))),
        (large, format!("a: {}\r\n\r\n", "a".repeat(1100))),
        (many_headers, format!("{many}\r\n")),
        // Without an end.
        (large, "a: b\r\n".repeat(20_000)),
    ];
    for (kind, headers) in cases {
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}");
        let server = Running::http(small.clone());
        let answer = server.exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        server.idle().await;
        let rejected = server.rejected();
        assert_eq!((rejected[0].kind, rejected[0].status), (kind, 431));
        let said = answer.ends_with("Request Header Fields Too Large");
        assert_eq!(
            said,
            kind == many_headers,
            "the codec says nothing: {answer}"
        );
        assert_eq!(server.stat("http.test.downstream_cx_protocol_error"), 1);
    }
}

#[tokio::test]
async fn a_head_within_the_limits_passes() {
    let server = Running::http(manager());
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\na: {}\r\n\r\n",
        "a".repeat(60_000)
    );
    let answer = server.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_answered_with_408() {
    let mut slow = manager();
    slow.request_headers_timeout = Some(Duration::from_millis(100));
    for begun in ["G", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let server = Running::http(slow.clone());
        let mut client = server.connect().await;
        client.send(begun.as_bytes()).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{begun:?}: {answer}");
        drop(client);
        server.idle().await;
        assert_eq!(server.rejected()[0].kind, Kind::HeaderTimeout);
        assert_eq!(server.stat("http.test.downstream_rq_header_timeout"), 1);
    }
}

#[tokio::test]
async fn the_earliest_limit_of_a_head_says_what_passed() {
    let limit = Some(Duration::from_millis(100));
    let mut whole = manager();
    whole.request_timeout = limit;
    let mut idle = manager();
    idle.stream_idle_timeout = limit;
    for (manager, kind, body) in [
        (whole, Kind::RequestTimeout, "request timeout"),
        (idle, Kind::StreamIdle, "stream timeout"),
    ] {
        let server = Running::http(manager);
        let mut client = server.connect().await;
        client.send(b"GET / HT").await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{kind:?}: {answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        drop(client);
        server.idle().await;
        let rejected = server.rejected();
        assert_eq!((rejected[0].kind, rejected[0].status), (kind, 408));
        assert_eq!(server.stat("http.test.downstream_rq_header_timeout"), 0);
    }
}

#[tokio::test]
async fn a_slow_second_head_is_answered_with_408_too() {
    let mut slow = manager();
    slow.request_headers_timeout = Some(Duration::from_millis(100));
    let server = Running::http(slow);
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;
    client.send(b"GET /b HTTP/1.1\r\nho").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut idle = manager();
    idle.idle_timeout = Some(Duration::from_millis(100));
    let server = Running::http(idle);
    let mut silent = server.connect().await;
    assert_eq!(silent.rest().await, "");
    let mut client = server.connect().await;
    client.get("/a").await;
    assert!(client.rest().await.contains("GET /a"));
    drop((silent, client));
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_cx_idle_timeout"), 2);
}

#[tokio::test]
async fn the_last_request_allowed_closes_the_connection() {
    let mut two = manager();
    two.max_requests_per_connection = Some(2);
    let server = Running::http(two);
    let mut client = server.connect().await;
    client.get("/a").await;
    let first = client.until("GET /a").await;
    assert!(!first.contains("connection: close"), "{first}");
    client.get("/b").await;
    let last = client.rest().await;
    assert!(
        last.contains("connection: close") && last.contains("GET /b"),
        "{last}"
    );
    assert_eq!(
        server.stat("http.test.downstream_cx_max_requests_reached"),
        1
    );
}

#[tokio::test]
async fn an_old_connection_is_let_go() {
    let mut short = manager();
    short.max_connection_duration = Some(Duration::from_millis(100));
    short.drain_timeout = Duration::from_millis(100);
    let server = Running::http(short);
    let mut client = server.connect().await;
    client.get("/a").await;
    assert!(client.rest().await.contains("GET /a"));
    assert_eq!(
        server.stat("http.test.downstream_cx_max_duration_reached"),
        1
    );
}

#[tokio::test]
async fn http_1_0_is_served_where_it_is_accepted() {
    let mut old = manager();
    old.http1.accept_http_10 = true;
    old.http1.default_host = "fallback".into();
    let server = Running::http(old);
    let answer = server.exchange(b"GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains("GET /old"), "{answer}");
}

/// The codec would promise to keep the connection, in a second line.
#[tokio::test]
async fn a_client_of_http_1_0_is_told_that_the_connection_closes() {
    let asks = b"GET /old HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n";
    let mut once = manager();
    once.http1.accept_http_10 = true;
    once.max_requests_per_connection = Some(1);
    for (config, status) in [(manager(), 426), (once, 200)] {
        let answer = Running::http(config).exchange(asks).await;
        let head = format!("HTTP/1.0 {status} ");
        assert!(answer.starts_with(&head), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(!answer.contains("keep-alive"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_a_head_is_reported() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    client.send(b"GET / HTTP/1.1\r\nhost").await;
    server.until("http.test.downstream_cx_total", 1).await;
    drop(client);
    server.idle().await;
    assert_eq!(server.rejected().len(), 1, "{:?}", server.rejected());
}

#[tokio::test]
async fn the_preface_of_http_2_in_pieces_is_no_http_1() {
    let server = Running::http(manager());
    let mut client = server.connect().await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send(&[*byte]).await;
    }
    client.send(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    // The server's SETTINGS frame.
    let mut head = [0; 9];
    client.read(&mut head).await;
    assert_eq!(head[3], 4);
    drop(client);
    server.idle().await;
    assert_eq!(server.stat("http.test.downstream_cx_http2_total"), 1);
    assert_eq!(server.stat("http.test.downstream_cx_http2_active"), 0);
}

/// Switches to a protocol that sends back what it gets.
fn switch(
    mut request: ::http::Request<hyper::body::Incoming>,
) -> std::future::Ready<
    Result<::http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible>,
> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let io = hyper_util::rt::TokioIo::new(upgraded);
        let (mut from, mut to) = tokio::io::split(io);
        // An aborted connection ends this with an error, which is what its test waits for.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let response = ::http::Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(http_body_util::Full::default());
    std::future::ready(Ok(response.expect("a valid response")))
}

#[tokio::test]
async fn an_upgraded_connection_lives_on_until_it_ends_or_is_aborted() {
    for abort in [false, true] {
        let config = listener(vec![http_chain(manager())]);
        let server = Running::with(config, Default::default(), |_: &crate::server::Accepted| {
            tower::service_fn(switch)
        });
        let mut client = server.connect().await;
        client
            .send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly")
            .await;
        let answer = client.until("early").await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        client.send(b"late").await;
        client.until("late").await;
        assert_eq!(server.stat("http.test.downstream_cx_upgrades_active"), 1);
        assert_eq!(server.handle.connections(), 1);
        if abort {
            server.handle.abort();
            assert_eq!(client.rest().await, "");
        }
        drop(client);
        server.idle().await;
        assert_eq!(server.stat("http.test.downstream_cx_upgrades_active"), 0);
        assert_eq!(server.stat("http.test.downstream_cx_active"), 0);
    }
}
