use std::{net::SocketAddr, sync::Arc};

use http::{Request, Version};

use super::{Answer, Front};
use crate::{
    Kind,
    layer::Exchange,
    model::{Address, EscapedSlashes, HttpConnectionManager, StripPort, UnderscoresAction},
    telemetry::record::Record,
    transport::ConnInfo,
};

fn connection(peer: &str) -> Arc<ConnInfo> {
    let peer: SocketAddr = peer.parse().expect("an address");
    let local = ([192, 0, 2, 1], 8080).into();
    Arc::new(ConnInfo::new(Address::Socket(local), Address::Socket(peer)))
}

/// Treats a request that comes from `peer`; the request as it goes on.
fn treat(
    config: HttpConnectionManager,
    peer: &str,
    request: http::request::Builder,
) -> Result<Request<()>, Answer> {
    let front = Front::new(&config, Arc::default());
    let record = Record::begin(Some(connection(peer)), Version::HTTP_11, false);
    let mut exchange = Exchange {
        request: request.body(()).expect("a request"),
        record,
    };
    front.treat(&mut exchange, &[])?;
    Ok(exchange.request)
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "a.test")
}

fn edge() -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: true,
        ..HttpConnectionManager::default()
    }
}

fn header<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

#[test]
fn an_edge_request_is_cleaned_and_an_internal_one_is_not() {
    let sent = || {
        get("/")
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-internal", "true")
    };
    let seen = treat(edge(), "203.0.113.9:5", sent()).expect("passes");
    assert_eq!(header(&seen, "x-forwarded-for"), Some("203.0.113.9"));
    assert_eq!(header(&seen, "x-forwarded-proto"), Some("http"));
    assert_eq!(
        header(&seen, "x-envoy-external-address"),
        Some("203.0.113.9")
    );
    assert_eq!(header(&seen, "x-envoy-retry-on"), None);
    assert_eq!(header(&seen, "x-envoy-internal"), None);
    let seen = treat(edge(), "10.0.0.9:5", sent()).expect("passes");
    assert_eq!(header(&seen, "x-envoy-internal"), Some("true"));
    assert_eq!(header(&seen, "x-envoy-retry-on"), Some("5xx"));
}

#[test]
fn forwarded_for_is_appended_or_trusted_by_hops() {
    let sent = || get("/").header("x-forwarded-for", "1.1.1.1, 2.2.2.2");
    let seen = treat(edge(), "203.0.113.9:5", sent()).expect("passes");
    assert_eq!(
        header(&seen, "x-forwarded-for"),
        Some("1.1.1.1, 2.2.2.2,203.0.113.9")
    );
    let hops = HttpConnectionManager {
        xff_num_trusted_hops: 1,
        ..edge()
    };
    let seen = treat(hops, "203.0.113.9:5", sent()).expect("passes");
    assert_eq!(header(&seen, "x-envoy-external-address"), Some("2.2.2.2"));
    let inner = HttpConnectionManager::default();
    let seen = treat(inner, "203.0.113.9:5", sent()).expect("passes");
    assert_eq!(
        header(&seen, "x-forwarded-for"),
        Some("1.1.1.1, 2.2.2.2"),
        "left alone"
    );
}

#[test]
fn request_ids_are_made_where_they_are_absent_or_not_trusted() {
    let with = || get("/").header("x-request-id", "mine");
    let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", get("/")).expect("passes");
    assert_eq!(header(&seen, "x-request-id").map(str::len), Some(36));
    let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", with()).expect("passes");
    assert_eq!(header(&seen, "x-request-id"), Some("mine"));
    let seen = treat(edge(), "203.0.113.9:5", with()).expect("passes");
    assert_ne!(header(&seen, "x-request-id"), Some("mine"));
}

#[test]
fn headers_of_the_connection_stay_here_unless_they_ask_for_an_upgrade() {
    let sent = get("/")
        .header("connection", "x-mine, close")
        .header("x-mine", "1")
        .header("keep-alive", "5")
        .header("te", "gzip, trailers")
        .header("upgrade", "h2c");
    let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", sent).expect("passes");
    for name in ["connection", "x-mine", "keep-alive", "upgrade"] {
        assert_eq!(header(&seen, name), None, "{name}");
    }
    assert_eq!(header(&seen, "te"), Some("trailers"));
    let sent = get("/")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket");
    let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", sent).expect("passes");
    assert_eq!(header(&seen, "upgrade"), Some("websocket"));
    assert_eq!(header(&seen, "content-length"), Some("0"));
    let sent = get("/").header("connection", "host");
    assert!(treat(HttpConnectionManager::default(), "10.0.0.9:5", sent).is_err());
}

#[test]
fn hosts_are_checked_and_stripped() {
    let refused = |request| match treat(HttpConnectionManager::default(), "10.0.0.9:5", request) {
        Err(Answer::Error(error)) => Some(error.kind()),
        _ => None,
    };
    assert_eq!(refused(Request::get("/")), Some(Kind::MissingHost));
    assert_eq!(
        refused(get("/").header("host", "b")),
        Some(Kind::DownstreamProtocol)
    );
    let strip = HttpConnectionManager {
        strip_port: StripPort::Matching,
        strip_trailing_host_dot: true,
        ..HttpConnectionManager::default()
    };
    for (host, wanted) in [("a.:8080", "a"), ("a:81", "a:81")] {
        let seen = treat(
            strip.clone(),
            "10.0.0.9:5",
            Request::get("/").header("host", host),
        );
        assert_eq!(
            header(&seen.expect("passes"), "host"),
            Some(wanted),
            "{host}"
        );
    }
}

#[test]
fn paths_take_the_form_that_the_listener_wants() {
    let config = HttpConnectionManager {
        normalize_path: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::UnescapeAndForward,
        ..HttpConnectionManager::default()
    };
    for (path, wanted) in [
        ("/a/../b//c?x=//", "/b/c?x=//"),
        ("/a%2Fb", "/a/b"),
        ("/plain", "/plain"),
    ] {
        let seen = treat(config.clone(), "10.0.0.9:5", get(path)).expect("passes");
        assert_eq!(seen.uri(), wanted, "{path}");
    }
    let redirect = HttpConnectionManager {
        escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
        ..config
    };
    match treat(redirect, "10.0.0.9:5", get("/a%5cb")) {
        Err(Answer::Response(response)) => {
            assert_eq!(response.status(), 307);
            assert_eq!(response.headers()["location"], "/a\\b");
        }
        other => panic!("a redirect, not {other:?}"),
    }
}

#[test]
fn underscores_pass_are_dropped_or_refused() {
    let sent = || get("/").header("x_a", "1");
    for (action, wanted) in [
        (UnderscoresAction::Allow, Some(Some("1"))),
        (UnderscoresAction::DropHeader, Some(None)),
        (UnderscoresAction::RejectRequest, None),
    ] {
        let config = HttpConnectionManager {
            underscores: action,
            ..HttpConnectionManager::default()
        };
        let seen = treat(config, "10.0.0.9:5", sent()).ok();
        let value = seen.as_ref().map(|seen| header(seen, "x_a"));
        assert_eq!(value, wanted, "{action:?}");
    }
}
