use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Response;
use pin_project_lite::pin_project;

use crate::{
    Error, Kind,
    body::{MeshBody, ResponseBody},
    cluster::{Attempt, AttemptOutcome},
    telemetry::{clock, record::Record},
    transport::Deadline,
};

pin_project! {
    /// The future of [`Admit`](super::Admit). It records how the attempt began to be answered.
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
        Refused {
            error: Option<Error>,
        },
        Sent {
            #[pin]
            inner: F,
            attempt: Option<Attempt>,
            record: Option<Arc<Record>>,
            // Longest life of the upstream stream.
            life: Option<Box<Deadline>>,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn refused(error: Error) -> Self {
        Self {
            state: State::Refused { error: Some(error) },
        }
    }

    pub(super) fn sent(
        inner: F,
        attempt: Attempt,
        record: Option<Arc<Record>>,
        life: Option<Duration>,
    ) -> Self {
        let life = life
            .filter(|life| !life.is_zero())
            .map(|life| Box::new(Deadline::alone(clock::after(clock::now(), life))));
        Self {
            state: State::Sent {
                inner,
                attempt: Some(attempt),
                record,
                life,
            },
        }
    }
}

impl<F, U> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<U>, Error>>,
    U: MeshBody,
{
    type Output = Result<Response<ResponseBody<U>>, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Refused { error } => {
                Poll::Ready(Err(error.take().unwrap_or(Kind::Internal.into())))
            }
            StateProject::Sent {
                inner,
                attempt,
                record,
                life,
            } => {
                let mut result = match (inner.poll(context), &mut *life) {
                    (Poll::Ready(Ok(response)), _) => Ok(response.map(ResponseBody::upstream)),
                    (Poll::Ready(Err(error)), _) => Err(error),
                    (Poll::Pending, Some(life)) => {
                        ready!(Pin::new(&mut **life).poll(context));
                        Err(Kind::MaxDuration.into())
                    }
                    (Poll::Pending, None) => return Poll::Pending,
                };
                match &mut result {
                    Ok(response) => {
                        let life = life.take().map(|life| *life);
                        answered(response, attempt.take(), record.take(), life);
                    }
                    Err(error) => failed(error, attempt.take(), record.take()),
                }
                Poll::Ready(result)
            }
        }
    }
}

/// A stream that we reset since its request body broke off was ended by the client, if that has left.
fn blame(error: &mut Error, record: &Record) {
    let ours = matches!(error.kind(), Kind::UpstreamProtocol | Kind::LocalReset);
    if ours && record.is_abandoned(record.late().version) {
        let cause = std::mem::replace(error, Kind::DownstreamTermination.into());
        *error = Error::caused_by(Kind::DownstreamTermination, cause);
    }
}

/// Records the outcome. The response keeps the attempt, and what is left of its life, until its end.
fn answered<U: MeshBody>(
    response: &mut Response<ResponseBody<U>>,
    attempt: Option<Attempt>,
    record: Option<Arc<Record>>,
    life: Option<Deadline>,
) {
    if let Some(mut attempt) = attempt {
        attempt.record(AttemptOutcome::Response(response.status().as_u16()));
        response.body_mut().hold_attempt(attempt, life);
    }
    if let Some(record) = &record {
        record.response_begins();
    }
    response.body_mut().tell(record);
}

/// Records that no response came.
fn failed(error: &mut Error, attempt: Option<Attempt>, record: Option<Arc<Record>>) {
    if let Some(record) = &record {
        blame(error, record);
    }
    if let Some(attempt) = attempt {
        attempt.finish(AttemptOutcome::Failed(error.kind()));
    }
    if let Some(record) = record {
        record.attempt_failed(error);
    }
}
