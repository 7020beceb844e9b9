//! Sockets follow the snapshot, for all workers; and how `/drain_listeners` lets them go.

use std::{sync::Arc, time::Duration};

use mesh_core::{
    model::Direction,
    server::{self, Listeners, ListenersStatus, ServerStats},
    snapshot::Snapshot,
};

use crate::{
    Failure,
    cli::{Options, Source},
    lifecycle,
    worker::Workers,
};

/// The listeners of all workers.
pub(crate) struct Manager {
    listeners: Listeners,
    /// How long a drain takes (`--drain-time-s`), and whether connections are told to go over this time or at its beginning
    /// (`--drain-strategy`).
    drain_time: Duration,
    gradual: bool,
    /// Longest wait at the end of the process.
    end_time: Duration,
    /// Closed for good, or about to be: nothing is opened any more.
    drained: bool,
    /// Health checks fail, by `/healthcheck/fail`.
    failing: bool,
    /// Has served a snapshot; before, a failure ends the process, which says why.
    serves: bool,
}

impl Manager {
    pub(crate) fn new(stats: Arc<ServerStats>, options: &Options) -> Self {
        Self {
            listeners: match options.source {
                // As in Envoy, whose listeners that are gone take the same time.
                Source::File(..) | Source::Text(_) => {
                    Listeners::new(stats).drain_time(options.drain_time)
                }
                Source::Folder(..) => Listeners::new(stats),
            },
            drain_time: options.drain_time,
            gradual: options.drain_gradual,
            end_time: options.termination_drain_time,
            drained: false,
            failing: false,
            serves: false,
        }
    }

    /// Takes the drain times that the first configuration asks for.
    pub(crate) fn settle(&mut self, options: &Options) {
        self.drain_time = options.drain_time;
        self.end_time = options.termination_drain_time;
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
        if self.failing {
            self.fail_health_checks(true);
        }
        match failed.into_iter().next() {
            None => Ok(()),
            Some(first) => Err(Failure::Bind {
                what: format!("listener {}", first.listener),
                address: first.address.to_string(),
                source: first.source,
            }),
        }
    }

    /// While health checks fail, clients are told to go elsewhere with what they get next, as in Envoy.
    pub(crate) fn fail_health_checks(&mut self, failing: bool) {
        self.failing = failing;
        for (_, handle) in self.listeners.handles() {
            match failing {
                true => handle.drain(server::Drain::Next),
                false => handle.stay(),
            }
        }
    }

    /// Lets connections go, and closes listeners, as asked.
    pub(crate) fn drain(&mut self, drain: lifecycle::Drain) {
        let time = self.drain_time;
        let how = match self.gradual {
            true => server::Drain::Gradual(time),
            false => server::Drain::Next,
        };
        for (_, handle) in self.listeners.handles() {
            if drain.inbound_only && handle.current().config().direction != Direction::Inbound {
                continue;
            }
            handle.drain(how);
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

    /// Accepts no more, and waits until all connections are done, at most for the time of a drain.
    pub(crate) async fn finish(self) {
        let connections = self.listeners.finish(self.end_time).await;
        if connections > 0 {
            tracing::warn!(connections, "Drain time is over, connections are closed");
        }
    }
}
