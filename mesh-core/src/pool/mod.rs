//! Pooled upstream connections: HTTP/1.1 and HTTP/2 over hyper.
//!
//! A request is sent by [`Pool::service`]. Connections are kept by thread, endpoint, protocol and priority, so that a
//! connection is never used by another runtime than the one that drives it, and locks are not contended. Each connection is
//! driven by a task of its own. Limits, idle times and lives follow Envoy.

mod body;
mod conn;
mod error;
mod host;
mod interim;
mod meter;
mod prepare;
mod quiet;
mod sending;
mod service;
mod task;
mod tunnel;

use std::{fmt, sync::Arc};

use self::conn::Hosts;
pub use self::{
    body::PoolBody,
    error::{Lost, lost},
    meter::Metered,
    service::{ConnIo, PoolExec},
};
use crate::{
    cluster::{Cluster, Endpoint},
    model::{ConnectConfig, Priority},
    telemetry::record::Record,
    transport::{ConnInfo, TokioExec},
};

/// A request with the endpoint that it goes to.
#[derive(Debug)]
pub struct Outgoing<B> {
    /// The request. Its authority is that of its URI, else its `host`; the pool writes the form that the protocol asks for.
    pub request: http::Request<B>,
    /// The cluster: protocol, limits, timeouts.
    pub cluster: Arc<Cluster>,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Which set of limits counts.
    pub priority: Priority,
    /// The downstream connection. Only needed where the cluster's transport writes a PROXY protocol header: then upstream
    /// connections are not shared between downstream connections. Without it such a header says that nothing is known.
    pub downstream: Option<Arc<ConnInfo>>,
    /// The request ends here: its payload goes on as raw TCP, and the answer is 200 as soon as there is a connection.
    pub connect: Option<ConnectConfig>,
    /// Where it is noted which connection carries the request, and until when it waits for one, if somebody wants to know.
    pub record: Option<Arc<Record>>,
}

/// Upstream connections. Cloning shares.
///
/// `C` makes connections, `B` is the body of requests, `X` starts the tasks that drive connections.
pub struct Pool<C, B, X = TokioExec> {
    shared: Arc<Shared<C, B, X>>,
}

struct Shared<C, B, X> {
    connector: C,
    exec: X,
    hosts: Hosts<B>,
}

/// A task that drives a connection; boxed once a connection.
pub type ConnTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Protocol {
    Http1,
    Http2,
}

impl<C, B> Pool<C, B> {
    /// An empty pool whose tasks run on the tokio runtime of the caller.
    pub fn new(connector: C) -> Self {
        Self::with_exec(connector, TokioExec)
    }
}

impl<C, B, X> Pool<C, B, X> {
    /// An empty pool.
    pub fn with_exec(connector: C, exec: X) -> Self {
        Self {
            shared: Arc::new(Shared {
                connector,
                exec,
                hosts: Hosts::default(),
            }),
        }
    }

    /// Closes all idle connections; those in use are closed when their exchange ends.
    pub fn close(&self) {
        self.shared.hosts.close();
    }
}

impl<C, B, X> Drop for Shared<C, B, X> {
    fn drop(&mut self) {
        // Idle connections and their hosts refer to one another.
        self.hosts.close();
    }
}

impl<C, B, X> Clone for Pool<C, B, X> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<C, B, X> fmt::Debug for Pool<C, B, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
