use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::{
    Error,
    body::{MeshBody, ResponseBody},
    telemetry::clock,
    transport::Deadline,
};

pin_project! {
    /// One copy on its way: waits for the answer, reads it to its end so that the connection can be used again, drops it.
    #[derive(Debug)]
    pub struct ShadowTask<F, U> {
        #[pin]
        answer: F,
        body: Option<ResponseBody<U>>,
        until: Option<Deadline>,
    }
}

impl<F, U> ShadowTask<F, U> {
    pub(super) fn new(answer: F, timeout: Option<Duration>) -> Self {
        Self {
            answer,
            body: None,
            until: timeout.map(|timeout| Deadline::alone(clock::after(clock::now(), timeout))),
        }
    }
}

impl<F, U> Future for ShadowTask<F, U>
where
    F: Future<Output = Result<Response<ResponseBody<U>>, Error>>,
    U: MeshBody,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(until) = this.until
            && Pin::new(until).poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        if this.body.is_none() {
            match ready!(this.answer.as_mut().poll(context)) {
                Ok(response) => *this.body = Some(response.into_body()),
                Err(_) => return Poll::Ready(()),
            }
        }
        if let Some(body) = this.body {
            while let Some(Ok(_)) = ready!(Pin::new(&mut *body).poll_frame(context)) {}
        }
        Poll::Ready(())
    }
}
