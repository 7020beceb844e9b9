use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use super::{Replies, replies::Asks};
use crate::{
    Error, Kind,
    body::{MeshBody, ResponseBody},
    telemetry::record::Record,
};

/// In the extensions of a response that a route or the listener gives by itself: a local reply like any other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnReply;

/// A local reply on its way through the filters.
fn local<U: MeshBody>(
    replies: &Replies,
    response: Response<Bytes>,
    record: Option<&Arc<Record>>,
) -> Response<ResponseBody<U>> {
    let mut response = response.map(ResponseBody::local);
    replies.finish(&mut response);
    let on_reply = record.and_then(|record| record.late().on_reply.take());
    if let Some(on_reply) = on_reply {
        if let Some(marks) = on_reply.marks {
            marks.write(response.headers_mut());
        }
        #[cfg(feature = "net")]
        if let Some((rate, active)) = on_reply.pace {
            response.body_mut().throttle(rate, active, record.cloned());
        }
    }
    response
}

pin_project! {
    /// The future of [`Respond`](super::Respond).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        replies: Arc<Replies>,
        record: Option<Arc<Record>>,
        asks: Asks,
    }
}

pin_project! {
    #[project = StateProject]
    #[derive(Debug)]
    enum State<F> {
        Called {
            #[pin]
            inner: F,
        },
        // The inner service could not be called.
        Failed {
            error: Option<Error>,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(
        inner: F,
        replies: Arc<Replies>,
        record: Option<Arc<Record>>,
        asks: Asks,
    ) -> Self {
        Self {
            state: State::Called { inner },
            replies,
            record,
            asks,
        }
    }

    pub(super) fn failed(
        error: Error,
        replies: Arc<Replies>,
        record: Option<Arc<Record>>,
        asks: Asks,
    ) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
            replies,
            record,
            asks,
        }
    }
}

impl<F, U> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
    U: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (replies, record) = (&*this.replies, &*this.record);
        let result = match this.state.project() {
            StateProject::Called { inner } => ready!(inner.poll(context)),
            StateProject::Failed { error } => Err(error.take().unwrap_or(Kind::Internal.into())),
        };
        let response = match result {
            Ok(response) => {
                let mut answer = Ok(response);
                if let Ok(response) = &mut answer
                    && (!response.body().is_local()
                        || response.extensions_mut().remove::<OwnReply>().is_none())
                {
                    replies.finish(response);
                    return Poll::Ready(answer);
                }
                let Ok(response) = answer;
                let response = response.map(ResponseBody::into_local);
                replies.own(response, *this.asks, record.as_deref())
            }
            Err(error) => replies.reply(&error, *this.asks, record.as_deref()),
        };
        Poll::Ready(Ok(local(replies, response, record.as_ref())))
    }
}
