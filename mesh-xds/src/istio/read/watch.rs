//! When to look at a folder again.

use std::path::Path;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// Tells when files under a folder may have changed: by the operating system's events, and by the clock where those fail
/// or miss something (network file systems, a folder that was replaced).
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<()>,
    /// Dropping it ends the events.
    _watcher: Option<RecommendedWatcher>,
    /// How often the folder is read without an event.
    poll: Duration,
    /// An event came and was not answered yet.
    pending: bool,
}

impl Watch {
    /// Quiet time after an event before it is answered: editors save in several steps.
    const QUIET: Duration = Duration::from_millis(60);
    /// An event is answered after this time, quiet or not.
    const LATEST: Duration = Duration::from_millis(200);
    const POLL_WITH_EVENTS: Duration = Duration::from_secs(2);
    const POLL_ALONE: Duration = Duration::from_millis(400);

    /// Watches the folder; where the operating system gives no events of some of it, by the clock too.
    pub fn new(root: &Path) -> Self {
        let (sender, events) = mpsc::channel(1);
        let changed = move |event: notify::Result<notify::Event>| {
            let read_only = |kind: &EventKind| matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write));
            if !event.is_ok_and(|e| read_only(&e.kind)) {
                // A full channel means that a scan is due anyway.
                let _ = sender.try_send(());
            }
        };
        let mut watcher = None;
        // What comes before an unreadable folder is watched all the same.
        let watched = notify::recommended_watcher(changed)
            .and_then(|made| watcher.insert(made).watch(root, RecursiveMode::Recursive));
        let poll = match watched {
            Ok(()) => Self::POLL_WITH_EVENTS,
            Err(error) => {
                let poll = Self::POLL_ALONE;
                tracing::warn!(folder = %root.display(), %error, "some changes come without an event, looking every {poll:?}");
                poll
            }
        };
        Self {
            events,
            _watcher: watcher,
            poll,
            pending: false,
        }
    }

    /// Waits until the folder should be read again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the next call answers at once.
    pub async fn due(&mut self) {
        if !self.pending {
            tokio::select! {
                () = sleep(self.poll) => return,
                event = self.events.recv() => {
                    if event.is_none() {
                        // No watcher: the sender is gone.
                        sleep(Self::POLL_ALONE).await;
                        return;
                    }
                    self.pending = true;
                }
            }
        }
        let latest = Instant::now() + Self::LATEST;
        loop {
            let quiet = (Instant::now() + Self::QUIET).min(latest);
            match timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                Ok(None) => {
                    sleep_until(quiet).await;
                    break;
                }
                _ => break,
            }
        }
        self.pending = false;
    }

    /// Waits a short time, for a file that was in the middle of being saved.
    pub async fn soon(&mut self) {
        self.pending = true;
        sleep(Self::QUIET).await;
        self.pending = false;
    }
}
