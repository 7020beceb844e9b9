//! What is believed of a client, and what it may say of the host and of its connection.

use std::sync::Arc;

use http::{HeaderName, Request, Version};

use super::{
    super::{copied, head::extended_connect},
    connection, edge, get, header, treat,
};
use crate::{
    Kind,
    layer::{
        Exchange,
        route::front::{Answer, Front},
    },
    model::{Cidr, HttpConnectionManager, Tracing},
    telemetry::record::Record,
};

const PEER: &str = "203.0.113.9:5";

fn plain() -> HttpConnectionManager {
    HttpConnectionManager::default()
}

/// The network of `PEER` is one of ours.
fn trusting(config: HttpConnectionManager) -> HttpConnectionManager {
    HttpConnectionManager {
        internal_addresses: vec![Cidr::new([203, 0, 113, 0].into(), 24).expect("a block")],
        append_x_forwarded_port: true,
        ..config
    }
}

/// A listener, headers that are sent, and what becomes of one of them.
type Fate<'a> = (
    &'a HttpConnectionManager,
    &'a [(&'a str, &'a str)],
    (&'a str, Option<&'a str>),
);

#[test]
fn what_is_said_of_the_client_is_believed_where_it_may_be() {
    let (inner, edge) = (trusting(plain()), trusting(edge()));
    let hops = HttpConnectionManager {
        xff_num_trusted_hops: 1,
        ..edge.clone()
    };
    let retry = ("x-envoy-retry-on", "5xx");
    let operation = ("x-envoy-decorator-operation", "x");
    let (proto, port) = (("x-forwarded-proto", "https"), ("x-forwarded-port", "1"));
    let ours = ("x-forwarded-for", "203.0.113.7");
    let others = ("x-forwarded-for", "9.9.9.9");
    let external = "x-envoy-external-address";
    let cases: [Fate<'_>; 13] = [
        // A client in a network of ours is internal, unless somebody else is said to stand behind it.
        (&edge, &[retry], (retry.0, Some("5xx"))),
        (&edge, &[retry, others], (retry.0, None)),
        (&inner, &[retry, ours], (retry.0, Some("5xx"))),
        (&inner, &[retry], (retry.0, None)),
        // The address of others is told where they come in.
        (&edge, &[others], (external, Some("203.0.113.9"))),
        (&inner, &[others], (external, None)),
        (&edge, &[operation, others], (operation.0, None)),
        (&inner, &[operation, others], (operation.0, Some("x"))),
        // Protocol and port are those of the connection where no proxy in front is trusted.
        (&edge, &[proto], (proto.0, Some("http"))),
        (&hops, &[proto], (proto.0, Some("https"))),
        (&edge, &[port], (port.0, Some("8080"))),
        (&hops, &[port], (port.0, Some("1"))),
        (&hops, &[], (port.0, Some("8080"))),
    ];
    for (config, headers, (name, wanted)) in cases {
        let mut sent = get("/");
        for (name, value) in headers {
            sent = sent.header(*name, *value);
        }
        let seen = treat(config.clone(), PEER, sent).expect("passes");
        assert_eq!(header(&seen, name), wanted, "{name} {headers:?}");
    }
}

#[test]
fn a_client_on_this_machine_is_told_by_the_address_of_the_listener() {
    let seen = treat(edge(), "127.0.0.1:5", get("/")).expect("passes");
    assert_eq!(header(&seen, "x-forwarded-for"), Some("192.0.2.1"));
    // And so is a copy, which is a request of our own.
    let mut headers = seen.headers().clone();
    copied(&mut headers, Some(&connection(PEER)));
    assert_eq!(headers["x-forwarded-for"], "192.0.2.1,192.0.2.1");
    assert_eq!(headers["x-envoy-internal"], "true");
}

#[test]
fn headers_for_internal_requests_alone_are_kept_from_others() {
    for (peer, wanted) in [(PEER, true), ("9.9.9.9:5", false)] {
        let front = Front::new(&trusting(edge()), Arc::default());
        let record = Record::begin(Some(connection(peer)), Version::HTTP_11, false);
        let request = get("/").header("x-mine", "1").body(()).expect("a request");
        let mut exchange = Exchange::new(request, record);
        let names = [HeaderName::from_static("x-mine")];
        front.treat(&mut exchange, &names).expect("passes");
        assert_eq!(exchange.request.headers().contains_key("x-mine"), wanted);
    }
}

#[test]
fn a_new_id_tells_whether_the_request_is_traced() {
    for (pack, digit) in [(true, "9"), (false, "4")] {
        let config = HttpConnectionManager {
            pack_trace_reason: pack,
            tracing: Some(Tracing {
                random_sampling: 10_000,
                client_sampling: 0,
                overall_sampling: 10_000,
            }),
            ..plain()
        };
        let seen = treat(config, PEER, get("/")).expect("passes");
        let id = header(&seen, "x-request-id").expect("an id");
        assert_eq!(&id[14..15], digit, "{id}");
    }
}

#[test]
fn the_host_is_that_of_the_target_or_one_for_http10() {
    let whole = Request::get("http://b.test/x").header("host", "a.test");
    let seen = treat(plain(), PEER, whole).expect("passes");
    let hosts = (header(&seen, "host"), seen.uri().host());
    assert_eq!(hosts, (None, Some("b.test")));
    let mut config = plain();
    config.http1.default_host = "d.test".into();
    for (version, wanted) in [
        (Version::HTTP_10, Ok("d.test")),
        (Version::HTTP_11, Err(Kind::MissingHost)),
    ] {
        let seen = treat(config.clone(), PEER, Request::get("/").version(version));
        let host = match &seen {
            Ok(seen) => Ok(header(seen, "host").expect("a host")),
            Err(Answer::Error(error)) => Err(error.kind()),
            Err(other) => panic!("an error, not {other:?}"),
        };
        assert_eq!(host, wanted);
    }
    let dotless = HttpConnectionManager {
        strip_trailing_host_dot: true,
        ..plain()
    };
    let dotted = Request::get("/").header("host", "a.test.");
    let seen = treat(dotless, PEER, dotted).expect("passes");
    assert_eq!(header(&seen, "host"), Some("a.test"));
}

#[test]
fn an_upgrade_keeps_its_length_and_h2c_is_none() {
    let sent = |kind| {
        let sent = get("/").header("connection", "upgrade, http2-settings");
        sent.header("upgrade", kind).header("http2-settings", "AAA")
    };
    let websocket = sent("websocket").header("content-length", "5");
    let seen = treat(plain(), PEER, websocket).expect("passes");
    assert_eq!(header(&seen, "content-length"), Some("5"));
    assert_eq!(header(&seen, "connection"), Some("upgrade"));
    assert_eq!(header(&seen, "http2-settings"), None);
    let seen = treat(plain(), PEER, sent("h2c")).expect("passes");
    for name in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(header(&seen, name), None, "{name}");
    }
}

#[cfg(feature = "net")]
#[test]
fn an_extended_connect_is_an_upgrade_unless_it_is_of_bytes() {
    for (protocol, wanted) in [("websocket", Some("websocket")), ("bytestream", None)] {
        let mut request = Request::connect("http://a.test/")
            .body(())
            .expect("a request");
        let named = hyper::ext::Protocol::from(protocol);
        request.extensions_mut().insert(named);
        assert_eq!(extended_connect(&mut request), wanted.is_some());
        assert_eq!(header(&request, "upgrade"), wanted);
        let method = wanted.map_or("CONNECT", |_| "GET");
        assert_eq!(request.method(), method);
    }
}
