//! The open listeners of a program: its sockets follow the snapshot.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    BindOptions, ConnObserver, Directory, Drain, ListenerHandle, ServerStats, Socket, Unobserved,
    bind,
};
use crate::{
    model::{Address, Name},
    snapshot::{Listener, Snapshot},
};

/// Keeps the sockets of a program those of its configuration: each [`follow`](Self::follow) opens what is new, keeps what
/// stays with all of its connections, and closes what is gone.
///
/// ```no_run
/// # async fn run(mesh: mesh_core::snapshot::Mesh) {
/// use mesh_core::{
///     pool::Pool,
///     server::{self, Listeners},
///     stack::Proxy,
///     transport::{TcpConnector, TokioExec},
/// };
///
/// let pool = Pool::new(TcpConnector);
/// let proxy = Proxy::new(pool.service(), TcpConnector, mesh.clusters().clone(), TokioExec);
/// let mut listeners = Listeners::default();
/// let mut watch = mesh.watch();
/// loop {
///     let snapshot = watch.changed().await;
///     for failed in listeners.follow(&snapshot, |socket, listener| {
///         tokio::spawn(server::serve(socket, listener.clone(), proxy.clone(), TokioExec));
///         Ok(())
///     }) {
///         eprintln!("{failed}");
///     }
/// }
/// # }
/// ```
pub struct Listeners {
    stats: Arc<ServerStats>,
    observer: Arc<dyn ConnObserver>,
    drain_time: Duration,
    running: BTreeMap<Name, Running>,
    /// Where listeners hand redirected connections to.
    directory: Arc<Directory>,
    status: ListenersStatus,
    closed: bool,
}

struct Running {
    listener: Arc<Listener>,
    handle: ListenerHandle,
    /// What was asked for; a socket is kept as long as this stays.
    wanted: Wanted,
}

/// The sockets that a listener asks for.
type Wanted = (Vec<Address>, BindOptions);

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {source}")]
#[non_exhaustive]
pub struct ListenError {
    /// Its name.
    pub listener: Name,
    /// The address that could not be had.
    pub address: Address,
    /// What the system says.
    pub source: io::Error,
}

impl Listeners {
    /// No listener yet. What they count goes to `stats`.
    pub fn new(stats: Arc<ServerStats>) -> Self {
        Self {
            stats,
            observer: Arc::new(Unobserved),
            drain_time: Duration::from_secs(30),
            running: BTreeMap::new(),
            directory: Arc::default(),
            status: ListenersStatus::default(),
            closed: false,
        }
    }

    /// Tells `observer` of connections; default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ConnObserver>) -> Self {
        self.observer = observer;
        self
    }

    /// Over how long the connections of a listener that is gone are let go; default 30 s.
    #[must_use]
    pub fn drain_time(mut self, time: Duration) -> Self {
        self.drain_time = time;
        self
    }

    /// Makes the sockets those of `snapshot`. `serve` is given each new one, to accept on it by [`serve`](super::serve), on
    /// as many workers as there are ([`Socket::another`]).
    ///
    /// A listener that takes the place of another on the same addresses gets its sockets, and a new socket is opened before
    /// an old one is closed, so that no connection is refused in between. After [`Listeners::close`] nothing happens.
    ///
    /// Those that could not be opened are answered; the others are served all the same, and an old version of such a
    /// listener, if there is one, goes on. Following the same snapshot again tries them again.
    #[must_use = "a listener that could not be opened serves nobody"]
    pub fn follow<F>(&mut self, snapshot: &Snapshot, mut serve: F) -> Vec<ListenError>
    where
        F: FnMut(Socket, &ListenerHandle) -> io::Result<()>,
    {
        if self.closed {
            return Vec::new();
        }
        self.hand_on(snapshot);
        self.close_gone(snapshot);
        let listeners = snapshot.listeners().iter();
        listeners
            .filter_map(|(name, listener)| self.take(name, listener, &mut serve).err())
            .collect()
    }

    /// A listener that comes where another one goes gets its sockets.
    fn hand_on(&mut self, snapshot: &Snapshot) {
        for (name, listener) in snapshot.listeners() {
            let wanted = wanted(listener);
            if wanted.0.is_empty() || self.running.contains_key(name) {
                continue;
            }
            let gone = self.running.iter().find(|(known, running)| {
                running.wanted == wanted && !snapshot.listeners().contains_key(*known)
            });
            let Some(gone) = gone.map(|(known, _)| known.clone()) else {
                continue;
            };
            if let Some(running) = self.running.remove(&gone) {
                tracing::info!(from = %gone, to = %name, "Sockets handed on");
                self.status.rename(&gone, name);
                self.running.insert(name.clone(), running);
            }
        }
    }

    fn close_gone(&mut self, snapshot: &Snapshot) {
        let gone: Vec<Name> = self
            .running
            .keys()
            .filter(|name| !snapshot.listeners().contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            if let Some(running) = self.running.remove(&name) {
                tracing::info!(listener = %name, "Listener removed");
                self.retire(running.handle);
                self.status.unlist(&name);
                self.status.lock().counts.removed += 1;
            }
        }
    }

    fn take<F>(
        &mut self,
        name: &Name,
        listener: &Arc<Listener>,
        serve: &mut F,
    ) -> Result<(), ListenError>
    where
        F: FnMut(Socket, &ListenerHandle) -> io::Result<()>,
    {
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
                self.status.lock().counts.modified += 1;
                return Ok(());
            }
        }
        self.open(name, listener, wanted, serve)
    }

    /// Opens a listener on all of its addresses before the old one is closed.
    fn open<F>(
        &mut self,
        name: &Name,
        listener: &Arc<Listener>,
        wanted: Wanted,
        serve: &mut F,
    ) -> Result<(), ListenError>
    where
        F: FnMut(Socket, &ListenerHandle) -> io::Result<()>,
    {
        let shares = |old: &Running| old.wanted.0.iter().any(|held| wanted.0.contains(held));
        let clash = self.running.get(name).is_some_and(shares);
        if clash && let Some(old) = self.running.remove(name) {
            // The same address with other options cannot be opened twice: the old socket goes first.
            self.status.unlist(name);
            self.retire(old.handle);
        }
        let failed = |address: &Address, source| ListenError {
            listener: name.clone(),
            address: address.clone(),
            source,
        };
        let sockets = wanted.0.iter().map(|address| {
            let socket = bind(address, &wanted.1);
            socket.map_err(|source| failed(address, source))
        });
        let sockets = sockets.collect::<Result<Vec<_>, _>>();
        let sockets = sockets.inspect_err(|_| self.status.lock().counts.failed += 1)?;
        let handle =
            ListenerHandle::new(listener.clone(), self.stats.clone(), self.observer.clone());
        handle.hand_over_by(&self.directory);
        let mut bound = Vec::new();
        for socket in sockets {
            let address = socket.address().clone();
            serve(socket, &handle).map_err(|source| {
                handle.close();
                failed(&address, source)
            })?;
            bound.push(address);
        }
        self.directory.add(&handle);
        let running = Running {
            listener: listener.clone(),
            handle,
            wanted,
        };
        let old = self.running.insert(name.clone(), running);
        self.status.opened(name, bound, clash || old.is_some());
        if let Some(old) = old {
            self.retire(old.handle);
        }
        Ok(())
    }

    /// Closes a listener that is no longer wanted, and lets its connections go.
    fn retire(&self, handle: ListenerHandle) {
        self.directory.remove(&handle);
        handle.close();
        handle.drain(Drain::Gradual(self.drain_time));
        let mut status = self.status.lock();
        status.forget_idle();
        status.retired.push(handle);
    }

    /// The listeners that run, by name.
    pub fn handles(&self) -> impl Iterator<Item = (&Name, &ListenerHandle)> {
        let running = self.running.iter();
        running.map(|(name, running)| (name, &running.handle))
    }

    /// What is open where, and what became of listeners so far.
    pub fn status(&self) -> &ListenersStatus {
        &self.status
    }

    /// Stops accepting for good. Connections that wait to be accepted are served, open ones live on.
    pub fn close(&mut self) {
        self.closed = true;
        for (name, running) in &self.running {
            running.handle.close();
            self.status.unlist(name);
        }
    }

    /// [Closes](Self::close) and lets all connections go: idle ones at once, the others when their requests are done, at the
    /// latest after `within`. Those that took longer and were cut off are counted.
    pub async fn finish(mut self, within: Duration) -> u32 {
        self.close();
        let mut handles = std::mem::take(&mut self.status.lock().retired);
        handles.extend(self.running.into_values().map(|running| running.handle));
        for handle in &handles {
            handle.drain(Drain::Now);
        }
        let gone = async {
            for handle in &handles {
                handle.closed().await;
                handle.idle().await;
            }
        };
        if tokio::time::timeout(within, gone).await.is_ok() {
            return 0;
        }
        handles.iter().for_each(ListenerHandle::abort);
        handles.iter().map(ListenerHandle::connections).sum()
    }
}

impl Default for Listeners {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

fn wanted(listener: &Listener) -> Wanted {
    let config = listener.config();
    let addresses = std::iter::once(&config.address).chain(&config.additional_addresses);
    // Without a socket it only gets what others hand over.
    let bound = addresses.filter(|_| config.bind_to_port);
    (bound.cloned().collect(), BindOptions::from(&**config))
}

/// What is open where, and what became of listeners so far. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct ListenersStatus(Arc<Mutex<Status>>);

#[derive(Debug, Default)]
struct Status {
    addresses: BTreeMap<Name, Vec<Address>>,
    counts: ListenerCounts,
    /// Closed listeners that may still have connections.
    retired: Vec<ListenerHandle>,
}

/// Counters of listeners; each field is a statistic `listener_manager.*` of Envoy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerCounts {
    /// Listeners that were new (`listener_added`).
    pub added: u64,
    /// Listeners that replaced an older version (`listener_modified`).
    pub modified: u64,
    /// Listeners that are no longer configured (`listener_removed`).
    pub removed: u64,
    /// Sockets opened, each counted once however many workers share it (`listener_create_success`).
    pub opened: u64,
    /// Listeners whose sockets could not be had (`listener_create_failure`).
    pub failed: u64,
    /// Removed listeners that still have connections (`total_listeners_draining`, a gauge).
    pub draining: u64,
}

impl ListenersStatus {
    /// The addresses of each listener that has sockets, with the ports that the system chose.
    pub fn addresses(&self) -> BTreeMap<Name, Vec<Address>> {
        self.lock().addresses.clone()
    }

    /// What became of listeners.
    pub fn counts(&self) -> ListenerCounts {
        let mut status = self.lock();
        status.forget_idle();
        ListenerCounts {
            draining: status.retired.len() as u64,
            ..status.counts
        }
    }

    fn opened(&self, name: &Name, addresses: Vec<Address>, modified: bool) {
        let mut status = self.lock();
        status.counts.opened += addresses.len() as u64;
        match modified {
            true => status.counts.modified += 1,
            false => status.counts.added += 1,
        }
        if addresses.is_empty() {
            status.addresses.remove(name);
        } else {
            status.addresses.insert(name.clone(), addresses);
        }
    }

    fn unlist(&self, name: &Name) {
        self.lock().addresses.remove(name);
    }

    fn rename(&self, from: &Name, to: &Name) {
        let mut status = self.lock();
        if let Some(addresses) = status.addresses.remove(from) {
            status.addresses.insert(to.clone(), addresses);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Each critical section leaves the value whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    fn forget_idle(&mut self) {
        self.retired.retain(ListenerHandle::lives);
    }
}
