//! Counts an upstream connection and its bytes, for as long as its socket lives, upgrades included.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Protocol;
use crate::{
    cluster::{Cluster, Endpoint, Permit},
    telemetry::clock,
    transport::{Io, Target, io_through, write_through},
};

/// What passed through a connection's socket. Written by the task that drives it, read by its requests.
#[derive(Debug, Default)]
pub(super) struct Wire {
    received: AtomicU64,
    /// What came last was not the end of a head.
    amid: AtomicBool,
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

    fn came(&self, bytes: &[u8]) {
        // The socket has one reader and one writer, which are one task.
        let total = self.received() + bytes.len() as u64;
        self.received.store(total, Ordering::Relaxed);
        if !bytes.is_empty() {
            let amid = !bytes.ends_with(b"\r\n\r\n");
            self.amid.store(amid, Ordering::Relaxed);
        }
    }
}

/// A counted connection.
pub struct Metered<I> {
    io: I,
    wire: Arc<Wire>,
    cluster: Arc<Cluster>,
    // A connection must not keep an endpoint alive, since it is closed when the endpoint is gone.
    endpoint: Weak<Endpoint>,
    since: Instant,
    /// The peer has ended it.
    ended: bool,
    _permit: Option<Permit>,
}

impl<I> Metered<I> {
    pub(super) fn new(
        io: I,
        target: &Target,
        protocol: Option<Protocol>,
        permit: Option<Permit>,
    ) -> Self {
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
            io,
            wire: Arc::default(),
            cluster: target.cluster.clone(),
            endpoint: Arc::downgrade(&target.endpoint),
            since: clock::now(),
            ended: false,
            _permit: permit,
        }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    fn sent(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(count)) => {
                let stats = self.cluster.stats();
                stats.upstream_cx_tx_bytes_total.add(*count as u64);
            }
            Poll::Ready(Err(_)) => self.ended = true,
            Poll::Pending => {}
        }
        result
    }
}

impl<I> fmt::Debug for Metered<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("cluster", self.cluster.name())
            .finish_non_exhaustive()
    }
}

impl<I> Drop for Metered<I> {
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
        this.ended |= result.is_err() || read.is_empty();
        result?;
        this.wire.came(read);
        if is_interim(read) {
            this.cluster.sent_interim();
        }
        this.cluster
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
