//! Which filter chain serves a connection: Envoy's nested match, most specific criterion first, without going back.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::chain_tree::ChainTree;
use crate::model::{Address, Cidr, FilterChain, FilterChainMatch, MatchTree, Name};

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Debug)]
pub struct ConnFacts<'a> {
    /// The address that the connection was meant for.
    pub destination: &'a Address,
    /// The client: what a PROXY protocol header says, else the socket's peer.
    pub source: &'a Address,
    /// The socket's peer.
    pub direct_source: &'a Address,
    /// Server name of the TLS hello, lower case; empty if there is none.
    pub server_name: &'a str,
    /// `tls`, `raw_buffer`, or empty if nobody looked.
    pub transport_protocol: &'a str,
    /// ALPN names that the client offered, or what the HTTP inspector found.
    pub application_protocols: &'a [Name],
}

impl<'a> ConnFacts<'a> {
    /// A connection from `source` to `destination` of which nothing else is known: no TLS, no hello.
    pub fn plain(destination: &'a Address, source: &'a Address) -> Self {
        Self {
            destination,
            source,
            direct_source: source,
            server_name: "",
            transport_protocol: "raw_buffer",
            application_protocols: &[],
        }
    }
}

/// Why filter chains cannot stand together in one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChainConflict {
    /// Two chains have the same match.
    Same {
        /// The later chain, by index.
        chain: usize,
        /// The earlier one.
        other: usize,
    },
    /// Two chains differ, but a connection could match both equally well.
    Overlap {
        /// The later chain.
        chain: usize,
        /// The earlier one.
        other: usize,
    },
    /// A server name has a `*` that is not its first label.
    PartialWildcard {
        /// The chain.
        chain: usize,
        /// The server name.
        name: Name,
    },
}

impl fmt::Display for ChainConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { chain, other } => write!(
                f,
                "filter_chains[{chain}] has the same matching rules defined as filter_chains[{other}]"
            ),
            Self::Overlap { chain, other } => write!(
                f,
                "multiple filter chains with overlapping matching rules are defined: filter_chains[{other}] and filter_chains[{chain}]"
            ),
            Self::PartialWildcard { chain, name } => write!(
                f,
                "filter_chains[{chain}]: partial wildcards are not supported in server_names: {name}"
            ),
        }
    }
}

impl std::error::Error for ChainConflict {}

impl ChainConflict {
    /// The chain at fault, by index.
    pub fn chain(&self) -> usize {
        match self {
            Self::Same { chain, .. }
            | Self::Overlap { chain, .. }
            | Self::PartialWildcard { chain, .. } => *chain,
        }
    }
}

/// Filter chains compiled for matching.
#[derive(Clone, Debug, Default)]
pub struct FilterChains {
    /// By destination port; 0: any.
    ports: HashMap<u16, Prefixes<ServerNames>>,
    /// Takes the place of the chains' own matches.
    tree: Option<ChainTree>,
    default: Option<usize>,
}

type SourcePorts = HashMap<u16, usize>;
type SourceTypes = [Option<Prefixes<SourcePorts>>; 3];
type Alpns = HashMap<Name, Prefixes<SourceTypes>>;
type Transports = HashMap<Name, Alpns>;
type ServerNames = HashMap<Name, Transports>;

impl FilterChains {
    /// Compiles the chains of a listener. `default`: there is a default chain, whose index is the number of `chains`.
    ///
    /// # Errors
    ///
    /// Chains between which Envoy could not decide either.
    pub fn compile(chains: &[FilterChain], default: bool) -> Result<Self, ChainConflict> {
        let mut compiled = Self {
            ports: HashMap::new(),
            tree: None,
            default: default.then_some(chains.len()),
        };
        for (index, chain) in chains.iter().enumerate() {
            let same = chains[..index]
                .iter()
                .position(|other| other.matches == chain.matches);
            if let Some(other) = same {
                return Err(ChainConflict::Same {
                    chain: index,
                    other,
                });
            }
            compiled.add(index, &chain.matches)?;
        }
        Ok(compiled)
    }

    /// The same with a tree that chooses the chains by their names, whatever their own matches are. A name that no chain has
    /// closes the connection, as in Envoy.
    ///
    /// # Errors
    ///
    /// Chains without a name or with the same one, and trees that read what connections do not have.
    pub fn with_tree(
        chains: &[FilterChain],
        tree: &MatchTree,
        default: bool,
    ) -> Result<Self, String> {
        let mut names = HashMap::new();
        for (index, chain) in chains.iter().enumerate() {
            if chain.name.is_empty() {
                return Err(format!("filter_chains[{index}] must have a name"));
            }
            if names.insert(chain.name.clone(), index).is_some() {
                return Err(format!("two filter chains are named {}", chain.name));
            }
        }
        Ok(Self {
            ports: HashMap::new(),
            tree: Some(ChainTree::new(tree, &names)?),
            default: default.then_some(chains.len()),
        })
    }

    /// The chain for a connection, by index; the default chain comes last. `None`: the connection is closed.
    ///
    /// Once a criterion has matched, less specific values of it are not tried any more, as in Envoy.
    pub fn find(&self, facts: &ConnFacts<'_>) -> Option<usize> {
        if let Some(tree) = &self.tree {
            return tree.find(facts).unwrap_or(self.default);
        }
        let port = facts.destination.socket().map_or(0, |addr| addr.port());
        let destinations = self.ports.get(&port).or_else(|| self.ports.get(&0));
        destinations
            .and_then(|destinations| destinations.find(ip(facts.destination)))
            .and_then(|names| server_name(names, facts.server_name))
            .and_then(|transports| by_name(transports, facts.transport_protocol))
            .and_then(|protocols| alpn(protocols, facts.application_protocols))
            .and_then(|direct| direct.find(ip(facts.direct_source)))
            .and_then(|types| source_type(types, facts))
            .and_then(|sources| sources.find(ip(facts.source)))
            .and_then(|ports| source_port(ports, facts.source))
            .or(self.default)
    }

    fn add(&mut self, index: usize, matches: &FilterChainMatch) -> Result<(), ChainConflict> {
        let names = server_names(index, &matches.server_names)?;
        let alpns = any_if_empty(&matches.application_protocols);
        let destinations = self
            .ports
            .entry(matches.destination_port.unwrap_or(0))
            .or_default();
        for destination in blocks(&matches.destination) {
            for name in &names {
                let transports = destinations
                    .entry(destination)
                    .entry(name.clone())
                    .or_default();
                let protocols = transports
                    .entry(matches.transport_protocol.clone())
                    .or_default();
                for alpn in &alpns {
                    let direct = protocols.entry(alpn.clone()).or_default();
                    for block in blocks(&matches.direct_source) {
                        add_source(direct.entry(block), index, matches)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn add_source(
    types: &mut SourceTypes,
    index: usize,
    matches: &FilterChainMatch,
) -> Result<(), ChainConflict> {
    let sources = types[matches.source_type as usize].get_or_insert_default();
    let any = [0];
    let ports = if matches.source_ports.is_empty() {
        &any[..]
    } else {
        &matches.source_ports
    };
    for block in blocks(&matches.source) {
        for port in ports {
            if let Some(other) = sources.entry(block).insert(*port, index) {
                return Err(ChainConflict::Overlap {
                    chain: index,
                    other,
                });
            }
        }
    }
    Ok(())
}

/// Names as they are looked up: lower case, wildcards by their suffix with its dot, the empty name for all.
fn server_names(chain: usize, names: &[Name]) -> Result<Vec<Name>, ChainConflict> {
    if names.is_empty() {
        return Ok(vec!["".into()]);
    }
    let compile = |name: &Name| {
        let lower = name.to_ascii_lowercase();
        let key = match lower.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => suffix,
            _ => &lower,
        };
        if key.contains('*') {
            return Err(ChainConflict::PartialWildcard {
                chain,
                name: name.clone(),
            });
        }
        Ok(key.into())
    };
    names.iter().map(compile).collect()
}

fn any_if_empty(names: &[Name]) -> Vec<Name> {
    if names.is_empty() {
        vec!["".into()]
    } else {
        names.to_vec()
    }
}

/// The blocks, or once `None` for any address.
fn blocks(list: &[Cidr]) -> impl Iterator<Item = Option<Cidr>> {
    let any = list.is_empty().then_some(None);
    any.into_iter().chain(list.iter().copied().map(Some))
}

/// The address that is matched; a Unix socket only matches where no address is asked for.
fn ip(address: &Address) -> IpAddr {
    match address.socket() {
        Some(addr) => addr.ip().to_canonical(),
        None => IpAddr::V4(Ipv4Addr::BROADCAST),
    }
}

fn server_name<'a>(names: &'a ServerNames, name: &str) -> Option<&'a Transports> {
    if let Some(found) = names.get(name) {
        return Some(found);
    }
    // The first label is never empty, and the last is never a wildcard's whole suffix.
    let dots = name.bytes().enumerate().skip(1);
    dots.filter(|(at, byte)| *byte == b'.' && at + 1 < name.len())
        .find_map(|(at, _)| names.get(&name[at..]))
        .or_else(|| names.get(""))
}

fn by_name<'a, T>(map: &'a HashMap<Name, T>, name: &str) -> Option<&'a T> {
    map.get(name).or_else(|| map.get(""))
}

fn alpn<'a>(protocols: &'a Alpns, offered: &[Name]) -> Option<&'a Prefixes<SourceTypes>> {
    offered
        .iter()
        .find_map(|name| protocols.get(name))
        .or_else(|| protocols.get(""))
}

fn source_type<'a>(
    types: &'a SourceTypes,
    facts: &ConnFacts<'_>,
) -> Option<&'a Prefixes<SourcePorts>> {
    let [any, local, external] = types;
    let specific = match (local, external) {
        (None, None) => None,
        _ if is_same_host(facts) => local.as_ref(),
        _ => external.as_ref(),
    };
    specific.or(any.as_ref())
}

/// Envoy's `isSameIpOrLoopback`: a Unix socket, a loopback peer, or one and the same address on both ends.
pub(super) fn is_same_host(facts: &ConnFacts<'_>) -> bool {
    match (facts.source.socket(), facts.destination.socket()) {
        (None, _) => true,
        (Some(source), destination) => {
            let ip = source.ip().to_canonical();
            ip.is_loopback() || destination.is_some_and(|local| local.ip().to_canonical() == ip)
        }
    }
}

fn source_port(ports: &SourcePorts, source: &Address) -> Option<usize> {
    let port = source.socket().map_or(0, |addr: SocketAddr| addr.port());
    ports.get(&port).or_else(|| ports.get(&0)).copied()
}

/// Values by block of addresses; the longest prefix wins.
#[derive(Clone, Debug)]
struct Prefixes<T> {
    /// For addresses in none of the blocks.
    any: Option<Box<T>>,
    blocks: HashMap<Cidr, T>,
    /// Prefix lengths that occur, longest first.
    lengths: Vec<u8>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self {
            any: None,
            blocks: HashMap::new(),
            lengths: Vec::new(),
        }
    }
}

impl<T: Default> Prefixes<T> {
    fn entry(&mut self, block: Option<Cidr>) -> &mut T {
        let Some(block) = block else {
            return self.any.get_or_insert_default();
        };
        if !self.lengths.contains(&block.bits()) {
            self.lengths.push(block.bits());
            self.lengths.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.blocks.entry(block).or_default()
    }
}

impl<T> Prefixes<T> {
    fn find(&self, ip: IpAddr) -> Option<&T> {
        let blocks = self.lengths.iter().filter_map(|bits| Cidr::new(ip, *bits));
        blocks
            .filter_map(|block| self.blocks.get(&block))
            .next()
            .or(self.any.as_deref())
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
