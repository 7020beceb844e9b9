use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::policy::{Active, Meeting};
use crate::{
    Error, Kind,
    body::{MeshBody, ResponseBody},
    layer::Carrier,
    telemetry::record::Record,
    transport::Deadline,
};

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
        Lasting {
            #[pin]
            inner: F,
            rest: Option<Box<Rest>>,
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
    meeting: Meeting,
}

/// What a fault does to the response.
struct Rest {
    rate: Option<u64>,
    active: Active,
    record: Option<Arc<Record>>,
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

    pub(super) fn fault(inner: S, request: R, until: Option<Deadline>, meeting: Meeting) -> Self {
        let held = Box::new(Held {
            inner,
            request,
            until,
            meeting,
        });
        Self {
            state: State::Fault { held: Some(held) },
        }
    }
}

impl<S: Service<R>, R: Carrier> Held<S, R> {
    /// What follows the delay.
    fn go_on(mut self) -> Result<State<S::Future, S, R>, Error> {
        let Meeting {
            abort,
            rate,
            lasts,
            active,
            ..
        } = self.meeting;
        if let Some(error) = abort {
            active.stats().aborts_injected.add(1);
            return Err(error);
        }
        let rest = lasts.then(|| {
            Box::new(Rest {
                rate,
                active,
                record: self.request.record().cloned(),
            })
        });
        let inner = self.inner.call(self.request);
        Ok(match rest {
            Some(rest) => State::Lasting {
                inner,
                rest: Some(rest),
            },
            None => State::Pass { inner },
        })
    }
}

impl<S, R, U> Future for ResponseFuture<S, R>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Carrier,
    U: MeshBody,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let held = match this.state.as_mut().project() {
                StateProject::Pass { inner } => return inner.poll(context),
                StateProject::Lasting { inner, rest } => {
                    let mut poll = inner.poll(context);
                    if let Poll::Ready(result) = &mut poll
                        && let Some(rest) = rest.take()
                    {
                        let Rest {
                            rate,
                            active,
                            record,
                        } = *rest;
                        match (result, record) {
                            (Ok(response), record) => {
                                response.body_mut().throttle(rate, active, record);
                            }
                            (Err(_), Some(record)) => {
                                record.late().on_reply().pace = Some((rate, active));
                            }
                            (Err(_), None) => {}
                        }
                    }
                    return poll;
                }
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
            match held.go_on() {
                Ok(state) => this.state.set(state),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}
