//! The TCP proxy: bytes between a downstream connection and an endpoint of a cluster.

mod log;
mod task;
mod upstream;

use std::{sync::Arc, time::Duration};

pub(crate) use self::task::{TcpConn, TcpTask};
use crate::{
    Kind,
    cluster::{Cluster, Endpoint},
    model::Name,
    telemetry::flags::Flags,
};

/// How a proxied connection ended, for access logs and metrics.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TcpEnd {
    /// The cluster; `None`: it does not exist.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint of the newest attempt.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Envoy's response flags.
    pub flags: Flags,
    /// What went wrong before or while bytes moved; `None`: nothing.
    pub failure: Option<Kind>,
    /// The sentence that names the cause, if there is one.
    pub reason: Option<Name>,
    /// Attempts to connect.
    pub attempts: u32,
    /// From the beginning to the upstream connection.
    pub connected: Option<Duration>,
    /// Our own address of the upstream connection, if there was one.
    pub local: Option<std::net::SocketAddr>,
    /// Bytes from the upstream.
    pub upstream_received: u64,
    /// Bytes to the upstream.
    pub upstream_sent: u64,
}

#[cfg(test)]
mod tests;
