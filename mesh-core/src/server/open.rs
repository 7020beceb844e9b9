//! The listener filters: what is read of a connection before its filter chain is chosen.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, sync::Notify};

use super::{ListenerStats, ProxyProtocolStats, Unserved, stats::FilterStats};
use crate::{
    model::{self, Address, ListenerFilter, Name, ProxyProtocolVersion},
    sync::lock,
    transport::{
        ConnInfo, Stream,
        detect::{self, HttpVersion, Verdict},
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

/// What the listener filters of a connection know of its listener.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) config: &'a model::Listener,
    pub(super) stats: &'a ListenerStats,
    pub(super) filters: &'a FilterStats,
    pub(super) signals: &'a Signals,
}

/// Runs the listener filters in order, within their time. `bytes` were read already.
pub(super) async fn open(
    stream: Stream,
    conn: ConnInfo,
    bytes: Bytes,
    known: Known<'_>,
) -> Result<Opened, Stop> {
    let Known { config, stats, .. } = known;
    let mut run = Run {
        stream,
        conn,
        buffer: bytes.into(),
        broken: false,
        spoken: false,
        known,
    };
    let counted = Counted::new(stats);
    let result = run
        .within(config, config.listener_filters_timeout, stats)
        .await;
    drop(counted);
    match &result {
        Err(Stop::Remote) if run.broken => stats.downstream_listener_filter_error.add(1),
        Err(Stop::Remote) => stats.downstream_listener_filter_remote_close.add(1),
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
    /// Reading failed.
    broken: bool,
    /// The upstream spoke first.
    spoken: bool,
    known: Known<'a>,
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
            ListenerFilter::ProxyProtocol {
                allow_without,
                disallowed,
                stat_prefix,
            } => {
                let stats = self.known.filters.proxy(stat_prefix);
                let result = self.proxy_protocol(*allow_without, *disallowed).await;
                if let Some(stats) = stats {
                    self.count_proxy(&result, stats);
                }
                match result {
                    Ok(_) => {}
                    Err(Headerless::Stop(stop)) => return Err(stop),
                    Err(_) => {
                        return Err(refused(
                            "proxy protocol: the header is absent, malformed or of a version that is not allowed",
                        ));
                    }
                }
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
            Ok(0) => Err(Stop::Remote),
            Ok(_) => Ok(()),
            Err(_) => {
                self.broken = true;
                Err(Stop::Remote)
            }
        }
    }

    /// The same for an inspector, whose client may wait for the upstream to speak first. `false`: that is so.
    async fn more_or_spoken(&mut self) -> Result<bool, Stop> {
        if !self.buffer.is_empty() {
            return self.more().await.map(|()| true);
        }
        let signals = self.known.signals;
        *signals.lock() = Some(self.conn.clone());
        let more = tokio::select! {
            biased;
            more = self.more() => more.map(|()| true),
            () = signals.spoken.notified() => Ok(false),
        };
        *signals.lock() = None;
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

    /// Reads a header and restores what it says. `None`: there is none, and none is needed.
    async fn proxy_protocol(
        &mut self,
        allow_without: bool,
        disallowed: Option<ProxyProtocolVersion>,
    ) -> Result<Option<ProxyProtocolVersion>, Headerless> {
        loop {
            let possible = |version| {
                disallowed != Some(version) && proxy_protocol::may_be(version, &self.buffer)
            };
            let possible = possible(ProxyProtocolVersion::V1) || possible(ProxyProtocolVersion::V2);
            if allow_without && !possible {
                return Ok(None);
            }
            let header = match proxy_protocol::parse(&self.buffer) {
                Parsed::Partial => {
                    self.more().await.map_err(Headerless::Stop)?;
                    continue;
                }
                Parsed::Header(header) => header,
                Parsed::Absent => return Err(Headerless::Malformed(None)),
                // As in Envoy one that is not allowed is not looked at.
                Parsed::Invalid(version) if disallowed == Some(version) => {
                    return Err(Headerless::Disallowed(version));
                }
                Parsed::Invalid(version) => return Err(Headerless::Malformed(Some(version))),
            };
            if disallowed == Some(header.version) {
                return Err(Headerless::Disallowed(header.version));
            }
            let _ = self.buffer.split_to(header.len);
            if let Some((source, destination)) = header.addresses {
                self.conn.peer = Address::Socket(source);
                // As in Envoy what says nothing new restores nothing.
                if self.conn.local.socket() != Some(destination) {
                    self.conn.local = Address::Socket(destination);
                    self.conn.original_dst = Some(destination);
                    self.conn.restored = true;
                }
            }
            return Ok(Some(header.version));
        }
    }

    fn count_proxy(
        &self,
        result: &Result<Option<ProxyProtocolVersion>, Headerless>,
        stats: &ProxyProtocolStats,
    ) {
        match result {
            Ok(None) => stats.not_found_allowed.add(1),
            Ok(Some(version)) => stats.version(*version).found.add(1),
            Err(Headerless::Disallowed(version)) => {
                stats.version(*version).found.add(1);
                stats.version(*version).disallowed.add(1);
            }
            Err(Headerless::Malformed(version)) => {
                match version {
                    Some(version) => stats.version(*version).error.add(1),
                    None => stats.not_found_disallowed.add(1),
                }
                self.known.filters.proxy_errors.add(1);
            }
            Err(Headerless::Stop(_)) => {}
        }
    }

    async fn tls(&mut self) -> Result<(), Stop> {
        if self.conn.security.tls {
            return Ok(());
        }
        let stats = &self.known.filters.tls;
        loop {
            match detect::tls(&self.buffer) {
                Verdict::TooLong => {
                    stats.client_hello_too_large.add(1);
                    return Err(refused("TLS inspector: the hello is too large"));
                }
                Verdict::More if self.more_or_spoken().await? => {}
                Verdict::More => return Ok(()),
                Verdict::Is(hello) => {
                    stats.tls_found.add(1);
                    match hello.alpn.is_empty() {
                        true => stats.alpn_not_found.add(1),
                        false => stats.alpn_found.add(1),
                    }
                    match &hello.server_name {
                        None => stats.sni_not_found.add(1),
                        Some(_) => stats.sni_found.add(1),
                    }
                    self.conn.security.tls = true;
                    self.conn.security.server_name = hello.server_name;
                    self.conn.security.application_protocols = hello.alpn;
                    return Ok(());
                }
                Verdict::Other => {
                    stats.tls_not_found.add(1);
                    return Ok(());
                }
            }
        }
    }

    /// Plain connections only: what is inside TLS is not to be seen.
    async fn http(&mut self) -> Result<(), Stop> {
        if self.conn.security.tls {
            return Ok(());
        }
        let stats = &self.known.filters.http;
        let mut seen = 0;
        loop {
            // A line is looked at as a whole: a long one that comes in many pieces only when something may end it.
            let news = &self.buffer[seen..];
            let full = self.buffer.len() >= detect::MAX_REQUEST_LINE;
            let verdict = match full || seen < SMALL || news.iter().any(|byte| *byte < b' ') {
                true => detect::http(&self.buffer),
                false => Verdict::More,
            };
            seen = self.buffer.len();
            match verdict {
                Verdict::TooLong => {
                    stats.read_error.add(1);
                    return Err(refused("HTTP inspector: the request line is too long"));
                }
                Verdict::More if self.more_or_spoken().await? => {}
                Verdict::More => return Ok(()),
                Verdict::Is(version) => {
                    match version {
                        HttpVersion::Http10 => stats.http10_found.add(1),
                        HttpVersion::Http11 => stats.http11_found.add(1),
                        HttpVersion::H2c => stats.http2_found.add(1),
                    }
                    self.conn.security.application_protocols = vec![version.as_str().into()];
                    return Ok(());
                }
                Verdict::Other => {
                    stats.http_not_found.add(1);
                    return Ok(());
                }
            }
        }
    }
}

/// Up to so many bytes are looked at anew with each that comes.
const SMALL: usize = 1024;

/// Why there is no header of the PROXY protocol.
enum Headerless {
    /// The connection ended before.
    Stop(Stop),
    /// It is none of that version, or none at all.
    Malformed(Option<ProxyProtocolVersion>),
    /// It is of the version that is not allowed.
    Disallowed(ProxyProtocolVersion),
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
