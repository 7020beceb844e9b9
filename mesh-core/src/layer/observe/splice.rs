//! Carries the bytes of an upgraded exchange.
//!
//! As in Envoy the two directions are not alike. What ends the upstream's side ends the exchange: well for a raw connection or
//! an HTTP/2 stream, as a broken connection for HTTP/1.1, where nothing but a reset says so. A client over HTTP/2 may end its
//! side first, which is passed on; over HTTP/1.1 a client that closes its side has left.

use std::{
    error::Error as StdError,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWrite,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    Kind,
    body::{Guard, ResponseBody, Tunnel},
    layer::{route::Asked, timeout::Limits},
    recycle::Recycled,
    telemetry::record::{Ending, Record},
    transport::{Cut, Deadline, Failed, Io, OneWay, UpstreamKind},
};

/// How often it is looked whether a peer that ended its side has reset its stream since. Nothing else would tell.
const LOOK: Duration = Duration::from_secs(1);
/// Turns that the codec gets to tell a reset from an end.
const TURNS: u8 = 2;

impl Io for TokioIo<Upgraded> {}

/// Answers the client in the form in which it asked, and carries the bytes in a task of its own.
pub(super) fn begin<U>(response: &mut Response<ResponseBody<U>>, tunnel: Tunnel, guard: Guard) {
    if tunnel.ends.asked == Asked::Extended {
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
    // An answer that agrees has no body.
    response.headers_mut().remove(CONTENT_LENGTH);
    let http2 = matches!(tunnel.ends.asked, Asked::Http2Connect | Asked::Extended);
    let ticket = tunnel.ends.ticket.as_ref().filter(|_| http2);
    let cut = ticket.is_some_and(|ticket| ticket.0.can_cut());
    tokio::spawn(run(tunnel, guard, cut.then(Cut::of_next_task)));
}

/// Runs the exchange. Its record is completed, and its place in the limits given back, at the end.
async fn run(tunnel: Tunnel, mut guard: Guard, cut: Option<Cut>) {
    let Tunnel { ends, .. } = &tunnel;
    let (asked, kind) = (ends.asked, ends.end.kind);
    let record = guard.record().cloned();
    let ending = match open(tunnel).await {
        Ok((client, upstream, rest)) => {
            let mut splice = Splice::new(client, upstream, asked, kind, rest, record.clone());
            let ending = poll_fn(|context| splice.poll(context)).await;
            close(&mut splice.client, ending, cut).await;
            ending
        }
        Err((ending, client)) => {
            if let Some(mut client) = client {
                close(&mut client, ending, cut).await;
            }
            ending
        }
    };
    if let Some(record) = record {
        record.request_ends();
    }
    guard.finish(ending);
}

/// What lives as long as the exchange: the upgrade's ticket, what the pool holds, the place in the limits.
struct Rest {
    limits: Option<Recycled<Limits>>,
    life: Option<Deadline>,
    _held: Box<dyn Send>,
}

type Client = TokioIo<Upgraded>;
type Open = (Client, Box<dyn Io>, Rest);

/// Waits until both codecs have let go of the bytes.
async fn open(tunnel: Tunnel) -> Result<Open, (Ending, Option<Client>)> {
    let Tunnel {
        ends,
        mut limits,
        life,
        attempt,
        retry,
    } = tunnel;
    if matches!(ends.asked, Asked::Http1 | Asked::Extended)
        && let Some(limits) = &mut limits
    {
        limits.upgraded();
    }
    let client = match ends.client.await {
        Ok(client) => TokioIo::new(client),
        Err(error) => {
            tracing::debug!(%error, "Upgrade failed");
            return Err((Ending::Dropped, None));
        }
    };
    let upstream: Box<dyn Io> = match ends.end.raw {
        Some(raw) => raw,
        None => match ends.upstream.await {
            Ok(upstream) => Box::new(TokioIo::new(upstream)),
            Err(error) => {
                tracing::debug!(%error, "Upstream upgrade failed");
                let ending = Ending::Broken(Kind::ConnectionTermination);
                return Err((ending, Some(client)));
            }
        },
    };
    let rest = Rest {
        limits,
        life,
        _held: Box::new((ends.end.held, ends.ticket, attempt, retry)),
    };
    Ok((client, upstream, rest))
}

/// Lets the client have what was written, and tells it of the end: by a reset where it is one, and HTTP/2 has words for it.
async fn close(client: &mut Client, ending: Ending, cut: Option<Cut>) {
    match (ending, cut) {
        (Ending::Dropped | Ending::Broken(Kind::DownstreamTermination), _) => return,
        (Ending::Broken(_), Some(cut)) => return cut.reset().await,
        _ => {}
    }
    if let Err(error) = tokio::io::AsyncWriteExt::shutdown(client).await {
        tracing::debug!(%error, "The end of a tunnel could not be passed on");
    }
}

struct Splice {
    client: Client,
    upstream: Box<dyn Io>,
    asked: Asked,
    kind: UpstreamKind,
    rest: Rest,
    record: Option<Arc<Record>>,
    up: OneWay,
    down: OneWay,
    /// The client ended its side, and what that means was done.
    half: Option<Interval>,
    /// Turns given to the codec to tell a reset from an end.
    turns: u8,
}

impl Splice {
    fn new(
        client: Client,
        upstream: Box<dyn Io>,
        asked: Asked,
        kind: UpstreamKind,
        rest: Rest,
        record: Option<Arc<Record>>,
    ) -> Self {
        Self {
            client,
            upstream,
            asked,
            kind,
            rest,
            record,
            up: OneWay::default(),
            down: OneWay::default(),
            half: None,
            turns: 0,
        }
    }

    /// Ready when the exchange is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        let before = (self.up.bytes, self.down.bytes);
        let ending = self.poll_down(context);
        let ending = match ending {
            Poll::Pending => self.poll_up(context),
            ready => ready,
        };
        if let Some(record) = &self.record {
            let (up, down) = (self.up.bytes - before.0, self.down.bytes - before.1);
            if up > 0 {
                record.request_data(up as usize);
            }
            if down > 0 {
                record.response_data(down as usize);
            }
        }
        match ending {
            Poll::Pending => self.poll_limits(context),
            ready => ready,
        }
    }

    /// From the upstream to the client. The upstream's end is the end.
    fn poll_down(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        let copied = self
            .down
            .poll_data(context, &mut self.upstream, &mut self.client);
        Poll::Ready(match ready!(copied) {
            Ok(()) => match self.kind {
                UpstreamKind::Tcp => Ending::Complete,
                UpstreamKind::Http1Upgrade | UpstreamKind::Http1Connect => {
                    Ending::Broken(Kind::ConnectionTermination)
                }
                UpstreamKind::Http2 => match ready!(self.poll_reset(context, false)) {
                    true => Ending::Broken(Kind::RemoteReset),
                    false => Ending::Complete,
                },
            },
            Err(Failed::From(error)) => self.upstream_failed(&error),
            Err(Failed::To(error)) => self.client_failed(&error),
        })
    }

    /// From the client to the upstream.
    fn poll_up(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        if self.half.is_some() {
            return self.poll_half(context);
        }
        let copied = self
            .up
            .poll_data(context, &mut self.client, &mut self.upstream);
        match ready!(copied) {
            Ok(()) if matches!(self.asked, Asked::Http1 | Asked::Http1Connect) => {
                return Poll::Ready(Ending::Broken(Kind::DownstreamTermination));
            }
            Ok(()) => {}
            Err(Failed::From(error)) => return Poll::Ready(self.client_failed(&error)),
            Err(Failed::To(error)) => return Poll::Ready(self.upstream_failed(&error)),
        }
        if ready!(self.poll_reset(context, true)) {
            return Poll::Ready(Ending::Dropped);
        }
        // After 101 the end of one side means nothing to HTTP/1.1.
        if self.kind != UpstreamKind::Http1Upgrade
            && let Err(error) = ready!(Pin::new(&mut self.upstream).poll_shutdown(context))
        {
            tracing::debug!(%error, "The end of a client's side could not be passed on");
        }
        if let Some(record) = &self.record {
            record.request_ends();
        }
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.half = Some(look);
        self.poll_half(context)
    }

    /// The client has ended its side. All that it can do is to reset the stream.
    fn poll_half(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        if let Some(look) = &mut self.half {
            while look.poll_tick(context).is_ready() {}
        }
        match Pin::new(&mut self.client).poll_flush(context) {
            Poll::Ready(Err(_)) => Poll::Ready(Ending::Dropped),
            _ => Poll::Pending,
        }
    }

    /// Whether a side over HTTP/2 that seems to have ended was reset: the codec shows a reset with CANCEL as an end, and its
    /// writing half learns of it by a task of its own.
    fn poll_reset(&mut self, context: &mut Context<'_>, client: bool) -> Poll<bool> {
        let flushed = if client {
            Pin::new(&mut self.client).poll_flush(context)
        } else {
            Pin::new(&mut self.upstream).poll_flush(context)
        };
        match flushed {
            Poll::Ready(Err(error)) => Poll::Ready(reason(&error) != Some(h2::Reason::NO_ERROR)),
            _ if self.turns < TURNS => {
                self.turns += 1;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            _ => {
                self.turns = 0;
                Poll::Ready(false)
            }
        }
    }

    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Ending> {
        if let Some(limits) = &mut self.rest.limits
            && let Poll::Ready(kind) = limits.poll(context)
        {
            limits.count(kind);
            return Poll::Ready(Ending::Broken(kind));
        }
        match &mut self.rest.life {
            Some(life) => Pin::new(life)
                .poll(context)
                .map(|()| Ending::Broken(Kind::MaxDuration)),
            None => Poll::Pending,
        }
    }

    fn upstream_failed(&self, error: &io::Error) -> Ending {
        tracing::debug!(%error, "The upstream end of a tunnel failed");
        let reset = self.kind == UpstreamKind::Http2 && reason(error).is_some();
        Ending::Broken(match reset {
            true => Kind::RemoteReset,
            false => Kind::ConnectionTermination,
        })
    }

    fn client_failed(&self, error: &io::Error) -> Ending {
        tracing::debug!(%error, "The client end of a tunnel failed");
        Ending::Dropped
    }
}

/// Why a stream of HTTP/2 was reset.
fn reason(error: &io::Error) -> Option<h2::Reason> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error.get_ref()?);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason();
        }
        next = error.source();
    }
    None
}
