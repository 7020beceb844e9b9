//! Counts an upstream connection and its bytes, for as long as its socket lives, upgrades included.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Protocol;
use crate::{
    Kind,
    cluster::{Cluster, Endpoint, Permit},
    telemetry::clock,
    transport::{Io, Target, io_through, write_through},
};

/// What passed through a connection's socket. Written by the task that drives it, read by its requests.
#[derive(Debug)]
pub(super) struct Wire {
    received: AtomicU64,
    /// What came last was not the end of a head.
    amid: AtomicBool,
    /// HTTP/2: most streams that the peer takes.
    peer_max_streams: AtomicU32,
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            received: AtomicU64::new(0),
            amid: AtomicBool::new(false),
            peer_max_streams: AtomicU32::new(u32::MAX),
        }
    }
}

impl Wire {
    /// Bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether something came after the first `mark` bytes that a whole interim response (1xx) does not explain.
    pub(super) fn is_amid(&self, mark: u64) -> bool {
        self.received() > mark && self.amid.load(Ordering::Relaxed)
    }

    /// HTTP/2: most streams that the peer takes, as far as it has said.
    pub(super) fn peer_max_streams(&self) -> u32 {
        self.peer_max_streams.load(Ordering::Relaxed)
    }

    pub(super) fn set_peer_max_streams(&self, max: u32) {
        if self.peer_max_streams() != max {
            self.peer_max_streams.store(max, Ordering::Relaxed);
        }
    }

    fn came(&self, bytes: &[u8]) {
        // The socket has one reader and one writer, which are one task.
        let before = self.received();
        if before == 0
            && let Some(max) = first_max_streams(bytes)
        {
            self.set_peer_max_streams(max);
        }
        let total = before + bytes.len() as u64;
        self.received.store(total, Ordering::Relaxed);
        if !bytes.is_empty() {
            let amid = !bytes.ends_with(b"\r\n\r\n");
            self.amid.store(amid, Ordering::Relaxed);
        }
    }
}

/// `SETTINGS_MAX_CONCURRENT_STREAMS` (RFC 9113 section 6.5.2) of the frame with which an HTTP/2 server begins, if it came whole.
/// The codec tells only who asks it again, which nobody does while a first stream runs.
fn first_max_streams(bytes: &[u8]) -> Option<u32> {
    const SETTINGS: u8 = 4;
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let (head, rest) = bytes.split_first_chunk::<9>()?;
    let [a, b, c, kind, flags, stream @ ..] = *head;
    if (kind, flags, stream) != (SETTINGS, 0, [0; 4]) {
        return None;
    }
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let settings = rest.get(..length)?.as_chunks::<6>().0;
    let found = settings
        .iter()
        .rfind(|[a, b, ..]| u16::from_be_bytes([*a, *b]) == MAX_CONCURRENT_STREAMS)?;
    let [_, _, value @ ..] = *found;
    Some(u32::from_be_bytes(value))
}

/// A connection as statistics and limits see it: as in Envoy it is one from its first packet on.
pub(super) struct Counted {
    cluster: Arc<Cluster>,
    // A connection must not keep an endpoint alive, since it is closed when the endpoint is gone.
    endpoint: Weak<Endpoint>,
    since: Instant,
    /// The peer has ended it.
    ended: bool,
    _permit: Permit,
}

impl Counted {
    /// One that is about to be made; `protocol`: of HTTP connections.
    pub(super) fn begin(target: &Target, protocol: Option<Protocol>, permit: Permit) -> Self {
        let (stats, endpoint) = (target.cluster.stats(), target.endpoint.stats());
        stats.upstream_cx_total.add(1);
        stats.upstream_cx_active.add(1);
        match protocol {
            Some(Protocol::Http1) => stats.upstream_cx_http1_total.add(1),
            Some(Protocol::Http2) => stats.upstream_cx_http2_total.add(1),
            None => {}
        }
        endpoint.cx_total.add(1);
        endpoint.cx_active.add(1);
        Self {
            cluster: target.cluster.clone(),
            endpoint: Arc::downgrade(&target.endpoint),
            since: clock::now(),
            ended: false,
            _permit: permit,
        }
    }

    /// It could not be made.
    pub(super) fn failed(mut self, target: &Target, kind: Kind) {
        self.ended = kind != Kind::ConnectTimeout;
        let stats = target.cluster.stats();
        stats.connect_broke(&target.endpoint, kind);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = self.cluster.stats();
        stats.upstream_cx_active.sub(1);
        stats.connection_ended(self.ended);
        let life = clock::now().saturating_duration_since(self.since);
        stats.times().upstream_cx_length_ms.record_time(life);
        if let Some(endpoint) = self.endpoint.upgrade() {
            endpoint.stats().cx_active.sub(1);
        }
    }
}

/// A counted connection.
pub struct Metered<I> {
    io: I,
    wire: Arc<Wire>,
    counted: Counted,
}

impl<I> Metered<I> {
    pub(super) fn new(io: I, counted: Counted) -> Self {
        Self {
            io,
            wire: Arc::default(),
            counted,
        }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    fn sent(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(count)) => {
                let stats = self.counted.cluster.stats();
                stats.upstream_cx_tx_bytes_total.add(*count as u64);
            }
            Poll::Ready(Err(_)) => self.counted.ended = true,
            Poll::Pending => {}
        }
        result
    }
}

impl<I> fmt::Debug for Metered<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("cluster", self.counted.cluster.name())
            .finish_non_exhaustive()
    }
}

impl<I: Io> Io for Metered<I> {
    io_through!();
}

/// Whether `bytes` begin an interim response of HTTP/1.1. That another read looks like one does no harm.
fn is_interim(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 1") && !bytes.starts_with(b"HTTP/1.1 101")
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        let read = &buf.filled()[before..];
        this.counted.ended |= result.is_err() || read.is_empty();
        result?;
        this.wire.came(read);
        if is_interim(read) {
            this.counted.cluster.sent_interim();
        }
        this.counted
            .cluster
            .stats()
            .upstream_cx_rx_bytes_total
            .add(read.len() as u64);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.sent(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.sent(result)
    }

    write_through!();
}

#[cfg(test)]
mod tests {
    use super::first_max_streams;

    #[test]
    fn the_first_settings_say_how_many_streams_there_may_be() {
        let frame = |settings: &[u8]| {
            let length = u8::try_from(settings.len()).expect("short");
            [&[0, 0, length, 4, 0, 0, 0, 0, 0], settings].concat()
        };
        let one = frame(&[0, 4, 0, 0, 255, 255, 0, 3, 0, 0, 1, 2]);
        assert_eq!(first_max_streams(&one), Some(258));
        assert_eq!(first_max_streams(&[&one[..], b"more"].concat()), Some(258));
        assert_eq!(first_max_streams(&one[..one.len() - 1]), None, "in part");
        assert_eq!(first_max_streams(&frame(&[0, 4, 0, 0, 255, 255])), None);
        assert_eq!(first_max_streams(b"HTTP/1.1 200 OK\r\n\r\n"), None);
        assert_eq!(first_max_streams(b""), None);
    }
}
