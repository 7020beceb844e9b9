//! What is in force, what was refused, and what has no effect: for admin pages, logs and tables.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;

use crate::{
    config::Rejection,
    model::{Name, Note},
};

/// What the program answers to health checks of listeners that have Envoy's filter for it. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Whether they are to fail.
    pub fn is_failing(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Makes them fail, or not.
    pub fn set_failing(&self, failing: bool) {
        self.0.store(failing, Ordering::Relaxed);
    }
}

/// The state of the configuration. Cloning shares; readers take no lock.
#[derive(Clone, Debug, Default)]
pub struct Status {
    current: Arc<ArcSwap<StatusReport>>,
}

/// A moment of the [`Status`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StatusReport {
    /// Rises with each update that was applied; 0: none yet.
    pub generation: u64,
    /// Version of the source.
    pub version: Name,
    /// What is refused now; the last good version of each is in force.
    pub rejections: Vec<Rejection>,
    /// What is configured and has no effect, and what refuses traffic.
    pub notes: Vec<Note>,
    /// Updates that had a rejection.
    pub rejected_updates: u64,
}

impl Status {
    /// The state now.
    pub fn load(&self) -> Arc<StatusReport> {
        self.current.load_full()
    }

    /// Whether an update was applied.
    pub fn is_ready(&self) -> bool {
        self.current.load().generation > 0
    }

    pub(super) fn store(&self, report: StatusReport) {
        self.current.store(Arc::new(report));
    }
}
