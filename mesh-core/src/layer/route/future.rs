#[cfg(feature = "net")]
use std::task::ready;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::Answer;
#[cfg(feature = "net")]
use super::{
    ahead::{Held, Own},
    redirect::{Follow, Step},
};
use crate::{
    Error, Kind,
    body::{MeshBody, RequestBody, ResponseBody},
    layer::{Routed, respond::OwnReply},
    telemetry::record::Record,
};

pin_project! {
    /// The future of [`Route`](super::Route).
    pub struct ResponseFuture<S: Service<Routed<RequestBody<B>>>, B: 'static, U> {
        #[pin]
        state: State<S::Future, S, B>,
        body: std::marker::PhantomData<fn() -> U>,
    }
}

impl<S: Service<Routed<RequestBody<B>>>, B: 'static, U> std::fmt::Debug
    for ResponseFuture<S, B, U>
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(feature = "net")]
// Boxed, since every layer above moves it and few requests are upgrades.
type Upgrade = Option<Box<super::Upgrading>>;
#[cfg(not(feature = "net"))]
type Upgrade = ();

#[cfg(feature = "net")]
type Following<S, B> = Option<Box<Follow<S, B>>>;
/// A request that goes on to another upstream as soon as the service is ready.
#[cfg(feature = "net")]
type Again<S, B> = Option<Box<(Box<Follow<S, B>>, Box<Routed<RequestBody<B>>>)>>;
#[cfg(feature = "net")]
type Waiting = Option<Box<Held>>;
#[cfg(not(feature = "net"))]
type Waiting = ();
#[cfg(not(feature = "net"))]
type Following<S, B> = std::marker::PhantomData<fn(S, B)>;
#[cfg(not(feature = "net"))]
type Again<S, B> = std::marker::PhantomData<fn(S, B)>;

pin_project! {
    #[project = StateProject]
    enum State<F, S, B: 'static> {
        Routed {
            #[pin]
            inner: F,
            upgrade: Upgrade,
        },
        // Boxed, since few routes follow redirects of their upstreams.
        Following {
            #[pin]
            inner: F,
            follow: Following<S, B>,
        },
        Again {
            again: Again<S, B>,
        },
        Failed {
            error: Option<Error>,
        },
        // Boxed, since few requests meet a fault there.
        Held {
            held: Waiting,
        },
        // Boxed, since few requests are answered here.
        Answered {
            response: Option<Box<Response<Bytes>>>,
        },
    }
}

impl<F, S, B: 'static> State<F, S, B> {
    fn answer(record: &Record, answer: Answer) -> Self {
        match answer {
            Answer::Error(error) => Self::Failed { error: Some(error) },
            Answer::Response(mut response) => {
                response.extensions_mut().insert(OwnReply);
                let details = &mut record.late().details;
                details.get_or_insert("direct_response".into());
                Self::Answered {
                    response: Some(response),
                }
            }
        }
    }
}

#[cfg(feature = "net")]
impl<F, S, B: 'static> State<F, S, B> {
    fn own(record: &Record, own: Own) -> Self {
        match own {
            Own::Answer(answer) => Self::answer(record, answer),
            Own::Preflight(response) => Self::Answered {
                response: Some(response),
            },
            Own::Held(held) => Self::Held { held: Some(held) },
        }
    }
}

#[cfg(feature = "net")]
impl<F, S, B> State<F, S, B>
where
    S: Service<Routed<RequestBody<B>>, Future = F, Error = Error>,
    B: MeshBody,
{
    /// Sends the request on as soon as the service is ready.
    fn poll_again(again: &mut Again<S, B>, context: &mut Context<'_>) -> Poll<Result<Self, Error>> {
        if let Some((follow, _)) = again.as_deref_mut() {
            ready!(follow.inner.poll_ready(context))?;
        }
        Poll::Ready(match again.take().map(|again| *again) {
            Some((mut follow, routed)) => Ok(Self::Following {
                inner: follow.inner.call(*routed),
                follow: Some(follow),
            }),
            None => Err(Kind::Internal.into()),
        })
    }
}

impl<S: Service<Routed<RequestBody<B>>>, B: 'static, U> ResponseFuture<S, B, U> {
    /// Answered here, behind the filters.
    #[cfg(feature = "net")]
    pub(super) fn own(record: &Record, own: Own) -> Self {
        Self::of(State::own(record, own))
    }

    #[cfg(feature = "net")]
    pub(super) fn routed(inner: S::Future, upgrade: Option<Box<super::Upgrading>>) -> Self {
        Self::of(State::Routed { inner, upgrade })
    }

    #[cfg(not(feature = "net"))]
    pub(super) fn routed(inner: S::Future) -> Self {
        Self::of(State::Routed { inner, upgrade: () })
    }

    #[cfg(feature = "net")]
    pub(super) fn following(inner: S::Future, follow: Follow<S, B>) -> Self {
        Self::of(State::Following {
            inner,
            follow: Some(Box::new(follow)),
        })
    }

    pub(super) fn answer(record: &Record, answer: Answer) -> Self {
        Self::of(State::answer(record, answer))
    }

    fn of(state: State<S::Future, S, B>) -> Self {
        Self {
            state,
            body: std::marker::PhantomData,
        }
    }
}

impl<S, B, U> Future for ResponseFuture<S, B, U>
where
    S: Service<Routed<RequestBody<B>>, Response = Response<ResponseBody<U>>, Error = Error>,
    B: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Error>;

    #[cfg_attr(
        not(feature = "net"),
        expect(
            unreachable_code,
            unused_variables,
            reason = "only following takes another turn"
        )
    )]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProject::Routed { inner, upgrade } => {
                    let poll = inner.poll(context);
                    #[cfg(feature = "net")]
                    if poll.is_ready()
                        && let Some(upgrade) = upgrade.take()
                    {
                        return poll.map(|result| result.and_then(|it| upgrade.answer(it)));
                    }
                    #[cfg(not(feature = "net"))]
                    let () = *upgrade;
                    return poll;
                }
                #[cfg(feature = "net")]
                StateProject::Following { inner, follow } => {
                    let response = ready!(inner.poll(context))?;
                    let Some(mut follow) = follow.take() else {
                        return Poll::Ready(Ok(response));
                    };
                    // Where it is followed, what the first upstream still says is of no interest.
                    match follow.step(&response) {
                        Step::Pass => return Poll::Ready(Ok(response)),
                        Step::Answer(own) => State::own(follow.record(), own),
                        Step::Again(routed) => State::Again {
                            again: Some(Box::new((follow, routed))),
                        },
                    }
                }
                #[cfg(feature = "net")]
                StateProject::Again { again } => ready!(State::poll_again(again, context))?,
                #[cfg(not(feature = "net"))]
                StateProject::Following { inner, .. } => return inner.poll(context),
                #[cfg(feature = "net")]
                StateProject::Held { held } => {
                    let (record, answer) = ready!(Held::poll(held, context))?;
                    State::answer(&record, answer)
                }
                #[cfg(not(feature = "net"))]
                StateProject::Again { .. } => return Poll::Ready(Err(Kind::Internal.into())),
                #[cfg(not(feature = "net"))]
                StateProject::Held { held: () } => {
                    return Poll::Ready(Err(Kind::Internal.into()));
                }
                StateProject::Failed { error } => {
                    return Poll::Ready(Err(error.take().unwrap_or(Kind::Internal.into())));
                }
                StateProject::Answered { response } => {
                    return Poll::Ready(match response.take() {
                        Some(response) => Ok(response.map(ResponseBody::local)),
                        None => Err(Kind::Internal.into()),
                    });
                }
            };
            this.state.set(next);
        }
    }
}
