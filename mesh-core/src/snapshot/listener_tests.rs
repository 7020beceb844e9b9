use super::*;
use crate::model::{Network, SourceType, TcpProxy};

fn chain(matches: FilterChainMatch) -> FilterChain {
    FilterChain {
        name: "".into(),
        matches,
        transport: Default::default(),
        transport_connect_timeout: None,
        network: Network::Tcp(Box::new(TcpProxy::new(
            "",
            crate::model::ClusterChoice::Name("c".into()),
        ))),
        refuse: None,
    }
}

/// A connection from `source` to `destination`, changed by `with`, finds which of the chains?
fn find(chains: &[FilterChainMatch], with: Conn) -> Option<usize> {
    let chains: Vec<_> = chains.iter().cloned().map(chain).collect();
    let compiled = FilterChains::compile(&chains, false).expect("no conflict");
    compiled.find(&with.facts())
}

struct Conn {
    destination: Address,
    source: Address,
    direct: Address,
    name: &'static str,
    transport: &'static str,
    alpn: Vec<Name>,
}

impl Conn {
    fn to(destination: &str) -> Self {
        let source: SocketAddr = "198.51.100.7:4000".parse().expect("an address");
        Self {
            destination: Address::Socket(destination.parse().expect("an address")),
            source: source.into(),
            direct: source.into(),
            name: "",
            transport: "raw_buffer",
            alpn: Vec::new(),
        }
    }

    fn from(source: &str) -> Self {
        let mut conn = Self::to("10.0.0.1:80");
        conn.source = Address::Socket(source.parse().expect("an address"));
        conn
    }

    fn named(name: &'static str) -> Self {
        Self {
            name,
            transport: "tls",
            ..Self::to("10.0.0.1:443")
        }
    }

    fn facts(&self) -> ConnFacts<'_> {
        ConnFacts {
            destination: &self.destination,
            source: &self.source,
            direct_source: &self.direct,
            server_name: self.name,
            transport_protocol: self.transport,
            application_protocols: &self.alpn,
        }
    }
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

fn block(text: &str) -> Cidr {
    let (addr, bits) = text.split_once('/').expect("a block");
    let addr = addr.parse().expect("an address");
    Cidr::new(addr, bits.parse().expect("a number")).expect("so many bits")
}

fn names(list: &[&str]) -> Vec<Name> {
    list.iter().map(|name| (*name).into()).collect()
}

#[test]
fn a_port_beats_none_and_is_not_left_again() {
    let port = |port, name: &str| FilterChainMatch {
        destination_port: Some(port),
        server_names: names(if name.is_empty() {
            &[]
        } else {
            std::slice::from_ref(&name)
        }),
        ..any()
    };
    let chains = [any(), port(80, ""), port(443, "a.example")];
    assert_eq!(find(&chains, Conn::to("10.0.0.1:80")), Some(1));
    assert_eq!(find(&chains, Conn::to("10.0.0.1:81")), Some(0));
    // Port 443 is known, so the chain without a port is not tried although the name does not fit.
    assert_eq!(find(&chains, Conn::named("b.example")), None);
    assert_eq!(find(&chains, Conn::named("a.example")), Some(2));
}

#[test]
fn the_longest_prefix_of_the_destination_wins_in_both_families() {
    let to = |blocks: &[&str]| FilterChainMatch {
        destination: blocks.iter().map(|text| block(text)).collect(),
        ..any()
    };
    let chains = [
        any(),
        to(&["10.0.0.0/8", "fd00::/8"]),
        to(&["10.1.0.0/16"]),
        to(&["10.1.2.3/32", "fd00::1/128"]),
    ];
    assert_eq!(find(&chains, Conn::to("11.0.0.1:1")), Some(0));
    assert_eq!(find(&chains, Conn::to("10.0.0.1:1")), Some(1));
    assert_eq!(find(&chains, Conn::to("10.1.0.1:1")), Some(2));
    assert_eq!(find(&chains, Conn::to("10.1.2.3:1")), Some(3));
    assert_eq!(find(&chains, Conn::to("[fd00::2]:1")), Some(1));
    assert_eq!(find(&chains, Conn::to("[fd00::1]:1")), Some(3));
    assert_eq!(find(&chains, Conn::to("[::ffff:10.1.2.3]:1")), Some(3));
    assert_eq!(find(&chains, Conn::to("[2001:db8::1]:1")), Some(0));
}

#[test]
fn names_match_exactly_then_by_the_longest_suffix() {
    let named = |list: &[&str]| FilterChainMatch {
        server_names: names(list),
        ..any()
    };
    let chains = [
        any(),
        named(&["*.com"]),
        named(&["*.example.com"]),
        named(&["WWW.example.com"]),
    ];
    for (name, expected) in [
        ("www.example.com", 3),
        ("api.example.com", 2),
        ("a.b.example.com", 2),
        ("example.com", 1),
        ("com", 0),
        ("www.example.org", 0),
        ("", 0),
    ] {
        assert_eq!(find(&chains, Conn::named(name)), Some(expected), "{name}");
    }
}

#[test]
fn a_name_that_fits_is_not_left_for_another_transport() {
    let tls_only = FilterChainMatch {
        server_names: names(&["a.example"]),
        transport_protocol: "tls".into(),
        ..any()
    };
    let chains = [any(), tls_only];
    assert_eq!(find(&chains, Conn::named("a.example")), Some(1));
    let plain = Conn {
        transport: "raw_buffer",
        ..Conn::named("a.example")
    };
    assert_eq!(find(&chains, plain), None);
}

#[test]
fn transport_and_application_protocols_are_told_apart() {
    let transport = |name: &str| FilterChainMatch {
        transport_protocol: name.into(),
        ..any()
    };
    let speaks = |list: &[&str]| FilterChainMatch {
        application_protocols: names(list),
        transport_protocol: "raw_buffer".into(),
        ..any()
    };
    let chains = [
        transport("tls"),
        transport("raw_buffer"),
        speaks(&["http/1.0", "http/1.1"]),
        speaks(&["h2c"]),
    ];
    let conn = |alpn: &[&str]| Conn {
        alpn: names(alpn),
        ..Conn::to("10.0.0.1:80")
    };
    assert_eq!(find(&chains, Conn::named("")), Some(0));
    assert_eq!(find(&chains, conn(&[])), Some(1));
    assert_eq!(find(&chains, conn(&["http/1.1"])), Some(2));
    // The client's order decides.
    assert_eq!(find(&chains, conn(&["x", "h2c", "http/1.1"])), Some(3));
    assert_eq!(find(&chains, conn(&["istio"])), Some(1));
}

#[test]
fn the_direct_source_is_the_peer_of_the_socket() {
    let direct = FilterChainMatch {
        direct_source: vec![block("192.0.2.0/24")],
        ..any()
    };
    let mut conn = Conn::to("10.0.0.1:80");
    assert_eq!(find(&[any(), direct.clone()], conn), Some(0));
    conn = Conn::to("10.0.0.1:80");
    conn.direct = Address::Socket("192.0.2.9:1".parse().expect("an address"));
    assert_eq!(find(&[any(), direct], conn), Some(1));
}

#[test]
fn local_and_external_sources_are_told_apart() {
    let of = |source_type| FilterChainMatch {
        source_type,
        ..any()
    };
    let all = [
        of(SourceType::Any),
        of(SourceType::SameIpOrLoopback),
        of(SourceType::External),
    ];
    for (source, expected) in [
        ("127.0.0.1:9", 1),
        ("10.0.0.1:9", 1),
        ("[::1]:9", 1),
        ("10.0.0.2:9", 2),
    ] {
        assert_eq!(find(&all, Conn::from(source)), Some(expected), "{source}");
    }
    assert_eq!(find(&all[..2], Conn::from("10.0.0.2:9")), Some(0));
    assert_eq!(
        find(&[all[0].clone(), all[2].clone()], Conn::from("127.0.0.1:9")),
        Some(0)
    );
    assert_eq!(find(&all[2..], Conn::from("127.0.0.1:9")), None);
}

#[test]
fn sources_match_by_prefix_then_port() {
    let from = |text: &str, ports: &[u16]| FilterChainMatch {
        source: vec![block(text)],
        source_ports: ports.to_vec(),
        ..any()
    };
    let chains = [
        any(),
        from("192.0.2.0/24", &[]),
        from("192.0.2.0/24", &[7, 8]),
        from("192.0.2.1/32", &[9]),
    ];
    assert_eq!(find(&chains, Conn::from("203.0.113.1:7")), Some(0));
    assert_eq!(find(&chains, Conn::from("192.0.2.9:1")), Some(1));
    assert_eq!(find(&chains, Conn::from("192.0.2.9:8")), Some(2));
    assert_eq!(find(&chains, Conn::from("192.0.2.1:9")), Some(3));
    assert_eq!(find(&chains, Conn::from("192.0.2.1:7")), None);
}

#[test]
fn a_unix_socket_matches_only_where_no_address_is_asked_for() {
    let path = || Address::Pipe("/run/x".into());
    let conn = || Conn {
        destination: path(),
        source: path(),
        direct: path(),
        ..Conn::to("10.0.0.1:80")
    };
    let blocked = FilterChainMatch {
        destination: vec![block("10.0.0.0/8")],
        ..any()
    };
    assert_eq!(find(std::slice::from_ref(&blocked), conn()), None);
    assert_eq!(find(&[blocked, any()], conn()), Some(1));
}

#[test]
fn the_default_chain_takes_the_rest() {
    let chains = [chain(FilterChainMatch {
        destination_port: Some(1),
        ..any()
    })];
    let conn = Conn::to("10.0.0.1:80");
    let with = FilterChains::compile(&chains, true).expect("no conflict");
    let without = FilterChains::compile(&chains, false).expect("no conflict");
    assert_eq!(with.find(&conn.facts()), Some(1));
    assert_eq!(without.find(&conn.facts()), None);
}

#[test]
fn chains_that_cannot_be_told_apart_are_refused() {
    let ports = |list: &[u16]| {
        chain(FilterChainMatch {
            source_ports: list.to_vec(),
            ..any()
        })
    };
    let compile = |chains: &[FilterChain]| FilterChains::compile(chains, false).map(drop);
    assert_eq!(
        compile(&[ports(&[]), ports(&[1]), ports(&[])]),
        Err(ChainConflict::Same { chain: 2, other: 0 })
    );
    assert_eq!(
        compile(&[ports(&[1, 2]), ports(&[2, 3])]),
        Err(ChainConflict::Overlap { chain: 1, other: 0 })
    );
    assert_eq!(compile(&[ports(&[1, 2]), ports(&[3])]), Ok(()));
    for name in ["a.*.example", "*", "a*.example", "**.example"] {
        let named = chain(FilterChainMatch {
            server_names: names(&[name]),
            ..any()
        });
        let conflict = FilterChains::compile(&[named], false).expect_err(name);
        assert!(
            matches!(conflict, ChainConflict::PartialWildcard { chain: 0, .. }),
            "{conflict}"
        );
    }
}
