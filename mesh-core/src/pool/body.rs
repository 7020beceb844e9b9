//! The body of a response that came over a pooled connection.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::error;
use crate::Error;

/// Takes back a connection at the end of an exchange.
pub(super) trait Release: Send + Sync {
    /// The exchange ended; `clean`: both messages may be complete, so that the connection can serve another one.
    fn release(self: Arc<Self>, clean: bool);
}

/// A connection in use; given back on drop, as unclean unless it was finished.
pub(super) struct Lease(Option<Arc<dyn Release>>);

impl Lease {
    pub(super) fn new(conn: Arc<dyn Release>) -> Self {
        Self(Some(conn))
    }

    pub(super) fn finish(&mut self) {
        if let Some(conn) = self.0.take() {
            conn.release(true);
        }
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
    incoming: Incoming,
    lease: Lease,
}

impl PoolBody {
    pub(super) fn new(incoming: Incoming, mut lease: Lease) -> Self {
        // hyper never polls a body that ended before it began.
        if incoming.is_end_stream() {
            lease.finish();
        }
        Self { incoming, lease }
    }

    /// The body of an upgrade: its connection serves no other request.
    pub(super) fn upgraded(incoming: Incoming, lease: Lease) -> Self {
        drop(lease);
        Self {
            incoming,
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
        let frame = std::task::ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        match &frame {
            None => this.lease.finish(),
            // Nor does it poll for the end after the last sized frame.
            Some(Ok(frame)) if frame.is_trailers() || this.incoming.is_end_stream() => {
                this.lease.finish();
            }
            Some(_) => {}
        }
        Poll::Ready(frame.map(|frame| frame.map_err(error::of_body)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for PoolBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBody")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}
