//! The cell that holds the newest snapshot, and those who read it or wait for the next.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use arc_swap::{ArcSwap, Cache};

use super::Snapshot;
use crate::sync::lock;

/// The newest snapshot. Cloning shares.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotCell {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwap<Snapshot>,
    /// Only those who wait for the next snapshot take this lock, never a request.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each under the number of its watch, which takes it back when it goes.
    wakers: Vec<(u64, Waker)>,
    /// The number of the newest watch.
    last: u64,
}

impl SnapshotCell {
    /// The newest snapshot.
    pub(super) fn load(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// A reader that costs one atomic load as long as nothing changed.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(CellRef(self.shared.clone())),
        }
    }

    /// Waits for snapshots newer than those seen.
    pub(super) fn watch(&self) -> Watch {
        let mut waiting = lock(&self.shared.waiting);
        waiting.last += 1;
        Watch {
            cell: self.clone(),
            number: waiting.last,
            seen: None,
        }
    }

    pub(super) fn store(&self, snapshot: Snapshot) {
        self.shared.current.store(Arc::new(snapshot));
        let wakers = std::mem::take(&mut lock(&self.shared.waiting).wakers);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// Reads the newest snapshot on the request path.
#[derive(Clone, Debug)]
pub struct Reader {
    cache: Cache<CellRef, Arc<Snapshot>>,
}

#[derive(Clone, Debug)]
struct CellRef(Arc<Shared>);

impl std::ops::Deref for CellRef {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &Self::Target {
        &self.0.current
    }
}

impl Reader {
    /// The newest snapshot.
    pub fn load(&mut self) -> &Arc<Snapshot> {
        self.cache.load()
    }
}

/// Waits for snapshots; skips those that were replaced before it looked.
#[derive(Debug)]
pub struct Watch {
    cell: SnapshotCell,
    /// Differs from watch to watch of a cell.
    number: u64,
    seen: Option<u64>,
}

impl Watch {
    /// The next snapshot that was not seen yet; the first call answers at once if there is one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Arc<Snapshot> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<Arc<Snapshot>> {
        // Register before looking: a store between the two then wakes instead of being missed.
        {
            let wakers = &mut lock(&self.cell.shared.waiting).wakers;
            match wakers.iter_mut().find(|(number, _)| *number == self.number) {
                Some((_, waker)) => waker.clone_from(context.waker()),
                None => wakers.push((self.number, context.waker().clone())),
            }
        }
        let snapshot = self.cell.load();
        if snapshot.generation() > self.seen.unwrap_or(0) {
            self.seen = Some(snapshot.generation());
            return Poll::Ready(snapshot);
        }
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let wakers = &mut lock(&self.cell.shared.waiting).wakers;
        wakers.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_no_longer_waits_leaves_nothing_behind() {
        let cell = SnapshotCell::default();
        let mut context = Context::from_waker(Waker::noop());
        let mut stays = cell.watch();
        for _ in 0..10 {
            assert!(stays.poll_changed(&mut context).is_pending());
            assert!(cell.watch().poll_changed(&mut context).is_pending());
        }
        assert_eq!(lock(&cell.shared.waiting).wakers.len(), 1);
    }
}
