//! Checks and normal forms of host, path and headers of the connection.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
    uri::Scheme,
};

use super::{Answer, Scan, redirect};
use crate::{
    Error, Kind,
    layer::is_grpc,
    model::{HttpConnectionManager, StripPort, UnderscoresAction},
    names::{KEEP_ALIVE, PROXY_CONNECTION},
    route::{
        Head, HeadMut, host,
        path::{self, Unescaped},
    },
    transport::ConnInfo,
};

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// An upgrade over HTTP/2 (RFC 8441) becomes one of HTTP/1.1, as Envoy's codec does it, so that it is routed and logged as such.
/// `bytestream` is no upgrade but CONNECT by another name. Whether the head was changed.
#[cfg(feature = "net")]
pub(super) fn extended_connect<B>(request: &mut Request<B>) -> bool {
    if *request.method() != Method::CONNECT {
        return false;
    }
    let protocol = request.extensions().get::<hyper::ext::Protocol>();
    let kind = protocol
        .filter(|protocol| protocol.as_str() != "bytestream")
        .and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok());
    let found = kind.is_some();
    if let Some(kind) = kind {
        request.extensions_mut().remove::<hyper::ext::Protocol>();
        *request.method_mut() = Method::GET;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, kind);
    }
    found
}

/// Whether the client asked by CONNECT, as every upgrade over HTTP/2 does.
#[cfg(feature = "net")]
pub(super) fn is_connect<B>(request: &Request<B>, scan: Scan) -> bool {
    *request.method() == Method::CONNECT
        || request.version() == Version::HTTP_2 && scan.has(Scan::UPGRADE)
}

/// Names with `_`, which some servers read as `-`.
pub(super) fn underscores<B>(
    request: &mut Request<B>,
    action: UnderscoresAction,
) -> Result<(), Answer> {
    if action == UnderscoresAction::Allow
        || !request
            .headers()
            .keys()
            .any(|name| name.as_str().contains('_'))
    {
        return Ok(());
    }
    match action {
        UnderscoresAction::Allow => Ok(()),
        UnderscoresAction::RejectRequest => Err(Kind::Underscore.into()),
        UnderscoresAction::DropHeader => {
            let headers = request.headers_mut();
            let names: Vec<_> = headers
                .keys()
                .filter(|name| name.as_str().contains('_'))
                .cloned()
                .collect();
            for name in names {
                headers.remove(name);
            }
            Ok(())
        }
    }
}

/// There is one host, and it has the form that the listener wants. Returns the port that it lost.
pub(super) fn host<B>(
    request: &mut Request<B>,
    connection: Option<&ConnInfo>,
    config: &HttpConnectionManager,
) -> Result<Option<u16>, Answer> {
    let (first, second) = {
        let mut hosts = request.headers().get_all(HOST).iter();
        (hosts.next(), hosts.next())
    };
    if second.is_some() || first.is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(Kind::DownstreamProtocol.into());
    }
    let authority = request.uri().authority();
    if authority.is_some_and(|own| own.as_str().contains('@')) {
        return without_user(request, connection, config);
    }
    let missing = authority.is_none() && first.is_none();
    // RFC 9112, 3.2.2: with an absolute form the header is to be ignored.
    let ignored = authority.is_some()
        && first.is_some_and(|host| {
            authority.is_some_and(|own| own.as_str().as_bytes() != host.as_bytes())
        });
    if missing {
        let default = HeaderValue::from_str(&config.http1.default_host).ok();
        match default.filter(|host| request.version() == Version::HTTP_10 && !host.is_empty()) {
            Some(default) => drop(request.headers_mut().insert(HOST, default)),
            None => return Err(Kind::MissingHost.into()),
        }
    }
    if ignored {
        request.headers_mut().remove(HOST);
    }
    if config.strip_port != StripPort::No || config.strip_trailing_host_dot {
        return Ok(strip(request, connection, config));
    }
    Ok(None)
}

/// The name and password in the URL of an HTTP/1 request are nothing that anybody else should see; HTTP/2 has no place for them (RFC
/// 9113, 8.3.1).
fn without_user<B>(
    request: &mut Request<B>,
    connection: Option<&ConnInfo>,
    config: &HttpConnectionManager,
) -> Result<Option<u16>, Answer> {
    let authority = request.uri().authority().map(|own| own.as_str());
    let at = authority.and_then(|own| own.rsplit_once('@'));
    let (Some((_, host)), Version::HTTP_10 | Version::HTTP_11) = (at, request.version()) else {
        return Err(Kind::DownstreamProtocol.into());
    };
    let host = host.to_owned();
    request.set_authority(host.as_bytes());
    if request.uri().authority().map(|own| own.as_str()) != Some(&*host) {
        return Err(Kind::InvalidUrl.into());
    }
    self::host(request, connection, config)
}

/// The scheme that an odd one of an HTTP/2 request stands for: without case, else what `x-forwarded-proto` says, else what the connection
/// is.
pub(super) fn lower_scheme<B>(request: &Request<B>, tls: bool) -> Option<&'static str> {
    let scheme = request.uri().scheme()?;
    if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS {
        return None;
    }
    let known = |text: &[u8]| match text {
        text if text.eq_ignore_ascii_case(b"https") => Some("https"),
        text if text.eq_ignore_ascii_case(b"http") => Some("http"),
        _ => None,
    };
    let forwarded = || known(Head::of(request).forwarded_proto());
    let connection = if tls { "https" } else { "http" };
    known(scheme.as_str().as_bytes())
        .or_else(forwarded)
        .or(Some(connection))
}

/// A QUERY says what its body is (draft-ietf-httpbis-safe-method-w-body).
pub(super) fn query<B>(request: &Request<B>) -> Result<(), Answer> {
    match request.method().as_str() {
        "QUERY" if !request.headers().contains_key(CONTENT_TYPE) => {
            Err(Kind::QueryWithoutType.into())
        }
        _ => Ok(()),
    }
}

/// Whether these are the bytes of an authority (RFC 3986, 3.2). A space or a `/` would be read differently by others.
fn is_authority(host: &[u8]) -> bool {
    const MAY_STAND: [bool; 256] = {
        let mut may = [false; 256];
        let other = b"-._~!$&'()*+,;=:@%[]";
        let mut at = 0;
        while at < other.len() {
            may[other[at] as usize] = true;
            at += 1;
        }
        let mut byte = 0;
        while byte < may.len() {
            may[byte] |= (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        may
    };
    host.iter().all(|byte| MAY_STAND[usize::from(*byte)])
}

fn strip<B>(
    request: &mut Request<B>,
    connection: Option<&ConnInfo>,
    config: &HttpConnectionManager,
) -> Option<u16> {
    let old = request.field(&crate::route::Field::Authority)?;
    let port = connection
        .and_then(|connection| connection.local.socket())
        .map(|local| local.port());
    let mut new = Cow::Borrowed(host::strip_port(&old, config.strip_port, port));
    let lost = old.get(new.len() + 1..).filter(|lost| !lost.is_empty());
    let lost = lost.and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
    if config.strip_trailing_host_dot {
        new = Cow::Owned(host::strip_trailing_dot(&new).into_owned());
    }
    if new != old {
        let new = new.into_owned();
        request.set_authority(&new);
    }
    lost
}

/// The path begins with `/`, and has the form that the listener wants.
pub(super) fn path<B>(
    request: &mut Request<B>,
    config: &HttpConnectionManager,
) -> Result<(), Answer> {
    let Some(old) = request.uri().path_and_query() else {
        return if request.method() == Method::CONNECT {
            Ok(())
        } else {
            Err(Kind::InvalidUrl.into())
        };
    };
    let whole = request.version() < Version::HTTP_2 && request.uri().scheme().is_some();
    let old = old.as_str().as_bytes();
    if old.first() != Some(&b'/') || whole && config.http1.refuse_absolute_url {
        // `OPTIONS *` is for the server itself, and a proxy has no route for it.
        return Err(Kind::AbsolutePath.into());
    }
    let (mut new, redirects) = match path::unescape_slashes(old, config.escaped_slashes) {
        Unescaped::Forward(path) => (path, false),
        Unescaped::Redirect(path) => (Cow::Owned(path), true),
        Unescaped::Reject => return Err(Kind::PathNormalization.into()),
    };
    if config.normalize_path {
        new = match path::normalize(&new) {
            Some(Cow::Owned(path)) => Cow::Owned(path),
            Some(Cow::Borrowed(_)) => new,
            None => return Err(Kind::PathNormalization.into()),
        };
    }
    if config.merge_slashes
        && let Cow::Owned(path) = path::merge_slashes(&new)
    {
        new = Cow::Owned(path);
    }
    let Cow::Owned(new) = new else {
        return Ok(());
    };
    request.set_path(&new);
    // The client is sent to the path in its normal form; a gRPC client would not go.
    match redirects {
        true if is_grpc(request.headers()) => Err(Kind::PathNormalization.into()),
        true => Err(redirect(&new)),
        false => Ok(()),
    }
}

/// Headers that speak of the client's connection are not sent on; those of an upgrade are.
pub(super) fn connection<B>(request: &mut Request<B>, scan: Scan) -> Result<(), Answer> {
    let te = request.headers().get(TE);
    let long_te = scan.has(Scan::TE) && te.is_some_and(|te| te.len() >= LONGEST_TE);
    if scan.has(Scan::TE) {
        let trailers = request
            .headers()
            .get_all(TE)
            .iter()
            .any(|te| lists(te, "trailers"));
        if trailers {
            request
                .headers_mut()
                .insert(TE, HeaderValue::from_static("trailers"));
        } else {
            request.headers_mut().remove(TE);
        }
    }
    if !scan.has(Scan::CONNECTION) {
        return Ok(());
    }
    let upgrade = scan.has(Scan::UPGRADE) && is_upgrade(request);
    let headers = request.headers_mut();
    // Several lines are one list; nearly always there is one.
    let mut lists = headers.get_all(CONNECTION).iter().cloned();
    let (first, more) = (lists.next(), lists.collect::<Vec<_>>());
    if names(first.iter().chain(&more)) >= MOST_NOMINATED {
        return Err(Kind::ConnectionHeader.into());
    }
    for list in first.iter().chain(&more) {
        nominated(headers, list, long_te)?;
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS] {
        headers.remove(name);
    }
    if upgrade {
        let alone = |list: &HeaderValue| list.as_bytes().eq_ignore_ascii_case(b"upgrade");
        if !headers.get(CONNECTION).is_some_and(alone) {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        // Without a length the upgrade would seem to have a body once its transfer coding is gone.
        if headers.remove(TRANSFER_ENCODING).is_none() && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
        headers.remove(TRANSFER_ENCODING);
    }
    Ok(())
}

/// HTTP/2 lets a client send each cookie in a line of its own; everybody else is to see one line (RFC 9113, 8.2.3).
pub(super) fn cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), second) = (lines.next(), lines.next()) else {
        return;
    };
    if second.is_none() && !first.is_empty() {
        return;
    }
    let mut all = Vec::new();
    for line in headers.get_all(COOKIE) {
        if !all.is_empty() {
            all.extend_from_slice(b"; ");
        }
        all.extend_from_slice(line.as_bytes());
    }
    match HeaderValue::try_from(all) {
        Ok(all) if !all.is_empty() => drop(headers.insert(COOKIE, all)),
        _ => drop(headers.remove(COOKIE)),
    }
}

/// `100-continue` is answered here, when the body is asked for; the upstream is not to answer it once more.
pub(super) fn expectation(headers: &mut HeaderMap) {
    let continues = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get(EXPECT).is_some_and(continues) {
        headers.remove(EXPECT);
    }
}

/// Whether the request asks for an upgrade over HTTP/1.1 that can be forwarded. `h2c` is never: Envoy drops it too.
fn is_upgrade<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .any(|list| lists(list, "upgrade"));
    asked
        // Over HTTP/2 the codec lets no such header pass: it was written here.
        && matches!(request.version(), Version::HTTP_11 | Version::HTTP_2)
        && headers
            .get(UPGRADE)
            .is_some_and(|kind| !kind.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

fn lists(value: &HeaderValue, word: &str) -> bool {
    value.to_str().is_ok_and(|list| {
        list.split(',')
            .any(|one| one.trim().eq_ignore_ascii_case(word))
    })
}

/// RFC 9110, 7.6.1: what `connection` names is meant for us only. Names that the mesh itself relies on may not be named.
fn nominated(headers: &mut HeaderMap, list: &HeaderValue, long_te: bool) -> Result<(), Error> {
    let list = list.to_str().map_err(|_| Kind::ConnectionHeader)?;
    for name in list.split(',').map(str::trim) {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "te" if long_te => return Err(Kind::ConnectionHeader.into()),
            "" | "close" | "keep-alive" | "upgrade" | "te" | "http2-settings" => {}
            "host" | "content-length" => return Err(Kind::DownstreamProtocol.into()),
            "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => {
                return Err(Kind::ConnectionHeader.into());
            }
            pseudo if pseudo.starts_with(':') => return Err(Kind::ConnectionHeader.into()),
            other => drop(headers.remove(other)),
        }
    }
    Ok(())
}

/// From so many names in `connection` on a request is refused, as Envoy does it.
const MOST_NOMINATED: usize = 10;

/// A `te` of so many bytes that `connection` names is refused.
const LONGEST_TE: usize = 256;

/// How many names the lists of `connection` have.
fn names<'a>(lists: impl Iterator<Item = &'a HeaderValue>) -> usize {
    lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .count()
}
