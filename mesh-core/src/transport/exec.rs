//! Where tasks run. `Send` is asked for here only.

use std::{any::TypeId, future::Future};

use super::cut::{Leash, Leashed};

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
        match Leash::take() {
            None => drop(tokio::spawn(future)),
            Some(leash) => drop(tokio::spawn(Leashed::new(future, leash))),
        }
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
        match Leash::take() {
            None => drop(tokio::task::spawn_local(future)),
            Some(leash) => drop(tokio::task::spawn_local(Leashed::new(future, leash))),
        }
    }
}

/// Whether tasks that a codec starts on `X` can be [cut](super::Cut).
#[cfg(feature = "server")]
pub(crate) fn can_cut<X: 'static>() -> bool {
    let kind = TypeId::of::<X>();
    kind == TypeId::of::<TokioExec>() || kind == TypeId::of::<LocalExec>()
}
