//! The one way in which locks are taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also after a panic of who held it: no critical section leaves its value half changed.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
