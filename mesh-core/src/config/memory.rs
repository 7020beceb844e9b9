//! Configuration by code.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Poll, Waker},
};

use super::{ConfigSource, Outcome, SourceError, Update};
use crate::sync::lock;

/// A source that a program feeds through its [`MemoryHandle`].
#[derive(Debug)]
pub struct MemorySource {
    shared: Arc<Mutex<Shared>>,
}

/// Feeds a [`MemorySource`]. When the last handle is gone, the configuration stays as it is.
#[derive(Clone, Debug)]
pub struct MemoryHandle {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: std::collections::VecDeque<Update>,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl MemorySource {
    /// A source and the handle that feeds it.
    pub fn new() -> (Self, MemoryHandle) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        (
            Self {
                shared: shared.clone(),
            },
            MemoryHandle { shared },
        )
    }
}

impl MemoryHandle {
    /// Hands over an update. It takes effect when the driver runs.
    pub fn push(&self, update: Update) {
        let waker = {
            let mut shared = lock(&self.shared);
            shared.queue.push_back(update);
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What became of the last update that the driver applied.
    pub fn outcome(&self) -> Option<Outcome> {
        lock(&self.shared).outcome.clone()
    }
}

impl ConfigSource for MemorySource {
    async fn next(&mut self) -> Result<Update, SourceError> {
        poll_fn(|context| {
            let mut shared = lock(&self.shared);
            match shared.queue.pop_front() {
                Some(update) => Poll::Ready(Ok(update)),
                None => {
                    shared.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn report(&mut self, outcome: &Outcome) {
        lock(&self.shared).outcome = Some(outcome.clone());
    }
}
