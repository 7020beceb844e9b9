//! Request lines of HTTP/1 that the codec lets pass although Envoy's does not.

use http::{
    Method, Request,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
    uri::{Authority, Scheme},
};

use crate::{Kind, model::HttpConnectionManager};

/// Methods that Envoy's codec knows beside those that [`Method`] has a constant for.
const KNOWN: [&str; 26] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "M-SEARCH",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What is wrong with the request line of an HTTP/1 request, or with the body that a CONNECT has. `tls`: the connection has it.
pub(super) fn check<B>(
    request: &Request<B>,
    manager: &HttpConnectionManager,
    tls: bool,
) -> Option<Kind> {
    let (method, uri) = (request.method(), request.uri());
    if !manager.http1.allow_custom_methods && !is_known(method) {
        return Some(Kind::DownstreamProtocol);
    }
    if *method == Method::CONNECT {
        return connect(request);
    }
    let Some(path) = uri.path_and_query() else {
        return Some(Kind::InvalidUrl);
    };
    match path.as_str() {
        "*" if *method != Method::OPTIONS => return Some(Kind::InvalidUrl),
        path if !path.is_ascii() => return Some(Kind::DownstreamProtocol),
        _ => {}
    }
    let scheme = uri.scheme()?;
    if manager.http1.refuse_absolute_url {
        return None;
    }
    if !uri.authority().is_some_and(has_port_or_none) {
        return Some(Kind::InvalidUrl);
    }
    if *scheme == Scheme::HTTP {
        return None;
    }
    if *scheme != Scheme::HTTPS {
        return Some(Kind::InvalidScheme);
    }
    // Behind another proxy, that one may have taken TLS off.
    let first = manager.use_remote_address && manager.xff_num_trusted_hops == 0;
    (first && !tls).then_some(Kind::HttpsInPlaintext)
}

/// Whether what follows the host is nothing, or a port.
fn has_port_or_none(authority: &Authority) -> bool {
    let text = authority.as_str();
    let server = text.rsplit_once('@').map_or(text, |(_, server)| server);
    match server.strip_prefix(authority.host()) {
        Some("") => true,
        Some(port) => {
            let digits = port.strip_prefix(':').unwrap_or_default();
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
        }
        None => false,
    }
}

fn is_known(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::HEAD
            | Method::OPTIONS
            | Method::CONNECT
            | Method::PATCH
            | Method::TRACE
    ) || KNOWN.contains(&method.as_str())
}

fn connect<B>(request: &Request<B>) -> Option<Kind> {
    let headers = request.headers();
    if headers.contains_key(TRANSFER_ENCODING) {
        return Some(Kind::TransferCoding);
    }
    let length = headers.get(CONTENT_LENGTH);
    if length.is_some_and(|length| length.as_bytes() != b"0") {
        return Some(Kind::BodyDisallowed);
    }
    let whole = request.uri().path_and_query().is_some();
    whole.then_some(Kind::InvalidUrl)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured with Envoy 1.40.
    #[test]
    fn lines_that_envoy_refuses_are_refused() {
        let plain = HttpConnectionManager::default();
        let mut edge = plain.clone();
        edge.use_remote_address = true;
        let mut inner = edge.clone();
        inner.xff_num_trusted_hops = 1;
        let mut free = plain.clone();
        free.http1.allow_custom_methods = true;
        free.http1.refuse_absolute_url = true;
        let protocol = Some(Kind::DownstreamProtocol);
        for (manager, method, target, wanted) in [
            (&plain, "GET", "/a", None),
            (&plain, "PROPFIND", "/a", None),
            (&plain, "QUERY", "/a", None),
            (&plain, "BREW", "/a", protocol),
            (&plain, "get", "/a", protocol),
            (&free, "BREW", "/a", None),
            (&plain, "OPTIONS", "*", None),
            (&plain, "GET", "*", Some(Kind::InvalidUrl)),
            (&plain, "GET", "a", Some(Kind::InvalidUrl)),
            (&plain, "GET", "/caf\u{e9}", protocol),
            (&plain, "GET", "http://a.test/", None),
            (&plain, "GET", "HTTP://a.test/", None),
            (&plain, "GET", "https://a.test/", None),
            (
                &edge,
                "GET",
                "https://a.test/",
                Some(Kind::HttpsInPlaintext),
            ),
            (&edge, "GET", "http://a.test/", None),
            (&inner, "GET", "https://a.test/", None),
            (&plain, "GET", "http://a.test:0/", None),
            (&plain, "GET", "http://a.test:080/", None),
            (&plain, "GET", "http://me:x@[::1]:65535/", None),
            (
                &plain,
                "GET",
                "http://a.test:65536/",
                Some(Kind::InvalidUrl),
            ),
            (&plain, "GET", "http://a.test:/", Some(Kind::InvalidUrl)),
            (&plain, "GET", "http://a.test:+1/", Some(Kind::InvalidUrl)),
            (&plain, "GET", "http://[::1]:x/", Some(Kind::InvalidUrl)),
            (&plain, "GET", "ftp://a.test/", Some(Kind::InvalidScheme)),
            (&free, "GET", "ftp://a.test/", None),
            (&plain, "CONNECT", "a.test:443", None),
            (&plain, "CONNECT", "/", Some(Kind::InvalidUrl)),
            (
                &plain,
                "CONNECT",
                "http://a.test:443",
                Some(Kind::InvalidUrl),
            ),
        ] {
            let request = Request::builder().method(method).uri(target).body(());
            let request = request.expect("a request");
            assert_eq!(check(&request, manager, false), wanted, "{method} {target}");
            if wanted == Some(Kind::HttpsInPlaintext) {
                assert_eq!(check(&request, manager, true), None, "over TLS");
            }
        }
    }

    #[test]
    fn connect_has_no_body() {
        for (name, value, wanted) in [
            ("content-length", "0", None),
            ("content-length", "1", Some(Kind::BodyDisallowed)),
            ("transfer-encoding", "chunked", Some(Kind::TransferCoding)),
        ] {
            let request = Request::connect("a.test:443").header(name, value).body(());
            let request = request.expect("a request");
            let manager = HttpConnectionManager::default();
            assert_eq!(check(&request, &manager, false), wanted, "{name}: {value}");
        }
    }
}
