//! Tunnels over HTTP/2 that end with a reset.
//!
//! A codec lets whoever has a tunnel end its writing half, and nothing else. What it writes passes through a task that it starts
//! as soon as the tunnel is agreed on; a stream whose writing is dropped there is reset. So the executor follows that task.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;

thread_local! {
    /// What follows the task that is started next on this thread.
    static NEXT: RefCell<Option<Leash>> = const { RefCell::new(None) };
}

/// Resets a tunnel. Dropping it does nothing.
#[derive(Debug)]
pub(crate) struct Cut {
    order: oneshot::Sender<()>,
    gone: oneshot::Receiver<()>,
}

/// The task's end of a [`Cut`].
#[derive(Debug)]
pub(super) struct Leash {
    order: oneshot::Receiver<()>,
    _alive: oneshot::Sender<()>,
}

impl Cut {
    /// For the task that [`TokioExec`](super::TokioExec) or [`LocalExec`](super::LocalExec) start next on this thread. That is
    /// the tunnel's if its codec has one of them and is told next that the tunnel is agreed on.
    pub(crate) fn of_next_task() -> Self {
        let (order, ordered) = oneshot::channel();
        let (alive, gone) = oneshot::channel();
        let leash = Leash {
            order: ordered,
            _alive: alive,
        };
        NEXT.set(Some(leash));
        Self { order, gone }
    }

    /// Resets the tunnel, after what was written and what the peer's window has room for. To be called before the tunnel is
    /// dropped, and only on one that the codec has handed over.
    pub(crate) async fn reset(self) {
        if self.order.send(()).is_ok() {
            // An error is what shows that the task is gone.
            let _ = self.gone.await;
        }
    }
}

impl Leash {
    /// That of the task that is started now, if there is one.
    pub(super) fn take() -> Option<Self> {
        NEXT.take()
    }
}

pin_project! {
    /// A task that ends when it is cut.
    pub(super) struct Leashed<F> {
        #[pin]
        task: F,
        leash: Option<Leash>,
    }
}

impl<F> Leashed<F> {
    pub(super) fn new(task: F, leash: Leash) -> Self {
        Self {
            task,
            leash: Some(leash),
        }
    }
}

impl<F: Future> Future for Leashed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // First, so that what was written goes out.
        if this.task.poll(context).is_ready() {
            return Poll::Ready(());
        }
        if let Some(leash) = this.leash {
            match Pin::new(&mut leash.order).poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(_)) => *this.leash = None,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor;

    use super::*;
    use crate::transport::TokioExec;

    /// Tells when it is dropped.
    struct Task(Option<oneshot::Sender<()>>);

    fn start() -> oneshot::Receiver<()> {
        let (dropped, seen) = oneshot::channel();
        let task = Task(Some(dropped));
        TokioExec.execute(async move {
            let _task = task;
            std::future::pending::<()>().await;
        });
        seen
    }

    impl Drop for Task {
        fn drop(&mut self) {
            let _ = self.0.take().expect("dropped once").send(());
        }
    }

    #[tokio::test]
    async fn the_next_task_is_dropped_by_its_cut_and_no_other() {
        let cut = Cut::of_next_task();
        let (mut first, mut second) = (start(), start());
        tokio::task::yield_now().await;
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        cut.reset().await;
        assert_eq!(first.try_recv(), Ok(()), "it is gone when the cut was made");
        assert!(second.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_cut_that_is_dropped_cuts_nothing() {
        drop(Cut::of_next_task());
        let mut task = start();
        tokio::task::yield_now().await;
        assert!(task.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_needs_no_cut() {
        let cut = Cut::of_next_task();
        TokioExec.execute(async {});
        cut.reset().await;
    }
}
