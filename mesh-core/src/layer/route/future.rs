use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use super::Answer;
use crate::{Error, Kind, body::ResponseBody, telemetry::record::Record};

pin_project! {
    /// The future of [`Route`](super::Route).
    pub struct ResponseFuture<F, U> {
        #[pin]
        state: State<F>,
        body: std::marker::PhantomData<fn() -> U>,
    }
}

impl<F, U> std::fmt::Debug for ResponseFuture<F, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(feature = "net")]
// Boxed, since every layer above moves it and few requests are upgrades.
type Upgrade = Option<Box<super::Upgrading>>;
#[cfg(not(feature = "net"))]
type Upgrade = ();

pin_project! {
    #[project = StateProject]
    enum State<F> {
        Routed {
            #[pin]
            inner: F,
            upgrade: Upgrade,
        },
        Failed {
            error: Option<Error>,
        },
        // Boxed, since few requests are answered here.
        Answered {
            response: Option<Box<Response<Bytes>>>,
        },
    }
}

impl<F, U> ResponseFuture<F, U> {
    #[cfg(feature = "net")]
    pub(super) fn routed(inner: F, upgrade: Option<Box<super::Upgrading>>) -> Self {
        Self::of(State::Routed { inner, upgrade })
    }

    #[cfg(not(feature = "net"))]
    pub(super) fn routed(inner: F) -> Self {
        Self::of(State::Routed { inner, upgrade: () })
    }

    pub(super) fn answer(record: &Record, answer: Answer) -> Self {
        Self::of(match answer {
            Answer::Error(error) => State::Failed { error: Some(error) },
            Answer::Response(response) => {
                record.late().details = Some("direct_response".into());
                State::Answered {
                    response: Some(response),
                }
            }
        })
    }

    fn of(state: State<F>) -> Self {
        Self {
            state,
            body: std::marker::PhantomData,
        }
    }
}

impl<F, U> Future for ResponseFuture<F, U>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProject::Routed { inner, upgrade } => {
                let result = ready!(inner.poll(context));
                #[cfg(feature = "net")]
                if let Some(upgrade) = upgrade.take() {
                    return Poll::Ready(result.and_then(|response| upgrade.answer(response)));
                }
                #[cfg(not(feature = "net"))]
                let () = *upgrade;
                Poll::Ready(result)
            }
            StateProject::Failed { error } => {
                Poll::Ready(Err(error.take().unwrap_or(Kind::Internal.into())))
            }
            StateProject::Answered { response } => Poll::Ready(match response.take() {
                Some(response) => Ok(response.map(ResponseBody::local)),
                None => Err(Kind::Internal.into()),
            }),
        }
    }
}
