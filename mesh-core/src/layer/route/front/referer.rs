//! `referer` is sent on only if it is one absolute or partial URL, without credentials and without a fragment (RFC 9110, 10.1.3).

use http::{HeaderMap, header::REFERER};

/// Removes one that is none.
pub(super) fn check(headers: &mut HeaderMap) {
    let mut values = headers.get_all(REFERER).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() || first.is_some_and(|url| !is_referer(url.as_bytes())) {
        headers.remove(REFERER);
    }
}

fn is_referer(url: &[u8]) -> bool {
    if memchr::memchr(b'#', url).is_some() {
        return false;
    }
    match memchr::memmem::find(url, b"://").map(|at| url.split_at(at)) {
        Some((scheme, rest)) if is_scheme(scheme) => is_absolute(&rest[3..]),
        _ => is_partial(url),
    }
}

fn is_scheme(scheme: &[u8]) -> bool {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(inner)
}

/// `host:port` and what follows.
fn is_absolute(rest: &[u8]) -> bool {
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (server, path) = rest.split_at(end);
    is_server(server) && path.iter().all(|byte| byte.is_ascii_graphic())
}

fn is_server(host: &[u8]) -> bool {
    let (known, port) = match host.strip_prefix(b"[") {
        Some(inner) => match memchr::memchr(b']', inner) {
            Some(end) => (is_v6(&inner[..end]), &inner[end + 1..]),
            None => return false,
        },
        None => {
            let end = memchr::memchr(b':', host).unwrap_or(host.len());
            let (name, port) = host.split_at(end);
            let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
            (!name.is_empty() && name.iter().all(of_name), port)
        }
    };
    known && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

fn is_v6(host: &[u8]) -> bool {
    let of_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    !host.is_empty() && host.iter().all(of_address)
}

fn is_port(port: &[u8]) -> bool {
    let number = std::str::from_utf8(port).ok();
    port.iter().all(u8::is_ascii_digit)
        && number.is_some_and(|number| number.parse::<u16>().is_ok())
}

/// A path, with a query perhaps, whose first segment has no colon.
fn is_partial(url: &[u8]) -> bool {
    let end = memchr::memchr2(b'/', b'?', url).unwrap_or(url.len());
    let of_path =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(byte);
    !url.is_empty() && memchr::memchr(b':', &url[..end]).is_none() && url.iter().all(of_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured with Envoy 1.40.
    #[test]
    fn only_one_url_without_credentials_and_fragment_is_sent_on() {
        for (url, kept) in [
            ("http://a.test", true),
            ("https://a.test/x?y", true),
            ("ftp://a.test/", true),
            ("android-app://x/y", true),
            ("http://[::1]/", true),
            ("http://a/x@y", true),
            ("http://a?x@y", true),
            ("http://a.test/<x>", true),
            ("http://a.test/a b", false),
            ("/only", true),
            ("/a?b", true),
            ("/a@b", true),
            ("//a.test/x", true),
            ("a.test", true),
            ("*", true),
            ("?x", true),
            ("http://a.test/#z", false),
            ("/only#x", false),
            ("#x", false),
            ("http://u:p@a.test/", false),
            ("http://a_b.test/", false),
            ("http://a.test:99999/", false),
            ("http://a.test:x/", false),
            ("http://a.test:", false),
            ("http://[::1", false),
            ("http://a|b/", false),
            ("http://", false),
            ("http:///x", false),
            ("http:/a", false),
            ("1http://a", false),
            ("mailto:a@b", false),
            ("about:blank", false),
            ("a b", false),
            ("\"x\"", false),
            ("x\\y", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REFERER, url.parse().expect("a value"));
            check(&mut headers);
            assert_eq!(headers.contains_key(REFERER), kept, "{url}");
        }
        let mut two = HeaderMap::new();
        for _ in 0..2 {
            two.append(REFERER, "http://a.test".parse().expect("a value"));
        }
        check(&mut two);
        assert!(two.is_empty());
    }
}
