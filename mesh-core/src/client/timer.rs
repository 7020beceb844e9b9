//! One timer for all calls of a client, driven by a task of its own.

use std::{
    future::poll_fn,
    sync::{Arc, OnceLock},
};

use crate::transport::ConnTimer;

/// The timer of a client. Cloning shares; the task ends with the last clone.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientTimer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    timer: ConnTimer,
    task: OnceLock<tokio::task::AbortHandle>,
}

impl ClientTimer {
    /// The timer; its task starts with the first call, on the runtime of that call.
    pub(super) fn get(&self) -> &ConnTimer {
        self.0.task.get_or_init(|| {
            let timer = self.0.timer.clone();
            let drive = async move { poll_fn(|context| timer.poll_drive(context, None)).await };
            tokio::spawn(drive).abort_handle()
        });
        &self.0.timer
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}
