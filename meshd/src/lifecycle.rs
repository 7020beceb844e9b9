//! The process's state: what `/ready` and `/server_info` say, and who must be told to drain or to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use tokio::sync::watch;

/// Envoy's `ServerInfo.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Serves.
    Live = 0,
    /// Tells its clients to go elsewhere.
    Draining = 1,
    /// Has no configuration or no sockets yet.
    PreInitializing = 2,
}

impl State {
    /// Envoy's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
        }
    }
}

/// What is asked of listeners. Their connections are told to go in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drain {
    /// Only inbound listeners.
    pub(crate) inbound_only: bool,
    /// Listeners are closed, at once or when the drain time has passed.
    pub(crate) close: bool,
    /// Listeners stay open until the drain time has passed.
    pub(crate) graceful: bool,
}

/// The state of the process. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    failing: watch::Sender<bool>,
    started: Instant,
    drain: watch::Sender<Drain>,
    quit: watch::Sender<bool>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        let shared = Shared {
            state: AtomicU8::new(State::PreInitializing as u8),
            failing: watch::Sender::new(false),
            started: Instant::now(),
            drain: watch::Sender::new(Drain::default()),
            quit: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The state now. `/healthcheck/fail` makes a live process draining, as in Envoy.
    pub(crate) fn state(&self) -> State {
        match self.shared.state.load(Ordering::Acquire) {
            0 if *self.shared.failing.borrow() => State::Draining,
            0 => State::Live,
            1 => State::Draining,
            _ => State::PreInitializing,
        }
    }

    /// Whether the process has begun to serve, even if it drains by now.
    pub(crate) fn has_served(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) != State::PreInitializing as u8
    }

    pub(crate) fn set(&self, state: State) {
        self.shared.state.store(state as u8, Ordering::Release);
    }

    /// Makes readiness fail, or not.
    pub(crate) fn fail_health_checks(&self, failing: bool) {
        self.shared.failing.send_replace(failing);
    }

    pub(crate) fn failing(&self) -> watch::Receiver<bool> {
        self.shared.failing.subscribe()
    }

    pub(crate) fn uptime_s(&self) -> u64 {
        self.shared.started.elapsed().as_secs()
    }

    pub(crate) fn drain(&self, drain: Drain) {
        self.shared.drain.send_replace(drain);
    }

    pub(crate) fn drains(&self) -> watch::Receiver<Drain> {
        self.shared.drain.subscribe()
    }

    /// Asks the process to end.
    pub(crate) fn quit(&self) {
        self.shared.quit.send_replace(true);
    }

    /// Resolves when the process is asked to end.
    pub(crate) async fn quitting(&self) {
        let mut quit = self.shared.quit.subscribe();
        // The sender lives in `self`, so this ends only with the wish.
        let _ = quit.wait_for(|quit| *quit).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failing_health_checks_make_a_live_process_draining() {
        let lifecycle = Lifecycle::new();
        assert_eq!(lifecycle.state(), State::PreInitializing);
        lifecycle.set(State::Live);
        lifecycle.fail_health_checks(true);
        assert_eq!(lifecycle.state(), State::Draining);
        lifecycle.fail_health_checks(false);
        assert_eq!(lifecycle.state(), State::Live);
        lifecycle.quit();
        lifecycle.quitting().await;
    }
}
