//! What a format can say of the downstream connection.

use std::{io::Write as _, net::SocketAddr};

use super::{format::Item, head::ConnectionFacts};

/// Appends `item` if it is a fact of the connection; `false` if it is not, or not known.
pub fn write(item: Item, facts: &ConnectionFacts, out: &mut Vec<u8>) -> bool {
    use Item as I;
    let direct = facts.direct_source.or(facts.source);
    match item {
        I::DownstreamRemoteAddress => address(facts.source, out),
        I::DownstreamRemoteAddressWithoutPort => ip(facts.source, out),
        I::DownstreamRemotePort => port(facts.source, out),
        I::DownstreamDirectRemoteAddress => address(direct, out),
        I::DownstreamDirectRemoteAddressWithoutPort => ip(direct, out),
        I::DownstreamDirectRemotePort => port(direct, out),
        I::DownstreamLocalAddress => address(facts.destination, out),
        I::DownstreamLocalAddressWithoutPort => ip(facts.destination, out),
        I::DownstreamLocalPort => port(facts.destination, out),
        I::RequestedServerName => facts.server_name.as_ref().is_some_and(|name| {
            out.extend_from_slice(name.as_bytes());
            true
        }),
        I::DownstreamPeerUriSan => facts.peer_identity.as_ref().is_some_and(|identity| {
            out.extend_from_slice(identity.as_bytes());
            true
        }),
        _ => false,
    }
}

fn address(addr: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    addr.is_some_and(|addr| write!(out, "{addr}").is_ok())
}

fn ip(addr: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    addr.is_some_and(|addr| write!(out, "{}", addr.ip()).is_ok())
}

fn port(addr: Option<SocketAddr>, out: &mut Vec<u8>) -> bool {
    addr.is_some_and(|addr| write!(out, "{}", addr.port()).is_ok())
}
