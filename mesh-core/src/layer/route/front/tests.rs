mod client;

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Version};

use super::{Answer, Front};
use crate::{
    Kind,
    layer::Exchange,
    model::{
        Address, Cidr, EscapedSlashes, ForwardClientCert, HttpConnectionManager, StripPort,
        Tracing, UnderscoresAction,
    },
    telemetry::record::{Record, Wants},
    transport::ConnInfo,
};

fn connection(peer: &str) -> Arc<ConnInfo> {
    let peer: SocketAddr = peer.parse().expect("an address");
    let local = ([192, 0, 2, 1], 8080).into();
    Arc::new(ConnInfo::new(Address::Socket(local), Address::Socket(peer)))
}

/// Treats a request that comes from `peer`; the request as it goes on.
pub(super) fn treat(
    config: HttpConnectionManager,
    peer: &str,
    request: http::request::Builder,
) -> Result<Request<()>, Answer> {
    let front = Front::new(&config, Arc::default());
    let record = Record::begin(Some(connection(peer)), Version::HTTP_11, false);
    let mut exchange = Exchange::new(request.body(()).expect("a request"), record);
    front.treat(&mut exchange, &[])?;
    Ok(exchange.request.into_inner())
}

pub(super) fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "a.test")
}

pub(super) fn edge() -> HttpConnectionManager {
    HttpConnectionManager {
        use_remote_address: true,
        ..HttpConnectionManager::default()
    }
}

pub(super) fn header<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
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
    assert_eq!(header(&seen, "x-envoy-internal"), None, "private only");
    assert_eq!(header(&seen, "x-envoy-retry-on"), None, "private only");
    let trusting = HttpConnectionManager {
        internal_addresses: vec![Cidr::new([10, 0, 0, 0].into(), 8).expect("a block")],
        ..edge()
    };
    let seen = treat(trusting, "10.0.0.9:5", sent()).expect("passes");
    assert_eq!(header(&seen, "x-envoy-internal"), Some("true"));
    assert_eq!(header(&seen, "x-envoy-retry-on"), Some("5xx"));
}

#[test]
fn lines_of_forwarded_for_are_one_list() {
    let sent = || {
        get("/")
            .header("x-forwarded-for", "1.1.1.1")
            .header("x-forwarded-for", "2.2.2.2")
    };
    let seen = treat(edge(), "203.0.113.9:5", sent()).expect("passes");
    let lines: Vec<_> = seen.headers().get_all("x-forwarded-for").iter().collect();
    assert_eq!(lines, ["1.1.1.1,2.2.2.2,203.0.113.9"]);
    let hops = HttpConnectionManager {
        xff_num_trusted_hops: 1,
        ..edge()
    };
    let seen = treat(hops, "203.0.113.9:5", sent()).expect("passes");
    assert_eq!(
        header(&seen, "x-envoy-external-address"),
        Some("2.2.2.2"),
        "not what the client wrote"
    );
}

#[test]
fn certificate_details_of_a_client_without_a_certificate_are_removed() {
    for (mode, wanted) in [
        (ForwardClientCert::Sanitize, None),
        (ForwardClientCert::ForwardOnly, None),
        (ForwardClientCert::AppendForward, None),
        (ForwardClientCert::SanitizeSet, None),
        (ForwardClientCert::AlwaysForwardOnly, Some("By=x")),
    ] {
        let config = HttpConnectionManager {
            forward_client_cert: mode,
            ..HttpConnectionManager::default()
        };
        let sent = get("/").header("x-forwarded-client-cert", "By=x");
        let seen = treat(config, "10.0.0.9:5", sent).expect("passes");
        assert_eq!(header(&seen, "x-forwarded-client-cert"), wanted, "{mode:?}");
    }
    assert_eq!(ForwardClientCert::default(), ForwardClientCert::Sanitize);
}

#[test]
fn proto_and_scheme_are_those_of_the_connection_or_as_configured() {
    let sent = || get("/").header("x-forwarded-proto", "https");
    let proto = |config| {
        let seen = treat(config, "10.0.0.9:5", sent()).expect("passes");
        header(&seen, "x-forwarded-proto").map(str::to_owned)
    };
    let inner = HttpConnectionManager::default();
    assert_eq!(proto(inner.clone()).as_deref(), Some("https"), "trusted");
    assert_eq!(proto(edge()).as_deref(), Some("http"), "not trusted");
    let set = HttpConnectionManager {
        scheme: Some("https".into()),
        ..edge()
    };
    assert_eq!(proto(set).as_deref(), Some("https"), "as configured");
    let port = HttpConnectionManager {
        append_x_forwarded_port: true,
        skip_xff_append: true,
        ..edge()
    };
    let seen = treat(port, "10.0.0.9:5", sent()).expect("passes");
    assert_eq!(header(&seen, "x-forwarded-port"), Some("8080"));
    assert_eq!(header(&seen, "x-forwarded-for"), None);
}

#[test]
fn continue_is_answered_here() {
    for (expect, wanted) in [("100-Continue", None), ("other", Some("other"))] {
        let sent = get("/").header("expect", expect);
        let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", sent).expect("passes");
        assert_eq!(header(&seen, "expect"), wanted);
    }
}

#[test]
fn continue_is_asked_of_the_upstream_where_it_passes() {
    let config = HttpConnectionManager {
        proxy_100_continue: true,
        ..HttpConnectionManager::default()
    };
    let sent = get("/").header("expect", "100-continue");
    let seen = treat(config, "10.0.0.9:5", sent).expect("passes");
    assert_eq!(header(&seen, "expect"), Some("100-continue"));
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
    let preserve = HttpConnectionManager {
        preserve_external_request_id: true,
        ..edge()
    };
    let seen = treat(preserve.clone(), "203.0.113.9:5", with()).expect("passes");
    assert_eq!(header(&seen, "x-request-id"), Some("mine"));
    // It is kept, but does not decide on tracing.
    let forced = get("/").header("x-request-id", FORCED);
    let seen = treat(preserve, "203.0.113.9:5", forced).expect("passes");
    assert_eq!(header(&seen, "x-request-id"), Some(UNTRACED));
    let none = HttpConnectionManager {
        generate_request_id: false,
        ..edge()
    };
    let seen = treat(none, "203.0.113.9:5", get("/")).expect("passes");
    assert_eq!(header(&seen, "x-request-id"), None);
}

/// The same id, of which 0x1388 is 5,000 in 10,000, with each reason.
const UNTRACED: &str = "00001388-0000-4000-8000-000000000000";
const SAMPLED: &str = "00001388-0000-9000-8000-000000000000";
const FORCED: &str = "00001388-0000-a000-8000-000000000000";
const CLIENT: &str = "00001388-0000-b000-8000-000000000000";

/// Shares of 10,000 that are traced: by chance, if the client asks, and of all.
fn tracing(random: u32, client: u32, overall: u32) -> HttpConnectionManager {
    HttpConnectionManager {
        tracing: Some(Tracing {
            random_sampling: random,
            client_sampling: client,
            overall_sampling: overall,
        }),
        ..HttpConnectionManager::default()
    }
}

#[test]
fn an_id_tells_whether_the_request_is_traced() {
    let none = HttpConnectionManager::default();
    let unpacked = HttpConnectionManager {
        pack_trace_reason: false,
        ..tracing(10_000, 0, 10_000)
    };
    for (config, id, asked, wanted) in [
        (none, UNTRACED, None, UNTRACED),
        (tracing(5_000, 0, 10_000), UNTRACED, None, UNTRACED),
        (tracing(5_001, 0, 10_000), UNTRACED, None, SAMPLED),
        (tracing(5_001, 0, 5_000), UNTRACED, None, UNTRACED),
        (
            tracing(0, 0, 10_000),
            UNTRACED,
            Some("x-envoy-force-trace"),
            FORCED,
        ),
        (
            tracing(0, 10_000, 10_000),
            UNTRACED,
            Some("x-client-trace-id"),
            CLIENT,
        ),
        (
            tracing(0, 0, 10_000),
            UNTRACED,
            Some("x-client-trace-id"),
            UNTRACED,
        ),
        (tracing(0, 0, 10_000), SAMPLED, None, SAMPLED),
        (tracing(0, 0, 0), SAMPLED, None, UNTRACED),
        (unpacked, UNTRACED, None, UNTRACED),
    ] {
        // An address that is trusted, so that the header to force a trace is.
        let config = HttpConnectionManager {
            internal_addresses: vec![Cidr::new([10, 0, 0, 0].into(), 8).expect("a block")],
            ..config
        };
        let mut sent = get("/")
            .header("x-request-id", id)
            .header("x-forwarded-for", "10.0.0.9");
        if let Some(name) = asked {
            sent = sent.header(name, "1");
        }
        let seen = treat(config.clone(), "10.0.0.9:5", sent).expect("passes");
        assert_eq!(
            header(&seen, "x-request-id"),
            Some(wanted),
            "{id} {asked:?} {:?}",
            config.tracing
        );
    }
}

#[test]
fn the_response_carries_the_id_where_it_is_asked_for() {
    let always = HttpConnectionManager {
        always_set_request_id_in_response: true,
        ..HttpConnectionManager::default()
    };
    let trusting = HttpConnectionManager {
        internal_addresses: vec![Cidr::new([10, 0, 0, 0].into(), 8).expect("a block")],
        ..HttpConnectionManager::default()
    };
    let plain = || get("/").header("x-request-id", "mine");
    let inner = || plain().header("x-forwarded-for", "10.0.0.9");
    for (config, request, wanted) in [
        (always, plain(), true),
        (HttpConnectionManager::default(), plain(), false),
        (trusting.clone(), inner(), false),
        (trusting, inner().header("x-envoy-force-trace", "1"), true),
        (
            HttpConnectionManager::default(),
            inner().header("x-envoy-force-trace", "1"),
            false,
        ),
    ] {
        let front = Front::new(&config, Arc::default());
        let record = Record::begin(Some(connection("10.0.0.9:5")), Version::HTTP_11, false);
        let request = request.body(()).expect("a request");
        let mut exchange = Exchange::new(request, record.clone());
        front.treat(&mut exchange, &[]).expect("passes");
        let mut response = http::Response::new(());
        record.see_response(&mut response, &Wants::default());
        let seen = response
            .headers()
            .get("x-request-id")
            .is_some_and(|id| id == "mine");
        assert_eq!(seen, wanted);
    }
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
    let sent = get("/")
        .header("connection", "close")
        .header("connection", "x-mine")
        .header("x-mine", "1");
    let seen = treat(HttpConnectionManager::default(), "10.0.0.9:5", sent).expect("passes");
    assert_eq!(header(&seen, "x-mine"), None, "named in a second line");
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
    assert_eq!(refused(Request::get("/").header("host", "")), None);
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
    let reject = HttpConnectionManager {
        escaped_slashes: EscapedSlashes::RejectRequest,
        ..redirect.clone()
    };
    match treat(reject, "10.0.0.9:5", get("/a%2fb")) {
        Err(Answer::Error(error)) => assert_eq!(error.status(), 400),
        other => panic!("a refusal, not {other:?}"),
    }
    let keep = HttpConnectionManager::default();
    let seen = treat(keep, "10.0.0.9:5", get("/a/..//%2fb")).expect("passes");
    assert_eq!(seen.uri(), "/a/..//%2fb", "nothing is asked for");
    let denormal = HttpConnectionManager {
        normalize_path: false,
        merge_slashes: false,
        ..redirect.clone()
    };
    for (config, path, wanted) in [
        (&redirect, "/a%5cb", "/a/b"),
        (&redirect, "/a%2f..%2f/b?x=%2f", "/b?x=%2f"),
        (&denormal, "/a%5cb%2f..", "/a\\b/.."),
    ] {
        match treat(config.clone(), "10.0.0.9:5", get(path)) {
            Err(Answer::Response(response)) => {
                assert_eq!(response.status(), 307);
                assert_eq!(response.headers()["location"], wanted, "{path}");
            }
            other => panic!("a redirect, not {other:?}"),
        }
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

#[test]
fn an_empty_forwarded_for_is_no_entry_of_the_list() {
    let sent = get("/").header("x-forwarded-for", "");
    let seen = treat(edge(), "203.0.113.9:5", sent).expect("passes");
    assert_eq!(header(&seen, "x-forwarded-for"), Some("203.0.113.9"));
}

#[test]
fn an_address_with_a_port_is_not_trusted_as_one() {
    for (list, wanted) in [("9.9.9.9", "9.9.9.9"), ("9.9.9.9:80", "203.0.113.9")] {
        let hops = HttpConnectionManager {
            xff_num_trusted_hops: 1,
            ..edge()
        };
        let sent = get("/").header("x-forwarded-for", list);
        let seen = treat(hops, "203.0.113.9:5", sent).expect("passes");
        assert_eq!(header(&seen, "x-envoy-external-address"), Some(wanted));
    }
}

#[test]
fn cookies_of_http2_are_one_line_and_an_edge_request_names_no_original_host() {
    let sent = |version| {
        get("/")
            .version(version)
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-envoy-original-host", "lie")
    };
    let cookies = |version| -> Vec<http::HeaderValue> {
        let seen = treat(edge(), "203.0.113.9:5", sent(version)).expect("passes");
        assert_eq!(header(&seen, "x-envoy-original-host"), None);
        seen.headers().get_all("cookie").iter().cloned().collect()
    };
    assert_eq!(cookies(http::Version::HTTP_2), ["a=1; b=2"]);
    assert_eq!(cookies(http::Version::HTTP_11), ["a=1", "b=2"]);
}
