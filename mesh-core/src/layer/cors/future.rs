use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Response};
use pin_project_lite::pin_project;

use super::policy::Marks;
use crate::{Error, body::ResponseBody, telemetry::record::Record};

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
            marks: Option<Box<Marking>>,
        },
        Preflight {
            headers: HeaderMap,
        },
    }
}

/// What is said of a response, and of the reply to a request that fails.
#[derive(Debug)]
pub(super) struct Marking {
    pub(super) marks: Marks,
    pub(super) record: Option<Arc<Record>>,
}

impl<F> ResponseFuture<F> {
    pub(super) fn pass(inner: F, marks: Option<Box<Marking>>) -> Self {
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
        match self.project().state.project() {
            StateProject::Pass { inner, marks } => {
                // A response is large: where nothing changes it, it is not moved.
                let mut poll = match marks {
                    None => return inner.poll(context),
                    Some(_) => inner.poll(context),
                };
                if let Poll::Ready(result) = &mut poll
                    && let Some(marking) = marks.take()
                {
                    let Marking { marks, record } = *marking;
                    match (result, record) {
                        (Ok(response), _) => marks.write(response.headers_mut()),
                        (Err(_), Some(record)) => {
                            record.late().on_reply().marks = Some(Box::new(marks));
                        }
                        (Err(_), None) => {}
                    }
                }
                poll
            }
            StateProject::Preflight { headers } => {
                let mut response = Response::new(ResponseBody::empty());
                *response.headers_mut() = std::mem::take(headers);
                Poll::Ready(Ok(response))
            }
        }
    }
}
