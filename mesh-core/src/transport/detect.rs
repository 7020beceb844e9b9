//! What a connection speaks, from its first bytes (Envoy's HTTP and TLS inspectors). Sans-io: it says more bytes, or what.

use crate::model::Name;

/// Longest TLS hello that is read; Envoy's limit.
pub const MAX_HELLO: usize = 16 * 1024;
/// Longest request line that is read before a connection is given up; Envoy's limit.
pub const MAX_REQUEST_LINE: usize = 64 * 1024;

/// The connection preface of HTTP/2.
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Not decided yet; more bytes are needed.
    More,
    /// It is this.
    Is(T),
    /// It is something else.
    Other,
    /// It is this as far as can be seen, and longer than any that is read.
    TooLong,
}

/// An HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 without TLS.
    H2c,
}

impl HttpVersion {
    /// The application protocol name that Envoy's HTTP inspector sets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::H2c => "h2c",
        }
    }
}

/// Tells HTTP by the connection preface of HTTP/2 or by a whole request line of HTTP/1.x.
pub fn http(bytes: &[u8]) -> Verdict<HttpVersion> {
    let same = bytes
        .iter()
        .zip(H2_PREFACE)
        .take_while(|(a, b)| a == b)
        .count();
    if same == H2_PREFACE.len() {
        return Verdict::Is(HttpVersion::H2c);
    }
    if same == bytes.len() {
        return Verdict::More;
    }
    match request_line(&bytes[..bytes.len().min(MAX_REQUEST_LINE)]) {
        // What never ends is not waited for, or it would be kept without end where inspectors have no time limit.
        Verdict::More if bytes.len() >= MAX_REQUEST_LINE => Verdict::TooLong,
        verdict => verdict,
    }
}

/// A method is a token of RFC 9110; a first byte outside of it is decisive at once, also that of an empty line.
fn request_line(line: &[u8]) -> Verdict<HttpVersion> {
    let method = line.iter().take_while(|byte| is_token(**byte)).count();
    match line.get(method) {
        None if method <= MAX_METHOD => return Verdict::More,
        Some(b' ') if (1..=MAX_METHOD).contains(&method) => {}
        _ => return Verdict::Other,
    }
    // Control bytes never stand in a request line, so a binary protocol is decided without its end.
    let Some(end) = line.iter().position(|byte| *byte < b' ') else {
        return Verdict::More;
    };
    match line[end..] {
        [b'\n', ..] | [b'\r', b'\n', ..] => {}
        [b'\r'] => return Verdict::More,
        _ => return Verdict::Other,
    }
    let mut words = line[..end]
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_connect = method == Some(b"CONNECT");
    if words.next().is_some() || !target.is_some_and(|target| is_target(target, is_connect)) {
        return Verdict::Other;
    }
    // As in Envoy all but HTTP/1.1 counts as HTTP/1.0, also a line without a version.
    match version {
        Some(b"HTTP/1.1") => Verdict::Is(HttpVersion::Http11),
        None => Verdict::Is(HttpVersion::Http10),
        Some(version) => match version.strip_prefix(b"HTTP/") {
            Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
                Verdict::Is(HttpVersion::Http10)
            }
            _ => Verdict::Other,
        },
    }
}

/// Whether a request may be for this: a path, `*`, a URI, or after CONNECT an authority.
fn is_target(target: &[u8], is_connect: bool) -> bool {
    let is_path = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
    if let [b'/' | b'*', path @ ..] = target {
        return is_path(path);
    }
    let rest = match is_connect {
        true => Some(target),
        false => after_scheme(target),
    };
    rest.is_some_and(|rest| {
        let host = rest
            .iter()
            .take_while(|byte| !matches!(byte, b'/' | b'?'))
            .count();
        let (host, path) = rest.split_at(host);
        let is_host =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(byte);
        host.iter().all(is_host) && is_path(path)
    })
}

fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(target, b"://")?;
    let (scheme, rest) = (&target[..at], &target[at + 3..]);
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(is_scheme);
    valid.then_some(rest)
}

/// Longest method that counts as one. The longest registered has 17 bytes.
const MAX_METHOD: usize = 32;

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a TLS hello says before anything is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name, lower case.
    pub server_name: Option<Name>,
    /// Application protocols in the client's order.
    pub alpn: Vec<Name>,
}

/// Reads a TLS hello (RFC 8446 section 4.1.2), which may be spread over several records.
pub fn tls(bytes: &[u8]) -> Verdict<ClientHello> {
    match hello(&bytes[..bytes.len().min(MAX_HELLO)]) {
        Verdict::More if bytes.len() >= MAX_HELLO => Verdict::TooLong,
        verdict => verdict,
    }
}

fn hello(bytes: &[u8]) -> Verdict<ClientHello> {
    let mut hello = Vec::new();
    let mut rest = bytes;
    loop {
        match record(rest) {
            Verdict::Other | Verdict::TooLong => return Verdict::Other,
            Verdict::More => return Verdict::More,
            Verdict::Is((fragment, after)) => {
                hello.extend_from_slice(fragment);
                rest = after;
            }
        }
        match handshake(&hello) {
            Verdict::More => {}
            Verdict::Other | Verdict::TooLong => return Verdict::Other,
            Verdict::Is(body) => return client_hello(body).map_or(Verdict::Other, Verdict::Is),
        }
    }
}

/// The payload of the first record, and what follows it.
fn record(bytes: &[u8]) -> Verdict<(&[u8], &[u8])> {
    const HANDSHAKE: u8 = 22;
    match bytes {
        [] => return Verdict::More,
        [HANDSHAKE] => return Verdict::More,
        [HANDSHAKE, 3, ..] => {}
        _ => return Verdict::Other,
    }
    let Some(head) = bytes.first_chunk::<5>() else {
        return Verdict::More;
    };
    let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
    if len == 0 || len > (1 << 14) + 256 {
        return Verdict::Other;
    }
    match bytes[5..].split_at_checked(len) {
        Some(parts) => Verdict::Is(parts),
        None => Verdict::More,
    }
}

/// The body of the hello message.
fn handshake(bytes: &[u8]) -> Verdict<&[u8]> {
    const CLIENT_HELLO: u8 = 1;
    let Some([kind, a, b, c]) = bytes.first_chunk::<4>() else {
        return if bytes.first().is_none_or(|kind| *kind == CLIENT_HELLO) {
            Verdict::More
        } else {
            Verdict::Other
        };
    };
    let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    if *kind != CLIENT_HELLO || len > MAX_HELLO {
        return Verdict::Other;
    }
    match bytes.get(4..4 + len) {
        Some(body) => Verdict::Is(body),
        None => Verdict::More,
    }
}

fn client_hello(body: &[u8]) -> Option<ClientHello> {
    let mut body = Cursor(body);
    body.take(2 + 32)?; // version, random
    body.block8()?; // session id
    body.block16()?; // cipher suites
    body.block8()?; // compression methods
    let mut hello = ClientHello::default();
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = body.block16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let value = extensions.block16()?;
        match kind {
            0 => hello.server_name = server_name(value)?,
            16 => hello.alpn = alpn(value)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 section 3. `None`: malformed.
fn server_name(mut value: Cursor<'_>) -> Option<Option<Name>> {
    let mut list = value.block16()?;
    while !list.0.is_empty() {
        let kind = list.take(1)?[0];
        let name = list.block16()?;
        if kind == 0 {
            let name = std::str::from_utf8(name.0).ok()?;
            return Some((!name.is_empty()).then(|| name.to_ascii_lowercase().into()));
        }
    }
    Some(None)
}

/// RFC 7301 section 3.1. `None`: malformed.
fn alpn(mut value: Cursor<'_>) -> Option<Vec<Name>> {
    let mut list = value.block16()?;
    let mut names = Vec::new();
    while !list.0.is_empty() {
        names.push(String::from_utf8_lossy(list.block8()?.0).into());
    }
    Some(names)
}

/// Bytes that are taken off the front.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn block8(&mut self) -> Option<Self> {
        let len = self.take(1)?[0];
        self.take(len.into()).map(Self)
    }

    fn block16(&mut self) -> Option<Self> {
        let len = self.u16()?;
        self.take(len.into()).map(Self)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A hello as OpenSSL lays it out, cut to what matters.
    pub(crate) fn hello(name: &str, protocols: &[&str]) -> Vec<u8> {
        let block16 = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let sni = block16(&[&[0][..], &block16(name.as_bytes())].concat());
        let list: Vec<u8> = protocols
            .iter()
            .flat_map(|p| [&[p.len() as u8], p.as_bytes()].concat())
            .collect();
        let extensions = [
            &[0, 0][..],
            &block16(&sni),
            &[0, 23],
            &block16(&[]),
            &[0, 16],
            &block16(&block16(&list)),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0],
            &block16(&[0x13, 1]),
            &[1, 0],
            &block16(&extensions),
        ]
        .concat();
        [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
    }

    pub(crate) fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
            .collect()
    }

    #[test]
    fn a_hello_gives_its_names_at_any_split_into_records_and_reads() {
        let message = hello("WWW.Example.com", &["h2", "http/1.1"]);
        for size in [1, 7, 1000] {
            let bytes = records(&message, size);
            for end in 0..bytes.len() {
                assert_eq!(tls(&bytes[..end]), Verdict::More, "{end} of {size}");
            }
            let expected = ClientHello {
                server_name: Some("www.example.com".into()),
                alpn: vec!["h2".into(), "http/1.1".into()],
            };
            assert_eq!(tls(&bytes), Verdict::Is(expected));
        }
    }

    #[test]
    fn other_bytes_are_no_tls_at_the_first_decisive_one() {
        for bytes in [
            &b"G"[..],
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x00\x01\x02",
            b"\x15\x03",
        ] {
            assert_eq!(tls(bytes), Verdict::Other, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn http_is_told_by_preface_or_request_line() {
        let cases: [(&[u8], Verdict<HttpVersion>); 26] = [
            (b"", Verdict::More),
            (b"PRI * HT", Verdict::More),
            (H2_PREFACE, Verdict::Is(HttpVersion::H2c)),
            (b"PRI * HTTP/1.1\r\n", Verdict::Is(HttpVersion::Http11)),
            (b"GET / HTTP/1.1\r\n", Verdict::Is(HttpVersion::Http11)),
            (b"GET / HTTP/1.1\n", Verdict::Is(HttpVersion::Http11)),
            (
                b"GET  /anything  HTTP/1.1\r\n",
                Verdict::Is(HttpVersion::Http11),
            ),
            (b"\r\nGET / HTTP/1.1\n", Verdict::Other),
            (b"\n", Verdict::Other),
            (b"GET / HTTP/1.1\r", Verdict::More),
            (b"GET / HTTP/1.1\rX", Verdict::Other),
            (b"GET / HTTP/1.1 more\r\n", Verdict::Other),
            (b"GET / HTTP/1.\r\n", Verdict::Other),
            (b"USER anonymous\r\n", Verdict::Other),
            (b"GET\r\n", Verdict::Other),
            (b"GET /\xff HTTP/1.1\r\n", Verdict::Other),
            (
                b"GET http://a.test/?b HTTP/1.1\r\n",
                Verdict::Is(HttpVersion::Http11),
            ),
            (
                b"CONNECT a.test:443 HTTP/1.1\r\n",
                Verdict::Is(HttpVersion::Http11),
            ),
            (b"GET /\r\n", Verdict::Is(HttpVersion::Http10)),
            (b"POST /x HTTP/1.0\r\n", Verdict::Is(HttpVersion::Http10)),
            (b"GET /", Verdict::More),
            (b"GET / HTTP/0.9\r\n", Verdict::Is(HttpVersion::Http10)),
            (b"\x16\x03", Verdict::Other),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Other),
            (b"SSH-2.0-OpenSSH_9\r\n", Verdict::Other),
            (b"EHLO \x01", Verdict::Other),
        ];
        for (bytes, expected) in cases {
            assert_eq!(http(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(http(&[b'A'; 64]), Verdict::Other);
        assert_eq!(http(&b"\r\n".repeat(MAX_REQUEST_LINE)), Verdict::Other);
        assert_eq!(
            http(&[&b"GET /"[..], &[b'a'; MAX_REQUEST_LINE]].concat()),
            Verdict::TooLong
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_more_bytes_never_turn_a_verdict(bytes: Vec<u8>, cut in 0usize..64) {
            let cut = cut.min(bytes.len());
            let early = http(&bytes[..cut]);
            if early != Verdict::More {
                prop_assert_eq!(early, http(&bytes));
            }
            tls(&bytes);
            tls(&records(&[&[1, 0, 0, bytes.len().min(255) as u8], &bytes[..]].concat(), 50));
        }
    }
}
