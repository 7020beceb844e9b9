//! What listener filters find, and what they count.

use super::support::*;
use crate::model::{HttpConnectionManager, ListenerFilter, ProxyProtocolVersion};
use crate::server::Unserved;
use crate::transport::detect::{MAX_HELLO, MAX_REQUEST_LINE};

fn with(filters: Vec<ListenerFilter>) -> Running {
    let manager = HttpConnectionManager {
        stat_prefix: "test".into(),
        ..Default::default()
    };
    let mut config = listener(vec![http_chain(manager)]);
    config.listener_filters = filters;
    Running::start(config)
}

/// Plays each case on a connection of its own, and looks at the statistics that it moves.
async fn moved(filters: Vec<ListenerFilter>, cases: &[(&[u8], &[&str])]) {
    for (bytes, expected) in cases {
        let server = with(filters.clone());
        let mut client = server.connect().await;
        client.send(bytes).await;
        let undecided = "listener.127.0.0.1_0.downstream_pre_cx_active";
        let first = expected.first().copied().unwrap_or(undecided);
        server.until(first, 1).await;
        drop(client);
        server.idle().await;
        let mut seen = Vec::new();
        server.stats.each(|name, value| {
            let of_filters = ["http_inspector", "tls_inspector", "proxy_proto"];
            if value > 0 && of_filters.iter().any(|filter| name.contains(filter)) {
                assert_eq!(value, 1, "{name}");
                seen.push(name.to_owned());
            }
        });
        assert_eq!(
            seen,
            *expected,
            "{}",
            bytes[..bytes.len().min(64)].escape_ascii()
        );
    }
}

#[tokio::test]
async fn the_http_inspector_counts_what_it_finds() {
    let long = [b"GET /".as_slice(), &vec![b'a'; MAX_REQUEST_LINE]].concat();
    let cases: [(&[u8], &[&str]); 7] = [
        (b"GET /a HTTP/1.1\r\n", &["http_inspector.http11_found"]),
        (b"GET /a HTTP/1.0\r\n", &["http_inspector.http10_found"]),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &["http_inspector.http2_found"],
        ),
        (
            b"\r\nGET /a HTTP/1.1\r\n",
            &["http_inspector.http_not_found"],
        ),
        (b"\x00\x01", &["http_inspector.http_not_found"]),
        (&long, &["http_inspector.read_error"]),
        (b"GET /a", &[]),
    ];
    moved(vec![ListenerFilter::HttpInspector], &cases).await;
}

/// A long line in small pieces is still one.
#[tokio::test]
async fn a_long_request_line_is_http() {
    let server = with(vec![ListenerFilter::HttpInspector]);
    let mut client = server.connect().await;
    client.send(b"GET /").await;
    for _ in 0..40 {
        client.send(&[b'a'; 1000]).await;
        tokio::task::yield_now().await;
    }
    client.send(b" HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.until("aaa").await;
    assert_eq!(server.stat("http_inspector.http11_found"), 1);
}

#[tokio::test]
async fn the_tls_inspector_counts_what_it_finds() {
    use crate::transport::detect::tests::{hello, records};
    let whole = records(&hello("a.test", &["h2"]), 1000);
    let bare = records(&hello("", &[]), 1000);
    let mut large = vec![22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc];
    large.resize(MAX_HELLO, 0);
    let cases: [(&[u8], &[&str]); 4] = [
        (
            &whole,
            &[
                "tls_inspector.tls_found",
                "tls_inspector.alpn_found",
                "tls_inspector.sni_found",
            ],
        ),
        (
            &bare,
            &[
                "tls_inspector.tls_found",
                "tls_inspector.alpn_not_found",
                "tls_inspector.sni_not_found",
            ],
        ),
        (b"GET /", &["tls_inspector.tls_not_found"]),
        (&large, &["tls_inspector.client_hello_too_large"]),
    ];
    moved(vec![ListenerFilter::TlsInspector], &cases).await;
}

fn proxy(allow_without: bool, disallowed: Option<ProxyProtocolVersion>) -> Vec<ListenerFilter> {
    vec![ListenerFilter::ProxyProtocol {
        allow_without,
        disallowed,
        stat_prefix: "p".into(),
    }]
}

const V1: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n";
const BAD_V1: &[u8] = b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const BAD_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0";
const FOUND: [&str; 2] = [
    "proxy_proto.p.versions.v1.found",
    "proxy_proto.p.versions.v2.found",
];
const LEGACY: &str = "downstream_cx_proxy_proto_error";

#[tokio::test]
async fn headers_of_the_proxy_protocol_are_counted() {
    let error = [
        "proxy_proto.p.versions.v1.error",
        "proxy_proto.p.versions.v2.error",
    ];
    moved(
        proxy(false, None),
        &[
            (V1, &FOUND[..1]),
            (V2, &FOUND[1..]),
            (BAD_V1, &[LEGACY, error[0]]),
            (BAD_V2, &[LEGACY, error[1]]),
            (
                b"GET / HTTP/1.1\r\n",
                &[LEGACY, "proxy_proto.p.not_found_disallowed"],
            ),
        ],
    )
    .await;
    moved(
        proxy(true, None),
        &[
            (V2, &FOUND[1..]),
            (BAD_V1, &[LEGACY, error[0]]),
            (b"GET / HTTP/1.1\r\n", &["proxy_proto.p.not_found_allowed"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_version_that_is_not_allowed_is_refused_or_passed_on() {
    let disallowed = "proxy_proto.p.versions.v1.disallowed";
    moved(
        proxy(false, Some(ProxyProtocolVersion::V1)),
        &[
            (V1, &[FOUND[0], disallowed]),
            (BAD_V1, &[FOUND[0], disallowed]),
            (V2, &FOUND[1..]),
        ],
    )
    .await;
    moved(
        proxy(true, Some(ProxyProtocolVersion::V1)),
        &[
            (V1, &["proxy_proto.p.not_found_allowed"]),
            (V2, &FOUND[1..]),
        ],
    )
    .await;
}

/// As in Envoy only what could not be read is an error of a listener filter.
#[tokio::test]
async fn a_refused_connection_is_no_error_of_its_filter() {
    let server = with(proxy(false, None));
    assert_eq!(server.exchange(BAD_V1).await, "");
    server.idle().await;
    assert!(matches!(
        server.unserved()[..],
        [Unserved::ListenerFilter(_)]
    ));
    let listener = |field: &str| server.stat(&format!("listener.127.0.0.1_0.{field}"));
    assert_eq!(listener("downstream_cx_total"), 0);
    assert_eq!(listener("downstream_listener_filter_error"), 0);
    assert_eq!(listener("downstream_listener_filter_remote_close"), 0);
}
