//! The listener filters: what is read of a connection before its filter chain is chosen.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, sync::Notify};

use super::{ListenerStats, Unserved};
use crate::{
    model::{self, Address, ListenerFilter, Name},
    sync::lock,
    transport::{
        ConnInfo, Stream,
        detect::{self, Verdict},
        proxy_protocol::{self, Parsed},
    },
};

/// Why a connection ends in the listener filters.
pub(super) enum Stop {
    /// The peer closed it.
    Remote,
    /// Something is wrong with it.
    Unserved(Unserved),
}

/// What listener filters and the task of their connection tell one another.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection as far as it is known, while its client has said nothing that the inspectors could look at.
    silent: Mutex<Option<ConnInfo>>,
    /// The upstream speaks first: there is nothing to inspect.
    pub(super) spoken: Notify,
}

impl Signals {
    pub(super) fn silent(&self) -> Option<ConnInfo> {
        self.lock().clone()
    }

    pub(super) fn is_silent(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<ConnInfo>> {
        lock(&self.silent)
    }
}

/// A connection after the listener filters.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) conn: ConnInfo,
    /// Bytes that were read and are not used up.
    pub(super) bytes: Bytes,
}

/// Runs the listener filters in order, within their time. `bytes` were read already.
pub(super) async fn open(
    stream: Stream,
    conn: ConnInfo,
    bytes: Bytes,
    (config, stats, signals): (&model::Listener, &ListenerStats, &Signals),
) -> Result<Opened, Stop> {
    let mut run = Run {
        stream,
        conn,
        buffer: bytes.into(),
        eof: false,
        spoken: false,
        signals,
    };
    let counted = Counted::new(stats);
    let result = run
        .within(config, config.listener_filters_timeout, stats)
        .await;
    drop(counted);
    match &result {
        Err(Stop::Remote) => stats.downstream_listener_filter_remote_close.add(1),
        Err(Stop::Unserved(Unserved::ListenerFilter(_))) => {
            stats.downstream_listener_filter_error.add(1);
        }
        _ => {}
    }
    result.map(|()| Opened {
        stream: run.stream,
        conn: run.conn,
        bytes: run.buffer.freeze(),
    })
}

/// A connection in the listener filters, as statistics see it; also one that is aborted there.
struct Counted<'a>(&'a ListenerStats);

impl<'a> Counted<'a> {
    fn new(stats: &'a ListenerStats) -> Self {
        stats.downstream_pre_cx_active.add(1);
        Self(stats)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.downstream_pre_cx_active.sub(1);
    }
}

struct Run<'a> {
    stream: Stream,
    conn: ConnInfo,
    buffer: BytesMut,
    eof: bool,
    /// The upstream spoke first.
    spoken: bool,
    signals: &'a Signals,
}

impl Run<'_> {
    async fn within(
        &mut self,
        config: &model::Listener,
        limit: Duration,
        stats: &ListenerStats,
    ) -> Result<(), Stop> {
        if limit.is_zero() {
            return self.filters(&config.listener_filters).await;
        }
        match tokio::time::timeout(limit, self.filters(&config.listener_filters)).await {
            Ok(result) => result,
            Err(_) => {
                stats.downstream_pre_cx_timeout.add(1);
                if config.continue_on_listener_filters_timeout {
                    Ok(())
                } else {
                    Err(Stop::Unserved(Unserved::Timeout))
                }
            }
        }
    }

    async fn filters(&mut self, filters: &[ListenerFilter]) -> Result<(), Stop> {
        for filter in filters {
            if self.spoken {
                break;
            }
            self.filter(filter).await?;
        }
        Ok(())
    }

    async fn filter(&mut self, mut filter: &ListenerFilter) -> Result<(), Stop> {
        while let ListenerFilter::Except(ports, inner) = filter {
            // A socket without ports has none that could be named.
            let port = self.conn.local.socket().map(|local| local.port());
            if port.is_some_and(|port| ports.holds(port)) {
                return Ok(());
            }
            filter = inner;
        }
        match filter {
            ListenerFilter::OriginalDst => self.original_dst(),
            ListenerFilter::ProxyProtocol { allow_without } => {
                self.proxy_protocol(*allow_without).await?;
            }
            ListenerFilter::TlsInspector => self.tls().await?,
            ListenerFilter::HttpInspector => self.http().await?,
            ListenerFilter::Except(..) => {}
        }
        Ok(())
    }

    /// Reads more; an error if the peer has nothing more to say.
    async fn more(&mut self) -> Result<(), Stop> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => {
                self.eof = true;
                Err(Stop::Remote)
            }
            Ok(_) => Ok(()),
        }
    }

    /// The same for an inspector, whose client may wait for the upstream to speak first. `false`: that is so.
    async fn more_or_spoken(&mut self) -> Result<bool, Stop> {
        if !self.buffer.is_empty() {
            return self.more().await.map(|()| true);
        }
        *self.signals.lock() = Some(self.conn.clone());
        let signals = self.signals;
        let more = tokio::select! {
            biased;
            more = self.more() => more.map(|()| true),
            () = signals.spoken.notified() => Ok(false),
        };
        *self.signals.lock() = None;
        self.spoken = matches!(more, Ok(false));
        more
    }

    /// The destination before the kernel redirected the connection; as it is if it was not.
    fn original_dst(&mut self) {
        let Some(addr) = original_dst(&self.stream, &self.conn.local) else {
            return;
        };
        self.conn.original_dst = Some(addr);
        self.conn.restored = true;
        self.conn.local = Address::Socket(addr);
    }

    async fn proxy_protocol(&mut self, allow_without: bool) -> Result<(), Stop> {
        loop {
            match proxy_protocol::parse(&self.buffer) {
                Parsed::Partial => self.more().await?,
                Parsed::Header(header) => {
                    let _ = self.buffer.split_to(header.len);
                    if let Some((source, destination)) = header.addresses {
                        self.conn.peer = Address::Socket(source);
                        self.conn.local = Address::Socket(destination);
                        self.conn.original_dst = Some(destination);
                        self.conn.restored = true;
                    }
                    return Ok(());
                }
                Parsed::Absent if allow_without => return Ok(()),
                Parsed::Absent | Parsed::Invalid => {
                    return Err(refused("proxy protocol: the header is absent or malformed"));
                }
            }
        }
    }

    async fn tls(&mut self) -> Result<(), Stop> {
        if self.conn.security.tls {
            return Ok(());
        }
        loop {
            match detect::tls(&self.buffer) {
                Verdict::More if self.more_or_spoken().await? => {}
                Verdict::More => return Ok(()),
                Verdict::Is(hello) => {
                    self.conn.security.tls = true;
                    self.conn.security.server_name = hello.server_name;
                    self.conn.security.application_protocols = hello.alpn;
                    return Ok(());
                }
                Verdict::Other => return Ok(()),
            }
        }
    }

    /// Plain connections only: what is inside TLS is not to be seen.
    async fn http(&mut self) -> Result<(), Stop> {
        if self.conn.security.tls {
            return Ok(());
        }
        loop {
            match detect::http(&self.buffer) {
                Verdict::More if self.more_or_spoken().await? => {}
                Verdict::More => return Ok(()),
                Verdict::Is(version) => {
                    self.conn.security.application_protocols = vec![version.as_str().into()];
                    return Ok(());
                }
                Verdict::Other => return Ok(()),
            }
        }
    }
}

fn refused(why: &str) -> Stop {
    Stop::Unserved(Unserved::ListenerFilter(Name::from(why)))
}

#[cfg(target_os = "linux")]
fn original_dst(stream: &Stream, local: &Address) -> Option<SocketAddr> {
    let Stream::Tcp(tcp) = stream else {
        return None;
    };
    let socket = socket2::SockRef::from(tcp);
    let addr = match local.socket()? {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    addr.ok()?.as_socket()
}

#[cfg(not(target_os = "linux"))]
fn original_dst(_stream: &Stream, _local: &Address) -> Option<SocketAddr> {
    None
}
