//! A listener while it runs: its newest version, its connections, and how they go.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    ConnObserver, Directory, HttpStats, ListenerStats, ServerStats, TcpStats,
    link::{Link, Plan},
    stats::FilterStats,
};
use crate::{
    model::{FilterChain, Name, Network},
    snapshot::{self, ConnFacts},
    sync::lock,
    telemetry::clock::{self, now},
};

/// A listener while it runs, shared by its accept loops and connections on all workers. Cloning shares.
#[derive(Clone)]
pub struct ListenerHandle(Arc<Shared>);

struct Shared {
    registry: Arc<ServerStats>,
    observer: Arc<dyn ConnObserver>,
    /// Where connections for other addresses are handed to. Weak, since it knows this listener too.
    siblings: OnceLock<Weak<Directory>>,
    state: Mutex<State>,
    closed: AtomicBool,
    /// Connections open or being opened.
    open: AtomicU32,
    /// Accept loops that run.
    loops: AtomicU32,
    changed: Notify,
}

struct State {
    version: Arc<Version>,
    links: HashMap<u64, Arc<Link>>,
    drain: Option<Drain>,
}

impl State {
    fn let_go(&self, drain: Drain) {
        for link in self.links.values() {
            link.go(drain.plan());
        }
    }
}

/// A version of a listener with what its connections need of it.
pub(super) struct Version {
    pub(super) listener: Arc<snapshot::Listener>,
    /// Counted under its address.
    pub(super) stats: Arc<ListenerStats>,
    /// Of its listener filters; `None`: it has none.
    pub(super) filters: Option<Arc<FilterStats>>,
    chains: Vec<Chain>,
}

/// What is counted of a filter chain.
#[derive(Clone)]
pub(super) enum Chain {
    Http(Arc<HttpStats>),
    Tcp(Arc<TcpStats>),
    Answer,
}

/// How connections are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drain {
    /// Over a span of time: each connection is told at a moment of its own, by `connection: close` with its next response or
    /// by GOAWAY, so that clients do not all come back at once. At the end of the span connections close when idle.
    Gradual(Duration),
    /// With what they do next: the peer is told with its next response, or by GOAWAY. Idle connections stay.
    Next,
    /// Now: idle connections close at once, others when their requests are done.
    Now,
}

/// How long connections stay that nobody uses, after [`Drain::Next`].
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

impl ListenerHandle {
    /// A listener that serves `listener`. Its counters are those of its address in `stats`.
    pub fn new(
        listener: Arc<snapshot::Listener>,
        stats: Arc<ServerStats>,
        observer: Arc<dyn ConnObserver>,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                version: Arc::new(Version::new(listener, &stats)),
                links: HashMap::new(),
                drain: None,
            }),
            registry: stats,
            observer,
            siblings: OnceLock::new(),
            closed: AtomicBool::new(false),
            open: AtomicU32::new(0),
            loops: AtomicU32::new(0),
            changed: Notify::new(),
        }))
    }

    /// Hands connections that were redirected (`use_original_dst`) to the listener of their original address in `directory`.
    /// Said once.
    pub(super) fn hand_over_by(&self, directory: &Arc<Directory>) {
        let _ = self.0.siblings.set(Arc::downgrade(directory));
    }

    /// The other listener that a connection for `addr` belongs to.
    pub(super) fn sibling(&self, addr: SocketAddr) -> Option<Self> {
        let directory = self.0.siblings.get()?.upgrade()?;
        directory.find(addr).filter(|other| !other.is(self))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its name.
    pub fn name(&self) -> Name {
        self.version().listener.config().name.clone()
    }

    /// The version that new connections get.
    pub fn current(&self) -> Arc<snapshot::Listener> {
        self.lock().version.listener.clone()
    }

    /// What is counted of it.
    pub fn stats(&self) -> Arc<ListenerStats> {
        self.version().stats.clone()
    }

    /// Connections that are open now.
    pub fn connections(&self) -> u32 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Serves `listener` from now on. Connections on a filter chain that stays as it is live on; the others are told to go
    /// (`connection: close` with the next response, GOAWAY), and close when idle after the chain's drain timeout. TCP
    /// connections live on to their end. The socket stays open.
    pub fn replace(&self, listener: Arc<snapshot::Listener>) {
        let mut state = self.lock();
        if Arc::ptr_eq(&state.version.listener, &listener) {
            return;
        }
        state.version = Arc::new(Version::new(listener.clone(), &self.0.registry));
        let now = now();
        let mut kept = HashMap::new();
        for link in state.links.values() {
            let Some((old, chain)) = link.assigned() else {
                continue;
            };
            let (stays, timeout) = *kept.entry((Arc::as_ptr(&old), chain)).or_insert_with(|| {
                (
                    same_chain(&old, &listener, chain),
                    drain_timeout(&old, chain),
                )
            });
            if !stays {
                link.go(Plan {
                    tell: now,
                    close: clock::after(now, timeout),
                });
            }
        }
    }

    /// Stops accepting. Connections that wait in the accept queues are accepted first, then the sockets are closed.
    /// Open connections live on; see [`ListenerHandle::drain`].
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Lets all connections go, and those that are accepted from now on.
    pub fn drain(&self, drain: Drain) {
        let mut state = self.lock();
        state.drain = Some(drain);
        state.let_go(drain);
    }

    /// Lets the connections go that are open now.
    pub(super) fn let_go(&self, drain: Drain) {
        self.lock().let_go(drain);
    }

    /// Lets connections that are accepted from now on stay again.
    pub fn stay(&self) {
        self.lock().drain = None;
    }

    /// Ends all connections in the middle of whatever they do.
    pub fn abort(&self) {
        for link in self.lock().links.values() {
            link.abort();
        }
    }

    /// Waits until all accept loops have ended, after [`ListenerHandle::close`].
    pub async fn closed(&self) {
        self.wait(|shared| shared.loops.load(Ordering::Acquire) == 0)
            .await;
    }

    /// Waits until no connection is open.
    pub async fn idle(&self) {
        self.wait(|shared| shared.open.load(Ordering::Acquire) == 0)
            .await;
    }

    /// Whether it accepts, or has connections.
    pub(super) fn lives(&self) -> bool {
        let count = |of: &AtomicU32| of.load(Ordering::Acquire) > 0;
        count(&self.0.loops) || count(&self.0.open)
    }

    async fn wait(&self, done: impl Fn(&Shared) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(&self.0) {
                return;
            }
            changed.await;
        }
    }

    pub(super) async fn closing(&self) {
        self.wait(|shared| shared.closed.load(Ordering::Acquire))
            .await;
    }

    pub(crate) fn observer(&self) -> &dyn ConnObserver {
        &*self.0.observer
    }

    pub(super) fn version(&self) -> Arc<Version> {
        self.lock().version.clone()
    }

    pub(super) fn loop_begins(&self) -> LoopGuard {
        self.0.loops.fetch_add(1, Ordering::AcqRel);
        LoopGuard(self.clone())
    }

    /// Counts a connection in; `None` over the limit.
    pub(super) fn open(&self, id: u64) -> Option<OpenGuard> {
        let mut state = self.lock();
        let limit = state.version.listener.config().connection_limit;
        let stats = state.version.stats.clone();
        if limit.is_some_and(|limit| self.connections() >= limit) {
            stats.downstream_cx_overflow.add(1);
            return None;
        }
        self.0.open.fetch_add(1, Ordering::AcqRel);
        let link = Arc::new(Link::default());
        if let Some(drain) = state.drain {
            link.go(drain.plan());
        }
        state.links.insert(id, link.clone());
        Some(OpenGuard {
            handle: self.clone(),
            stats,
            link,
            id,
            served: None,
        })
    }

    /// Chooses the filter chain of a connection, in the newest version.
    pub(super) fn assign(
        &self,
        link: &Link,
        facts: &ConnFacts<'_>,
    ) -> (Arc<Version>, Option<usize>) {
        // Under the lock, so that a replacement sees either the assignment or none and the newest version is taken.
        let state = self.lock();
        let version = state.version.clone();
        let chain = version.listener.filter_chains().find(facts);
        if let Some(chain) = chain {
            link.assign(version.listener.clone(), chain);
        }
        (version, chain)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

impl fmt::Debug for ListenerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerHandle")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Drain {
    fn plan(self) -> Plan {
        let now = now();
        match self {
            Self::Next => Plan {
                tell: now,
                close: now + FAR,
            },
            Self::Now => Plan {
                tell: now,
                close: now,
            },
            Self::Gradual(span) => Plan {
                tell: clock::after(now, span.mul_f64(crate::world::random::<f64>())),
                close: clock::after(now, span),
            },
        }
    }
}

impl Version {
    fn new(listener: Arc<snapshot::Listener>, registry: &ServerStats) -> Self {
        let chains = listener.chains().map(|(chain, _)| match &chain.network {
            Network::Http(manager) => Chain::Http(registry.http(&manager.stat_prefix)),
            Network::Tcp(proxy) => Chain::Tcp(registry.tcp(&proxy.stat_prefix)),
            Network::Answer(_) => Chain::Answer,
        });
        let address: Name = listener.config().address.to_string().into();
        let filters = &listener.config().listener_filters;
        let filters = (!filters.is_empty()).then(|| Arc::new(registry.filters(filters)));
        Self {
            chains: chains.collect(),
            stats: registry.listener(&address),
            filters,
            listener,
        }
    }

    pub(super) fn chain(&self, index: usize) -> &Chain {
        &self.chains[index]
    }
}

/// Whether connections on the chain `index` of `old` may live on under `new`: it has that chain, at whatever place.
fn same_chain(old: &snapshot::Listener, new: &snapshot::Listener, index: usize) -> bool {
    let Some((chain, http)) = old.chain(index).map(|chain| (chain, old.http(index))) else {
        return false;
    };
    let same = |(other, routes): (&FilterChain, Option<&Arc<snapshot::Http>>)| {
        let same_routes = match (http, routes) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (old, new) => old.is_none() && new.is_none(),
        };
        same_routes && *other == *chain
    };
    let place = new.chain(index).map(|chain| (chain, new.http(index)));
    place.is_some_and(same) || new.chains().any(same)
}

fn drain_timeout(listener: &snapshot::Listener, index: usize) -> Duration {
    match listener.chain(index).map(|chain| &chain.network) {
        Some(Network::Http(manager)) => manager.drain_timeout,
        _ => Duration::from_secs(5),
    }
}

/// An accept loop that runs.
pub(super) struct LoopGuard(ListenerHandle);

impl Drop for LoopGuard {
    fn drop(&mut self) {
        self.0.0.loops.fetch_sub(1, Ordering::AcqRel);
        self.0.0.changed.notify_waiters();
    }
}

/// A connection that is open.
pub(super) struct OpenGuard {
    pub(super) handle: ListenerHandle,
    /// Where it is counted, whatever the listener's address is by now.
    pub(super) stats: Arc<ListenerStats>,
    pub(super) link: Arc<Link>,
    id: u64,
    /// Since when a filter chain has it: what none takes is not counted, as in Envoy.
    served: Option<Instant>,
}

impl OpenGuard {
    /// Counts the connection, which a filter chain has taken.
    pub(super) fn serve(&mut self) {
        self.served = Some(now());
        self.stats.downstream_cx_total.add(1);
        self.stats.downstream_cx_active.add(1);
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        self.handle.lock().links.remove(&self.id);
        if let Some(since) = self.served {
            let life = now().saturating_duration_since(since);
            self.stats.downstream_cx_active.sub(1);
            self.stats.downstream_cx_destroy.add(1);
            self.stats.downstream_cx_length_ms.record_time(life);
        }
        if shared.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.changed.notify_waiters();
        }
    }
}
