//! The request body on its way to the upstream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Copied, MeshBody, Replay, Tee};
use crate::{BoxError, telemetry::record::Record};

/// A request body: the client's own, the client's with a copy taken for a mirror, one that can be sent again, or a copy.
#[derive(Debug)]
pub struct RequestBody<B> {
    kind: Kind<B>,
    record: Option<Arc<Record>>,
}

#[derive(Debug)]
enum Kind<B> {
    Plain(B),
    Tee(B, Box<Tee>),
    Replay(Replay<B>),
    // Boxed, since every layer moves the body and only mirrors have one of these.
    Copied(Box<Copied>),
    Empty,
}

impl<B: MeshBody> RequestBody<B> {
    /// The client's body as it is.
    pub fn new(body: B) -> Self {
        Self::of(Kind::Plain(body))
    }

    /// The client's body, counted in `record` until it ends.
    pub(crate) fn observed(body: B, record: &Arc<Record>) -> Self {
        if body.is_end_stream() {
            return Self::new(body);
        }
        record.request_begins();
        Self {
            kind: Kind::Plain(body),
            record: Some(record.clone()),
        }
    }

    /// No body.
    pub fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// A copy of a body.
    pub(crate) fn copied(copy: Copied) -> Self {
        Self::of(Kind::Copied(Box::new(copy)))
    }

    /// A body that is read from `replay`.
    pub(crate) fn replayed(replay: Replay<B>) -> Self {
        Self::of(Kind::Replay(replay))
    }

    /// Copies what passes into `tee`; a body that cannot be copied any more is left as it is.
    pub(crate) fn teed(mut self, tee: Tee) -> Self {
        self.kind = match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Plain(body) => Kind::Tee(body, Box::new(tee)),
            other => other,
        };
        self
    }

    fn of(kind: Kind<B>) -> Self {
        Self { kind, record: None }
    }
}

/// The response ended before the request body, so the rest of it is not sent on.
#[derive(Debug, thiserror::Error)]
#[error("the response has ended")]
struct Unwanted;

impl<B> RequestBody<B> {
    fn end(&mut self) {
        if let Some(record) = self.record.take() {
            record.request_ends();
        }
    }
}

impl<B: MeshBody> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.record.as_ref().is_some_and(|record| record.is_over()) {
            this.end();
            this.kind = Kind::Empty;
            return Poll::Ready(Some(Err(Unwanted.into())));
        }
        let frame = match &mut this.kind {
            Kind::Plain(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Kind::Tee(body, tee) => {
                let frame = Pin::new(&mut *body).poll_frame(context).map_err(Into::into);
                if let Poll::Ready(frame) = &frame {
                    tee.see(frame.as_ref(), body.is_end_stream());
                }
                frame
            }
            Kind::Replay(replay) => replay.poll_frame(context),
            Kind::Copied(copy) => Poll::Ready(copy.next().map(Ok)),
            Kind::Empty => Poll::Ready(None),
        };
        if let Some(record) = &this.record {
            match &frame {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        record.request_data(data.len());
                        record.request_messages(data);
                    }
                    if this.is_end_stream() {
                        this.end();
                    }
                }
                Poll::Ready(Some(Err(_))) => {
                    record.request_breaks();
                    this.end();
                }
                Poll::Ready(None) => this.end(),
                Poll::Pending => record.wake_when_over(context),
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain(body) | Kind::Tee(body, _) => body.is_end_stream(),
            Kind::Replay(replay) => replay.is_end_stream(),
            Kind::Copied(copy) => copy.is_end_stream(),
            Kind::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Plain(body) | Kind::Tee(body, _) => body.size_hint(),
            Kind::Replay(replay) => replay.size_hint(),
            Kind::Copied(copy) => SizeHint::with_exact(copy.remaining()),
            Kind::Empty => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        self.end();
    }
}
