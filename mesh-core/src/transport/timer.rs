//! One timer for a connection and all of its requests.
//!
//! A tokio `Sleep` per request costs 250 to 320 ns, since a real upstream always lets it get armed. Here the connection
//! owns one, kept at the earliest deadline; a later deadline does not touch it, and when it fires early it is moved.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::{sync::lock, telemetry::clock::now};

/// When a timer fires that nobody waits for.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// The timer of one connection. Cloning shares.
///
/// The connection's task drives it; its requests wait through [`ConnTimer::deadline`]. Without a driving task (a client
/// call that belongs to no connection) use [`Deadline::alone`].
#[derive(Clone, Default)]
pub(crate) struct ConnTimer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires; `None`: not armed.
    armed: Option<Instant>,
    /// The task that drives, once the sleep knows it.
    driver: Option<Waker>,
    slots: Vec<Slot>,
    free: Vec<usize>,
}

/// One who waits.
struct Slot {
    /// `None`: free, or already told.
    deadline: Option<Instant>,
    /// `None`: the task that drives waits itself, as on HTTP/1.
    waker: Option<Waker>,
}

impl ConnTimer {
    /// A deadline on this timer.
    pub(crate) fn deadline(&self, at: Instant) -> Deadline {
        Deadline {
            at,
            wait: Wait::Shared {
                timer: self.clone(),
                slot: None,
            },
        }
    }

    /// To be driven from now on by a task of another runtime: that of the last one is gone, and its sleeps with it.
    #[cfg(feature = "client")]
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        (state.sleep, state.armed, state.driver) = (None, None, None);
        let next = state.slots.iter().filter_map(|slot| slot.deadline).min();
        if let Some(next) = next {
            state.arm(next);
        }
    }

    /// Drives the timer: wakes everyone whose deadline passed and keeps the sleep at the earliest deadline left, the
    /// connection's `own` among them. Ready when `own` has passed.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>, own: Option<Instant>) -> Poll<()> {
        let mut state = self.lock();
        if let Some(own) = own {
            state.arm(own);
        }
        // The sleep keeps the waker that it was polled with, also when it is moved; polling it again costs 50 ns.
        if let (Some(sleep), Some(driver)) = (&state.sleep, &state.driver)
            && driver.will_wake(cx.waker())
            && !sleep.is_elapsed()
        {
            return Poll::Pending;
        }
        state.driver = Some(cx.waker().clone());
        loop {
            let sleep = match &mut state.sleep {
                Some(sleep) => sleep,
                // A sleep that was never polled would not wake this task when a request moves it.
                None => {
                    state.arm(now() + FAR);
                    continue;
                }
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = now();
            state.armed = None;
            state.arm(now + FAR);
            state.expire(now, cx.waker());
            match own {
                Some(own) if own <= now => return Poll::Ready(()),
                Some(own) => state.arm(own),
                None => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl State {
    /// Makes sure that the sleep fires at `at` or before.
    fn arm(&mut self, at: Instant) {
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        self.armed = Some(at);
        match &mut self.sleep {
            // Resetting keeps the waker of the driving task, so a request may move the timer of its connection.
            Some(sleep) => sleep.as_mut().reset(at.into()),
            None => self.sleep = Some(Box::pin(sleep_until(at.into()))),
        }
    }

    /// Wakes those whose deadline is not after `now`, then arms for the earliest of the others.
    fn expire(&mut self, now: Instant, driver: &Waker) {
        let mut next: Option<Instant> = None;
        for slot in &mut self.slots {
            match slot.deadline {
                Some(at) if at <= now => {
                    slot.deadline = None;
                    match slot.waker.take() {
                        Some(waker) => waker.wake(),
                        // It may have been polled already in this turn.
                        None => driver.wake_by_ref(),
                    }
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        if let Some(next) = next {
            self.arm(next);
        }
    }
}

impl fmt::Debug for ConnTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnTimer").finish_non_exhaustive()
    }
}

/// A point in time that can be waited for: a future that completes then.
///
/// It registers when it is first polled, so one that is never waited for costs nothing.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    wait: Wait,
}

#[derive(Debug)]
enum Wait {
    Shared {
        timer: ConnTimer,
        slot: Option<usize>,
    },
    Alone(Option<Pin<Box<Sleep>>>),
}

impl Deadline {
    /// A deadline with a timer of its own, for calls that belong to no connection.
    pub(crate) fn alone(at: Instant) -> Self {
        Self {
            at,
            wait: Wait::Alone(None),
        }
    }

    /// When it is.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match &mut this.wait {
            Wait::Alone(sleep) => sleep
                .get_or_insert_with(|| Box::pin(sleep_until(this.at.into())))
                .as_mut()
                .poll(cx),
            Wait::Shared { timer, slot } => {
                let mut state = timer.lock();
                let index = match *slot {
                    Some(index) => index,
                    None => {
                        let index = state.free.pop().unwrap_or(state.slots.len());
                        let new = Slot {
                            deadline: Some(this.at),
                            waker: None,
                        };
                        match state.slots.get_mut(index) {
                            Some(free) => *free = new,
                            None => state.slots.push(new),
                        }
                        *slot = Some(index);
                        state.arm(this.at);
                        index
                    }
                };
                let by_driver = state
                    .driver
                    .as_ref()
                    .is_some_and(|driver| driver.will_wake(cx.waker()));
                let slot = &mut state.slots[index];
                if slot.deadline.is_none() {
                    return Poll::Ready(());
                }
                match &mut slot.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    waker if !by_driver => *waker = Some(cx.waker().clone()),
                    _ => {}
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Wait::Shared {
            timer,
            slot: Some(index),
        } = &self.wait
        {
            let mut state = timer.lock();
            state.slots[*index] = Slot {
                deadline: None,
                waker: None,
            };
            state.free.push(*index);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn after(seconds: u64) -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_secs(seconds)
    }

    /// Drives `timer` as a connection's task does.
    fn drive(timer: &ConnTimer) -> tokio::task::JoinHandle<()> {
        let timer = timer.clone();
        let far = after(3600);
        tokio::spawn(async move { poll_fn(|cx| timer.poll_drive(cx, Some(far))).await })
    }

    #[tokio::test(start_paused = true)]
    async fn each_deadline_completes_at_its_time_and_not_before() {
        let timer = ConnTimer::default();
        let driver = drive(&timer);
        let begun = tokio::time::Instant::now();
        let (late, early) = (timer.deadline(after(9)), timer.deadline(after(2)));
        let late = tokio::spawn(late);
        early.await;
        assert_eq!(begun.elapsed().as_secs(), 2);
        late.await.expect("the task ends");
        assert_eq!(begun.elapsed().as_secs(), 9);
        driver.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_drives_and_waits_sees_its_deadline_in_either_order() {
        for timer_first in [true, false] {
            let timer = ConnTimer::default();
            let mut deadlines = [timer.deadline(after(4)), timer.deadline(after(2))];
            let begun = tokio::time::Instant::now();
            let mut seen = Vec::new();
            poll_fn(|cx| {
                if timer_first {
                    assert!(timer.poll_drive(cx, None).is_pending());
                }
                deadlines
                    .iter_mut()
                    .enumerate()
                    .for_each(|(index, deadline)| {
                        if !seen.iter().any(|(i, _)| *i == index)
                            && Pin::new(deadline).poll(cx).is_ready()
                        {
                            seen.push((index, begun.elapsed().as_secs()));
                        }
                    });
                if !timer_first {
                    assert!(timer.poll_drive(cx, None).is_pending());
                }
                match seen.len() {
                    2 => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
            assert_eq!(seen, [(1, 2), (0, 4)]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slots_of_dropped_deadlines_are_used_again() {
        let timer = ConnTimer::default();
        let driver = drive(&timer);
        for _ in 0..100 {
            let mut deadline = timer.deadline(after(5));
            let waiting = poll_fn(|cx| Poll::Ready(Pin::new(&mut deadline).poll(cx))).await;
            assert!(waiting.is_pending());
        }
        assert_eq!(timer.lock().slots.len(), 1);
        driver.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_alone_needs_no_driver() {
        let begun = tokio::time::Instant::now();
        Deadline::alone(after(3)).await;
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
