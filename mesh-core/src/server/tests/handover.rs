//! Connections that a listener hands to the listener of their original address. The PROXY protocol tells that address here, as
//! the kernel does for redirected connections.

use std::sync::Arc;

use super::support::*;
use crate::{
    model::{self, Address, HttpConnectionManager, ListenerFilter, PortMatch},
    server::*,
};

fn config(name: &str, port: u16) -> model::Listener {
    let manager = HttpConnectionManager {
        stat_prefix: name.into(),
        ..HttpConnectionManager::default()
    };
    let mut config = listener(vec![http_chain(manager)]);
    config.name = name.into();
    if port != 0 {
        config.address = Address::Socket(([192, 0, 2, 1], port).into());
        config.bind_to_port = false;
    }
    config
}

fn redirecting() -> model::Listener {
    let mut config = config("front", 0);
    config.use_original_dst = true;
    config.listener_filters = vec![ListenerFilter::ProxyProtocol {
        allow_without: true,
        disallowed: None,
        stat_prefix: "".into(),
    }];
    config
}

/// A listener without a socket.
fn unbound(server: &Running, config: model::Listener) -> ListenerHandle {
    let current = compile(&mut Default::default(), config);
    ListenerHandle::new(current, server.stats.clone(), server.seen.clone())
}

async fn ask(server: &Running, destination: &str) -> String {
    let (ip, port) = destination.split_once(' ').expect("address and port");
    let head = format!("PROXY TCP4 198.51.100.7 {ip} 1111 {port}\r\n");
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    server.exchange(format!("{head}{request}").as_bytes()).await
}

#[tokio::test]
async fn a_redirected_connection_goes_to_the_listener_of_its_address() {
    let server = Running::start(redirecting());
    let directory = Arc::new(Directory::default());
    let exact = {
        let mut config = config("exact", 80);
        // Its own filters run on the bytes that were read already.
        config.listener_filters = vec![ListenerFilter::HttpInspector];
        config.filter_chains[0].matches.application_protocols = vec!["http/1.1".into()];
        unbound(&server, config)
    };
    let any = {
        let mut config = config("any", 443);
        config.address = Address::Socket(([0, 0, 0, 0], 443).into());
        unbound(&server, config)
    };
    for handle in [&server.handle, &exact, &any] {
        directory.add(handle);
    }
    server.handle.hand_over_by(&directory);
    for (destination, served) in [
        ("192.0.2.1 80", "exact"),
        ("192.0.2.9 443", "any"),
        ("192.0.2.1 81", "front"),
    ] {
        let before = server.stat(&format!("http.{served}.downstream_cx_total"));
        let answer = ask(&server, destination).await;
        assert!(answer.ends_with("GET /"), "{destination}: {answer}");
        let after = server.stat(&format!("http.{served}.downstream_cx_total"));
        assert_eq!(after, before + 1, "{destination} is for {served}");
    }
    // Who was not redirected stays.
    let answer = server
        .exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert!(answer.ends_with("GET /"), "{answer}");
    assert_eq!(server.stat("http.front.downstream_cx_total"), 2);
    server.idle().await;
    assert_eq!((exact.connections(), any.connections()), (0, 0));
    assert_eq!(server.stat("listener.192.0.2.1_80.downstream_cx_total"), 1);
    assert_eq!(server.stat("listener.192.0.2.1_80.downstream_cx_active"), 0);

    directory.remove(&exact);
    ask(&server, "192.0.2.1 80").await;
    assert_eq!(server.stat("http.front.downstream_cx_total"), 3);
}

/// One for any address of IPv6 takes those of IPv4 only if it says so.
#[tokio::test]
async fn a_listener_of_both_families_takes_both() {
    for compat in [false, true] {
        let server = Running::start(redirecting());
        let directory = Arc::new(Directory::default());
        let mut any = config("any", 80);
        any.address = Address::Socket("[::]:80".parse().expect("an address"));
        any.ipv4_compat = compat;
        let any = unbound(&server, any);
        directory.add(&any);
        server.handle.hand_over_by(&directory);
        ask(&server, "192.0.2.1 80").await;
        let taken = server.stat("http.any.downstream_cx_total");
        assert_eq!(taken, u64::from(compat));
    }
}

#[tokio::test]
async fn an_inspector_is_left_out_for_the_ports_that_say_so() {
    let mut config = redirecting();
    config.use_original_dst = false;
    let port_80 = PortMatch::Or(vec![PortMatch::Range(80, 81)]);
    config.listener_filters.push(ListenerFilter::Except(
        port_80,
        Box::new(ListenerFilter::HttpInspector),
    ));
    config.filter_chains[0].matches.application_protocols = vec!["http/1.1".into()];
    let server = Running::start(config);
    for (destination, served) in [("192.0.2.1 81", true), ("192.0.2.1 80", false)] {
        let answer = ask(&server, destination).await;
        assert_eq!(answer.ends_with("GET /"), served, "{destination}: {answer}");
    }
}

#[tokio::test]
async fn only_a_listener_that_is_told_to_hands_over_and_limits_hold() {
    for (tells, limit) in [(false, None), (true, Some(0))] {
        let mut front = redirecting();
        front.use_original_dst = tells;
        let server = Running::start(front);
        let directory = Arc::new(Directory::default());
        let mut config = config("exact", 80);
        config.connection_limit = limit;
        let exact = unbound(&server, config);
        directory.add(&exact);
        server.handle.hand_over_by(&directory);
        let answer = ask(&server, "192.0.2.1 80").await;
        assert_eq!(server.stat("http.exact.downstream_cx_total"), 0);
        if tells {
            assert_eq!(answer, "");
            assert_eq!(server.unserved(), [Unserved::ConnectionLimit]);
        } else {
            assert!(answer.ends_with("GET /"), "{answer}");
        }
    }
}
