//! What a listener and one of its connections know of one another.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
    time::Instant,
};

use crate::{snapshot, sync::lock};

/// What a connection is told to do. Later ones include earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Command {
    /// Go on.
    Stay,
    /// Go after a [`Plan`].
    Go,
    /// Stop in the middle.
    Abort,
}

/// When a connection goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// From then on the peer is told: `connection: close` with the next response, or GOAWAY.
    pub(crate) tell: Instant,
    /// From then on the connection is closed as soon as it is idle.
    pub(crate) close: Instant,
}

/// Shared by a connection's task, its requests and its listener.
#[derive(Debug, Default)]
pub(crate) struct Link {
    command: AtomicU8,
    plan: Mutex<Option<Plan>>,
    waker: Mutex<Option<Waker>>,
    /// Requests in flight.
    active: AtomicU32,
    /// Requests begun.
    requests: AtomicU64,
    /// Requests that were refused before they began.
    refused: AtomicU64,
    /// Responses tell the peer that the connection closes.
    closing: AtomicBool,
    assigned: Mutex<Option<(Arc<snapshot::Listener>, usize)>>,
    received: AtomicU64,
    sent: AtomicU64,
    /// HTTP/1: a head declared its body in two ways.
    pub(super) both: super::heads::Both,
    /// The peer has sent all that it will.
    eof: AtomicBool,
}

impl Link {
    pub(crate) fn command(&self) -> Command {
        match self.command.load(Ordering::Acquire) {
            0 => Command::Stay,
            1 => Command::Go,
            _ => Command::Abort,
        }
    }

    pub(crate) fn plan(&self) -> Option<Plan> {
        *lock(&self.plan)
    }

    pub(crate) fn go(&self, plan: Plan) {
        {
            let mut known = lock(&self.plan);
            // A second order may only hasten.
            *known = Some(match *known {
                Some(old) => Plan {
                    tell: old.tell.min(plan.tell),
                    close: old.close.min(plan.close),
                },
                None => plan,
            });
        }
        self.order(Command::Go);
    }

    pub(crate) fn abort(&self) {
        self.order(Command::Abort);
    }

    fn order(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::AcqRel);
        self.wake();
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn register(&self, waker: &Waker) {
        *lock(&self.waker) = Some(waker.clone());
    }

    pub(crate) fn assign(&self, listener: Arc<snapshot::Listener>, chain: usize) {
        *lock(&self.assigned) = Some((listener, chain));
    }

    pub(crate) fn assigned(&self) -> Option<(Arc<snapshot::Listener>, usize)> {
        lock(&self.assigned).clone()
    }

    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Acquire)
    }

    /// A request begins; returns how many have begun so far. Called by the connection's task only.
    pub(crate) fn begin(&self) -> u64 {
        self.active.fetch_add(1, Ordering::Relaxed);
        let begun = self.requests.load(Ordering::Relaxed) + 1;
        self.requests.store(begun, Ordering::Relaxed);
        begun
    }

    /// A request ends; whether it was the last in flight.
    pub(crate) fn end(&self) -> bool {
        self.active.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A request was refused before it began.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests whose heads the codec has handed over.
    pub(crate) fn handed_over(&self) -> u64 {
        self.requests() + self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn close_soon(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts bytes read; none means the end. Called by the one that reads.
    pub(crate) fn read(&self, count: usize) {
        if count == 0 {
            self.eof.store(true, Ordering::Relaxed);
        }
        let total = self.received() + count as u64;
        self.received.store(total, Ordering::Relaxed);
    }

    /// Counts bytes written. Called by the one that writes.
    pub(crate) fn wrote(&self, count: usize) {
        let total = self.sent() + count as u64;
        self.sent.store(total, Ordering::Relaxed);
    }

    pub(crate) fn is_eof(&self) -> bool {
        self.eof.load(Ordering::Relaxed)
    }
}
