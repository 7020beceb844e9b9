//! One timer for all calls of a client, driven by a task of its own.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::AbortHandle;

use crate::{sync::lock, transport::ConnTimer};

/// The timer of a client. Cloning shares; the task ends with the last clone.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientTimer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    timer: ConnTimer,
    driven: Arc<AtomicBool>,
    task: Mutex<Option<AbortHandle>>,
}

impl ClientTimer {
    /// The timer; its task starts on the runtime of the first call, and anew on that of a later one if the first is gone.
    pub(super) fn get(&self) -> &ConnTimer {
        if !self.0.driven.load(Ordering::Acquire) {
            self.0.drive();
        }
        &self.0.timer
    }
}

impl Shared {
    #[cold]
    fn drive(&self) {
        let mut task = lock(&self.task);
        if self.driven.load(Ordering::Acquire) {
            return;
        }
        self.timer.restart();
        self.driven.store(true, Ordering::Release);
        let (timer, driving) = (self.timer.clone(), Driving(self.driven.clone()));
        let drive = async move {
            let _driving = driving;
            poll_fn(|context| timer.poll_drive(context, None)).await;
        };
        *task = Some(tokio::spawn(drive).abort_handle());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
    }
}

/// Goes with the task, which goes with its runtime.
struct Driving(Arc<AtomicBool>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        runtime::Builder,
        time::{Instant, timeout},
    };

    use super::*;

    #[test]
    fn a_client_outlives_the_runtime_of_its_first_call() {
        let timer = ClientTimer::default();
        for _ in 0..3 {
            let mut builder = Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let begun = Instant::now();
                let at = (begun + Duration::from_secs(2)).into_std();
                let passed = timeout(Duration::from_secs(60), timer.get().deadline(at)).await;
                passed.expect("somebody drives the timer");
                assert_eq!(begun.elapsed().as_secs(), 2);
            });
        }
    }
}
