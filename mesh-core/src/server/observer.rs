//! What happens to connections beside the requests that services see.

use std::{fmt, sync::Arc, time::Duration};

use super::TcpEnd;
use crate::{Kind, model::Name, snapshot, telemetry::flags::Flags, transport::ConnInfo};

/// Is told of connections and requests that no service saw. Everything else is the business of the services' layers.
///
/// Called on the workers' threads, so it must be quick.
pub trait ConnObserver: fmt::Debug + Send + Sync {
    /// A connection was closed before anything was served on it.
    fn unserved(&self, event: &ConnEvent<'_>, reason: &Unserved) {
        let _ = (event, reason);
    }

    /// A request was answered, or broken off, by the connection itself: the peer broke the protocol or a limit, was too
    /// slow, or went away in the middle of a request head.
    fn rejected(&self, event: &ConnEvent<'_>, rejected: &Rejected) {
        let _ = (event, rejected);
    }

    /// A TCP proxy's connection ended.
    fn tcp(&self, event: &ConnEvent<'_>, end: &TcpEnd) {
        let _ = (event, end);
    }
}

/// Which connection it is about.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnEvent<'a> {
    /// The listener as it was when the connection was assigned to a filter chain.
    pub listener: &'a Arc<snapshot::Listener>,
    /// The filter chain, by index; the default chain is the last. `None`: none was found, or not looked for yet.
    pub chain: Option<usize>,
    /// The connection.
    pub conn: &'a Arc<ConnInfo>,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Bytes sent so far.
    pub bytes_sent: u64,
    /// Since it was accepted.
    pub duration: Duration,
}

/// Why a connection was closed before anything was served on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unserved {
    /// No filter chain matches (flag NR).
    NoFilterChain,
    /// The chain refuses, for this reason: protection that cannot act.
    Refused(Name),
    /// The handshake of the chain's transport failed, for this reason.
    Handshake(Name),
    /// A listener filter refused the first bytes.
    ListenerFilter(Name),
    /// The first bytes did not come in time.
    Timeout,
    /// More connections than the listener's limit (flag OM is not set by Envoy either).
    ConnectionLimit,
}

impl Unserved {
    /// Envoy's flags and details for the access log. It has neither for what ends in the listener filters.
    pub fn outcome(&self) -> (Flags, Option<&'static str>) {
        use crate::telemetry::flags::Flag;
        let mut flags = Flags::default();
        let details = match self {
            Self::ListenerFilter(_) | Self::Timeout => return (flags, None),
            Self::NoFilterChain => {
                flags.insert(Flag::NoRoute);
                "filter_chain_not_found"
            }
            Self::Refused(_) => {
                flags.insert(Flag::UpstreamConnectionFailure);
                "fail_closed"
            }
            Self::Handshake(_) => "transport_socket_handshake_failure",
            Self::ConnectionLimit => "connection_limit",
        };
        (flags, Some(details))
    }
}

/// A request that no service saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// What went wrong; its row says flag and details.
    pub kind: Kind,
    /// Status that was answered; 0: none.
    pub status: u16,
    /// Method and target, as far as they were read.
    pub head: Option<(http::Method, http::Uri)>,
    /// The HTTP version that is spoken.
    pub version: http::Version,
    /// What the codec says, as a sentence.
    pub reason: Name,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl ConnObserver for Unobserved {}
