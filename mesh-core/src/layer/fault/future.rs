use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::policy::Active;
use crate::{Error, Kind, transport::Deadline};

pin_project! {
    /// The future of [`Fault`](super::Fault).
    pub struct ResponseFuture<S: Service<R>, R> {
        #[pin]
        state: State<S::Future, S, R>,
    }
}

pin_project! {
    #[project = StateProject]
    enum State<F, S, R> {
        Pass {
            #[pin]
            inner: F,
        },
        // Boxed, so that requests without a fault do not carry its room.
        Fault {
            held: Option<Box<Held<S, R>>>,
        },
    }
}

/// A request that a fault holds back.
struct Held<S, R> {
    inner: S,
    request: R,
    until: Option<Deadline>,
    abort: Option<Error>,
    active: Active,
}

impl<S: Service<R>, R> std::fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn pass(inner: S::Future) -> Self {
        Self {
            state: State::Pass { inner },
        }
    }

    pub(super) fn fault(
        inner: S,
        request: R,
        until: Option<Deadline>,
        abort: Option<Error>,
        active: Active,
    ) -> Self {
        let held = Box::new(Held {
            inner,
            request,
            until,
            abort,
            active,
        });
        Self {
            state: State::Fault { held: Some(held) },
        }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R, Error = Error>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let held = match this.state.as_mut().project() {
                StateProject::Pass { inner } => return inner.poll(context),
                StateProject::Fault { held } => {
                    if let Some(until) = held.as_mut().and_then(|held| held.until.as_mut()) {
                        ready!(Pin::new(until).poll(context));
                    }
                    held.take()
                }
            };
            let Some(held) = held else {
                return Poll::Ready(Err(Kind::Internal.into()));
            };
            let Held {
                mut inner,
                request,
                abort,
                active,
                ..
            } = *held;
            drop(active);
            if let Some(error) = abort {
                return Poll::Ready(Err(error));
            }
            let inner = inner.call(request);
            this.state.set(State::Pass { inner });
        }
    }
}
