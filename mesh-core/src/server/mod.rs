//! Listeners: sockets, filter chains, connection tasks and drain.
//!
//! [`Listeners`] keeps a program's sockets those of its configuration, and hands each to what runs [`serve`]. One level below,
//! a program opens sockets itself with [`bind`], makes one [`ListenerHandle`] a listener, and runs [`serve`] for each worker
//! and socket. A reload is [`ListenerHandle::replace`]: the socket stays, new connections get the newest version, and only
//! connections whose filter chain changed are told to go.
//!
//! Each connection is one task: it reads what the listener filters want to see, chooses the filter chain, and drives the
//! codec (or the TCP proxy) together with one timer for all of its deadlines.

mod accept;
mod answer;
mod bind;
mod codec;
mod directory;
mod factory;
mod frames;
mod heads;
mod http;
mod io;
mod line;
mod linger;
mod link;
mod listener;
mod listeners;
mod observer;
mod open;
mod service;
mod stats;
mod task;

use self::directory::Directory;
pub(crate) use self::link::{Command, Link};
pub use self::{
    accept::{StreamExec, serve},
    bind::{BindOptions, Socket, bind},
    factory::{Accepted, Factory},
    listener::{Drain, ListenerHandle},
    listeners::{ListenError, ListenerCounts, Listeners, ListenersStatus},
    observer::{ConnEvent, ConnObserver, Rejected, Unobserved, Unserved},
    service::{ServedBody, ServedFuture},
    stats::{
        HttpInspectorStats, HttpStats, ListenerStats, ProxyProtocolStats, ProxyVersionStats,
        ServerStats, TcpStats, TlsInspectorStats,
    },
    task::ConnTask,
};
pub use crate::tcp::TcpEnd;

#[cfg(test)]
pub(crate) mod tests;
