//! The connections of one thread to one endpoint, and the requests that wait for one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::oneshot;

use super::{Protocol, conn::Conn, meter::Counted};
use crate::{Error, model::Priority, sync::lock};

/// Which connections may serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) thread: u32,
    pub(super) endpoint: u64,
    pub(super) generation: u64,
    pub(super) protocol: Protocol,
    pub(super) priority: Priority,
    /// Id of the only downstream connection that it may serve; 0: any.
    pub(super) downstream: u64,
}

/// The connections of one key.
pub(super) struct Host<B> {
    pub(super) key: Key,
    state: Mutex<State<B>>,
}

pub(super) struct State<B> {
    /// HTTP/1: those without a request, the most recent last. HTTP/2: all that take streams.
    pub(super) ready: Vec<Arc<Conn<B>>>,
    waiting: VecDeque<oneshot::Sender<Wake<B>>>,
    /// Those in the queue who have not left.
    live: usize,
    /// Connections on their way.
    connecting: usize,
    /// Requests that one of them will take at once.
    streams: usize,
    /// Connections, those on their way included.
    pub(super) total: usize,
    /// The pool is gone, or forgot this host: nothing is kept any more.
    pub(super) closed: bool,
}

/// Places that a queue has at least, once somebody waits.
const FEW: usize = 16;

/// What a waiting request is told.
pub(super) enum Wake<B> {
    /// This connection is yours.
    Conn(Arc<Conn<B>>),
    /// Look again.
    Retry,
    /// A connection that you might have had failed.
    Failed(Arc<Error>),
}

/// A request that looks for a connection.
pub(super) struct Seeker {
    /// Not a kept HTTP/1 connection: several were found dead.
    pub(super) fresh: bool,
    /// It waited before, so it is the next one.
    pub(super) again: bool,
    /// Requests that a new connection takes at once.
    pub(super) streams: usize,
}

/// What a request without a connection does next.
pub(super) enum Step<B> {
    Use(Arc<Conn<B>>),
    /// Wait, while this connection is made, if one is to be made.
    Wait(oneshot::Receiver<Wake<B>>, Option<Counted>),
    /// The host was forgotten; find it again.
    Gone,
}

impl<B> Host<B> {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            state: Mutex::new(State {
                ready: Vec::new(),
                waiting: VecDeque::new(),
                live: 0,
                connecting: 0,
                streams: 1,
                total: 0,
                closed: false,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<B>> {
        lock(&self.state)
    }

    /// A connection that can take a request.
    pub(super) fn take(&self) -> Option<Arc<Conn<B>>> {
        self.lock().take(self.key.protocol)
    }

    /// What to do without one. `begin` begins a connection if limits allow it, or, so told, if there has to be one.
    pub(super) fn step(
        &self,
        seeker: &Seeker,
        begin: impl FnOnce(bool) -> Option<Counted>,
    ) -> Step<B> {
        let mut state = self.lock();
        if state.closed {
            return Step::Gone;
        }
        let fresh = seeker.fresh && self.key.protocol == Protocol::Http1;
        if !fresh && let Some(conn) = state.take(self.key.protocol) {
            return Step::Use(conn);
        }
        let wake = state.queue(seeker.again);
        state.streams = seeker.streams;
        let begun = match state.is_short() {
            // As in Envoy each worker may have one connection to an endpoint whatever the limit says, or it would starve.
            true => begin(state.total == 0),
            false => None,
        };
        if begun.is_some() {
            state.connecting += 1;
            state.total += 1;
        }
        Step::Wait(wake, begun)
    }

    /// A connection was made; those who wait longest get it, whoever asked for it.
    pub(super) fn connected(&self, conn: Arc<Conn<B>>) {
        let mut state = self.lock();
        state.connecting -= 1;
        if state.closed {
            return;
        }
        if self.key.protocol == Protocol::Http2 {
            state.ready.push(conn);
        } else if let Some(conn) = state.give(conn) {
            state.ready.push(conn);
        }
        state.serve(self.key.protocol);
    }

    /// A connection could not be made; `None`: it was given up. As in Envoy all who wait fail with it. Returns how many.
    pub(super) fn failed(&self, error: Option<&Arc<Error>>) -> u64 {
        let mut state = self.lock();
        state.connecting -= 1;
        state.total -= 1;
        match error {
            Some(error) => state.wake_all(|| Wake::Failed(error.clone())),
            None => {
                state.wake_one();
                0
            }
        }
    }

    /// A connection ended. Returns whether the host is of no use any more.
    pub(super) fn ended(&self, id: u64) -> bool {
        let mut state = self.lock();
        state.remove(id);
        state.total -= 1;
        if state.is_short() {
            state.wake_one();
        }
        state.total == 0 && state.live == 0
    }

    /// One who waited left without having been told anything.
    pub(super) fn left(&self) {
        let mut state = self.lock();
        state.live = state.live.saturating_sub(1);
    }

    /// Places in the queue, those of requests that left among them.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether a connection waits for requests.
    pub(super) fn is_idle(&self, id: u64) -> bool {
        self.lock().is_idle(id)
    }

    /// Takes a connection without requests out, so that no request will find it. `false`: it has one, or is out already.
    pub(super) fn retire(&self, id: u64) -> bool {
        let mut state = self.lock();
        state.is_idle(id) && state.remove(id)
    }

    /// Takes a connection out for good, whether it serves requests or not.
    pub(super) fn drain(&self, id: u64) {
        self.lock().remove(id);
    }

    /// Keeps an HTTP/1 connection; with `offer`, the request that waits longest gets it instead.
    pub(super) fn put(&self, conn: Arc<Conn<B>>, offer: bool) {
        let mut state = self.lock();
        let kept = if offer { state.give(conn) } else { Some(conn) };
        if let Some(conn) = kept
            && !state.closed
        {
            state.ready.push(conn);
        }
        if offer && state.is_short() {
            state.wake_one();
        }
    }

    /// Gives a kept connection to the request that waits longest, if there is one.
    pub(super) fn offer(&self, id: u64) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        let Some(index) = state.ready.iter().position(|conn| conn.id == id) else {
            return;
        };
        let conn = state.ready.remove(index);
        if let Some(conn) = state.give(conn) {
            state.ready.push(conn);
        }
        if state.is_short() {
            state.wake_one();
        }
    }

    /// There may be room for the request that waits longest.
    pub(super) fn wake_next(&self) {
        self.lock().serve(self.key.protocol);
    }
}

impl<B> State<B> {
    fn take(&mut self, protocol: Protocol) -> Option<Arc<Conn<B>>> {
        match protocol {
            Protocol::Http1 => self.take_http1(),
            Protocol::Http2 => {
                self.ready.retain(|conn| !conn.is_closed());
                self.ready.iter().find(|conn| conn.begin_stream()).cloned()
            }
        }
    }

    /// The most recent connection that is ready. One whose task has still to see the end of its last exchange will do, if
    /// nothing but that is awaited.
    fn take_http1(&mut self) -> Option<Arc<Conn<B>>> {
        if self.ready.last()?.is_ready() {
            return self.ready.pop();
        }
        self.ready.retain(|conn| !conn.is_closed());
        let ready = self.ready.iter().rposition(|conn| conn.is_ready());
        let settling = || self.ready.iter().rposition(|conn| !conn.is_doubtful());
        let index = ready.or_else(settling)?;
        Some(self.ready.remove(index))
    }

    /// Gives a connection to the request that waits longest; back if none does.
    fn give(&mut self, mut conn: Arc<Conn<B>>) -> Option<Arc<Conn<B>>> {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.send(Wake::Conn(conn)) {
                // It left, and says so itself.
                Err(Wake::Conn(back)) => conn = back,
                _ => {
                    self.live -= 1;
                    return None;
                }
            }
        }
        Some(conn)
    }

    /// Those who wait longest get what streams there are; the next of them looks whether another connection may be made.
    fn serve(&mut self, protocol: Protocol) {
        while protocol == Protocol::Http2 && self.live > 0 {
            let Some(conn) = self.take(protocol) else {
                break;
            };
            if let Some(conn) = self.give(conn) {
                conn.untake();
                break;
            }
        }
        if self.is_short() {
            self.wake_one();
        }
    }

    /// More wait than the connections on their way will take.
    fn is_short(&self) -> bool {
        self.live > self.connecting.saturating_mul(self.streams)
    }

    /// A place at the end of the queue, or for one who waited before at its `front`. Those who left keep theirs until the queue
    /// is full, or it would grow for as long as no connection gets free.
    fn queue(&mut self, front: bool) -> oneshot::Receiver<Wake<B>> {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiter| !waiter.is_closed());
            // Not again before there are as many new ones.
            self.waiting.reserve(self.waiting.len().max(FEW));
        }
        let (sender, receiver) = oneshot::channel();
        match front {
            true => self.waiting.push_front(sender),
            false => self.waiting.push_back(sender),
        }
        self.live += 1;
        receiver
    }

    fn is_idle(&self, id: u64) -> bool {
        let mut ready = self.ready.iter();
        ready.any(|conn| conn.id == id && conn.streams() == 0)
    }

    fn remove(&mut self, id: u64) -> bool {
        let found = self.ready.iter().position(|conn| conn.id == id);
        found.map(|index| self.ready.remove(index)).is_some()
    }

    fn wake_one(&mut self) {
        while let Some(waiter) = self.waiting.pop_front() {
            if waiter.send(Wake::Retry).is_ok() {
                self.live -= 1;
                return;
            }
        }
    }

    /// Returns how many there were.
    fn wake_all(&mut self, wake: impl Fn() -> Wake<B>) -> u64 {
        let told = self.waiting.drain(..).map(|waiter| waiter.send(wake()));
        // One who no longer waits has no use for it.
        let told = told.filter(Result::is_ok).count();
        self.live -= told;
        told as u64
    }

    /// Forgets all connections; those in use end with their exchange.
    pub(super) fn close(&mut self) -> Vec<Arc<Conn<B>>> {
        self.closed = true;
        self.wake_all(|| Wake::Retry);
        std::mem::take(&mut self.ready)
    }
}
