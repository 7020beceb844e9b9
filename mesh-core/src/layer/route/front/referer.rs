//! `referer` is sent on only if it is one absolute URL, as Envoy's own parser of URLs (that of Node.js) has it.

use http::{HeaderMap, header::REFERER};

/// Removes one that is none.
pub(super) fn check(headers: &mut HeaderMap) {
    let mut values = headers.get_all(REFERER).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() || first.is_some_and(|url| !is_url(url.as_bytes())) {
        headers.remove(REFERER);
    }
}

/// `scheme://host`, and what may follow.
fn is_url(url: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(url, b"://") else {
        return false;
    };
    let (scheme, rest) = (&url[..at], &url[at + 3..]);
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (server, path) = rest.split_at(end);
    !scheme.is_empty()
        && scheme.iter().all(u8::is_ascii_alphabetic)
        && is_server(server)
        && path.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// `user@host:port`.
fn is_server(server: &[u8]) -> bool {
    let host = match memchr::memchr(b'@', server) {
        Some(at) => {
            let user = &server[..at];
            if !user.iter().all(|byte| is_user(*byte)) {
                return false;
            }
            &server[at + 1..]
        }
        None => server,
    };
    let (known, port) = match host.strip_prefix(b"[") {
        Some(inner) => match memchr::memchr(b']', inner) {
            Some(end) => (is_v6(&inner[..end]), &inner[end + 1..]),
            None => return false,
        },
        None => {
            let end = memchr::memchr(b':', host).unwrap_or(host.len());
            let (name, port) = host.split_at(end);
            let known = !name.is_empty() && name.iter().all(|byte| is_host(*byte));
            (known, port)
        }
    };
    known && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

fn is_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()%;:&=+$,".contains(&byte)
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

fn is_v6(host: &[u8]) -> bool {
    let of_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let of_zone = |byte: &u8| byte.is_ascii_alphanumeric() || b"%.-_~".contains(byte);
    let (address, zone) = match memchr::memchr(b'%', host) {
        Some(at) => (&host[..at], Some(&host[at + 1..])),
        None => (host, None),
    };
    !address.is_empty()
        && address.iter().all(of_address)
        && zone.is_none_or(|zone| !zone.is_empty() && zone.iter().all(of_zone))
}

fn is_port(port: &[u8]) -> bool {
    let number = std::str::from_utf8(port).ok();
    port.iter().all(u8::is_ascii_digit)
        && number.is_some_and(|number| number.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measured with Envoy 1.40.
    #[test]
    fn only_one_absolute_url_is_sent_on() {
        for (url, kept) in [
            ("http://a.test", true),
            ("https://a.test/x?y#z", true),
            ("ftp://a_b:80/", true),
            ("http://u:p@a.test/", true),
            ("http://[::1]:80/", true),
            ("http://a.test?x", true),
            ("", false),
            ("a.test", false),
            ("/path", false),
            ("http:/a", false),
            ("http://", false),
            ("http:///x", false),
            ("http://a.test:", false),
            ("http://a.test:65536/", false),
            ("http://a.test:x/", false),
            ("http://a b/", false),
            ("http://a.test/a b", false),
            ("h2://a.test/", false),
            ("http://[::1/", false),
            ("http://a@b@c/", false),
            ("about:blank", false),
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
