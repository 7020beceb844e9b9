//! Spares the task of a connection a turn for nothing.
//!
//! Whoever takes a piece of an HTTP/1 response from hyper wakes the task of the connection, which may have more pieces. After
//! the last one it has nothing to do, and would be polled once more for each response. So hyper is given a waker of ours,
//! which can be held back on a thread while a piece is taken there; what was held back is decided upon afterwards.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

thread_local! {
    static WAKES: Cell<Wakes> = const { Cell::new(Wakes::Pass) };
}

/// What this thread does with wakes of connections' tasks.
#[derive(Default)]
enum Wakes {
    /// They go through.
    #[default]
    Pass,
    /// The next one is held back.
    Hold,
    /// One is held back.
    Held(Arc<Gate>),
}

/// The waker that hyper sees.
struct Gate {
    task: Waker,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        // A thread that ends holds nothing back.
        let wakes = WAKES.try_with(Cell::take).unwrap_or_default();
        match wakes {
            Wakes::Hold => WAKES.set(Wakes::Held(self)),
            // Only one task is ever held back; all others are woken.
            other => {
                let _ = WAKES.try_with(|wakes| wakes.set(other));
                self.task.wake_by_ref();
            }
        }
    }
}

/// A wake that was held back; passed on when it is dropped.
pub(super) struct Held(Option<Arc<Gate>>);

impl Held {
    /// It was for nothing.
    pub(super) fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.task.wake_by_ref();
        }
    }
}

/// Ends the holding back also when what runs meanwhile panics.
struct Holding;

impl Holding {
    fn end(&self) -> Held {
        match WAKES.take() {
            Wakes::Held(gate) => Held(Some(gate)),
            Wakes::Hold | Wakes::Pass => Held(None),
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Runs `f`, and holds back the wake of a connection's task that it causes on this thread.
pub(super) fn hold<T>(f: impl FnOnce() -> T) -> (T, Held) {
    WAKES.set(Wakes::Hold);
    let holding = Holding;
    let result = f();
    let held = holding.end();
    (result, held)
}

/// A connection whose wakes can be held back.
pub(super) struct Quiet<T> {
    connection: T,
    /// What the connection was polled with last, and the task that it stands for.
    waker: Option<(Waker, Waker)>,
}

impl<T> Quiet<T> {
    pub(super) fn new(connection: T) -> Self {
        Self {
            connection,
            waker: None,
        }
    }
}

impl<T: Future + Unpin> Future for Quiet<T> {
    type Output = T::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T::Output> {
        let this = self.get_mut();
        let waker = match &mut this.waker {
            Some((waker, task)) if task.will_wake(cx.waker()) => waker,
            other => {
                let task = cx.waker().clone();
                let gate = Arc::new(Gate { task: task.clone() });
                &mut other.insert((gate.into(), task)).0
            }
        };
        Pin::new(&mut this.connection).poll(&mut Context::from_waker(waker))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task's wakes, and the waker that its connection has.
    fn task() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        let task = Waker::from(count.clone());
        (count, Arc::new(Gate { task }).into())
    }

    fn wakes(count: &Count) -> usize {
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_wake_is_held_back_until_it_is_known_what_it_was_for() {
        let (count, waker) = task();
        waker.wake_by_ref();
        assert_eq!(wakes(&count), 1, "nothing is held back");
        let ((), held) = hold(|| waker.wake_by_ref());
        assert_eq!(wakes(&count), 1);
        held.forget();
        assert_eq!(wakes(&count), 1, "it was for nothing");
        let ((), held) = hold(|| waker.wake_by_ref());
        drop(held);
        assert_eq!(wakes(&count), 2, "it was for something");
        let ((), held) = hold(|| ());
        drop(held);
        waker.wake();
        assert_eq!(wakes(&count), 3, "nothing is held back any more");
    }

    #[test]
    fn no_other_wake_is_lost() {
        let (mine, waker) = task();
        let (other, further) = task();
        let ((), held) = hold(|| {
            waker.wake_by_ref();
            further.wake_by_ref();
            std::thread::scope(|scope| {
                scope.spawn(|| waker.wake_by_ref());
            });
        });
        held.forget();
        assert_eq!(
            (wakes(&mine), wakes(&other)),
            (1, 1),
            "those of another task, and of another thread, went through"
        );
    }

    #[test]
    fn a_panic_ends_the_holding_back() {
        let (count, waker) = task();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            hold(|| {
                waker.wake_by_ref();
                panic!("on purpose");
            })
        }));
        assert!(result.is_err());
        assert_eq!(wakes(&count), 1, "what was held back");
        waker.wake();
        assert_eq!(wakes(&count), 2);
    }
}
