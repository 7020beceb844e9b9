//! Copies of request bodies for mirrors.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use crate::BoxError;

/// Collects a copy of a body and hands it over when the body has ended. Over its limit the copy is given up, as Envoy does.
pub(crate) struct Tee {
    copy: Copied,
    limit: u64,
    done: Option<Box<dyn FnOnce(Copied) + Send + Sync>>,
}

impl std::fmt::Debug for Tee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tee")
            .field("copy", &self.copy)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Tee {
    /// A copy of at most `limit` bytes that goes to `done`.
    pub(crate) fn new(limit: u64, done: impl FnOnce(Copied) + Send + Sync + 'static) -> Self {
        Self {
            copy: Copied::default(),
            limit,
            done: Some(Box::new(done)),
        }
    }

    /// Takes note of what a poll returned, and whether the body says that this was the last.
    pub(super) fn see(&mut self, frame: Option<&Result<Frame<Bytes>, BoxError>>, last: bool) {
        match frame {
            Some(Ok(frame)) => {
                self.push(frame);
                if last {
                    self.finish();
                }
            }
            None => self.finish(),
            // A request that broke off is not sent to the mirror.
            Some(Err(_)) => self.give_up(),
        }
    }

    fn push(&mut self, frame: &Frame<Bytes>) {
        if self.done.is_none() {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.copy.push(data);
            if self.copy.remaining() > self.limit {
                self.give_up();
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.copy.trailers = Some(trailers.clone());
        }
    }

    fn give_up(&mut self) {
        self.done = None;
        self.copy = Copied::default();
    }

    fn finish(&mut self) {
        if let Some(done) = self.done.take() {
            done(std::mem::take(&mut self.copy));
        }
    }
}

/// A whole body in memory; clones share the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copied {
    chunks: VecDeque<Bytes>,
    size: u64,
    trailers: Option<HeaderMap>,
}

impl Copied {
    /// Adds a chunk.
    pub(crate) fn push(&mut self, chunk: &Bytes) {
        self.size += chunk.len() as u64;
        let kept = super::kept(self.chunks.len(), self.chunks.back_mut(), chunk);
        self.chunks.extend(kept);
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.size
    }

    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.chunks.pop_front() {
            Some(chunk) => {
                self.size -= chunk.len() as u64;
                Some(Frame::data(chunk))
            }
            None => self.trailers.take().map(Frame::trailers),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none()
    }
}
