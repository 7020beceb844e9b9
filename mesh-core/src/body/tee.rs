//! Copies of request bodies for mirrors.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::{BoxError, sync::lock};

/// Hands a body on to its copies while it passes. As in Envoy it waits for a copy that lags behind by more than its limit.
#[derive(Debug)]
pub(crate) struct Tee {
    copies: Vec<Arc<Mutex<Queue>>>,
    limit: u64,
}

/// What a copy has not read yet.
#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    size: u64,
    trailers: Option<HeaderMap>,
    /// The body has ended, or broke off.
    end: Option<Result<(), Broken>>,
    /// Nobody reads it any more.
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The body broke off, and so its copy does.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request that this is a copy of broke off")]
struct Broken;

impl Tee {
    /// A body without copies. One of them may lag behind by `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            copies: Vec::new(),
            limit,
        }
    }

    /// A copy of all that passes from now on, which is as long as `size` says.
    pub(crate) fn copy(&mut self, size: SizeHint) -> Copied {
        let queue = Arc::<Mutex<Queue>>::default();
        self.copies.push(queue.clone());
        Copied {
            queue: Some(queue),
            left: size.exact(),
        }
    }

    /// Ready when no copy lags behind too far.
    pub(super) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ready = Poll::Ready(());
        for copy in &self.copies {
            let mut queue = lock(copy);
            if !queue.gone && queue.size > self.limit {
                queue.writer = Some(context.waker().clone());
                ready = Poll::Pending;
            }
        }
        ready
    }

    /// Takes note of what a poll returned, and whether the body says that this was the last.
    pub(super) fn see(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>, last: bool) {
        for copy in &self.copies {
            let mut queue = lock(copy);
            match frame {
                Some(Ok(frame)) => {
                    queue.push(frame);
                    if last {
                        queue.finish(Ok(()));
                    }
                }
                None => queue.finish(Ok(())),
                Some(Err(_)) => queue.finish(Err(Broken)),
            }
            let reader = queue.reader.take();
            drop(queue);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // A body that nobody reads to its end has no whole copy.
        for copy in &self.copies {
            let mut queue = lock(copy);
            queue.finish(Err(Broken));
            let reader = queue.reader.take();
            drop(queue);
            if let Some(reader) = reader {
                reader.wake();
            }
        }
    }
}

impl Queue {
    fn push(&mut self, frame: &Frame<Bytes>) {
        if self.gone {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.size += data.len() as u64;
            let kept = super::kept(self.chunks.len(), self.chunks.back_mut(), data);
            self.chunks.extend(kept);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn finish(&mut self, end: Result<(), Broken>) {
        self.end.get_or_insert(end);
    }
}

/// The copy of a body that is still on its way, or none.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    queue: Option<Arc<Mutex<Queue>>>,
    /// Bytes that are still to be read, if the body says how long it is.
    left: Option<u64>,
}

impl Copied {
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(queue) = &self.queue else {
            return Poll::Ready(None);
        };
        let mut queue = lock(queue);
        if let Some(chunk) = queue.chunks.pop_front() {
            let length = chunk.len() as u64;
            queue.size -= length;
            if let Some(writer) = queue.writer.take() {
                writer.wake();
            }
            self.left = self.left.map(|left| left.saturating_sub(length));
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match queue.end {
            Some(Err(broken)) => Poll::Ready(Some(Err(broken.into()))),
            Some(Ok(())) => {
                let trailers = queue.trailers.take();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            None => {
                queue.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| {
            let queue = lock(queue);
            queue.chunks.is_empty() && queue.trailers.is_none() && matches!(queue.end, Some(Ok(())))
        })
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match (&self.queue, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            let mut queue = lock(queue);
            queue.gone = true;
            queue.chunks.clear();
            if let Some(writer) = queue.writer.take() {
                writer.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::body::RequestBody;

    type Body = RequestBody<Full<Bytes>>;

    /// A body of `length` bytes with a limit of ten, and a copy of it.
    fn teed(length: usize) -> (Body, Body) {
        let body = Full::from(vec![b'x'; length]);
        let mut tee = Tee::new(10);
        let copy = tee.copy(http_body::Body::size_hint(&body));
        (RequestBody::new(body).teed(tee), RequestBody::copied(copy))
    }

    #[tokio::test]
    async fn a_copy_is_as_whole_as_its_body() {
        let (body, copy) = teed(20);
        assert_eq!(http_body::Body::size_hint(&copy).exact(), Some(20));
        let (body, copy) = tokio::join!(body.collect(), copy.collect());
        assert_eq!(
            body.expect("a body").to_bytes(),
            copy.expect("a copy").to_bytes()
        );
        let (body, copy) = teed(20);
        drop(body);
        copy.collect().await.expect_err("it broke off");
    }

    /// Data frames without an end.
    struct Endless;

    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"six by")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_a_copy_that_lags_behind_until_that_is_gone() {
        const SOON: std::time::Duration = std::time::Duration::from_secs(1);
        let mut tee = Tee::new(10);
        let mut copy = RequestBody::<Endless>::copied(tee.copy(SizeHint::default()));
        let mut body = RequestBody::new(Endless).teed(tee);
        for _ in 0..2 {
            body.frame().await.expect("a frame").expect("data");
        }
        let late = async {
            tokio::time::sleep(SOON).await;
            copy.frame().await.expect("a frame").expect("data");
            let read = tokio::time::Instant::now();
            tokio::time::sleep(SOON).await;
            drop(copy);
            read
        };
        let waits = async {
            let mut read = Vec::new();
            for _ in 0..3 {
                body.frame().await.expect("a frame").expect("data");
                read.push(tokio::time::Instant::now());
            }
            read
        };
        let begun = tokio::time::Instant::now();
        let all = async { tokio::join!(late, waits) };
        let (freed, read) = tokio::time::timeout(10 * SOON, all)
            .await
            .expect("it goes on");
        // One more for the place that was made, and any number once nobody reads the copy.
        assert_eq!(
            (freed - begun, read[0], read[1]),
            (SOON, freed, freed + SOON)
        );
        assert_eq!(read[2], read[1]);
    }
}
