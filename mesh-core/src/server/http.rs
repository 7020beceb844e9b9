//! One HTTP connection: codec, deadlines and closing, driven by one task.

mod report;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::{
    rt::bounds::Http2ServerConnExec,
    server::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    Factory, ServedBody, ServedFuture, codec,
    factory::{IoOf, RawOf},
    io::{Back, Lent},
    link::Command,
    service::{Adapter, HttpConn},
};
use crate::{
    Kind,
    model::{CodecType, HttpConnectionManager, LogType},
    telemetry::{
        clock,
        record::{Ending, Record},
    },
    transport::{Interims, Io, detect::H2_PREFACE},
};

/// How long a connection that is to go and on which nothing has come may still turn out to have a request on its way.
const SILENCE: Duration = Duration::from_millis(100);

type Socket<F> = TokioIo<Lent<IoOf<F>>>;

/// What the task does with the socket after HTTP.
pub(super) enum End<R> {
    /// Nothing: it is closed.
    Closed,
    /// The peer may still be sending; it is read from for a while, so that it gets to see the last response.
    Linger(R, Duration),
}

pub(super) struct HttpTask<F: Factory, X> {
    codec: Codec<F, X>,
    conn: Arc<HttpConn>,
    back: Option<Arc<Back<IoOf<F>>>>,
    waker: Option<Waker>,
    /// Since when no request is in flight, and how many bytes had come by then; `None` while one is.
    idle: Option<(Instant, u64)>,
    /// Since when a request head is on its way.
    head: Option<Instant>,
    /// How many requests had begun when that was last looked at.
    seen: u64,
    /// When the connection has lived long enough.
    expires: Option<Instant>,
    /// When the peer is told to go.
    tell: Option<Instant>,
    /// When the connection closes as soon as it is idle.
    close: Option<Instant>,
    /// Orders were taken note of.
    ordered: bool,
    /// HTTP/2: GOAWAY was sent; HTTP/1: keep-alive is off.
    shut: bool,
    /// Heads that the codec answered by itself, and streams reset, that were reported.
    unseen: (u64, u64),
    /// For the listener's own logs, if it has any.
    record: Option<Arc<Record>>,
    /// When a connection that was shut and is idle is no longer waited for.
    give_up: Option<Instant>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the whole task is boxed, and most connections are the large one"
)]
enum Codec<F: Factory, X> {
    /// Not known yet.
    Sniff {
        io: Option<RawOf<F>>,
        seen: Vec<u8>,
        service: Option<F::Service>,
        exec: X,
    },
    Http1(http1::UpgradeableConnection<Socket<F>, Adapter<F::Service>>),
    // Boxed, since it is far larger than the other, and pinned by nature.
    Http2(Box<http2::Connection<Socket<F>, Adapter<F::Service>, X>>),
    /// Somebody else has the socket.
    Upgraded,
    Over,
}

impl<F, X> HttpTask<F, X>
where
    F: Factory,
    X: Http2ServerConnExec<ServedFuture<F::Service, F::Body>, ServedBody<F::Body>> + Unpin,
{
    pub(super) fn new(io: RawOf<F>, conn: HttpConn, service: F::Service, exec: X) -> Self {
        let now = clock::now();
        conn.stats.downstream_cx_total.add(1);
        conn.stats.downstream_cx_active.add(1);
        let expires = conn.manager().max_connection_duration;
        let codec = match (conn.manager().codec, io.alpn()) {
            (CodecType::Auto, Some(b"h2")) => CodecType::Http2,
            (CodecType::Auto, Some(_)) => CodecType::Http1,
            (codec, _) => codec,
        };
        let logs = conn.accepted.listener.observer().has_logs();
        let record = logs.then(|| {
            Record::begin(
                Some(conn.accepted.conn.clone()),
                http::Version::HTTP_11,
                false,
            )
        });
        let mut this = Self {
            record,
            codec: Codec::Over,
            conn: Arc::new(conn),
            back: None,
            waker: None,
            idle: Some((now, 0)),
            head: None,
            seen: 0,
            expires: expires.map(|limit| clock::after(now, limit)),
            tell: None,
            close: None,
            ordered: false,
            shut: false,
            give_up: None,
            unseen: (0, 0),
        };
        match codec {
            CodecType::Auto => {
                this.codec = Codec::Sniff {
                    io: Some(io),
                    seen: Vec::new(),
                    service: Some(service),
                    exec,
                };
            }
            CodecType::Http1 => this.http1(io, service),
            CodecType::Http2 => this.http2(io, service, exec),
        }
        this
    }

    fn lend(&mut self, io: RawOf<F>, http2: bool) -> Socket<F> {
        let conn = self.conn.accepted.conn.clone();
        let (mut lent, back) = Lent::new(io, self.conn.link.clone(), conn, http2);
        if !http2 && !self.conn.manager().http1.allow_chunked_length {
            lent.watch_heads();
        }
        if !http2 && self.conn.manager().proxy_100_continue {
            let link = Arc::downgrade(&self.conn.link);
            let interims = Arc::new(Interims::new(move || {
                if let Some(link) = link.upgrade() {
                    link.wake();
                }
            }));
            self.conn.accepted.conn.pass_interims(interims.clone());
            lent.pass_interims(interims);
        }
        self.back = Some(back);
        TokioIo::new(lent)
    }

    fn http1(&mut self, io: RawOf<F>, service: F::Service) {
        self.conn.stats.downstream_cx_http1_total.add(1);
        self.conn.stats.downstream_cx_http1_active.add(1);
        let io = self.lend(io, false);
        let builder = codec::http1(self.conn.manager(), self.conn.buffer_limit());
        if !self.conn.manager().http1.enable_trailers {
            self.conn.accepted.conn.drop_trailers();
        }
        let adapter = Adapter::new(service, self.conn.clone());
        self.codec = Codec::Http1(builder.serve_connection(io, adapter).with_upgrades());
    }

    fn http2(&mut self, io: RawOf<F>, service: F::Service, exec: X) {
        self.conn.stats.downstream_cx_http2_total.add(1);
        self.conn.stats.downstream_cx_http2_active.add(1);
        let io = self.lend(io, true);
        let builder = codec::http2(self.conn.manager(), self.conn.buffer_limit(), exec);
        let adapter = Adapter::new(service, self.conn.clone());
        if let Some(record) = &self.record {
            record.late().version = http::Version::HTTP_2;
        }
        self.codec = Codec::Http2(Box::new(builder.serve_connection(io, adapter)));
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<RawOf<F>>> {
        loop {
            let command = self.command(cx);
            if command == Command::Abort {
                return Poll::Ready(self.abort());
            }
            // Before any order: a request that has come is served.
            if let Poll::Ready(end) = self.poll_codec(cx) {
                return Poll::Ready(end);
            }
            let shut = self.shut;
            if command == Command::Go {
                self.go();
            }
            self.track();
            if self.shut != shut {
                // What the codec was told it says when it is polled.
                continue;
            }
            let deadline = self.next_deadline();
            ready!(self.conn.accepted.conn.timer().poll_drive(cx, deadline));
            if let Some(end) = self.expired(clock::now()) {
                return Poll::Ready(end);
            }
        }
    }

    /// What the listener wants.
    fn command(&mut self, cx: &Context<'_>) -> Command {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
            self.conn.link.register(cx.waker());
        }
        self.conn.link.command()
    }

    /// Takes note of when the connection is to go.
    fn go(&mut self) {
        let Some(plan) = self.conn.link.plan() else {
            return;
        };
        self.ordered = true;
        self.tell = earliest(self.tell, Some(plan.tell));
        self.close = earliest(self.close, Some(plan.close));
        let now = clock::now();
        if plan.tell <= now {
            self.tell();
        }
        if plan.close <= now {
            self.shut();
        }
    }

    /// Tells the peer that the connection goes.
    fn tell(&mut self) {
        self.tell = None;
        if let Codec::Http2(_) = &self.codec {
            self.shut();
        } else {
            self.conn.link.close_soon();
        }
    }

    /// Closes as soon as idle.
    fn shut(&mut self) {
        self.close = None;
        if std::mem::replace(&mut self.shut, true) {
            return;
        }
        self.conn.link.close_soon();
        let silent = match &self.codec {
            Codec::Sniff { seen, .. } => seen.is_empty(),
            _ => self.conn.link.received() == 0,
        };
        self.wind_down(silent);
    }

    /// Lets the codec end, and limits how long it may take. `silent`: nothing has come yet.
    fn wind_down(&mut self, silent: bool) {
        let patience = self.conn.manager().drain_timeout;
        let patience = match silent {
            true => patience.min(SILENCE),
            false => patience,
        };
        self.give_up = Some(clock::after(clock::now(), patience));
        match &mut self.codec {
            // It would end before its first request, which may be on its way; the response to that closes the connection.
            Codec::Http1(_) if self.conn.link.handed_over() == 0 => {}
            Codec::Http1(codec) => Pin::new(codec).graceful_shutdown(),
            Codec::Http2(codec) => Pin::new(&mut **codec).graceful_shutdown(),
            // What is found out is told when it is.
            Codec::Sniff { .. } | Codec::Upgraded | Codec::Over => {}
        }
    }

    fn poll_codec(&mut self, cx: &mut Context<'_>) -> Poll<End<RawOf<F>>> {
        loop {
            let result = match &mut self.codec {
                Codec::Sniff { .. } => {
                    if let Some(end) = ready!(self.poll_sniff(cx)) {
                        return Poll::Ready(end);
                    }
                    continue;
                }
                Codec::Http1(codec) => ready!(Pin::new(codec).poll(cx)),
                Codec::Http2(codec) => ready!(Pin::new(&mut **codec).poll(cx)),
                Codec::Upgraded => {
                    let back = self.back.as_ref().expect("it was lent");
                    if !back.is_returned() {
                        return Poll::Pending;
                    }
                    self.conn.upgrade_ended();
                    self.count_end(!self.conn.link.is_eof());
                    self.codec = Codec::Over;
                    continue;
                }
                Codec::Over => return Poll::Ready(End::Closed),
            };
            if let Some(end) = self.ended(result) {
                return Poll::Ready(end);
            }
        }
    }

    /// Reads the first bytes; `None`: the codec is known.
    fn poll_sniff(&mut self, cx: &mut Context<'_>) -> Poll<Option<End<RawOf<F>>>> {
        let Codec::Sniff { io, seen, .. } = &mut self.codec else {
            return Poll::Ready(None);
        };
        let mut buffer = [0; 4096];
        let http2 = loop {
            let same = seen.iter().zip(H2_PREFACE).all(|(a, b)| a == b);
            if !same || seen.len() >= H2_PREFACE.len() {
                break same;
            }
            let mut buf = ReadBuf::new(&mut buffer);
            let io = io.as_mut().expect("it is there until the codec is known");
            match ready!(Pin::new(io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => seen.extend_from_slice(buf.filled()),
                _ if seen.is_empty() => {
                    self.conn.link.read(0);
                    self.count_end(false);
                    return Poll::Ready(Some(End::Closed));
                }
                // Too few bytes for the preface of HTTP/2: HTTP/1 finds the words for it.
                _ => break false,
            }
        };
        let Codec::Sniff {
            io,
            seen,
            service,
            exec,
        } = std::mem::replace(&mut self.codec, Codec::Over)
        else {
            return Poll::Ready(None);
        };
        let (Some(io), Some(service)) = (io, service) else {
            return Poll::Ready(Some(End::Closed));
        };
        let io = io.prepend(Bytes::from(seen));
        if http2 {
            self.http2(io, service, exec);
        } else {
            self.http1(io, service);
        }
        if self.shut {
            self.wind_down(false);
        }
        Poll::Ready(None)
    }

    /// Looks whether the connection is idle, or receives a request head.
    fn track(&mut self) {
        if matches!(self.codec, Codec::Http2(_)) {
            self.track_http2();
        }
        let link = &self.conn.link;
        if link.is_closing() && !self.shut && matches!(self.codec, Codec::Http2(_)) {
            self.shut();
            return;
        }
        let http2 = matches!(self.codec, Codec::Http2(_));
        if link.active() > 0 {
            self.idle = None;
            // With HTTP/2 a head may be on its way beside requests in flight.
            self.head = self.head.filter(|_| http2);
            return;
        }
        let requests = link.requests();
        let (_, received) = match self.idle {
            Some(idle) if requests == self.seen => idle,
            _ => {
                self.seen = requests;
                self.head = self.head.filter(|_| http2);
                *self.idle.insert((clock::now(), link.received()))
            }
        };
        let begun = match &self.codec {
            Codec::Http1(_) => link.received() > received,
            Codec::Sniff { seen, .. } => !seen.is_empty(),
            _ => false,
        };
        if begun && self.head.is_none() {
            self.head = Some(clock::now());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let manager = self.conn.manager();
        let idle = match (self.head, self.idle) {
            (Some(since), _) => head_limit(manager).map(|(limit, _)| clock::after(since, limit)),
            (None, Some((since, _))) if !self.shut => {
                manager.idle_timeout.map(|limit| clock::after(since, limit))
            }
            (None, _) => None,
        };
        if matches!(self.codec, Codec::Upgraded) {
            return None;
        }
        let orders = earliest(earliest(self.tell, self.close), self.give_up);
        earliest(earliest(idle, self.expires), orders)
    }

    /// Acts on the deadlines that have passed.
    fn expired(&mut self, now: Instant) -> Option<End<RawOf<F>>> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let conn = self.conn.clone();
        let manager = conn.manager();
        if passed(self.expires) {
            self.expires = None;
            conn.stats.downstream_cx_max_duration_reached.add(1);
            self.tell();
            // Who has sent nothing waits for nothing.
            let drain = match conn.link.received() {
                0 => Duration::ZERO,
                _ => manager.drain_timeout,
            };
            self.close = earliest(self.close, Some(clock::after(now, drain)));
        }
        if passed(self.tell) {
            self.tell();
        }
        if passed(self.close) {
            self.shut();
        }
        if passed(self.give_up) {
            self.give_up = None;
            if conn.link.active() == 0 {
                return Some(self.abort());
            }
            self.give_up = Some(clock::after(
                now,
                manager.drain_timeout.max(Duration::from_secs(1)),
            ));
        }
        if let Some(since) = self.head {
            if let Some((limit, kind)) = head_limit(manager)
                && clock::after(since, limit) <= now
            {
                return Some(self.slow_head(kind));
            }
        } else if let Some((since, _)) = self.idle
            && manager
                .idle_timeout
                .is_some_and(|limit| clock::after(since, limit) <= now)
            && !self.shut
        {
            conn.stats.downstream_cx_idle_timeout.add(1);
            self.shut();
        }
        None
    }

    /// The socket, with the codec gone.
    fn take_io(&mut self) -> Option<RawOf<F>> {
        match std::mem::replace(&mut self.codec, Codec::Over) {
            Codec::Sniff { io, .. } => io,
            codec => {
                let http1 = matches!(codec, Codec::Http1(_));
                let http2 = matches!(codec, Codec::Http2(_));
                if http1 {
                    self.conn.stats.downstream_cx_http1_active.sub(1);
                }
                if http2 {
                    self.conn.stats.downstream_cx_http2_active.sub(1);
                }
                drop(codec);
                self.back.as_ref().and_then(|back| back.take())
            }
        }
    }

    fn abort(&mut self) -> End<RawOf<F>> {
        self.conn.accepted.conn.set_gone();
        if let (Codec::Upgraded, Some(back)) = (&self.codec, &self.back) {
            back.abort();
            self.conn.upgrade_ended();
        }
        self.active_requests(self.conn.link.active(), false);
        self.count_end(true);
        self.take_io();
        End::Closed
    }

    /// The codec is done; `None`: the connection goes on without it.
    fn ended(&mut self, result: hyper::Result<()>) -> Option<End<RawOf<F>>> {
        let http1 = matches!(self.codec, Codec::Http1(_));
        let remote = self.conn.link.is_eof();
        let active = self.conn.link.active();
        let broken = match &result {
            Ok(()) => false,
            Err(error) => self.broke(error, http1),
        };
        if result.is_err() && !broken {
            self.conn.accepted.conn.set_gone();
        }
        let io = self.take_io();
        if io.is_none() && http1 && result.is_ok() {
            let back = self.back.as_ref()?;
            back.upgrade();
            self.codec = Codec::Upgraded;
            self.conn.upgrade_begins();
            return None;
        }
        self.active_requests(active, remote || result.is_err());
        let local = !remote && (result.is_ok() || broken);
        self.count_end(local);
        Some(match io {
            Some(io) if local => self.linger(io),
            _ => End::Closed,
        })
    }

    /// Counts the end of the connection; `local`: by this side.
    fn count_end(&self, local: bool) {
        let stats = &self.conn.stats;
        if !local {
            stats.downstream_cx_destroy_remote.add(1);
            return;
        }
        stats.downstream_cx_destroy_local.add(1);
        if self.ordered {
            stats.downstream_cx_drain_close.add(1);
        }
    }

    fn linger(&self, io: RawOf<F>) -> End<RawOf<F>> {
        match self.conn.manager().delayed_close_timeout {
            Duration::ZERO => End::Closed,
            limit => End::Linger(io, limit),
        }
    }

    fn active_requests(&self, active: u32, remote: bool) {
        if active == 0 {
            return;
        }
        let stats = &self.conn.stats;
        stats.downstream_cx_destroy_active_rq.add(1);
        if remote {
            stats.downstream_cx_destroy_remote_active_rq.add(1);
        } else {
            stats.downstream_cx_destroy_local_active_rq.add(1);
        }
    }
}

impl<F: Factory, X> Drop for HttpTask<F, X> {
    fn drop(&mut self) {
        let link = &self.conn.link;
        if let Some(record) = self.record.take() {
            record.spliced(link.received(), link.sent());
            record.late().log_type = LogType::NotSet;
            record.finish(Ending::Complete, &**self.conn.accepted.listener.observer());
        }
        let stats = &self.conn.stats;
        match &self.codec {
            Codec::Http1(_) => stats.downstream_cx_http1_active.sub(1),
            Codec::Http2(_) => stats.downstream_cx_http2_active.sub(1),
            Codec::Upgraded => self.conn.upgrade_ended(),
            Codec::Sniff { .. } | Codec::Over => {}
        }
        let lived = clock::now().saturating_duration_since(self.conn.accepted.conn.started);
        stats.downstream_cx_active.sub(1);
        stats.downstream_cx_destroy.add(1);
        stats.downstream_cx_length_ms.record_time(lived);
        stats
            .downstream_cx_rx_bytes_total
            .add(self.conn.link.received());
        stats
            .downstream_cx_tx_bytes_total
            .add(self.conn.link.sent());
    }
}

/// Limit for a request head that has begun, and what it is when it passes: that of heads, of whole requests, or of streams.
fn head_limit(manager: &HttpConnectionManager) -> Option<(Duration, Kind)> {
    let limits = [
        (manager.request_headers_timeout, Kind::HeaderTimeout),
        (manager.request_timeout, Kind::RequestTimeout),
        (manager.stream_idle_timeout, Kind::StreamIdle),
    ];
    limits
        .into_iter()
        .filter_map(|(limit, kind)| Some((limit.filter(|limit| !limit.is_zero())?, kind)))
        .min_by_key(|(limit, _)| *limit)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
