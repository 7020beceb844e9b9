//! TLS settings as data. Nothing here does cryptography; a `Connector` or `Acceptor` that can acts on them.

use super::{Name, StringMatcher};

/// How bytes travel on a connection (`config.core.v3.TransportSocket`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportSocket {
    /// As they are.
    #[default]
    RawBuffer,
    /// Over TLS. Refused until a connector or acceptor that speaks TLS is given.
    Tls(Box<TlsContext>),
    /// A PROXY protocol header first, then the inner socket (`ProxyProtocolUpstreamTransport`).
    ProxyProtocol(ProxyProtocolVersion, Box<TransportSocket>),
    /// A kind that is not understood: name and type URL. Fails closed.
    Unsupported(Name, Name),
}

/// Version of the PROXY protocol header that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// TLS settings of one side (`UpstreamTlsContext`, `DownstreamTlsContext`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsContext {
    /// Server name that is sent (upstream).
    pub sni: Name,
    /// ALPN names in order.
    pub alpn: Vec<Name>,
    /// Names of the secrets with the own certificate.
    pub certificates: Vec<Name>,
    /// Name of the secret with the trusted roots.
    pub validation: Option<Name>,
    /// Names that the peer's certificate must hold.
    pub subject_alt_names: Vec<StringMatcher>,
    /// A client certificate is demanded (downstream); default false. The server closes connections whose acceptor verified none.
    pub require_client_certificate: bool,
}
