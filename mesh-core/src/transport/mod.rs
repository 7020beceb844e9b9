//! How connections are made and what is known of them. No TLS here: a `Connector` and an `Acceptor` that speak it bring it.

#[cfg(feature = "net")]
mod accept;
#[cfg(feature = "net")]
mod connect;
#[cfg(feature = "net")]
mod copy;
#[cfg(feature = "net")]
mod cut;
pub mod detect;
#[cfg(feature = "net")]
mod exec;
#[cfg(feature = "net")]
mod interim;
#[cfg(feature = "net")]
mod io;
mod peer;
pub mod proxy_protocol;
#[cfg(feature = "net")]
mod socket;
#[cfg(feature = "net")]
mod switched;
#[cfg(feature = "net")]
mod timer;

#[cfg(feature = "server")]
pub(crate) use self::exec::can_cut;
#[cfg(feature = "client")]
pub(crate) use self::io::{io_through, write_through};
pub(crate) use self::peer::UpstreamConn;
pub use self::peer::{ConnInfo, Security};
#[cfg(feature = "server")]
pub(crate) use self::socket::{abstract_path, set_keepalive};
#[cfg(feature = "server")]
pub(crate) use self::switched::Watch;
#[cfg(feature = "net")]
pub use self::{
    accept::{AcceptError, Acceptor, Handshake, PlainAcceptor, Terminated},
    connect::{ConnectError, Connector, Target, TcpConnector, open},
    exec::{Exec, LocalExec, TokioExec},
    io::{Io, Prefixed, Stream},
};
#[cfg(feature = "net")]
pub(crate) use self::{
    copy::{Failed, OneWay},
    cut::Cut,
    interim::{Expectation, Hold, Interims},
    switched::{End, Switched, Ticket, UpstreamKind},
    timer::{ConnTimer, Deadline},
};
