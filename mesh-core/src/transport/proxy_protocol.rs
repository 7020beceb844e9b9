//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): read from peers, written to upstreams. Sans-io.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::ProxyProtocolVersion;

/// First bytes of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of version 2's fixed part.
const V2_FIXED: usize = 16;
/// First bytes of version 1.
const V1_SIGNATURE: &[u8; 6] = b"PROXY ";
/// Longest line of version 1, with CRLF and the NUL that the protocol counts in.
const V1_MAX: usize = 108;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its version.
    pub version: ProxyProtocolVersion,
    /// Its length in bytes.
    pub len: usize,
    /// Source and destination; `None` for `UNKNOWN` and `LOCAL`.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// What bytes at the start of a connection turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Too few bytes to tell, or an unfinished header.
    Partial,
    /// A whole header.
    Header(Header),
    /// No PROXY protocol.
    Absent,
    /// It begins like a header of that version and is none. The connection must be closed.
    Invalid(ProxyProtocolVersion),
}

/// Whether bytes may be the beginning of a header of that version.
pub fn may_be(version: ProxyProtocolVersion, bytes: &[u8]) -> bool {
    let signature: &[u8] = match version {
        ProxyProtocolVersion::V1 => V1_SIGNATURE,
        ProxyProtocolVersion::V2 => V2_SIGNATURE,
    };
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

/// Reads a header from the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    if may_be(ProxyProtocolVersion::V2, bytes) {
        return match bytes.len() < V2_SIGNATURE.len() {
            true => Parsed::Partial,
            false => parse_v2(bytes),
        };
    }
    if may_be(ProxyProtocolVersion::V1, bytes) {
        return match bytes.len() < V1_SIGNATURE.len() {
            true => Parsed::Partial,
            false => parse_v1(bytes),
        };
    }
    Parsed::Absent
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if bytes.len() <= V1_MAX {
            Parsed::Partial
        } else {
            Parsed::Invalid(ProxyProtocolVersion::V1)
        };
    };
    let version = ProxyProtocolVersion::V1;
    let header = |addresses| {
        let len = end + 2;
        Parsed::Header(Header {
            version,
            len,
            addresses,
        })
    };
    let line = std::str::from_utf8(&window[..end]).unwrap_or_default();
    let mut words = line.trim_ascii_end().split(' ').skip(1);
    let addresses = match words.next() {
        Some("UNKNOWN") => return header(None),
        Some(family @ ("TCP4" | "TCP6")) => v1_addresses(family, words),
        _ => None,
    };
    match addresses {
        Some(addresses) if is_of_tcp(addresses) => header(Some(addresses)),
        _ => Parsed::Invalid(version),
    }
}

/// Ends of a TCP connection are neither any address nor many.
fn is_of_tcp((source, destination): (SocketAddr, SocketAddr)) -> bool {
    [source, destination].iter().all(|addr| match addr.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    })
}

fn v1_addresses<'a>(
    family: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Option<(SocketAddr, SocketAddr)> {
    let mut ip = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            _ => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        }
    };
    let (source, destination) = (ip()?, ip()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        // `parse` would take a sign, which the protocol does not.
        word.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| word.parse().ok())
            .flatten()
    };
    let (source_port, destination_port) = (port()?, port()?);
    words.next().is_none().then(|| {
        (
            SocketAddr::new(source, source_port),
            SocketAddr::new(destination, destination_port),
        )
    })
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.first_chunk::<V2_FIXED>() else {
        return Parsed::Partial;
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let version = ProxyProtocolVersion::V2;
    let invalid = Parsed::Invalid(version);
    let header = |addresses| {
        Parsed::Header(Header {
            version,
            len,
            addresses,
        })
    };
    let (local, size) = match (fixed[12], fixed[13]) {
        // The proxy speaks for itself, and whatever else it says means nothing.
        (0x20, _) => (true, 0),
        // Streams or datagrams between addresses of IP.
        (0x21, 0x11 | 0x12) => (false, 12),
        (0x21, 0x21 | 0x22) => (false, 36),
        _ => return invalid,
    };
    if len < V2_FIXED + size {
        return invalid;
    }
    let Some(body) = bytes.get(V2_FIXED..len) else {
        return Parsed::Partial;
    };
    if local {
        return header(None);
    }
    let (addresses, rest) = body.split_at(size);
    let addresses = match size {
        12 => v2_addresses::<4>(addresses),
        _ => v2_addresses::<16>(addresses),
    };
    match addresses.filter(|pair| is_of_tcp(*pair) && are_extensions(rest)) {
        Some(addresses) => header(Some(addresses)),
        None => invalid,
    }
}

/// Whether bytes are whole extensions: a type, two bytes of length, and as many bytes.
fn are_extensions(mut bytes: &[u8]) -> bool {
    while let [_, rest @ ..] = bytes {
        let Some((length, rest)) = rest.split_first_chunk::<2>() else {
            return false;
        };
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes(*length))..) else {
            return false;
        };
        bytes = rest;
    }
    true
}

fn v2_addresses<const N: usize>(body: &[u8]) -> Option<(SocketAddr, SocketAddr)>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let destination_port = rest.first_chunk::<2>()?;
    Some((
        SocketAddr::new((*source).into(), u16::from_be_bytes(*source_port)),
        SocketAddr::new((*destination).into(), u16::from_be_bytes(*destination_port)),
    ))
}

/// A header for a connection from `source` to `destination`. Without both, of one family, it says that nothing is known
/// (`UNKNOWN`, `LOCAL`).
pub fn write(
    version: ProxyProtocolVersion,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> Vec<u8> {
    let pair = source
        .zip(destination)
        .filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    match version {
        ProxyProtocolVersion::V1 => write_v1(pair).into_bytes(),
        ProxyProtocolVersion::V2 => write_v2(pair),
    }
}

fn write_v1(pair: Option<(SocketAddr, SocketAddr)>) -> String {
    match pair {
        Some((source, destination)) => format!(
            "PROXY {} {} {} {} {}\r\n",
            if source.is_ipv4() { "TCP4" } else { "TCP6" },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        ),
        None => "PROXY UNKNOWN\r\n".into(),
    }
}

fn write_v2(pair: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    let Some((source, destination)) = pair else {
        header.extend([0x20, 0, 0, 0]);
        return header;
    };
    let mut body = Vec::with_capacity(36);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => body.extend(ip.octets()),
            IpAddr::V6(ip) => body.extend(ip.octets()),
        }
    }
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    header.extend([
        0x21,
        if source.is_ipv4() { 0x11 } else { 0x21 },
        0,
        body.len() as u8,
    ]);
    header.extend(body);
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn version_1_is_read() {
        let text = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\nGET /";
        let Parsed::Header(header) = parse(text) else {
            panic!("a header")
        };
        assert_eq!(&text[header.len..], b"GET /");
        let (source, destination) = header.addresses.expect("addresses");
        assert_eq!(
            (source.to_string(), destination.to_string()),
            ("192.168.0.1:56324".into(), "192.168.0.11:443".into())
        );
        assert!(matches!(
            parse(b"PROXY UNKNOWN ffff:f::1 ::1 65535 65535\r\n"),
            Parsed::Header(Header {
                addresses: None,
                ..
            })
        ));
    }

    #[test]
    fn malformed_headers_are_invalid_and_other_bytes_absent() {
        for bad in [
            &b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            b"PROXY SCTP 1.2.3.4 1.2.3.4 1 2\r\n",
            &[b'P', b'R', b'O', b'X', b'Y', b' ']
                .into_iter()
                .chain([b'a'; 120])
                .collect::<Vec<_>>(),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01a",
            b"PROXY \r\n",
            b"PROXY TCP4 0.0.0.0 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 255.255.255.255 1 2\r\n",
            b"PROXY TCP6 1::2 ff02::1 1 2\r\n",
        ] {
            assert!(
                matches!(parse(bad), Parsed::Invalid(_)),
                "{}",
                bad.escape_ascii()
            );
        }
        for absent in [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND / ", b"\x16\x03\x01"] {
            assert_eq!(parse(absent), Parsed::Absent, "{}", absent.escape_ascii());
        }
    }

    /// A header of version 2 with this command and family, and what follows its fixed part.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
    }

    /// From 1.2.3.4:9 to 5.6.7.8:256.
    const V4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 1, 0];

    #[test]
    fn version_2_speaks_of_ip_or_for_itself() {
        let version = ProxyProtocolVersion::V2;
        let read = |command, family, body: &[u8]| parse(&v2(command, family, body));
        let header = |len, addresses| {
            Parsed::Header(Header {
                version,
                len,
                addresses,
            })
        };
        let own = write(version, None, None);
        assert_eq!(parse(&own), header(16, None));
        assert_eq!(read(0x20, 0x77, b"whatever"), header(24, None));
        let text = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let pair = Some((text("1.2.3.4:9"), text("5.6.7.8:256")));
        assert_eq!(read(0x21, 0x11, &V4), header(28, pair));
        assert_eq!(read(0x21, 0x12, &V4), header(28, pair));
        for (command, family) in [
            (0x22, 0x11),
            (0x11, 0x11),
            (0x21, 0x00),
            (0x21, 0x31),
            (0x21, 0x10),
            (0x21, 0x13),
        ] {
            let found = read(command, family, &[1; 216]);
            assert_eq!(found, Parsed::Invalid(version), "{command:x} {family:x}");
        }
    }

    #[test]
    fn extensions_of_any_length_are_whole() {
        let read = |extensions: &[u8]| parse(&v2(0x21, 0x11, &[&V4, extensions].concat()));
        let long = [&[2, 0xea, 0x60][..], &[b'a'; 60_000]].concat();
        for good in [&b""[..], b"\x02\0\0", b"\x02\0\x01a\x03\0\0", &long] {
            assert!(matches!(read(good), Parsed::Header(_)), "{}", good.len());
        }
        for bad in [
            &b"\x02"[..],
            b"\x02\0",
            b"\x02\0\x01",
            b"\x02\0\x01a\x03",
            &long[1..],
        ] {
            assert!(matches!(read(bad), Parsed::Invalid(_)), "{}", bad.len());
        }
    }

    #[test]
    fn a_line_of_version_1_may_end_in_spaces_and_not_be_long() {
        let line = b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 \t\r\n";
        assert!(matches!(parse(line), Parsed::Header(header) if header.len == line.len()));
        let line = |len: usize| format!("PROXY UNKNOWN {}\r\n", "a".repeat(len - 16)).into_bytes();
        assert!(matches!(parse(&line(108)), Parsed::Header(_)));
        assert_eq!(parse(&line(109)[..108]), Parsed::Partial);
        assert!(matches!(parse(&line(109)), Parsed::Invalid(_)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_any_split(a: [u8; 4], b: [u8; 16], port: u16, v2: bool, six: bool) {
            let ip: IpAddr = if six { b.into() } else { a.into() };
            prop_assume!(is_of_tcp((SocketAddr::new(ip, 1), SocketAddr::new(ip, 1))));
            let source = SocketAddr::new(ip, port);
            let destination = SocketAddr::new(ip, !port);
            let version = if v2 { ProxyProtocolVersion::V2 } else { ProxyProtocolVersion::V1 };
            let bytes = write(version, Some(source), Some(destination));
            for end in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..end]), Parsed::Partial);
            }
            prop_assert_eq!(parse(&bytes), Parsed::Header(Header { version, len: bytes.len(), addresses: Some((source, destination)) }));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            parse(&bytes);
            let mut v2 = V2_SIGNATURE.to_vec();
            v2.extend(&bytes);
            parse(&v2);
        }
    }
}
