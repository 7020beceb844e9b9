//! Sockets, reload, drain, and connections that no filter chain serves.

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt, net::UnixStream, time::timeout};

use super::support::*;
use crate::{
    model::{self, Address, CodecType, HttpConnectionManager, ListenerFilter, TransportSocket},
    server::*,
    transport::TokioExec,
};

fn manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        ..HttpConnectionManager::default()
    }
}

fn config() -> model::Listener {
    listener(vec![http_chain(manager())])
}

#[tokio::test]
async fn an_unchanged_chain_keeps_its_connections_and_a_changed_one_lets_them_go() {
    let mut server = Running::start(config());
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;

    let mut log = config();
    log.metadata
        .namespaces
        .push(("x".into(), model::Value::Null));
    server.replace(log);
    client.get("/b").await;
    let answer = client.until("GET /b").await;
    assert!(!answer.contains("connection: close"), "{answer}");

    let mut before = http_chain(manager());
    before.matches.destination_port = Some(1);
    server.replace(listener(vec![before, http_chain(manager())]));
    client.get("/moved").await;
    let answer = client.until("GET /moved").await;
    assert!(!answer.contains("connection: close"), "{answer}");

    let mut changed = manager();
    changed.max_headers_count = 50;
    server.replace(listener(vec![http_chain(changed)]));
    let mut new = server.connect().await;
    new.get("/n").await;
    let answer = new.until("GET /n").await;
    assert!(!answer.contains("connection: close"), "{answer}");
    client.get("/c").await;
    let answer = client.rest().await;
    assert!(
        answer.contains("connection: close") && answer.contains("GET /c"),
        "{answer}"
    );
    new.get("/m").await;
    new.until("GET /m").await;
}

#[tokio::test]
async fn a_limit_beyond_the_clock_is_none() {
    let mut endless = manager();
    let longest = Some(Duration::MAX);
    endless.idle_timeout = longest;
    endless.max_connection_duration = longest;
    endless.stream_idle_timeout = longest;
    endless.request_timeout = longest;
    endless.request_headers_timeout = longest;
    endless.drain_timeout = Duration::MAX;
    endless.delayed_close_timeout = Duration::MAX;
    let mut server = Running::start(listener(vec![http_chain(endless.clone())]));
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;
    endless.max_headers_count = 50;
    server.replace(listener(vec![http_chain(endless)]));
    server.handle.drain(Drain::Gradual(Duration::MAX));
    client.get("/b").await;
    client.until("GET /b").await;
}

#[tokio::test]
async fn idle_connections_of_a_changed_chain_close_after_the_drain_timeout() {
    let mut short = manager();
    short.drain_timeout = Duration::from_millis(100);
    let mut server = Running::start(listener(vec![http_chain(short)]));
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;
    server.replace(config());
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn no_request_fails_over_many_reloads() {
    let mut server = Running::start(config());
    let (address, mut failed) = (server.address.clone(), 0);
    let load = tokio::spawn(async move {
        for n in 0..200 {
            let mut client = Client::connect(&address).await;
            loop {
                client.get("/x").await;
                let head = client.until("\r\n\r\n").await;
                failed += u32::from(!head.starts_with("HTTP/1.1 200 "));
                client.until("GET /x").await;
                if head.contains("connection: close") || n % 2 == 0 {
                    break;
                }
            }
        }
        failed
    });
    let mut count = 0;
    while !load.is_finished() {
        count += 1;
        let mut next = manager();
        next.max_headers_count = 50 + count % 40;
        server.replace(listener(vec![http_chain(next)]));
        tokio::task::yield_now().await;
    }
    assert_eq!(load.await.expect("no panic"), 0);
}

#[tokio::test]
async fn a_drain_closes_idle_connections_at_once() {
    let server = Running::start(config());
    let mut client = server.connect().await;
    client.get("/a").await;
    client.until("GET /a").await;
    let mut silent = server.connect().await;
    server
        .until("listener.127.0.0.1_0.downstream_cx_active", 2)
        .await;
    server.handle.drain(Drain::Now);
    assert_eq!(client.rest().await, "");
    assert_eq!(silent.rest().await, "");
    drop((client, silent));
    server.idle().await;
    assert!(server.stat("http.test.downstream_cx_drain_close") >= 1);
}

#[tokio::test]
async fn a_gradual_drain_closes_with_the_next_response_and_in_the_end() {
    let server = Running::start(config());
    let mut idle = server.connect().await;
    idle.get("/a").await;
    idle.until("GET /a").await;
    let span = Duration::from_millis(200);
    server.handle.drain(Drain::Gradual(span));
    assert_eq!(idle.rest().await, "");
    let mut late = server.connect().await;
    late.get("/b").await;
    let answer = late.rest().await;
    assert!(answer.ends_with("GET /b"), "{answer}");
}

/// The protocol of its first bytes is not known yet when it is told to go.
#[tokio::test]
async fn a_request_that_comes_during_a_drain_is_answered() {
    for codec in [CodecType::Auto, CodecType::Http1] {
        let mut any = manager();
        any.codec = codec;
        let server = Running::start(listener(vec![http_chain(any)]));
        let mut early = server.connect().await;
        let name = "listener.127.0.0.1_0.downstream_cx_active";
        server.until(name, 1).await;
        early.get("/early").await;
        server.handle.drain(Drain::Now);
        let mut late = server.connect().await;
        server
            .until("listener.127.0.0.1_0.downstream_cx_total", 2)
            .await;
        late.get("/late").await;
        for (mut client, path) in [(early, "/early"), (late, "/late")] {
            let answer = client.rest().await;
            let closes = answer.contains("connection: close");
            assert!(closes && answer.ends_with(path), "{codec:?}: {answer:?}");
        }
        server.idle().await;
    }
}

#[tokio::test]
async fn closing_serves_whoever_waits_in_the_accept_queue() {
    let socket = bind(&config().address, &BindOptions::default()).expect("a free port");
    let address = socket.address().clone();
    let mut waiting = Client::connect(&address).await;
    waiting.get("/queued").await;
    let current = compile(&mut Default::default(), config());
    let handle = ListenerHandle::new(current, Arc::default(), Arc::new(Unobserved));
    handle.close();
    let factory = echoes();
    serve(socket, handle.clone(), factory, TokioExec)
        .await
        .expect("served");
    timeout(PATIENCE, handle.closed())
        .await
        .expect("the loop ended");
    waiting.until("GET /queued").await;
    let addr = address.socket().expect("TCP");
    assert!(
        tokio::net::TcpStream::connect(addr).await.is_err(),
        "the socket is closed"
    );
    handle.abort();
    assert_eq!(waiting.rest().await, "");
    timeout(PATIENCE, handle.idle())
        .await
        .expect("connections end");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let mut limited = config();
    limited.connection_limit = Some(1);
    let server = Running::start(limited);
    let mut first = server.connect().await;
    first.get("/a").await;
    first.until("GET /a").await;
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(
        server.stat("listener.127.0.0.1_0.downstream_cx_overflow"),
        1
    );
    assert_eq!(server.unserved(), [Unserved::ConnectionLimit]);
    drop(first);
    server.idle().await;
    let mut third = server.connect().await;
    third.get("/c").await;
    third.until("GET /c").await;
}

#[tokio::test]
async fn what_no_chain_may_serve_is_closed_and_reported() {
    let mut tls = http_chain(manager());
    tls.transport = TransportSocket::Tls(Box::default());
    let mut refused = http_chain(manager());
    refused.refuse = Some("AuthorizationPolicy a/b".into());
    let mut elsewhere = http_chain(manager());
    elsewhere.matches.destination_port = Some(1);
    let cases = [
        (elsewhere, Unserved::NoFilterChain),
        (refused, Unserved::Refused("AuthorizationPolicy a/b".into())),
        (
            tls,
            Unserved::Refused("TLS cannot be terminated here yet".into()),
        ),
    ];
    for (chain, expected) in cases {
        let server = Running::start(listener(vec![chain]));
        assert_eq!(
            server.exchange(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await,
            ""
        );
        server.idle().await;
        assert_eq!(server.unserved(), [expected]);
    }
}

#[tokio::test]
async fn a_socket_may_take_both_families() {
    let mut chain = http_chain(manager());
    chain.matches.source_type = model::SourceType::SameIpOrLoopback;
    let mut config = listener(vec![chain]);
    config.address = Address::Socket("[::]:0".parse().expect("an address"));
    config.ipv4_compat = true;
    let server = Running::start(config);
    let port = server.address.socket().expect("bound").port();
    let over_ipv4 = Address::Socket(([127, 0, 0, 1], port).into());
    let mut client = Client::connect(&over_ipv4).await;
    client.get("/a").await;
    client.until("GET /a").await;
}

#[tokio::test]
async fn listener_filters_see_the_first_bytes_and_leave_them() {
    let mut http2 = http_chain(manager());
    http2.matches.application_protocols = vec!["h2c".into()];
    http2.refuse = Some("not this one".into());
    let mut plain = http_chain(manager());
    plain.matches.application_protocols = vec!["http/1.1".into()];
    let mut config = listener(vec![http2, plain]);
    config.listener_filters = vec![
        ListenerFilter::ProxyProtocol {
            allow_without: false,
            disallowed: None,
            stat_prefix: "".into(),
        },
        ListenerFilter::TlsInspector,
        ListenerFilter::HttpInspector,
    ];
    let server = Running::start(config);
    let mut client = server.connect().await;
    client
        .send(b"PROXY TCP4 192.0.2.1 192.0.2.2 11 22\r\nGE")
        .await;
    client.send(b"T /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.until("GET /a").await;
    let answer = server.exchange(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer, "");
    assert!(matches!(
        server.unserved()[..],
        [Unserved::ListenerFilter(_)]
    ));
}

#[tokio::test]
async fn listener_filters_that_wait_too_long_close_or_go_on() {
    for goes_on in [false, true] {
        let mut config = config();
        config.listener_filters = vec![ListenerFilter::HttpInspector];
        config.listener_filters_timeout = Duration::from_millis(50);
        config.continue_on_listener_filters_timeout = goes_on;
        let server = Running::start(config);
        let mut client = server.connect().await;
        if !goes_on {
            assert_eq!(client.rest().await, "");
            assert_eq!(server.unserved(), [Unserved::Timeout]);
            continue;
        }
        server
            .until("listener.127.0.0.1_0.downstream_pre_cx_timeout", 1)
            .await;
        client.get("/late").await;
        client.until("GET /late").await;
    }
}

#[tokio::test]
async fn what_no_service_sees_is_in_the_access_logs() {
    let path = std::env::temp_dir().join(format!("mesh-server-{}.log", std::process::id()));
    let log = |format: &str| model::AccessLog {
        sink: model::LogSink::File(path.clone()),
        format: Some(model::FormatKind::Text(model::Format {
            text: format.into(),
        })),
        filter: None,
        omit_empty: false,
    };
    let mut manager = manager();
    manager.access_log = vec![log(
        "%PROTOCOL% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%\n",
    )];
    let mut chain = http_chain(manager);
    chain.matches.application_protocols = vec!["http/1.0".into(), "http/1.1".into()];
    let mut config = listener(vec![chain]);
    config.listener_filters = vec![ListenerFilter::HttpInspector];
    config.access_log = vec![log("%PROTOCOL% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")];
    let server = Running::start(config);
    for bytes in [
        "GET /old HTTP/1.0\r\n\r\n",
        "GET /bad HTTP/1.1\r\nhost : x\r\n\r\n",
        "SSH-2.0-OpenSSH_9.6\r\n",
    ] {
        server.exchange(bytes.as_bytes()).await;
    }
    server.idle().await;
    // The listener writes a line for each connection besides.
    let wanted = "HTTP/1.0 /old 426 DPE\nHTTP/1.1 - -\nHTTP/1.1 - 400 DPE\nHTTP/1.1 - -\n- NR filter_chain_not_found\n";
    let written = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.len() >= wanted.len() {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(
        timeout(PATIENCE, written).await.expect("lines are written"),
        wanted
    );
    std::fs::remove_file(&path).expect("removed");
}

#[tokio::test]
async fn a_port_is_taken_exclusively_and_then_shared_by_workers() {
    let any = Address::Socket(([127, 0, 0, 1], 0).into());
    let options = BindOptions::default();
    let first = bind(&any, &options).expect("a free port");
    let second = first.another().expect("shares the port");
    assert_eq!(first.address(), second.address());
    let taken = bind(first.address(), &options).expect_err("it is in use");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    drop((first, second));
}

#[tokio::test]
async fn a_unix_socket_replaces_a_stale_file_and_removes_its_own() {
    let folder = std::env::temp_dir().join(format!("mesh-server-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "left behind");
    let mut config = config();
    config.address = Address::Pipe(path.clone());
    let server = Running::start(config);
    let busy = bind(&server.address, &BindOptions::default()).expect_err("it is in use");
    assert_eq!(busy.kind(), std::io::ErrorKind::AddrInUse);
    let mut client = UnixStream::connect(&path).await.expect("it listens");
    tokio::io::AsyncWriteExt::write_all(
        &mut client,
        b"GET /u HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await
    .expect("written");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("read");
    assert!(answer.contains("GET /u"), "{answer}");
    server.handle.close();
    timeout(PATIENCE, server.accepting)
        .await
        .expect("ends")
        .expect("no panic")
        .expect("no error");
    assert!(!path.exists(), "removed");
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[tokio::test]
async fn an_abstract_socket_needs_no_file() {
    let mut config = config();
    let name = format!("@mesh-server-{}", std::process::id());
    config.address = Address::Pipe(name.clone().into());
    let server = Running::start(config);
    let path = format!("\0{}", &name[1..]);
    let mut client = UnixStream::connect(path).await.expect("it listens");
    tokio::io::AsyncWriteExt::write_all(
        &mut client,
        b"GET /u HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await
    .expect("written");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("read");
    assert!(answer.contains("GET /u"), "{answer}");
    drop(server);
}

#[tokio::test]
async fn a_connection_that_is_aborted_in_the_listener_filters_is_no_longer_counted() {
    let mut config = config();
    config.listener_filters = vec![ListenerFilter::TlsInspector];
    let server = Running::start(config);
    let _silent = server.connect().await;
    let gauge = "listener.127.0.0.1_0.downstream_pre_cx_active";
    server.until(gauge, 1).await;
    server.handle.abort();
    server.idle().await;
    assert_eq!(server.stat(gauge), 0);
}

#[tokio::test]
async fn each_connection_is_ended_by_one_side() {
    let server = Running::start(config());
    let mut asks = server.connect().await;
    asks.get("/a").await;
    asks.until("GET /a").await;
    drop(server.connect().await);
    let ended = |by: &str| server.stat(&format!("http.test.downstream_cx_destroy{by}"));
    server
        .until("http.test.downstream_cx_destroy_remote", 1)
        .await;
    server.handle.abort();
    assert_eq!(asks.rest().await, "");
    server.idle().await;
    assert_eq!((ended(""), ended("_local"), ended("_remote")), (2, 1, 1));
}
