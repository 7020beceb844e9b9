//! Plain, validated configuration: what a source delivers and what `snapshot` compiles.
//!
//! Every type is data: `Clone`, `Eq`, no handles, no locks. Constructors parse, so that a value that exists is valid.
//! Names follow Envoy's v3 API, the wire that all sources go through; a field's documentation names its origin.

mod action;
mod cluster;
mod endpoint;
mod http;
mod listener;
mod matcher;
mod regex;
mod route;
mod telemetry;
mod tls;
mod traffic;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

pub use self::{
    action::*, cluster::*, endpoint::*, http::*, listener::*, matcher::*, regex::*, route::*,
    telemetry::*, tls::*, traffic::*,
};

/// An interned name: cheap to clone, compared by text.
pub type Name = Arc<str>;

/// Where a socket listens or connects to (`config.core.v3.Address`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a TCP port.
    Socket(SocketAddr),
    /// A host name that must be resolved before use, and a port (`STRICT_DNS`, `LOGICAL_DNS`).
    Host(Name, u16),
    /// A Unix domain socket. A leading `@` names Linux' abstract namespace.
    Pipe(PathBuf),
}

impl Address {
    /// The IP address and port, if this is one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(addr) => Some(*addr),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Socket(addr)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// A block of IP addresses (`config.core.v3.CidrRange`). Host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    addr: std::net::IpAddr,
    bits: u8,
}

impl Cidr {
    /// A block of `bits` leading bits; `None` if there are more bits than the address has. Host bits are cleared.
    pub fn new(addr: std::net::IpAddr, bits: u8) -> Option<Self> {
        use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
        let addr = match addr {
            IpAddr::V4(v4) if bits <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) if bits <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { addr, bits })
    }

    /// The number of leading bits that are compared.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether `ip` lies in the block. An IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: std::net::IpAddr) -> bool {
        let ip = ip.to_canonical();
        Self::new(ip, self.bits).is_some_and(|block| block.addr == self.addr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.bits)
    }
}

/// A share: `numerator` of `denominator` (`type.v3.FractionalPercent`). A numerator over the denominator means always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction {
    /// How many out of [`Fraction::denominator`].
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// 100 %.
    pub const ALWAYS: Self = Self {
        numerator: 100,
        denominator: 100,
    };
    /// 0 %.
    pub const NEVER: Self = Self {
        numerator: 0,
        denominator: 100,
    };

    /// Whether the random value falls into the share, as Envoy computes it: `random % denominator < numerator`.
    pub fn hit(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

/// A fraction that a runtime key may override (`config.core.v3.RuntimeFractionalPercent`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeFraction {
    /// The share when the key is absent.
    pub default: Fraction,
    /// The runtime key; empty for none.
    pub key: Name,
}

/// The configuration object that made a resource: `kind namespace/name`, and where it was written.
///
/// Carried as istiod carries it in `metadata.filter_metadata["istio"].config`, so that a decision can name its cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin {
    /// For example `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`; empty if unknown.
    pub object: Name,
}

/// Metadata by namespace (`config.core.v3.Metadata`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// One entry a filter namespace, in the order of the namespaces.
    pub namespaces: Vec<(Name, Value)>,
}

impl Metadata {
    /// The value under `namespace` that `path` leads to.
    pub fn get(&self, namespace: &str, path: &[Name]) -> Option<&Value> {
        let (_, root) = self
            .namespaces
            .iter()
            .find(|(name, _)| &**name == namespace)?;
        path.iter().try_fold(root, |value, key| value.get(key))
    }
}

/// A JSON-like value (`google.protobuf.Value`). Numbers keep their text, so that values can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// JSON null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number in its shortest decimal text.
    Number(Name),
    /// Text.
    String(Name),
    /// A list.
    List(Vec<Value>),
    /// An object, sorted by key.
    Object(Vec<(Name, Value)>),
}

impl Value {
    /// The member `key` of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members
                .iter()
                .find(|(name, _)| &**name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// A scalar as text, as matchers see it; `None` for null, lists and objects.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(text) | Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Something configured that has no effect here, or a reason for which a resource refuses traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Note {
    /// Type and name of the resource, for example `listener 0.0.0.0_80`.
    pub resource: Name,
    /// Path of the field, for example `http_filters[1].typed_config.max_active_faults`.
    pub path: Name,
    /// Why, as a sentence without a full stop; with the place at its end, in brackets, if there is one.
    pub reason: Name,
}

impl Note {
    /// How the reason begins where nothing of the mesh is concerned, as for a foreign file in a folder.
    pub const PASSED_OVER: &'static str = "passed over";

    /// Whether somebody should look at it.
    pub fn is_warning(&self) -> bool {
        !self.reason.starts_with(Self::PASSED_OVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr_clears_host_bits_and_matches_mapped_addresses() {
        let block = Cidr::new([10, 1, 2, 3].into(), 8).expect("8 bits fit");
        assert!(block.contains([10, 200, 0, 1].into()));
        assert!(!block.contains([11, 0, 0, 1].into()));
        assert!(block.contains("::ffff:10.9.9.9".parse().expect("an address")));
        assert!(
            Cidr::new([0, 0, 0, 0].into(), 0)
                .expect("0 bits fit")
                .contains([8, 8, 8, 8].into())
        );
        assert_eq!(Cidr::new([1, 1, 1, 1].into(), 33), None);
    }

    #[test]
    fn fraction_is_hit_below_its_numerator() {
        let half = Fraction {
            numerator: 50,
            denominator: 100,
        };
        assert!(half.hit(49) && !half.hit(50) && half.hit(100));
        assert!(Fraction::ALWAYS.hit(u64::MAX) && !Fraction::NEVER.hit(0));
    }
}
