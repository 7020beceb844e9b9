//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): read from peers, written to upstreams. Sans-io.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::ProxyProtocolVersion;

/// First bytes of version 2.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of version 2's fixed part.
const V2_FIXED: usize = 16;
/// Longest line of version 1, with CRLF.
const V1_MAX: usize = 107;
/// Longest header of version 2 that is read. The protocol allows more, but nobody sends it.
const V2_MAX: usize = V2_FIXED + 2048;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes.
    pub len: usize,
    /// Source and destination; `None` for `UNKNOWN`, `LOCAL` and families that are no IP.
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
    /// It begins like a header and is none. The connection must be closed.
    Invalid,
}

/// Reads a header from the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    let same = bytes
        .iter()
        .zip(V2_SIGNATURE)
        .take_while(|(a, b)| a == b)
        .count();
    if same == V2_SIGNATURE.len() {
        return parse_v2(bytes);
    }
    if same == bytes.len() {
        return Parsed::Partial;
    }
    const V1_SIGNATURE: &[u8] = b"PROXY ";
    let same = bytes
        .iter()
        .zip(V1_SIGNATURE)
        .take_while(|(a, b)| a == b)
        .count();
    if same == V1_SIGNATURE.len() {
        return parse_v1(bytes);
    }
    if same == bytes.len() {
        return Parsed::Partial;
    }
    Parsed::Absent
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if bytes.len() < V1_MAX {
            Parsed::Partial
        } else {
            Parsed::Invalid
        };
    };
    let Some(line) = std::str::from_utf8(&window[..end]).ok() else {
        return Parsed::Invalid;
    };
    let len = end + 2;
    let mut words = line.split(' ').skip(1);
    match words.next() {
        Some("UNKNOWN") => Parsed::Header(Header {
            len,
            addresses: None,
        }),
        Some(family @ ("TCP4" | "TCP6")) => {
            v1_addresses(family, words).map_or(Parsed::Invalid, |addresses| {
                Parsed::Header(Header {
                    len,
                    addresses: Some(addresses),
                })
            })
        }
        _ => Parsed::Invalid,
    }
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
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0xf, fixed[13]);
    if version != 2 || command > 1 || len > V2_MAX {
        return Parsed::Invalid;
    }
    let Some(body) = bytes.get(V2_FIXED..len) else {
        return Parsed::Partial;
    };
    // Command 0 is LOCAL: the proxy speaks for itself, and the addresses mean nothing.
    let addresses = match (command, family) {
        (1, 0x11) => v2_addresses::<4>(body),
        (1, 0x21) => v2_addresses::<16>(body),
        _ => {
            return Parsed::Header(Header {
                len,
                addresses: None,
            });
        }
    };
    match addresses {
        Some(_) => Parsed::Header(Header { len, addresses }),
        None => Parsed::Invalid,
    }
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
        ] {
            assert_eq!(parse(bad), Parsed::Invalid, "{}", bad.escape_ascii());
        }
        for absent in [&b"GET / HTTP/1.1\r\n"[..], b"PROPFIND / ", b"\x16\x03\x01"] {
            assert_eq!(parse(absent), Parsed::Absent, "{}", absent.escape_ascii());
        }
    }

    #[test]
    fn local_and_unknown_families_carry_no_address() {
        let mut header = write(ProxyProtocolVersion::V2, None, None);
        assert_eq!(
            parse(&header),
            Parsed::Header(Header {
                len: 16,
                addresses: None
            })
        );
        header[12] = 0x21;
        header[13] = 0x31;
        assert_eq!(
            parse(&header),
            Parsed::Header(Header {
                len: 16,
                addresses: None
            })
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_at_any_split(a: [u8; 4], b: [u8; 16], port: u16, v2: bool, six: bool) {
            let ip: IpAddr = if six { b.into() } else { a.into() };
            let source = SocketAddr::new(ip, port);
            let destination = SocketAddr::new(ip, !port);
            let version = if v2 { ProxyProtocolVersion::V2 } else { ProxyProtocolVersion::V1 };
            let bytes = write(version, Some(source), Some(destination));
            for end in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..end]), Parsed::Partial);
            }
            prop_assert_eq!(parse(&bytes), Parsed::Header(Header { len: bytes.len(), addresses: Some((source, destination)) }));
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
