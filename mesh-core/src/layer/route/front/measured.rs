//! What Envoy 1.40 was seen to do with odd heads, by listener and peer.

use http::{Request, Version};

use super::{
    Answer,
    tests::{edge, get, header, treat},
};
use crate::{
    Kind,
    model::{Cidr, EscapedSlashes, HttpConnectionManager},
};

const PEER: &str = "203.0.113.9:5";

fn plain() -> HttpConnectionManager {
    HttpConnectionManager::default()
}

/// What goes on of a request to a listener without settings.
fn pass(request: http::request::Builder) -> Request<()> {
    treat(plain(), PEER, request).expect("passes")
}

fn refused(config: HttpConnectionManager, request: http::request::Builder) -> Option<Kind> {
    match treat(config, PEER, request) {
        Err(Answer::Error(error)) => Some(error.kind()),
        _ => None,
    }
}

#[test]
fn connection_names_no_pseudo_headers_and_no_more_than_nine() {
    let list = |count: usize| vec!["x-a"; count].join(",");
    let sent = |value: &str| get("/").header("connection", value);
    for (value, wanted) in [
        (list(9), None),
        (format!("{},,", list(9)), None),
        (list(10), Some(Kind::ConnectionHeader)),
        (":path".to_owned(), Some(Kind::ConnectionHeader)),
        ("x-forwarded-proto".to_owned(), Some(Kind::ConnectionHeader)),
    ] {
        assert_eq!(refused(plain(), sent(&value)), wanted, "{value}");
    }
    let two = sent(&list(5)).header("connection", list(5));
    assert_eq!(refused(plain(), two), Some(Kind::ConnectionHeader));
    for (length, wanted) in [(255, None), (256, Some(Kind::ConnectionHeader))] {
        let te = sent("te").header("te", "a".repeat(length));
        assert_eq!(refused(plain(), te), wanted, "{length}");
    }
}

#[test]
fn an_empty_host_is_one() {
    let seen = pass(Request::get("/").header("host", ""));
    assert_eq!(header(&seen, "host"), Some(""));
}

#[test]
fn names_and_passwords_in_urls_are_not_sent_on() {
    let sent = || Request::get("http://me:secret@b.test:80/x").header("host", "a.test");
    let seen = pass(sent());
    assert_eq!(seen.uri(), "http://b.test:80/x");
    assert!(!format!("{seen:?}").contains("secret"), "{seen:?}");
    let over_http2 = sent().version(Version::HTTP_2);
    assert_eq!(refused(plain(), over_http2), Some(Kind::DownstreamProtocol));
}

#[test]
fn the_scheme_of_http2_is_one_of_two() {
    for (scheme, forwarded, wanted) in [
        ("http", "https", "http"),
        ("HTTPS", "http", "https"),
        ("ftp", "https", "https"),
        ("ftp", "HTTPS", "https"),
        ("ftp", "x", "http"),
    ] {
        let mut request = get("/").version(Version::HTTP_2);
        let uri = http::Uri::builder().scheme(scheme).authority("a.test");
        request = request.uri(uri.path_and_query("/").build().expect("a URI"));
        let seen = pass(request.header("x-forwarded-proto", forwarded));
        assert_eq!(seen.uri().scheme_str(), Some(wanted), "{scheme}");
    }
}

#[test]
fn an_empty_forwarded_proto_has_no_route() {
    let sent = || get("/").header("x-forwarded-proto", "");
    assert_eq!(refused(plain(), sent()), Some(Kind::NoRoute));
    assert_eq!(refused(edge(), sent()), None, "it is written anew");
}

#[test]
fn several_forwarded_protos_are_one_line() {
    let sent = get("/").header("x-forwarded-proto", "https");
    let seen = pass(sent.header("x-forwarded-proto", "http"));
    let lines: Vec<_> = seen.headers().get_all("x-forwarded-proto").iter().collect();
    assert_eq!(lines, ["https,http"]);
}

#[test]
fn an_internal_address_is_not_written_as_one_of_ipv6() {
    let config = HttpConnectionManager {
        internal_addresses: vec![Cidr::new([10, 0, 0, 0].into(), 8).expect("a block")],
        ..plain()
    };
    for (list, wanted) in [("10.0.0.1", Some("true")), ("::ffff:10.0.0.1", None)] {
        let sent = get("/").header("x-forwarded-for", list);
        let seen = treat(config.clone(), PEER, sent).expect("passes");
        assert_eq!(header(&seen, "x-envoy-internal"), wanted, "{list}");
    }
}

#[test]
fn an_empty_request_id_is_none() {
    let config = HttpConnectionManager {
        preserve_external_request_id: true,
        ..edge()
    };
    for config in [plain(), config] {
        let sent = get("/").header("x-request-id", "");
        let seen = treat(config, PEER, sent).expect("passes");
        assert_eq!(header(&seen, "x-request-id").map(str::len), Some(36));
    }
}

#[test]
fn lines_of_via_are_one_list() {
    let config = HttpConnectionManager {
        via: "mesh".into(),
        ..plain()
    };
    let sent = get("/").header("via", "1.0 a").header("via", "1.1 b");
    let seen = treat(config, PEER, sent).expect("passes");
    let lines: Vec<_> = seen.headers().get_all("via").iter().collect();
    assert_eq!(lines, ["1.0 a,1.1 b, mesh"]);
}

#[test]
fn empty_lines_of_cookies_are_not_sent_on() {
    for (lines, wanted) in [
        (&[""][..], None),
        (&["", "a=1"], Some("a=1")),
        (&["a=1", ""], Some("a=1; ")),
        (&["", ""], None),
        (&["a=1"], Some("a=1")),
    ] {
        let mut sent = get("http://a.test/").version(Version::HTTP_2);
        for line in lines {
            sent = sent.header("cookie", *line);
        }
        assert_eq!(header(&pass(sent), "cookie"), wanted, "{lines:?}");
    }
}

#[test]
fn a_whole_url_is_refused_where_it_is_not_to_be_sent() {
    let mut config = plain();
    config.http1.refuse_absolute_url = true;
    let whole = || Request::get("http://a.test/x");
    assert_eq!(refused(config.clone(), whole()), Some(Kind::AbsolutePath));
    assert_eq!(refused(config.clone(), get("/x")), None);
    let over_http2 = whole().version(Version::HTTP_2);
    assert_eq!(refused(config, over_http2), None);
    assert_eq!(refused(plain(), whole()), None);
    let star = get("*").method("OPTIONS");
    assert_eq!(refused(plain(), star), Some(Kind::AbsolutePath));
}

#[test]
fn a_grpc_client_is_not_sent_elsewhere() {
    let config = HttpConnectionManager {
        escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
        ..plain()
    };
    let sent = || get("/a%2fb");
    assert_eq!(refused(config.clone(), sent()), None, "a redirect");
    let grpc = sent().header("content-type", "application/grpc");
    assert_eq!(refused(config, grpc), Some(Kind::PathNormalization));
}

#[test]
fn query_says_what_its_body_is() {
    let sent = || get("/").method("QUERY");
    assert_eq!(refused(plain(), sent()), Some(Kind::QueryWithoutType));
    let typed = sent().header("content-type", "text/plain");
    assert_eq!(refused(plain(), typed), None);
}
