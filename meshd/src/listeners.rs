//! Sockets follow the snapshot, for all workers; and how `/drain_listeners` lets them go.

use std::{sync::Arc, time::Duration};

use mesh_core::{
    model::Direction,
    server::{self, Listeners, ListenersStatus, ServerStats},
    snapshot::Snapshot,
};

use crate::{Failure, lifecycle, worker::Workers};

/// The listeners of all workers.
pub(crate) struct Manager {
    listeners: Listeners,
    /// Closed for good, or about to be: nothing is opened any more.
    drained: bool,
    /// Has served a snapshot; before, a failure ends the process, which says why.
    serves: bool,
}

impl Manager {
    pub(crate) fn new(stats: Arc<ServerStats>) -> Self {
        Self {
            listeners: Listeners::new(stats),
            drained: false,
            serves: false,
        }
    }

    /// What is open, for the admin server.
    pub(crate) fn status(&self) -> ListenersStatus {
        self.listeners.status().clone()
    }

    /// Makes the sockets those of `snapshot`.
    ///
    /// # Errors
    ///
    /// The first socket that could not be opened. All others are served all the same, and the listener's old version, if it
    /// has one, goes on.
    pub(crate) fn apply(&mut self, workers: &Workers, snapshot: &Snapshot) -> Result<(), Failure> {
        if self.drained {
            return Ok(());
        }
        let failed = self
            .listeners
            .follow(snapshot, |socket, handle| workers.serve(socket, handle));
        for error in failed.iter().filter(|_| self.serves) {
            tracing::error!(%error, "Listener not opened");
        }
        self.serves |= failed.is_empty();
        match failed.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Failure::Bind {
                what: format!("listener {}", first.listener),
                address: first.address.to_string(),
                source: first.source,
            }),
        }
    }

    /// Lets connections go, and closes listeners, as asked.
    pub(crate) fn drain(&mut self, drain: lifecycle::Drain, time: Duration) {
        let how = match drain.graceful {
            true => server::Drain::Gradual(time),
            false => server::Drain::Now,
        };
        for (_, handle) in self.listeners.handles() {
            if drain.inbound_only && handle.current().config().direction != Direction::Inbound {
                continue;
            }
            if drain.connections {
                handle.drain(how);
            }
            if drain.close && drain.graceful {
                let handle = handle.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    handle.close();
                });
            } else if drain.close {
                handle.close();
            }
        }
        self.drained |= drain.close && !drain.inbound_only;
    }

    /// Accepts no more, and waits until all connections are done, at most `time`.
    pub(crate) async fn finish(self, time: Duration) {
        let connections = self.listeners.finish(time).await;
        if connections > 0 {
            tracing::warn!(connections, "Drain time is over, connections are closed");
        }
    }
}
