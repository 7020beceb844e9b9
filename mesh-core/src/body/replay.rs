//! A request body that can be sent again as long as it fits into its limit.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{MeshBody, RequestBody};
use crate::{BoxError, sync::lock};

/// One reading of a body that is kept for further attempts.
///
/// Only the newest reading reads on from the client; an older one, which the connection of a failed attempt may still hold
/// for a moment, sees an error.
#[derive(Debug)]
pub(crate) struct Replay<B> {
    shared: Arc<Mutex<Shared<B>>>,
    turn: u32,
    position: usize,
}

/// Keeps the body between attempts.
#[derive(Debug)]
pub(crate) struct ReplayEnd<B> {
    shared: Arc<Mutex<Shared<B>>>,
}

#[derive(Debug)]
struct Shared<B> {
    source: RequestBody<B>,
    turn: u32,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    size: u64,
    limit: u64,
    /// The limit was passed: what was kept is gone.
    overflow: bool,
    ended: bool,
    /// The client's body broke off: what was kept is not all of it.
    broken: bool,
    /// The reading that waits for the client, to be woken when a newer one takes over.
    waiting: Option<Waker>,
}

impl<B: MeshBody> ReplayEnd<B> {
    fn new(source: RequestBody<B>, limit: u64) -> Self {
        let ended = source.is_end_stream();
        Self {
            shared: Arc::new(Mutex::new(Shared {
                source,
                turn: 0,
                chunks: Vec::new(),
                trailers: None,
                size: 0,
                limit,
                overflow: false,
                ended,
                broken: false,
                waiting: None,
            })),
        }
    }

    /// Keeps up to `limit` bytes of `body`, which becomes the first reading of what is kept; `None`: there is no body.
    pub(crate) fn keep(body: &mut RequestBody<B>, limit: u64) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let kept = Self::new(std::mem::replace(body, RequestBody::empty()), limit);
        if let Some(first) = kept.read() {
            *body = RequestBody::replayed(first);
        }
        Some(kept)
    }

    /// A new reading from the start; `None` if the body did not fit, or broke off.
    pub(crate) fn read(&self) -> Option<Replay<B>> {
        let mut shared = lock(&self.shared);
        if !shared.can_repeat() {
            return None;
        }
        shared.turn += 1;
        if let Some(waker) = shared.waiting.take() {
            waker.wake();
        }
        Some(Replay {
            shared: self.shared.clone(),
            turn: shared.turn,
            position: 0,
        })
    }

    /// Whether the body passed the limit, so that it was given up to send it again.
    pub(crate) fn is_abandoned(&self) -> bool {
        lock(&self.shared).overflow
    }

    /// Whether the body still can be sent again.
    pub(crate) fn can_repeat(&self) -> bool {
        lock(&self.shared).can_repeat()
    }
}

impl<B: MeshBody> Replay<B> {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        if shared.turn != self.turn {
            return Poll::Ready(Some(Err("the request is sent again elsewhere".into())));
        }
        if let Some(chunk) = shared
            .chunks
            .get(self.position)
            .filter(|_| !shared.overflow)
        {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if shared.broken {
            return Poll::Ready(Some(Err("the request broke off".into())));
        }
        if shared.ended {
            // Trailers come after all chunks; `position` passes the end so that they come once.
            let trailers = (self.position == shared.chunks.len())
                .then(|| shared.trailers.clone())
                .flatten();
            self.position += 1;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = Pin::new(&mut shared.source).poll_frame(context);
        match &frame {
            Poll::Pending => shared.waiting = Some(context.waker().clone()),
            Poll::Ready(None) => shared.ended = true,
            Poll::Ready(Some(Err(_))) => shared.broken = true,
            Poll::Ready(Some(Ok(frame))) => {
                if shared.keep(frame) {
                    self.position += 1;
                }
                shared.ended |= shared.source.is_end_stream();
            }
        }
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.turn == self.turn
            && shared.ended
            && (shared.overflow || self.position >= shared.chunks.len())
            && (shared.trailers.is_none() || self.position > shared.chunks.len())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let mut hint = shared.source.size_hint();
        if shared.overflow {
            return hint;
        }
        let kept: usize = shared
            .chunks
            .get(self.position..)
            .unwrap_or_default()
            .iter()
            .map(Bytes::len)
            .sum();
        let kept = kept as u64;
        let upper = hint.upper().map(|upper| upper + kept);
        hint.set_lower(0);
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        hint.set_lower(shared.source.size_hint().lower() + kept);
        hint
    }
}

impl<B> Shared<B> {
    fn can_repeat(&self) -> bool {
        !self.overflow && !self.broken
    }

    /// Keeps a frame; whether a chunk was added. Nobody has read the newest one in part: whoever reads on has read all of it.
    fn keep(&mut self, frame: &Frame<Bytes>) -> bool {
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.ended = true;
            return true;
        }
        let Some(data) = frame.data_ref() else {
            return false;
        };
        if self.overflow {
            return false;
        }
        self.size += data.len() as u64;
        if self.size > self.limit {
            self.overflow = true;
            self.chunks = Vec::new();
            return false;
        }
        let kept = super::kept(self.chunks.len(), self.chunks.last_mut(), data);
        let added = kept.is_some();
        self.chunks.extend(kept);
        added
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;

    /// Frames that are there, and a failure where there is none.
    struct Frames(VecDeque<Result<Frame<Bytes>, &'static str>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.get_mut().0.pop_front())
        }
    }

    fn kept(
        frames: impl IntoIterator<Item = Result<&'static str, &'static str>>,
    ) -> ReplayEnd<Frames> {
        let frames = frames
            .into_iter()
            .map(|frame| frame.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))));
        ReplayEnd::new(RequestBody::new(Frames(frames.collect())), 10)
    }

    async fn read(end: &ReplayEnd<Frames>) -> Option<Result<Bytes, String>> {
        let body = RequestBody::replayed(end.read()?);
        let read = body.collect().await;
        Some(
            read.map(|body| body.to_bytes())
                .map_err(|error| error.to_string()),
        )
    }

    #[tokio::test]
    async fn a_body_is_read_again_and_again_if_it_fits() {
        let end = kept([Ok("one"), Ok("two")]);
        for _ in 0..3 {
            let body = read(&end).await.expect("it fits").expect("whole");
            assert_eq!(body, "onetwo");
        }
        let end = kept([Ok("one"), Ok("that is too long")]);
        let body = read(&end).await.expect("the first time").expect("whole");
        assert_eq!(body, "onethat is too long");
        assert!(!end.can_repeat() && read(&end).await.is_none());
    }

    /// What came before would pass for a whole body.
    #[tokio::test]
    async fn a_body_that_broke_off_is_never_sent_again() {
        let end = kept([Ok("one"), Err("gone")]);
        let (first, second) = (end.read().expect("it fits"), end.read().expect("still"));
        for (reading, error) in [
            (first, "the request is sent again elsewhere"),
            (second, "gone"),
        ] {
            let read = RequestBody::replayed(reading).collect().await;
            assert_eq!(read.expect_err("it breaks off").to_string(), error);
        }
        assert!(!end.can_repeat() && read(&end).await.is_none());
    }

    #[tokio::test]
    async fn a_body_of_single_bytes_costs_little_more_than_its_length() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let frames = bytes
            .iter()
            .map(|byte| Ok(Frame::data(Bytes::copy_from_slice(&[*byte]))));
        let body = RequestBody::new(Frames(frames.collect()));
        let end = ReplayEnd::new(body, 1 << 20);
        for _ in 0..3 {
            let reading = RequestBody::replayed(end.read().expect("it fits"));
            let read = reading.collect().await.expect("whole").to_bytes();
            assert!(read == bytes);
        }
        let chunks = lock(&end.shared).chunks.len();
        assert!(chunks < 200, "{chunks}");
    }
}
