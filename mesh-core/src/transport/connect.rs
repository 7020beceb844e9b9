//! Connections to endpoints.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use super::{ConnInfo, Io, Stream, proxy_protocol, socket};
use crate::{
    Kind,
    cluster::{Cluster, Endpoint},
    model::{Address, Metadata, Name, TransportSocket, Value},
};

/// Makes connections to endpoints.
///
/// Connecting is rare and slow, so the future may be boxed; requests on an open connection do not pass through here.
///
/// One that speaks TLS goes by [`Target::transport`], and has [`open`] make the socket. As application protocol it offers what the
/// cluster speaks ([`Cluster::config`]`().protocol`): `h2` for HTTP/2, else `http/1.1`. A connection whose
/// [`Io::alpn`] says something else is given up, since its requests are framed before there is a connection.
pub trait Connector {
    /// The connection.
    type Io: Io;
    /// Resolves when it is made.
    type Future: Future<Output = Result<Self::Io, ConnectError>>;

    /// Begins to connect. The caller bounds the time by [`Target::timeout`].
    fn connect(&self, to: &Target) -> Self::Future;
}

/// What to connect to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The cluster: settings, transport socket, limits.
    pub cluster: Arc<Cluster>,
    /// The endpoint: address, host name, metadata.
    pub endpoint: Arc<Endpoint>,
    /// The downstream connection for which this one is made, if it is made for a single one.
    pub downstream: Option<Arc<ConnInfo>>,
}

impl Target {
    /// `endpoint` of `cluster`.
    pub fn new(cluster: Arc<Cluster>, endpoint: Arc<Endpoint>) -> Self {
        Self {
            cluster,
            endpoint,
            downstream: None,
        }
    }

    /// Where to.
    pub fn address(&self) -> &Address {
        self.endpoint.address()
    }

    /// How bytes travel: the first transport match that the endpoint's metadata satisfy, else the cluster's transport.
    pub fn transport(&self) -> &TransportSocket {
        let config = self.cluster.config();
        config
            .transport_matches
            .iter()
            .find(|candidate| has_labels(self.endpoint.metadata(), &candidate.labels))
            .map_or(&config.transport, |candidate| &candidate.transport)
    }

    /// Limit for the connection.
    pub fn timeout(&self) -> Duration {
        self.cluster.config().connect_timeout
    }

    /// Counts a request that got its connection; as in Envoy those that get none are no requests of the cluster.
    pub(crate) fn count_request(&self) {
        self.cluster.count_request(&self.endpoint);
    }
}

fn has_labels(metadata: &Metadata, labels: &[(Name, Name)]) -> bool {
    labels.iter().all(|(key, wanted)| {
        metadata
            .get("envoy.transport_socket_match", std::slice::from_ref(key))
            .and_then(Value::as_text)
            == Some(wanted)
    })
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket said no.
    #[error("no connection to {address}")]
    Io {
        /// Where to.
        address: Address,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("no connection to {address} within {limit:?}")]
    Timeout {
        /// Where to.
        address: Address,
        /// The limit.
        limit: Duration,
    },
    /// The host name has no address.
    #[error("{host} has no address")]
    Resolve {
        /// The name.
        host: Name,
        /// What the resolver says.
        #[source]
        source: Option<io::Error>,
    },
    /// The socket is there, but hands were not shaken: a certificate, a name, a protocol.
    #[error("no handshake with {address}: {reason}")]
    Handshake {
        /// Where to.
        address: Address,
        /// What is wrong.
        reason: Name,
    },
    /// The transport is one that this connector does not speak, so nothing is sent.
    #[error("cluster {cluster} needs {what}, which cannot be originated here")]
    Unsupported {
        /// The cluster.
        cluster: Name,
        /// What is missing.
        what: Name,
    },
}

impl ConnectError {
    /// What it means for a request.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Timeout { .. } => Kind::ConnectTimeout,
            Self::Unsupported { .. } => Kind::FailClosed,
            Self::Io { .. } | Self::Resolve { .. } | Self::Handshake { .. } => Kind::ConnectFailure,
        }
    }
}

/// Connects plain TCP and Unix sockets, after a PROXY protocol header where the cluster asks for one. TLS is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnector;

impl Connector for TcpConnector {
    type Io = Stream;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn connect(&self, to: &Target) -> Self::Future {
        let to = to.clone();
        Box::pin(async move { connect(&to).await })
    }
}

async fn connect(to: &Target) -> Result<Stream, ConnectError> {
    let header = header(to, to.transport())?;
    let mut stream = open(to).await?;
    if let Some(version) = header {
        let io_error = |source| ConnectError::Io {
            address: to.address().clone(),
            source,
        };
        let (source, destination) = proxied(to);
        let bytes = proxy_protocol::write(version, source, destination);
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
            .await
            .map_err(io_error)?;
    }
    Ok(stream)
}

/// The addresses that a PROXY header names: the downstream connection's, if it has any.
fn proxied(to: &Target) -> (Option<SocketAddr>, Option<SocketAddr>) {
    match &to.downstream {
        Some(conn) => (conn.peer.socket(), conn.local.socket()),
        None => (None, None),
    }
}

/// Which PROXY header goes first; an error for whatever this connector cannot speak.
fn header(
    to: &Target,
    transport: &TransportSocket,
) -> Result<Option<crate::model::ProxyProtocolVersion>, ConnectError> {
    let unsupported = |what: Name| ConnectError::Unsupported {
        cluster: to.cluster.name().clone(),
        what,
    };
    match transport {
        TransportSocket::RawBuffer => Ok(None),
        TransportSocket::Tls(_) => Err(unsupported("TLS".into())),
        TransportSocket::Unsupported(name, _) => {
            Err(unsupported(format!("transport socket {name}").into()))
        }
        TransportSocket::ProxyProtocol(version, inner) => match header(to, inner)? {
            None => Ok(Some(*version)),
            Some(_) => Err(unsupported("two PROXY protocol headers".into())),
        },
    }
}

/// The plain socket to the endpoint, on which a connector may speak what it likes: TCP with the cluster's own address and
/// keep-alive, or a Unix socket; a host name is looked up.
///
/// # Errors
///
/// [`ConnectError::Io`] or [`ConnectError::Resolve`].
pub async fn open(to: &Target) -> Result<Stream, ConnectError> {
    let config = to.cluster.config();
    let io_error = |source| ConnectError::Io {
        address: to.address().clone(),
        source,
    };
    match to.address() {
        Address::Pipe(path) => socket::connect_unix(path)
            .await
            .map(Stream::Unix)
            .map_err(io_error),
        Address::Socket(addr) => {
            socket::connect_tcp(*addr, config.bind.as_ref(), config.tcp_keepalive)
                .await
                .map(Stream::Tcp)
                .map_err(io_error)
        }
        Address::Host(host, port) => {
            let resolved = tokio::net::lookup_host((&**host, *port)).await;
            let addrs = resolved.map_err(|source| ConnectError::Resolve {
                host: host.clone(),
                source: Some(source),
            })?;
            let mut last = None;
            for addr in addrs {
                match socket::connect_tcp(addr, config.bind.as_ref(), config.tcp_keepalive).await {
                    Ok(stream) => return Ok(Stream::Tcp(stream)),
                    Err(error) => last = Some(error),
                }
            }
            Err(last.map_or_else(
                || ConnectError::Resolve {
                    host: host.clone(),
                    source: None,
                },
                io_error,
            ))
        }
    }
}
