//! The body of a response that came over a pooled connection.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{error, quiet, sending::ended_there, tunnel::RawBody};
use crate::{Error, Kind};

/// Takes back a connection at the end of an exchange.
pub(super) trait Release: Send + Sync {
    /// The exchange ended; `clean`: both messages may be complete, so that the connection can serve another one.
    ///
    /// Returns whether it was seen that the connection's task has done all that the exchange asked of it.
    fn release(self: Arc<Self>, clean: bool) -> bool;

    /// The connection died while the exchange went on.
    fn died(&self);
}

/// A connection in use; given back on drop, as unclean unless it was finished.
pub(super) struct Lease(Option<Arc<dyn Release>>);

impl Lease {
    pub(super) fn new(conn: Arc<dyn Release>) -> Self {
        Self(Some(conn))
    }

    /// The exchange ended with `error`, and not by us.
    fn fail(&mut self, error: &Error) {
        if let (Some(conn), Kind::ConnectionTermination) = (&self.0, error.kind()) {
            conn.died();
        }
        self.finish();
    }

    /// The exchange ended; returns what [`Release::release`] does.
    pub(super) fn finish(&mut self) -> bool {
        self.0.take().is_some_and(|conn| conn.release(true))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.release(false);
        }
    }
}

/// A response body. Gives its connection back to the pool when it ends, and has it closed or its stream reset when it is
/// dropped before.
pub struct PoolBody {
    content: Content,
    lease: Lease,
}

enum Content {
    Http(Incoming),
    /// Of HTTP/1, where trailers do not pass.
    Bare(Incoming),
    /// A raw connection. The lock makes the body `Sync`; it is never taken.
    Tcp(Box<Mutex<dyn RawBody>>),
    /// Nothing: what follows is a tunnel.
    None,
}

impl PoolBody {
    /// `bare`: without the trailers.
    pub(super) fn new(incoming: Incoming, mut lease: Lease, bare: bool) -> Self {
        // hyper never polls a body that ended before it began.
        if incoming.is_end_stream() {
            lease.finish();
        }
        let content = match bare {
            true => Content::Bare(incoming),
            false => Content::Http(incoming),
        };
        Self { content, lease }
    }

    /// No body: the exchange goes on as a tunnel.
    pub(super) fn empty() -> Self {
        Self {
            content: Content::None,
            lease: Lease(None),
        }
    }

    /// What comes over a raw connection.
    pub(super) fn tcp(raw: Box<Mutex<dyn RawBody>>) -> Self {
        Self {
            content: Content::Tcp(raw),
            lease: Lease(None),
        }
    }
}

impl Body for PoolBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let (incoming, bare) = match &mut this.content {
            Content::Http(incoming) => (incoming, false),
            Content::Bare(incoming) => (incoming, true),
            Content::Tcp(raw) => {
                let raw = raw.get_mut().unwrap_or_else(PoisonError::into_inner);
                return raw.poll_frame(cx);
            }
            Content::None => return Poll::Ready(None),
        };
        let (polled, held) = quiet::hold(|| Pin::new(&mut *incoming).poll_frame(cx));
        let frame = ready!(polled);
        let ended = match &frame {
            None => true,
            // Nor does it poll for the end after the last sized frame.
            Some(Ok(frame)) => frame.is_trailers() || incoming.is_end_stream(),
            Some(Err(_)) => false,
        };
        if ended && this.lease.finish() {
            held.forget();
        }
        if bare && matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
            return Poll::Ready(None);
        }
        let frame = frame.map(|frame| frame.map_err(error::of_body));
        // Over HTTP/1 a body that is not whole is always the protocol's.
        if let Some(Err(error)) = &frame
            && ended_there(error.kind())
        {
            this.lease.fail(error);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http(incoming) | Content::Bare(incoming) => incoming.is_end_stream(),
            Content::Tcp(_) => false,
            Content::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Http(incoming) | Content::Bare(incoming) => incoming.size_hint(),
            Content::Tcp(_) => SizeHint::default(),
            Content::None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for PoolBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBody")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}
