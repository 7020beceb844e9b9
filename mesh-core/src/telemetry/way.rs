//! What moves within a request, and when: counted without a lock, and without atomic operations that others would wait for.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What moves in one direction. One task at a time writes it, so that plain stores do.
#[derive(Debug, Default)]
pub(super) struct Way {
    bytes: AtomicU64,
    /// Rises when something moves. Those who wait for idleness look at the clock, not those who move data.
    moved: AtomicU64,
}

impl Way {
    pub(super) fn add(&self, length: u64) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.bytes.store(bytes + length, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    #[cfg(any(feature = "net", test))]
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self) {
        let moved = self.moved.load(Ordering::Relaxed);
        self.moved.store(moved + 1, Ordering::Relaxed);
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A time since the start that is set without the lock of the record: nanoseconds and one, 0 for none.
#[derive(Debug, Default)]
pub(super) struct Mark(AtomicU64);

impl Mark {
    pub(super) fn set(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos.saturating_add(1), Ordering::Relaxed);
    }

    #[cfg(feature = "net")]
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Duration> {
        let nanos = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_count_and_marks_tell_whether_they_were_set() {
        let way = Way::default();
        way.add(3);
        way.add(4);
        way.touch();
        assert_eq!((way.bytes(), way.moved()), (7, 1));
        let mark = Mark::default();
        assert_eq!(mark.get(), None);
        for elapsed in [Duration::ZERO, Duration::from_nanos(7)] {
            mark.set(elapsed);
            assert_eq!(mark.get(), Some(elapsed));
        }
    }
}
