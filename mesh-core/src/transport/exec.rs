//! Where tasks run. `Send` is asked for here only.

use std::future::Future;

/// Starts a future of type `F` on its own.
pub trait Exec<F> {
    /// Starts it.
    fn start(&self, future: F);
}

/// Starts futures on the tokio runtime of the caller, whichever its flavour.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioExec;

impl<F> Exec<F> for TokioExec
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn start(&self, future: F) {
        tokio::spawn(future);
    }
}

impl<F> hyper::rt::Executor<F> for TokioExec
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

/// Starts futures on the thread of the caller, within a [`tokio::task::LocalSet`]. Nothing need be `Send`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExec;

impl<F> Exec<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn start(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
