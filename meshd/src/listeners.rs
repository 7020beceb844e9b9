//! Sockets follow the snapshot: opened, kept over reloads, drained and closed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_core::{
    model::{Address, Direction},
    server::{self, BindOptions, Directory, ListenerHandle, ServerStats, Unobserved},
    snapshot::{Listener, Snapshot},
};

use crate::{Failure, admin::BoundListeners, lifecycle, worker::Workers};

/// Opens, replaces and closes listeners as snapshots come.
pub(crate) struct Manager {
    stats: Arc<ServerStats>,
    bound: BoundListeners,
    running: BTreeMap<String, Running>,
    /// Where listeners hand redirected connections to.
    directory: Arc<Directory>,
    drained: bool,
}

struct Running {
    listener: Arc<Listener>,
    handle: ListenerHandle,
    /// What was asked for; a socket is kept as long as this stays.
    wanted: (Vec<Address>, BindOptions),
}

impl Manager {
    pub(crate) fn new(stats: Arc<ServerStats>, bound: BoundListeners) -> Self {
        Self {
            stats,
            bound,
            running: BTreeMap::new(),
            directory: Arc::default(),
            drained: false,
        }
    }

    /// Makes the sockets those of `snapshot`.
    ///
    /// # Errors
    ///
    /// The first socket that could not be opened. Unless `first`, all others are served all the same, and the listener's
    /// old version, if it has one, goes on.
    pub(crate) fn apply(
        &mut self,
        workers: &Workers,
        snapshot: &Snapshot,
        first: bool,
    ) -> Result<(), Failure> {
        if self.drained {
            return Ok(());
        }
        self.hand_on(snapshot);
        self.close_gone(snapshot);
        let mut outcome = Ok(());
        for (name, listener) in snapshot.listeners() {
            if let Err(failure) = self.follow(workers, name, listener) {
                if first {
                    return Err(failure);
                }
                tracing::error!(%failure, listener = %name, "Listener not opened");
                outcome = Err(failure);
            }
        }
        outcome
    }

    /// A listener that comes where another one goes gets its sockets, so that no connection is refused in between.
    fn hand_on(&mut self, snapshot: &Snapshot) {
        for (name, listener) in snapshot.listeners() {
            let wanted = wanted(listener);
            if wanted.0.is_empty() || self.running.contains_key(&**name) {
                continue;
            }
            let gone = self.running.iter().find(|(known, running)| {
                running.wanted == wanted && !snapshot.listeners().contains_key(known.as_str())
            });
            let Some(gone) = gone.map(|(known, _)| known.clone()) else {
                continue;
            };
            if let Some(running) = self.running.remove(&gone) {
                tracing::info!(from = %gone, to = %name, "Sockets handed on");
                self.bound.rename(&gone, name);
                self.running.insert(name.to_string(), running);
            }
        }
    }

    fn close_gone(&mut self, snapshot: &Snapshot) {
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|name| !snapshot.listeners().contains_key(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            if let Some(running) = self.running.remove(&name) {
                tracing::info!(listener = %name, "Listener removed");
                self.retire(running.handle);
                self.bound.remove(&name);
                self.bound.count(|counts| counts.removed += 1);
            }
        }
    }

    fn follow(
        &mut self,
        workers: &Workers,
        name: &str,
        listener: &Arc<Listener>,
    ) -> Result<(), Failure> {
        let wanted = wanted(listener);
        if let Some(running) = self.running.get_mut(name) {
            if Arc::ptr_eq(&running.listener, listener) {
                return Ok(());
            }
            if running.wanted == wanted {
                running.listener = listener.clone();
                running.handle.replace(listener.clone());
                self.directory.remove(&running.handle);
                self.directory.add(&running.handle);
                self.bound.count(|counts| counts.modified += 1);
                return Ok(());
            }
        }
        self.open(workers, name, listener, wanted)
    }

    /// Opens a listener on all of its addresses, for all workers, before the old one is closed.
    fn open(
        &mut self,
        workers: &Workers,
        name: &str,
        listener: &Arc<Listener>,
        wanted: (Vec<Address>, BindOptions),
    ) -> Result<(), Failure> {
        let old = self.running.get(name);
        let clash = old.is_some_and(|old| {
            old.wanted
                .0
                .iter()
                .any(|address| wanted.0.contains(address))
        });
        if clash {
            // The same address with other options cannot be opened twice: the old socket goes first.
            if let Some(old) = self.running.remove(name) {
                self.retire(old.handle);
            }
        }
        let bind = |address: &Address| {
            server::bind(address, &wanted.1).map_err(|source| Failure::Bind {
                what: format!("listener {name}"),
                address: address.to_string(),
                source,
            })
        };
        let sockets = wanted.0.iter().map(bind).collect::<Result<Vec<_>, _>>();
        let sockets = sockets.inspect_err(|_| self.bound.count(|counts| counts.failed += 1))?;
        let bound = sockets
            .iter()
            .map(|socket| socket.address().clone())
            .collect();
        let handle =
            ListenerHandle::new(listener.clone(), self.stats.clone(), Arc::new(Unobserved));
        handle.hand_over_by(&self.directory);
        for socket in sockets {
            workers
                .serve(socket, &handle)
                .map_err(|source| Failure::Bind {
                    what: format!("listener {name}"),
                    address: "a worker's socket".to_owned(),
                    source,
                })?;
            let workers = workers.count();
            self.bound.count(|counts| counts.opened += workers);
        }
        if listener.config().bind_to_port {
            self.bound.set(name, bound);
        } else {
            self.bound.remove(name);
        }
        self.directory.add(&handle);
        let running = Running {
            listener: listener.clone(),
            handle,
            wanted,
        };
        let old = self.running.insert(name.to_owned(), running);
        self.bound.count(|counts| match clash || old.is_some() {
            true => counts.modified += 1,
            false => counts.added += 1,
        });
        if let Some(old) = old {
            self.retire(old.handle);
        }
        Ok(())
    }

    /// Closes a listener that is no longer wanted, and lets its connections go.
    fn retire(&self, handle: ListenerHandle) {
        self.directory.remove(&handle);
        handle.close();
        handle.drain(server::Drain::Gradual(DRAIN_OF_REMOVED));
        let bound = self.bound.clone();
        bound.count(|counts| counts.draining += 1);
        tokio::spawn(async move {
            handle.idle().await;
            bound.count(|counts| counts.draining -= 1);
        });
    }

    /// Lets connections go, and closes listeners, as asked.
    pub(crate) fn drain(&mut self, drain: lifecycle::Drain, time: Duration) {
        for (name, running) in &self.running {
            if drain.inbound_only && running.listener.config().direction != Direction::Inbound {
                continue;
            }
            if drain.connections {
                let how = if drain.graceful {
                    server::Drain::Gradual(time)
                } else {
                    server::Drain::Now
                };
                running.handle.drain(how);
            }
            if drain.close {
                if drain.graceful {
                    let handle = running.handle.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        handle.close();
                    });
                } else {
                    running.handle.close();
                }
                self.bound.remove(name);
            }
        }
        self.drained |= drain.close && !drain.inbound_only;
    }

    /// The listeners that run.
    pub(crate) fn into_handles(self) -> Vec<ListenerHandle> {
        self.running
            .into_values()
            .map(|running| running.handle)
            .collect()
    }
}

/// The sockets that a listener asks for.
fn wanted(listener: &Listener) -> (Vec<Address>, BindOptions) {
    let config = listener.config();
    let addresses = std::iter::once(&config.address).chain(&config.additional_addresses);
    // Without a socket it only gets what others hand over.
    let bound = addresses.filter(|_| config.bind_to_port);
    (bound.cloned().collect(), BindOptions::from(&**config))
}

/// Time over which connections of a removed listener are let go.
const DRAIN_OF_REMOVED: Duration = Duration::from_secs(30);
