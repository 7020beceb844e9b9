//! The request body on its way to the upstream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{Copied, MeshBody, Replay, Tee};
#[cfg(feature = "net")]
use crate::transport::Hold;
use crate::{BoxError, telemetry::record::Record};

/// A request body: the client's own, the client's with a copy taken for a mirror, one that can be sent again, or a copy.
#[derive(Debug)]
pub struct RequestBody<B> {
    kind: Kind<B>,
    record: Option<Arc<Record>>,
    /// It is not asked for before its client may be told to send it.
    #[cfg(feature = "net")]
    hold: Option<Box<Hold>>,
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
        let mut this = Self::new(body);
        this.record = Some(record.clone());
        this
    }

    /// The same, not asked for before `hold` is over.
    #[cfg(feature = "net")]
    pub(crate) fn held(mut self, hold: Hold) -> Self {
        self.hold = Some(Box::new(hold));
        self
    }

    /// Ready when the client may be asked for the body.
    #[cfg(feature = "net")]
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(hold) = &mut self.hold else {
            return Poll::Ready(());
        };
        let over = hold.poll_over(context);
        if let Some(record) = &self.record {
            match over {
                // To be asked for its body is what tells the client.
                Poll::Ready(true) => record.late().interims[1] += 1,
                Poll::Ready(false) => {}
                Poll::Pending => record.wake_when_over(context),
            }
        }
        over.map(|_| self.hold = None)
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
        Self {
            kind,
            record: None,
            #[cfg(feature = "net")]
            hold: None,
        }
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
        #[cfg(feature = "net")]
        if this.hold.is_some() {
            std::task::ready!(this.poll_hold(context));
        }
        let mut frame = match &mut this.kind {
            Kind::Plain(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Kind::Tee(body, tee) => {
                let frame = match tee.poll_ready(context) {
                    Poll::Ready(()) => Pin::new(&mut *body).poll_frame(context).map_err(Into::into),
                    Poll::Pending => Poll::Pending,
                };
                if let Poll::Ready(frame) = &frame {
                    tee.see(frame.as_ref(), body.is_end_stream());
                }
                frame
            }
            Kind::Replay(replay) => replay.poll_frame(context),
            Kind::Copied(copy) => copy.poll_next(context),
            Kind::Empty => Poll::Ready(None),
        };
        if let Some(record) = &this.record {
            if let Poll::Ready(Some(Ok(one))) = &frame
                && one.is_trailers()
                && record.connection().is_some_and(|it| it.drops_trailers())
            {
                frame = Poll::Ready(None);
            }
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
            Kind::Copied(copy) => copy.size_hint(),
            Kind::Empty => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for RequestBody<B> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use http::Version;
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::{model::Address, transport::ConnInfo};

    #[tokio::test]
    async fn trailers_end_where_the_connection_keeps_them() {
        for (drops, wanted) in [(false, true), (true, false)] {
            let address = Address::Socket(([127, 0, 0, 1], 1).into());
            let connection = ConnInfo::new(address.clone(), address);
            if drops {
                connection.drop_trailers();
            }
            let record = Record::begin(Some(Arc::new(connection)), Version::HTTP_11, false);
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("1"));
            let trailers = async move { Some(Ok(trailers)) };
            let body = Full::new(Bytes::from_static(b"body")).with_trailers(Box::pin(trailers));
            let whole = RequestBody::observed(body, &record).collect().await;
            let whole = whole.expect("it is whole");
            assert_eq!(whole.trailers().is_some(), wanted);
            assert_eq!(whole.to_bytes(), "body");
            assert!(record.is_received());
        }
    }
}
