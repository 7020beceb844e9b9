//! The response body on its way to the client.

#[cfg(feature = "net")]
use std::sync::Mutex;
use std::{
    error::Error as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{MeshBody, content::Content};
use crate::{
    BoxError, Error, Kind,
    cluster::Attempt,
    telemetry::record::{Ending, Record, Sink},
};
#[cfg(feature = "net")]
use crate::{
    cluster::Permit,
    layer::{route::Ends, timeout::Limits},
    recycle::Recycled,
    transport::Deadline,
};

/// A response body: the upstream's or our own, and every guard that must live until its last frame.
#[derive(Debug)]
pub struct ResponseBody<U> {
    kind: Content<U>,
    /// Place in the cluster's limits.
    attempt: Option<Attempt>,
    /// For the layers that the head passes; let go of before `guard`, so that the record can be used again.
    record: Option<Arc<Record>>,
    /// Completes the record of the request.
    guard: Option<Guard>,
    #[cfg(feature = "net")]
    limits: Option<Recycled<Limits>>,
    /// Boxed, since every layer moves the body and few bodies have any of it.
    #[cfg(feature = "net")]
    rare: Option<Box<Rare>>,
}

/// What few bodies hold.
#[cfg(feature = "net")]
#[derive(Debug, Default)]
struct Rare {
    /// Longest life of the upstream stream.
    life: Option<Deadline>,
    /// Place among the cluster's retries.
    retry: Option<Permit>,
    /// Both ends of an upgrade, until the outermost layer takes them. The lock makes the body `Sync`; it is never taken.
    ends: Option<Mutex<Ends>>,
}

/// What an upgraded exchange takes over from the body.
#[cfg(feature = "net")]
pub(crate) struct Tunnel {
    pub(crate) ends: Ends,
    pub(crate) limits: Option<Recycled<Limits>>,
    /// Longest life of the upstream stream.
    pub(crate) life: Option<Deadline>,
    /// Places in the cluster's limits.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) retry: Option<Permit>,
}

/// Completes the record of a request at the end of the response body, or when the body is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    record: Option<Arc<Record>>,
    sink: Arc<dyn Sink>,
    /// What to assume if nobody says how it ended.
    on_drop: Ending,
}

impl Guard {
    /// Reports `record` to `sink` when it ends.
    pub(crate) fn new(record: Arc<Record>, sink: Arc<dyn Sink>) -> Self {
        Self {
            record: Some(record),
            sink,
            on_drop: Ending::Dropped,
        }
    }

    /// The record.
    pub(crate) fn record(&self) -> Option<&Arc<Record>> {
        self.record.as_ref()
    }

    /// Takes note of the response's head.
    pub(crate) fn see_response<B>(&self, response: &mut http::Response<B>) {
        if let Some(record) = &self.record {
            record.see_response(response, self.sink.wants());
        }
    }

    fn see_trailers(&self, trailers: &HeaderMap) {
        if let Some(record) = &self.record {
            record.response_trailers(trailers, self.sink.wants());
        }
    }

    /// Dropping it from now on means that all went well.
    pub(crate) fn complete_on_drop(&mut self) {
        self.on_drop = Ending::Complete;
    }

    /// Reports how it ended. Only the first report counts.
    pub(crate) fn finish(&mut self, ending: Ending) {
        if let Some(record) = self.record.take() {
            record.finish(ending, &*self.sink);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.finish(self.on_drop);
    }
}

impl<U: MeshBody> ResponseBody<U> {
    /// The upstream's body.
    pub fn upstream(body: U) -> Self {
        Self::of(Content::Upstream(body))
    }

    /// Lets the upstream's body through at `rate` KiB a second, `None`: as it comes. `active` counts until its end.
    #[cfg(feature = "net")]
    pub(crate) fn throttle(
        &mut self,
        rate: Option<u64>,
        active: crate::layer::fault::Active,
        record: Option<Arc<Record>>,
    ) {
        use super::throttled::Throttled;

        if !self.kind.is_end_stream() {
            let inner = std::mem::replace(&mut self.kind, Content::Done);
            let throttled = Throttled::new(inner, rate, active, record);
            self.kind = Content::Throttled(Box::new(throttled));
        }
    }

    /// Ends it with [`Kind::PerTryIdleTimeout`] if nothing comes for `idle`.
    #[cfg(feature = "net")]
    pub(crate) fn watch(&mut self, idle: std::time::Duration, record: Option<Arc<Record>>) {
        use super::watched::Watched;

        if !self.kind.is_end_stream() {
            let inner = std::mem::replace(&mut self.kind, Content::Done);
            self.kind = Content::Watched(Box::new(Watched::new(inner, idle, record)));
        }
    }
}

impl<U> ResponseBody<U> {
    /// A body of our own.
    pub fn local(body: Bytes) -> Self {
        Self::of(Content::Local(body))
    }

    /// No body.
    pub fn empty() -> Self {
        Self::local(Bytes::new())
    }

    fn of(kind: Content<U>) -> Self {
        Self {
            kind,
            attempt: None,
            record: None,
            guard: None,
            #[cfg(feature = "net")]
            limits: None,
            #[cfg(feature = "net")]
            rare: None,
        }
    }

    /// Whether the mesh made it.
    pub fn is_local(&self) -> bool {
        self.kind.is_local()
    }

    /// What a body of our own holds; nothing, if it is another's.
    pub(crate) fn into_local(self) -> Bytes {
        match self.kind {
            Content::Local(bytes) => bytes,
            _ => Bytes::new(),
        }
    }

    /// Says whether the response is retried, which nobody gets then.
    #[cfg(feature = "net")]
    pub(crate) fn settle(&mut self, retried: bool) {
        if let Some(attempt) = &mut self.attempt {
            attempt.settle(retried);
        }
    }

    /// Keeps the attempt's place in the limits until the end, which comes at the end of `life` at the latest.
    #[cfg(feature = "net")]
    pub(crate) fn hold_attempt(&mut self, attempt: Attempt, life: Option<Deadline>) {
        self.attempt = Some(attempt);
        if life.is_some() {
            self.rare().life = life;
        }
    }

    #[cfg(feature = "net")]
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Keeps the place among the retries until the end.
    #[cfg(feature = "net")]
    pub(crate) fn hold_retry(&mut self, permit: Option<Permit>) {
        if permit.is_some() {
            self.rare().retry = permit;
        }
    }

    /// The record of the request, for the layers that the head passes.
    #[cfg(feature = "net")]
    pub(crate) fn tell(&mut self, record: Option<Arc<Record>>) {
        self.record = record;
    }

    /// Takes it.
    pub(crate) fn take_record(&mut self) -> Option<Arc<Record>> {
        self.record.take()
    }

    /// Limits the time until the end.
    #[cfg(feature = "net")]
    pub(crate) fn limit(&mut self, limits: Recycled<Limits>) {
        self.limits = Some(limits);
    }

    /// Completes `guard` at the end.
    pub(crate) fn observe(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    /// Keeps both ends of an upgrade for the outermost layer.
    #[cfg(feature = "net")]
    pub(crate) fn upgrade(&mut self, ends: Ends) {
        self.rare().ends = Some(Mutex::new(ends));
    }

    /// Takes them, with what limits the exchange, which goes on without this body.
    #[cfg(feature = "net")]
    pub(crate) fn take_upgrade(&mut self) -> Option<Tunnel> {
        let rare = self.rare.as_mut()?;
        Some(Tunnel {
            ends: rare.ends.take()?.into_inner().ok()?,
            limits: self.limits.take(),
            life: rare.life.take(),
            attempt: self.attempt.take(),
            retry: rare.retry.take(),
        })
    }

    fn finish(&mut self, ending: Ending) {
        self.attempt = None;
        self.record = None;
        #[cfg(feature = "net")]
        {
            self.rare = None;
            self.limits = None;
        }
        if let Some(mut guard) = self.guard.take() {
            guard.finish(ending);
        }
    }

    fn saw_data(&self, data: &[u8]) {
        if let Some(record) = self.guard.as_ref().and_then(Guard::record) {
            record.response_data(data.len());
            record.response_messages(data);
        }
    }

    fn saw_trailers(&self, trailers: &HeaderMap) {
        if let Some(guard) = &self.guard {
            guard.see_trailers(trailers);
        }
    }
}

impl<U: MeshBody> ResponseBody<U> {
    fn poll_upstream(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = self.kind.poll_frame(context);
        #[cfg(feature = "net")]
        if let Content::Throttled(body) = &self.kind
            && body.is_received()
        {
            // What is still held back is no longer the upstream's time, nor its place in the limits.
            (self.attempt, self.rare) = (None, None);
            if let Some(limits) = &mut self.limits {
                limits.response_received();
            }
        }
        if frame.is_pending() {
            return self.poll_limits(context).map(|kind| Some(Err(kind.into())));
        }
        frame
    }

    #[cfg(feature = "net")]
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Kind> {
        if let Some(life) = self.rare.as_mut().and_then(|rare| rare.life.as_mut())
            && Pin::new(life).poll(context).is_ready()
        {
            return Poll::Ready(Kind::MaxDuration);
        }
        match &mut self.limits {
            Some(limits) => limits.poll(context).map(|kind| {
                limits.count(kind);
                kind
            }),
            None => Poll::Pending,
        }
    }

    #[cfg(not(feature = "net"))]
    fn poll_limits(&mut self, _context: &mut Context<'_>) -> Poll<Kind> {
        Poll::Pending
    }
}

impl<U: MeshBody> Body for ResponseBody<U> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(this.poll_upstream(context));
        #[cfg(feature = "net")]
        if let Some(limits) = &mut this.limits {
            limits.moved();
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.saw_data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.saw_trailers(trailers);
                }
                // Hyper does not ask again after the last sized frame, nor after trailers.
                if frame.is_trailers() || this.is_end_stream() {
                    this.finish(Ending::Complete);
                } else if this.size_hint().exact() == Some(0)
                    && let Some(guard) = &mut this.guard
                {
                    // Nor over HTTP/1 for trailers after the last byte that was declared.
                    guard.complete_on_drop();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.kind = Content::Done;
                if let Some(attempt) = this.attempt.as_ref().filter(|_| !was_cut(&error)) {
                    attempt.broke(error.kind());
                }
                this.finish(Ending::Broken(error.kind()));
                Some(Err(error.into()))
            }
            None => {
                this.finish(Ending::Complete);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.kind.size_hint()
    }
}

/// Whether the connection was what ended early. As in Envoy that is told as a breach of the protocol but not counted as one.
fn was_cut(error: &Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    let first: Option<&(dyn std::error::Error + 'static)> = error.source();
    std::iter::successors(first, |source| (*source).source()).any(|source| {
        let io = source.downcast_ref::<std::io::Error>();
        // What the codec could not read is an I/O error too.
        io.is_some_and(|io| !matches!(io.kind(), InvalidData | InvalidInput))
    })
}
