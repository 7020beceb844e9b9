//! Records that a thread keeps for further requests, so that a request allocates none.

use std::{cell::RefCell, sync::Arc};

use super::record::Record;

/// Records that a thread keeps.
const POOLED: usize = 256;

thread_local! {
    static POOL: RefCell<Vec<Arc<Record>>> = const { RefCell::new(Vec::new()) };
}

/// A record of before that nobody else holds.
pub(super) fn take() -> Option<Arc<Record>> {
    POOL.with_borrow_mut(Vec::pop)
        .filter(|record| Arc::strong_count(record) == 1)
}

/// Keeps a record for a further request, unless somebody else still holds it.
pub(super) fn keep(record: Arc<Record>) {
    if Arc::strong_count(&record) != 1 {
        return;
    }
    // A thread that ends keeps nothing any more.
    let left = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() >= POOLED {
            return Some(record);
        }
        pool.push(record);
        None
    });
    // Not before the pool is free again: what a record holds may end another request.
    drop(left);
}

#[cfg(test)]
mod tests {
    use http::Version;

    use super::*;
    use crate::telemetry::{clock, observer::Observer, record::Ending};

    /// A request that ends with whatever holds it.
    struct Open(Option<Arc<Record>>);

    impl Open {
        fn begin() -> Self {
            Self(Some(Record::begin(None, Version::HTTP_11, false)))
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            let record = self.0.take().expect("dropped once");
            record.finish(Ending::Dropped, &Observer::new());
        }
    }

    #[test]
    fn a_request_may_end_with_its_thread() {
        thread_local!(static LAST: RefCell<Option<Open>> = const { RefCell::new(None) });
        let thread = std::thread::spawn(|| {
            // The clock of tests lives in the thread too, and is to go last.
            clock::now();
            LAST.with_borrow(|last| assert!(last.is_none()));
            // The pool comes into being after it, and goes before it.
            drop(Open::begin());
            LAST.set(Some(Open::begin()));
        });
        thread.join().expect("no panic");
    }
}
