//! One proxied connection.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use super::{
    TcpEnd,
    log::Periodic,
    upstream::{Held, Nobody, Unchosen, cluster_name, failure},
};
use crate::{
    Kind,
    cluster::{AttemptOutcome, Cluster, Permit, PickKey},
    model::{LogType, Name, Network, Priority, TcpProxy},
    server::{Accepted, Command, ConnEvent, Link, ListenerHandle, TcpStats},
    snapshot::{Clusters, Tcp},
    telemetry::{
        clock::{self, now},
        flags::Flag,
        metrics::TcpConnection,
        record::Record,
    },
    transport::{ConnectError, Connector, Deadline, Failed, Io, OneWay, Prefixed, Target},
};

/// What the task of a TCP connection knows from its listener.
pub(crate) struct TcpConn {
    pub(crate) link: Arc<Link>,
    pub(crate) stats: Arc<TcpStats>,
    pub(crate) accepted: Accepted,
    pub(crate) handle: ListenerHandle,
}

impl TcpConn {
    fn proxy(&self) -> &TcpProxy {
        match &self.accepted.filter_chain().network {
            Network::Tcp(proxy) => proxy,
            _ => unreachable!("only TCP chains make TCP connections"),
        }
    }

    fn record(&self) -> Arc<Record> {
        let conn = self.accepted.conn.clone();
        Record::begin(Some(conn), http::Version::HTTP_09, false)
    }

    pub(super) fn tcp(&self) -> Option<&Arc<Tcp>> {
        self.accepted.listener.tcp(self.accepted.chain)
    }
}

/// Drives one proxied connection.
pub(crate) struct TcpTask<I: Io, C: Connector> {
    /// `None`: nobody knows yet whether the client wants this chain; see [`TcpTask::early`].
    downstream: Option<Prefixed<I>>,
    pub(super) conn: TcpConn,
    clusters: Clusters,
    connector: C,
    state: State<C>,
    pub(super) end: TcpEnd,
    pub(super) up: OneWay,
    pub(super) down: OneWay,
    waker: Option<Waker>,
    /// When something moved last.
    moved: Instant,
    expires: Option<Instant>,
    pub(super) record: Option<Arc<Record>>,
    /// Lines that are written on the way; few proxies do.
    pub(super) periodic: Option<Box<Periodic>>,
    /// For the listener's own logs, if it has any.
    pub(super) listener_record: Option<Arc<Record>>,
    counted: Option<TcpConnection>,
    /// Bytes that are in the statistics, up and down, and since when.
    told: (u64, u64, Instant),
}

/// How often the bytes of a connection get into the statistics while they move.
const TELL: Duration = Duration::from_secs(1);

enum State<C: Connector> {
    Begin,
    Connecting(Box<Connecting<C::Future>>),
    /// Before a further attempt.
    Waiting(Deadline),
    Open(C::Io, Held),
    Over,
}

struct Connecting<F> {
    future: Pin<Box<F>>,
    limit: Deadline,
    held: Held,
}

impl<I: Io, C: Connector> TcpTask<I, C> {
    pub(crate) fn new(
        downstream: Prefixed<I>,
        conn: TcpConn,
        clusters: Clusters,
        connector: C,
    ) -> Self {
        let mut this = Self::early(conn, clusters, connector);
        this.attach(downstream);
        this
    }

    /// Connects to the upstream before the client has said anything, to see whether the upstream speaks first. Counts and logs
    /// no downstream connection until it gets one.
    pub(crate) fn early(conn: TcpConn, clusters: Clusters, connector: C) -> Self {
        let now = now();
        let expires = conn
            .proxy()
            .max_downstream_connection_duration
            .map(|limit| {
                let jitter = conn.proxy().max_downstream_connection_duration_jitter;
                limit + limit.mul_f64(f64::from(jitter) / 10_000.0 * crate::world::random::<f64>())
            });
        Self {
            downstream: None,
            clusters,
            connector,
            state: State::Begin,
            end: TcpEnd::default(),
            up: OneWay::default(),
            down: OneWay::default(),
            waker: None,
            moved: now,
            expires: expires.map(|limit| clock::after(now, limit)),
            record: Some(conn.record()),
            periodic: None,
            listener_record: conn
                .accepted
                .listener
                .observer()
                .has_logs()
                .then(|| conn.record()),
            counted: None,
            told: (0, 0, now),
            conn,
        }
    }

    /// The client's side is there.
    pub(crate) fn attach(&mut self, downstream: Prefixed<I>) {
        self.conn.stats.downstream_cx_total.add(1);
        self.conn.stats.downstream_cx_active.add(1);
        self.downstream = Some(downstream);
        self.moved = now();
        let every = self.conn.proxy().access_log_flush_interval;
        self.periodic = every.map(|every| Periodic::new(every, self.moved));
        if self.conn.proxy().flush_access_log_on_start {
            self.flush(LogType::TcpConnectionStart);
        }
        if let State::Open(..) = &self.state {
            self.is_served();
        }
    }

    /// The listener and the filter chain that it is of.
    pub(crate) fn is_of(&self, accepted: &Accepted) -> bool {
        let own = &self.conn.accepted;
        Arc::ptr_eq(&own.listener, &accepted.listener) && own.chain == accepted.chain
    }

    /// Before the client's side is there: whether the upstream speaks; `false`: it cannot be reached, or has closed.
    pub(crate) fn poll_spoken(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let progress = match &mut self.state {
                State::Begin => self.begin(),
                State::Connecting(_) => self.poll_connect(cx),
                State::Waiting(until) => {
                    Pin::new(until).poll(cx).map(|()| self.state = State::Begin)
                }
                State::Open(upstream, _) => {
                    let ended = self.down.poll_data(cx, upstream, &mut Nobody);
                    if self.down.holds_bytes() {
                        return Poll::Ready(true);
                    }
                    ready!(ended.map(drop));
                    return Poll::Ready(false);
                }
                State::Over => return Poll::Ready(false),
            };
            if progress.is_pending() {
                ready!(self.conn.accepted.conn.timer().poll_drive(cx, None));
            }
        }
    }

    /// Ready when both sides are closed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let known = self.waker.as_ref();
        if !known.is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
            self.conn.link.register(cx.waker());
        }
        loop {
            if self.conn.link.command() == Command::Abort {
                self.state = State::Over;
            }
            let progress = match &mut self.state {
                State::Begin => self.begin(),
                State::Connecting(_) => self.poll_connect(cx),
                State::Waiting(until) => {
                    Pin::new(until).poll(cx).map(|()| self.state = State::Begin)
                }
                State::Open(..) => self.poll_copy(cx),
                State::Over => return Poll::Ready(()),
            };
            if progress.is_ready() {
                continue;
            }
            let own = self.next_deadline();
            ready!(self.conn.accepted.conn.timer().poll_drive(cx, own));
            self.expired();
        }
    }

    /// Chooses cluster and endpoint, and begins to connect.
    fn begin(&mut self) -> Poll<()> {
        self.state = match self.choose() {
            Ok(connecting) => {
                self.end.attempts += 1;
                State::Connecting(Box::new(connecting))
            }
            Err(Unchosen::Failed(kind)) => {
                self.fail(kind, None);
                State::Over
            }
            // As in Envoy it is an attempt all the same.
            Err(Unchosen::Full) => {
                self.end.attempts += 1;
                self.end.failure = Some(Kind::Overflow);
                match self.has_more() {
                    // Later in any case, so that the others get on meanwhile.
                    true => self.wait(self.back_off().unwrap_or(Duration::from_millis(1))),
                    false => {
                        self.exhausted();
                        self.end.flags.insert(Flag::UpstreamRetryLimitExceeded);
                        State::Over
                    }
                }
            }
        };
        Poll::Ready(())
    }

    fn choose(&mut self) -> Result<Connecting<C::Future>, Unchosen> {
        let conn = &self.conn.accepted.conn;
        let cluster = self.cluster()?;
        self.end.cluster = Some(cluster.clone());
        let Some(connection) = Permit::connection(&cluster, Priority::Default) else {
            cluster.stats().upstream_cx_overflow.add(1);
            return Err(Kind::Overflow.into());
        };
        let key = PickKey {
            random: crate::world::random(),
            original_dst: conn.original_dst,
            ..PickKey::default()
        };
        let attempt = cluster.attempt_of_bytes(Priority::Default, &key)?;
        let endpoint = attempt.endpoint().clone();
        self.end.endpoint = Some(endpoint.clone());
        let Some(pending) = Permit::pending(&cluster, Priority::Default) else {
            cluster.stats().upstream_rq_pending_overflow.add(1);
            return Err(Unchosen::Full);
        };
        let mut target = Target::new(cluster, endpoint);
        target.downstream = Some(conn.clone());
        Ok(Connecting {
            future: Box::pin(self.connector.connect(&target)),
            limit: conn.timer().deadline(clock::after(now(), target.timeout())),
            held: Held {
                attempt,
                _connection: connection,
                pending: Some(pending),
                open: false,
                ended: false,
            },
        })
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Kind> {
        let name = cluster_name(&self.conn.proxy().cluster, crate::world::random());
        name.and_then(|name| self.clusters.get(name))
            .ok_or(Kind::NoCluster)
    }

    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Connecting(connecting) = &mut self.state else {
            return Poll::Ready(());
        };
        let result = match connecting.future.as_mut().poll(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => {
                ready!(Pin::new(&mut connecting.limit).poll(cx));
                let attempt = &connecting.held.attempt;
                Err(ConnectError::Timeout {
                    address: attempt.endpoint().address().clone(),
                    limit: attempt.cluster().config().connect_timeout,
                })
            }
        };
        let State::Connecting(connecting) = std::mem::replace(&mut self.state, State::Over) else {
            return Poll::Ready(());
        };
        match result {
            Ok(io) => self.connected(io, connecting.held),
            Err(error) => self.not_connected(&error, connecting.held),
        }
        Poll::Ready(())
    }

    fn connected(&mut self, io: C::Io, mut held: Held) {
        held.opened();
        self.moved = now();
        let started = self.conn.accepted.conn.started;
        self.end.connected = Some(self.moved.saturating_duration_since(started));
        self.end.local = io.local_address();
        self.state = State::Open(io, held);
        if self.downstream.is_some() {
            self.is_served();
        }
    }

    /// Both sides are connected.
    fn is_served(&mut self) {
        self.count();
        if self.conn.proxy().flush_access_log_on_connected {
            self.flush(LogType::TcpUpstreamConnected);
        }
    }

    fn not_connected(&mut self, error: &ConnectError, held: Held) {
        let kind = error.kind();
        let stats = held.attempt.cluster().stats();
        stats.connect_failed(held.attempt.endpoint(), kind);
        stats.upstream_rq_pending_failure_eject.add(1);
        stats.upstream_rq_pending_total.add(1);
        held.finish(AttemptOutcome::Failed(kind));
        if self.has_more() && kind != Kind::FailClosed {
            self.state = self.again();
        } else {
            self.exhausted();
            self.fail(kind, Some(failure(error)));
        }
    }

    /// Whether a further attempt is allowed.
    fn has_more(&self) -> bool {
        self.end.attempts < self.conn.proxy().max_connect_attempts.max(1)
    }

    /// A further attempt, at once or later.
    fn again(&self) -> State<C> {
        match self.back_off() {
            None => State::Begin,
            Some(wait) => self.wait(wait),
        }
    }

    fn wait(&self, time: Duration) -> State<C> {
        let timer = self.conn.accepted.conn.timer();
        State::Waiting(timer.deadline(clock::after(now(), time)))
    }

    /// There is no further attempt.
    fn exhausted(&self) {
        if let Some(cluster) = &self.end.cluster {
            let stats = cluster.stats();
            stats.upstream_cx_connect_attempts_exceeded.add(1);
        }
    }

    /// The wait before a further attempt: a random part of one that doubles with each.
    fn back_off(&self) -> Option<Duration> {
        let (base, longest) = self.conn.proxy().backoff?;
        let doubled = self.end.attempts.saturating_sub(1).min(31);
        let wait = base.saturating_mul(1 << doubled).min(longest);
        Some(wait.mul_f64(crate::world::random()))
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (State::Open(upstream, _), Some(downstream)) = (&mut self.state, &mut self.downstream)
        else {
            return Poll::Ready(());
        };
        let before = self.up.bytes + self.down.bytes;
        let up = self.up.poll(cx, downstream, upstream);
        let down = self.down.poll(cx, upstream, downstream);
        let moved = self.up.bytes + self.down.bytes != before;
        let upstream_broke = matches!(up, Poll::Ready(Err(Failed::To(_))))
            || matches!(down, Poll::Ready(Err(Failed::From(_))));
        match (up, down) {
            // Either side reset the connection; what is left cannot be delivered.
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                self.end.failure = Some(Kind::ConnectionTermination);
                // As in Envoy the other side is not to take it for an end.
                if upstream_broke {
                    self.end.flags.insert(Flag::UpstreamRemoteReset);
                    downstream.break_off();
                } else {
                    upstream.break_off();
                }
            }
            _ if self.up.is_done() && self.down.is_done() => {}
            _ => {
                if moved {
                    self.moved();
                }
                return Poll::Pending;
            }
        }
        self.finish();
        Poll::Ready(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let flush = self.periodic.as_ref().map(|periodic| periodic.next);
        [self.idle_at(), self.expires, flush]
            .into_iter()
            .flatten()
            .min()
    }

    /// When it has been idle for too long. A first attempt to connect is such a time too, but as in Envoy not a further one.
    fn idle_at(&self) -> Option<Instant> {
        let counts = match &self.state {
            State::Open(..) => true,
            State::Begin | State::Connecting(_) => self.end.attempts <= 1,
            State::Waiting(_) | State::Over => false,
        };
        let limit = self.conn.proxy().idle_timeout.filter(|_| counts)?;
        (limit > Duration::ZERO).then(|| clock::after(self.moved, limit))
    }

    fn expired(&mut self) {
        let now = now();
        let stats = &self.conn.stats;
        if self.expires.is_some_and(|at| at <= now) {
            stats.max_downstream_connection_duration.add(1);
            self.end.flags.insert(Flag::DurationTimeout);
            self.finish();
        } else if self.idle_at().is_some_and(|at| at <= now) {
            // Envoy has no flag for it.
            stats.idle_timeout.add(1);
            self.finish();
        } else {
            self.flush_periodic(now);
        }
    }

    /// Closes both sides.
    fn finish(&mut self) {
        self.expires = None;
        let ended = self.down.is_done() || self.end.flags.contains(Flag::UpstreamRemoteReset);
        if let State::Open(_, mut held) = std::mem::replace(&mut self.state, State::Over) {
            held.ended = ended;
            held.finish(AttemptOutcome::Connected);
        }
    }

    /// Bytes moved just now.
    fn moved(&mut self) {
        self.moved = now();
        if self.moved.saturating_duration_since(self.told.2) >= TELL {
            self.tell();
        }
    }

    /// Counts the bytes that moved since the last time.
    fn tell(&mut self) {
        let (up, down, _) = self.told;
        let (sent, received) = (self.up.bytes - up, self.down.bytes - down);
        self.told = (self.up.bytes, self.down.bytes, self.moved);
        let stats = &self.conn.stats;
        stats.downstream_cx_rx_bytes_total.add(sent);
        stats.downstream_cx_tx_bytes_total.add(received);
        if let Some(cluster) = &self.end.cluster {
            cluster.stats().upstream_cx_tx_bytes_total.add(sent);
            cluster.stats().upstream_cx_rx_bytes_total.add(received);
        }
        if let Some(counted) = &self.counted {
            counted.received(sent);
            counted.sent(received);
        }
    }

    /// Counts the connection with Istio's labels.
    fn count(&mut self) {
        let (cluster, endpoint) = (self.end.cluster.as_deref(), self.end.endpoint.as_deref());
        let metrics = self.conn.tcp().map(|tcp| tcp.metrics());
        let client = &self.conn.accepted.conn.security;
        self.counted =
            metrics.map(|metrics| metrics.open(cluster, endpoint, self.end.flags, client));
    }

    fn fail(&mut self, kind: Kind, reason: Option<Name>) {
        if kind == Kind::NoCluster && self.downstream.is_some() {
            self.conn.stats.downstream_cx_no_route.add(1);
        }
        self.end.failure = Some(kind);
        self.end.reason = reason;
        self.end.flags.extend(kind.reply().flag);
        // Envoy counts the first attempt too, so that with one attempt its failure has used up all of them.
        if matches!(kind, Kind::ConnectFailure | Kind::ConnectTimeout) {
            self.end.flags.insert(Flag::UpstreamRetryLimitExceeded);
        }
    }
}

impl<I: Io, C: Connector> Drop for TcpTask<I, C> {
    fn drop(&mut self) {
        self.finish();
        if self.downstream.is_none() {
            return;
        }
        if self.counted.is_none() {
            // One that failed counts as well, as in Istio.
            self.count();
        }
        self.tell();
        let (sent, received) = (self.up.bytes, self.down.bytes);
        self.conn.stats.downstream_cx_active.sub(1);
        self.end.upstream_sent = sent;
        self.end.upstream_received = received;
        let conn = &self.conn.accepted.conn;
        let event = ConnEvent {
            listener: &self.conn.accepted.listener,
            chain: Some(self.conn.accepted.chain),
            conn,
            bytes_received: sent,
            bytes_sent: received,
            duration: now().saturating_duration_since(conn.started),
        };
        self.conn.handle.observer().tcp(&event, &self.end);
        self.log();
    }
}
