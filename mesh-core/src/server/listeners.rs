//! The open listeners of a program: its sockets follow the snapshot.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use super::{
    BindOptions, ConnObserver, Directory, Drain, ListenerHandle, ServerStats, Socket, Unobserved,
    bind::{self, Door},
};
use crate::{
    model::{Address, Name},
    snapshot::{Listener, Snapshot},
    sync::lock,
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
    sockets: Vec<Held>,
}

/// The sockets of all workers on one address.
#[derive(Clone)]
struct Held {
    /// What was asked for; the sockets are kept as long as this stays.
    wanted: Wanted,
    /// With the port that the system chose.
    address: Address,
    door: Door,
}

/// A socket that a listener asks for.
#[derive(Clone, PartialEq, Eq)]
struct Wanted {
    address: Address,
    options: BindOptions,
}

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
    /// A listener keeps the sockets of the addresses that it keeps, one that takes the place of another on the same addresses
    /// gets its sockets, and new sockets are opened before old ones are closed, so that no connection is refused in between. An
    /// address that goes to another listener, or gets other options, needs [`BindOptions::reuse_port`] before and after for
    /// that. After [`Listeners::close`] nothing happens.
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
        let mut given_up = Vec::new();
        let mut failed = Vec::new();
        for (name, listener) in snapshot.listeners() {
            match self.take(name, listener, &given_up, &mut serve) {
                Ok(mut old) => given_up.append(&mut old),
                Err(error) => {
                    self.status.lock().counts.failed += 1;
                    failed.push(error);
                }
            }
        }
        for held in given_up {
            held.door.close();
        }
        self.close_gone(snapshot);
        failed
    }

    /// A listener that comes where another one goes gets its sockets.
    fn hand_on(&mut self, snapshot: &Snapshot) {
        for (name, listener) in snapshot.listeners() {
            let wanted = wanted(listener);
            if wanted.is_empty() || self.running.contains_key(name) {
                continue;
            }
            let gone = self.running.iter().find(|(known, running)| {
                let held = running.sockets.iter().map(|held| &held.wanted);
                held.eq(&wanted) && !snapshot.listeners().contains_key(*known)
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

    /// Brings one listener into force; the sockets that it no longer wants are for the caller to close.
    fn take<F>(
        &mut self,
        name: &Name,
        listener: &Arc<Listener>,
        given_up: &[Held],
        serve: &mut F,
    ) -> Result<Vec<Held>, ListenError>
    where
        F: FnMut(Socket, &ListenerHandle) -> io::Result<()>,
    {
        let old = self.running.get(name);
        if old.is_some_and(|old| Arc::ptr_eq(&old.listener, listener)) {
            return Ok(Vec::new());
        }
        let failed = |address: &Address, source| ListenError {
            listener: name.clone(),
            address: address.clone(),
            source,
        };
        let mut held = old.map_or_else(Vec::new, |old| old.sockets.clone());
        let (mut sockets, mut fresh) = (Vec::new(), Vec::new());
        for wanted in wanted(listener) {
            if let Some(index) = held.iter().position(|held| held.wanted == wanted) {
                sockets.push(held.swap_remove(index));
                continue;
            }
            let socket = self.bind(&wanted, given_up);
            let socket = socket.map_err(|source| failed(&wanted.address, source))?;
            sockets.push(Held {
                wanted,
                address: socket.address().clone(),
                door: socket.door.clone(),
            });
            fresh.push(socket);
        }
        let handle = match old {
            Some(old) => old.handle.clone(),
            None => self.new_handle(listener),
        };
        let opened = fresh.len() as u64;
        let doors: Vec<Door> = fresh.iter().map(|socket| socket.door.clone()).collect();
        for socket in fresh {
            let address = socket.address().clone();
            serve(socket, &handle).map_err(|source| {
                doors.iter().for_each(Door::close);
                failed(&address, source)
            })?;
        }
        if !held.is_empty() {
            // Nobody tells which connections came by the addresses that are given up.
            handle.let_go(Drain::Gradual(self.drain_time));
        }
        self.put_in_force(name, listener, handle, sockets, opened);
        Ok(held)
    }

    /// Opens a socket, beside those that this process has on the port.
    fn bind(&self, wanted: &Wanted, given_up: &[Held]) -> io::Result<Socket> {
        let port = |address: &Address| address.socket().map(|addr| addr.port());
        let running = self.running.values().flat_map(|running| &running.sockets);
        let mut held = running.chain(given_up);
        let port_wanted = port(&wanted.address).filter(|port| *port != 0);
        match port_wanted.is_some() && held.any(|held| port(&held.address) == port_wanted) {
            true => bind::bind_beside(&wanted.address, &wanted.options),
            false => bind::bind(&wanted.address, &wanted.options),
        }
    }

    fn new_handle(&self, listener: &Arc<Listener>) -> ListenerHandle {
        let handle =
            ListenerHandle::new(listener.clone(), self.stats.clone(), self.observer.clone());
        handle.hand_over_by(&self.directory);
        handle
    }

    fn put_in_force(
        &mut self,
        name: &Name,
        listener: &Arc<Listener>,
        handle: ListenerHandle,
        sockets: Vec<Held>,
        opened: u64,
    ) {
        handle.replace(listener.clone());
        self.directory.remove(&handle);
        self.directory.add(&handle);
        let addresses = sockets.iter().map(|held| held.address.clone()).collect();
        let running = Running {
            listener: listener.clone(),
            handle,
            sockets,
        };
        let modified = self.running.insert(name.clone(), running).is_some();
        self.status.opened(name, addresses, (opened, modified));
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

/// The sockets that a listener asks for.
fn wanted(listener: &Listener) -> Vec<Wanted> {
    let config = listener.config();
    let addresses = std::iter::once(&config.address).chain(&config.additional_addresses);
    // Without a socket it only gets what others hand over.
    let bound = addresses.filter(|_| config.bind_to_port);
    let wanted = bound.map(|address| Wanted {
        address: address.clone(),
        options: BindOptions::from(&**config),
    });
    wanted.collect()
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

    /// A listener is in force on `addresses`, for which so many sockets were opened.
    fn opened(&self, name: &Name, addresses: Vec<Address>, (opened, modified): (u64, bool)) {
        let mut status = self.lock();
        status.counts.opened += opened;
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
        lock(&self.0)
    }
}

impl Status {
    fn forget_idle(&mut self) {
        self.retired.retain(ListenerHandle::lives);
    }
}
