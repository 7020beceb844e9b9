use std::task::{Context, Poll};

use http::Response;
use tower_service::Service;

use super::{ActiveFaults, FaultOf, ResponseFuture, policy::meet};
use crate::{
    Error,
    body::{MeshBody, ResponseBody},
    layer::Carrier,
    telemetry::{clock, flags::Flag, record::Record},
};

/// Injects faults.
#[derive(Clone, Debug)]
pub struct Fault<S, P> {
    inner: S,
    policy: P,
    active: ActiveFaults,
}

impl<S, P> Fault<S, P> {
    /// Faults in front of `inner` as `policy` says; `active` counts those that act.
    pub fn new(inner: S, policy: P, active: ActiveFaults) -> Self {
        Self {
            inner,
            policy,
            active,
        }
    }
}

impl<S, P, R, U> Service<R> for Fault<S, P>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error> + Clone,
    R: Carrier,
    P: FaultOf<R>,
    U: MeshBody,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let meeting = self.policy.rules(&request).and_then(|rules| {
            let cluster = self.policy.cluster(&request);
            meet(rules, request.request(), cluster, &self.active)
        });
        let Some(meeting) = meeting else {
            return ResponseFuture::pass(self.inner.call(request));
        };
        let record = request.record();
        let until = meeting
            .delay
            .map(|delay| Record::deadline_of(record, clock::after(clock::now(), delay)));
        if let (Some(record), true) = (record, meeting.delay.is_some()) {
            record.flag(Flag::DelayInjected);
        }
        // The one that was found ready is called after the delay; a clone of it has not been.
        let next = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, next);
        ResponseFuture::fault(ready, request, until, meeting)
    }
}
