use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Response};
use pin_project_lite::pin_project;

use super::policy::Marks;
use crate::{Error, body::ResponseBody};

pin_project! {
    /// The future of [`Cors`](super::Cors).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProject]
    #[derive(Debug)]
    enum State<F> {
        Pass {
            #[pin]
            inner: F,
            marks: Option<Box<Marks>>,
        },
        Preflight {
            headers: HeaderMap,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn pass(inner: F, marks: Option<Box<Marks>>) -> Self {
        Self {
            state: State::Pass { inner, marks },
        }
    }

    pub(super) fn preflight(headers: HeaderMap) -> Self {
        Self {
            state: State::Preflight { headers },
        }
    }
}

impl<F, U> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProject::Pass { inner, marks } => {
                ready!(inner.poll(context)).map(|mut response| {
                    if let Some(marks) = marks.take() {
                        marks.write(response.headers_mut());
                    }
                    response
                })
            }
            StateProject::Preflight { headers } => {
                let mut response = Response::new(ResponseBody::empty());
                *response.headers_mut() = std::mem::take(headers);
                Ok(response)
            }
        })
    }
}
