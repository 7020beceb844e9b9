//! Writes a request in the form that the protocol of its connection asks for.

use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

use hyper::ext::Protocol as ConnectProtocol;

use super::Protocol;
use crate::{
    Error, Kind,
    names::{FORWARDED_PROTO, KEEP_ALIVE, PROXY_CONNECTION},
    scratch,
};

/// Authority and target move to where `protocol` wants them. Returns what an HTTP/2 request asks to be upgraded to.
pub(super) fn prepare<B>(
    request: &mut Request<B>,
    protocol: Protocol,
) -> Result<Option<Box<HeaderValue>>, Error> {
    match protocol {
        Protocol::Http1 => to_http1(request).map(|()| None),
        Protocol::Http2 => {
            let upgrade = to_extended_connect(request)?;
            to_http2(request).map(|()| upgrade)
        }
    }
}

/// Says over HTTP/1 how long the body is where the codec would not: it takes GET, HEAD and CONNECT for requests without one, and
/// leaves unsaid that one of another method is empty. `whole`: there is no body, or all of it is there.
pub(super) fn frame<B>(request: &mut Request<B>, whole: bool) {
    let method = request.method();
    let bodiless = *method == Method::GET || *method == Method::HEAD;
    if whole == bodiless || *method == Method::CONNECT {
        return;
    }
    let silent = *method == Method::DELETE || *method == Method::TRACE;
    if request.headers().contains_key(CONTENT_LENGTH) || whole && silent {
        return;
    }
    let headers = request.headers_mut();
    if bodiless && !headers.contains_key(UPGRADE) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if whole {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// RFC 8441: an upgrade of HTTP/1.1 is a CONNECT with `:protocol` in HTTP/2.
fn to_extended_connect<B>(request: &mut Request<B>) -> Result<Option<Box<HeaderValue>>, Error> {
    let headers = request.headers_mut();
    if !headers.contains_key(UPGRADE) || !headers.contains_key(CONNECTION) {
        return Ok(None);
    }
    let Some(kind) = headers.remove(UPGRADE) else {
        return Ok(None);
    };
    headers.remove(CONTENT_LENGTH);
    let name = kind.to_str().map_err(|_| Kind::DownstreamProtocol)?;
    let protocol = ConnectProtocol::from(name);
    request.extensions_mut().insert(protocol);
    *request.method_mut() = Method::CONNECT;
    Ok(Some(Box::new(kind)))
}

/// RFC 9112 section 3.2: origin form with `host`, authority form for CONNECT.
fn to_http1<B>(request: &mut Request<B>) -> Result<(), Error> {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_none() {
        return Ok(());
    }
    let connect = *request.method() == Method::CONNECT;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let authority = parts.authority.take().ok_or(Kind::Internal)?;
    let host =
        scratch::header_value(authority.as_str().as_bytes()).ok_or(Kind::DownstreamProtocol)?;
    request.headers_mut().insert(HOST, host);
    if connect {
        *request.uri_mut() = Uri::from(authority);
        return Ok(());
    }
    let path = parts
        .path_and_query
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    Ok(())
}

/// RFC 9113 section 8.3.1: scheme and authority in the URI, no `host`. Section 8.2.2: no header of the connection.
fn to_http2<B>(request: &mut Request<B>) -> Result<(), Error> {
    *request.version_mut() = Version::HTTP_2;
    // CONNECT has an authority only, unless it names a protocol (RFC 8441 section 4).
    let plain_connect = *request.method() == Method::CONNECT
        && request.extensions().get::<ConnectProtocol>().is_none();
    if request.uri().scheme().is_none() && !plain_connect {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        if parts.authority.is_none() {
            let host = request.headers().get(HOST).ok_or(Kind::MissingHost)?;
            let authority = Authority::from_maybe_shared(scratch::bytes(host.as_bytes()));
            parts.authority =
                Some(authority.map_err(|error| Error::caused_by(Kind::DownstreamProtocol, error))?);
        }
        // HTTP/1 names none: it is the one that the client is said to have used.
        parts.scheme = match request.headers().get(FORWARDED_PROTO) {
            Some(proto) if proto.as_bytes().eq_ignore_ascii_case(b"https") => Some(Scheme::HTTPS),
            _ => Some(Scheme::HTTP),
        };
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|error| Error::caused_by(Kind::DownstreamProtocol, error))?;
    }
    let headers = request.headers_mut();
    headers.remove(HOST);
    for name in [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    if headers
        .get(TE)
        .is_some_and(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers"))
    {
        headers.remove(TE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http1_gets_origin_form_and_host() {
        let mut request = Request::get("http://a:80/x?y")
            .header(HOST, "b")
            .body(())
            .expect("a request");
        prepare(&mut request, Protocol::Http1).expect("prepared");
        assert_eq!(request.uri(), "/x?y");
        assert_eq!(request.headers()[HOST], "a:80");
        let mut connect = Request::connect("a:443").body(()).expect("a request");
        prepare(&mut connect, Protocol::Http1).expect("prepared");
        assert_eq!(connect.uri(), "a:443");
    }

    #[test]
    fn the_length_of_a_body_is_said_where_the_codec_would_not() {
        let framed = |method: &str, whole| {
            let mut request = Request::builder()
                .method(method)
                .uri("/")
                .body(())
                .expect("a request");
            frame(&mut request, whole);
            let headers = request.headers();
            let value = |name| headers.get(name).map(|value| value.to_str().expect("text"));
            (
                value(TRANSFER_ENCODING).map(str::to_owned),
                value(CONTENT_LENGTH).map(str::to_owned),
            )
        };
        let chunked = (Some("chunked".to_owned()), None);
        let empty = (None, Some("0".to_owned()));
        for (method, body, none) in [
            ("GET", &chunked, &(None, None)),
            ("HEAD", &chunked, &(None, None)),
            ("DELETE", &(None, None), &(None, None)),
            ("POST", &(None, None), &empty),
            ("OPTIONS", &(None, None), &empty),
            ("CONNECT", &(None, None), &(None, None)),
        ] {
            assert_eq!(&framed(method, false), body, "{method} with a body");
            assert_eq!(&framed(method, true), none, "{method} without");
        }
    }

    #[test]
    fn the_scheme_is_the_one_that_the_client_is_said_to_have_used() {
        for (proto, wanted) in [
            ("https", "https://a/x"),
            ("http", "http://a/x"),
            ("junk", "http://a/x"),
        ] {
            let mut request = Request::get("/x")
                .header(HOST, "a")
                .header("x-forwarded-proto", proto)
                .body(())
                .expect("a request");
            prepare(&mut request, Protocol::Http2).expect("prepared");
            assert_eq!(request.uri(), wanted);
        }
    }

    #[test]
    fn http2_gets_an_absolute_uri_and_no_header_of_the_connection() {
        let mut request = Request::get("/x")
            .header(HOST, "a")
            .header(CONNECTION, "close")
            .header(TE, "gzip")
            .header(TRANSFER_ENCODING, "chunked")
            .body(())
            .expect("a request");
        prepare(&mut request, Protocol::Http2).expect("prepared");
        assert_eq!(request.uri(), "http://a/x");
        assert!(request.headers().is_empty());
        let mut extended = Request::connect("/ws")
            .header(HOST, "a")
            .body(())
            .expect("a request");
        extended
            .extensions_mut()
            .insert(ConnectProtocol::from_static("websocket"));
        prepare(&mut extended, Protocol::Http2).expect("prepared");
        assert_eq!(extended.uri(), "http://a/ws");
        let mut hostless = Request::get("/x").body(()).expect("a request");
        assert_eq!(
            prepare(&mut hostless, Protocol::Http2)
                .expect_err("no host")
                .kind(),
            Kind::MissingHost
        );
    }
}
