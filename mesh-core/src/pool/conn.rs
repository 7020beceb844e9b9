//! One upstream connection as requests see it, and where its kind is found.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http::Request;
use hyper::client::conn::{http1, http2};

use super::{
    body::Release,
    error::{self, Standing},
    host::{Host, Key},
    interim,
    meter::Wire,
};
use crate::{
    Error, cluster::Cluster, sync::lock, telemetry::record::Record, transport::UpstreamConn,
};

/// A connection. While an HTTP/1 connection serves a request, only that request holds it.
pub(super) struct Conn<B> {
    pub(super) id: u64,
    pub(super) sender: Sender<B>,
    pub(super) host: Arc<Host<B>>,
    /// HTTP/2: streams open.
    streams: AtomicU32,
    /// HTTP/2: most streams that we open; the peer's limit may be lower.
    max_streams: u32,
    /// HTTP/2: requests that were promised a place, if there is a greatest number of them.
    taken: AtomicU32,
    /// Requests begun.
    served: AtomicU32,
    max_requests: u32,
    /// No further request.
    draining: AtomicBool,
    /// The last request had a body of which we do not know that it was sent whole.
    doubtful: AtomicBool,
    pub(super) signals: Arc<Signals>,
    wire: Arc<Wire>,
    cluster: Arc<Cluster>,
    /// For log lines.
    info: Arc<UpstreamConn>,
    /// Bytes that had come when the newest request began.
    mark: AtomicU64,
}

/// What a connection and its task tell one another. The task looks at each turn, so it holds them apart.
pub(super) struct Signals {
    /// Given back, but not offered to those who wait before its task has seen the end of the exchange.
    parked: AtomicBool,
    /// Something happened to the endpoint, after which the connection may have to end.
    pub(super) alert: Arc<AtomicBool>,
}

impl Signals {
    pub(super) fn is_parked(&self) -> bool {
        self.parked.load(Ordering::SeqCst)
    }
}

pub(super) enum Sender<B> {
    // The locks are held for a call each, and contended only if a response body moves to another thread.
    Http1(Mutex<http1::SendRequest<B>>),
    Http2(Mutex<http2::SendRequest<B>>),
}

/// Limits of a connection.
pub(super) struct ConnLimits {
    pub(super) max_streams: u32,
    pub(super) max_requests: u32,
}

impl<B> Conn<B> {
    pub(super) fn new(
        sender: Sender<B>,
        host: Arc<Host<B>>,
        limits: ConnLimits,
        cluster: Arc<Cluster>,
        (wire, local): (Arc<Wire>, Option<SocketAddr>),
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let protocol = match sender {
            Sender::Http1(_) => "HTTP/1.1",
            Sender::Http2(_) => "HTTP/2",
        };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            sender,
            host,
            streams: AtomicU32::new(0),
            max_streams: limits.max_streams,
            taken: AtomicU32::new(0),
            served: AtomicU32::new(0),
            max_requests: limits.max_requests,
            draining: AtomicBool::new(false),
            doubtful: AtomicBool::new(false),
            signals: Arc::new(Signals {
                parked: AtomicBool::new(false),
                alert: Arc::default(),
            }),
            wire,
            cluster,
            info: Arc::new(UpstreamConn {
                local,
                protocol: Some(protocol),
                id,
            }),
            mark: AtomicU64::new(0),
        }
    }

    /// Tells the record of a request which connection it is on, and lets it hear of interim responses.
    pub(super) fn tell<R>(&self, record: Option<&Arc<Record>>, request: &mut Request<R>) {
        if let Some(record) = record {
            let mut late = record.late();
            late.upstream = Some(self.info.clone());
            let expectation = late.expectation.clone();
            drop(late);
            if expectation.is_some() || self.cluster.sends_interims() {
                interim::listen(request, record, &self.cluster, expectation, self.is_http2());
            }
        }
    }

    /// Trailers of HTTP/1 pass.
    pub(super) fn passes_trailers(&self) -> bool {
        self.cluster.config().http1.enable_trailers
    }

    /// The exchange that runs is the last.
    pub(super) fn last_exchange(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Counts a request; returns whether there was one before.
    pub(super) fn begin(&self, whole: bool) -> bool {
        self.doubtful.store(!whole, Ordering::Relaxed);
        self.mark.store(self.wire.received(), Ordering::Relaxed);
        let before = self.served.fetch_add(1, Ordering::Relaxed);
        if before + 1 >= self.max_requests {
            self.draining.store(true, Ordering::Relaxed);
            if before + 1 == self.max_requests {
                self.cluster.stats().upstream_cx_max_requests.add(1);
            }
        }
        before > 0
    }

    /// HTTP/1: a part of the response to the newest request came.
    fn is_answered_in_part(&self) -> bool {
        let http1 = matches!(self.sender, Sender::Http1(_));
        http1 && self.wire.is_amid(self.mark.load(Ordering::Relaxed))
    }

    /// The error of a request on this connection.
    pub(super) fn failed(&self, error: hyper::Error, sent: bool, reused: bool) -> Error {
        let standing = Standing {
            sent,
            reused,
            answered: self.is_answered_in_part(),
        };
        error::of_request(error, standing)
    }

    /// Requests begun up to now.
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::Relaxed)
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Open streams of an HTTP/2 connection.
    pub(super) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Takes a place for a stream, if there is one. Called under the host's lock.
    pub(super) fn begin_stream(&self) -> bool {
        let max = self.max_streams.min(self.wire.peer_max_streams());
        let left = || self.taken.load(Ordering::Relaxed) < self.max_requests;
        let free = !self.draining.load(Ordering::Relaxed) && self.streams() < max && left();
        if free {
            self.streams.fetch_add(1, Ordering::Relaxed);
            if self.max_requests != u32::MAX {
                self.taken.fetch_add(1, Ordering::Relaxed);
            }
        }
        free
    }

    /// The place that [`Conn::begin_stream`] took was not used.
    pub(super) fn untake(&self) {
        self.end_stream();
        self.unpromise();
    }

    fn unpromise(&self) {
        if self.max_requests != u32::MAX {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives back a connection that was taken and not used.
    pub(super) fn unused(self: Arc<Self>)
    where
        B: Send + 'static,
    {
        if self.is_http2() {
            self.unpromise();
        }
        self.release(true);
    }

    /// Gives the place of a stream back.
    fn end_stream(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// No further request is sent on it.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.host.drain(self.id);
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => lock(sender).is_closed(),
            Sender::Http2(sender) => lock(sender).is_closed(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => lock(sender).is_ready(),
            Sender::Http2(sender) => lock(sender).is_ready(),
        }
    }

    /// Offers a parked connection once it is ready. Called by its task.
    pub(super) fn unpark(&self) {
        if self.signals.is_parked() && self.is_ready() {
            self.signals.parked.store(false, Ordering::SeqCst);
            self.host.offer(self.id);
        }
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    /// Whether the next request can be handed over. HTTP/2 queues it itself.
    pub(super) fn is_settled(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => lock(sender).is_ready(),
            Sender::Http2(_) => true,
        }
    }

    /// Waits until the last exchange is over for the connection's task too. An error shows again in sending, which hands
    /// the request back.
    pub(super) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.sender {
            Sender::Http1(sender) => lock(sender).poll_ready(cx).map(|_| ()),
            Sender::Http2(_) => Poll::Ready(()),
        }
    }
}

impl<B: Send + 'static> Release for Conn<B> {
    fn died(&self) {
        // As in Envoy, of streams only.
        if self.is_http2() {
            self.cluster
                .stats()
                .upstream_rq_pending_failure_eject
                .add(1);
        }
    }

    fn release(self: Arc<Self>, clean: bool) -> bool {
        match &self.sender {
            // An unclean connection is dropped here, and with its sender hyper closes it.
            Sender::Http1(_) if !clean || self.draining.load(Ordering::Relaxed) => false,
            Sender::Http1(_) => {
                // Whoever waits gets only what is ready: a slow upload must not delay it, nor a connection that is about to
                // close fail it. `unpark` follows, since it is the task that sees either.
                let parked = !self.is_ready();
                self.signals.parked.store(parked, Ordering::SeqCst);
                let host = self.host.clone();
                let again = parked.then(|| self.clone());
                host.put(self, !parked);
                // On another thread the task may have seen the end before it could see that the connection is parked.
                if let Some(conn) = again {
                    conn.unpark();
                }
                !parked
            }
            Sender::Http2(_) => {
                if !clean {
                    // With the last holder of a stream that has not ended the codec resets it.
                    self.cluster.stats().upstream_rq_tx_reset.add(1);
                }
                self.end_stream();
                if self.draining.load(Ordering::Relaxed) {
                    self.host.drain(self.id);
                }
                self.host.wake_next();
                false
            }
        }
    }
}

/// All hosts of a pool, sharded by thread.
pub(super) struct Hosts<B> {
    shards: [Mutex<Shard<B>>; SHARDS],
}

type Shard<B> = HashMap<Key, Arc<Host<B>>, BuildHasherDefault<Multiply>>;

/// More than the cores of most machines; threads beyond it share, which costs contention and nothing else.
const SHARDS: usize = 64;

impl<B> Default for Hosts<B> {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl<B> Hosts<B> {
    /// The host of `key`, made if need be.
    pub(super) fn get(&self, key: &Key) -> Arc<Host<B>> {
        let mut shard = self.shard(key);
        match shard.get(key) {
            Some(host) => host.clone(),
            None => shard
                .entry(*key)
                .or_insert_with(|| Arc::new(Host::new(*key)))
                .clone(),
        }
    }

    /// A connection that can take a request of `key` at once.
    pub(super) fn take(&self, key: &Key) -> Option<Arc<Conn<B>>> {
        self.shard(key).get(key)?.take()
    }

    /// Forgets `host` if it has no connections.
    pub(super) fn forget(&self, host: &Host<B>) {
        let mut shard = self.shard(&host.key);
        let mut state = host.lock();
        if state.total == 0 && !state.closed {
            state.close();
            shard.remove(&host.key);
        }
    }

    /// How many are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Closes all idle connections and keeps none any more.
    pub(super) fn close(&self) {
        for shard in &self.shards {
            let hosts = std::mem::take(&mut *lock(shard));
            for host in hosts.into_values() {
                // Dropped without the lock: a connection's end takes it.
                let idle = host.lock().close();
                drop(idle);
            }
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard<B>> {
        lock(&self.shards[key.thread as usize % SHARDS])
    }
}

/// A number for each thread.
pub(super) fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static THREAD: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    THREAD.with(|thread| *thread)
}

/// Hashes small numbers that no peer chooses: one multiplication each.
#[derive(Default)]
pub(super) struct Multiply(u64);

impl Hasher for Multiply {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}
