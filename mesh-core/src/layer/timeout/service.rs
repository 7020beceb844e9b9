use std::task::{Context, Poll};

use http::Response;
use tower_service::Service;

use super::{Limits, ResponseFuture, StreamLimits, Timeouts};
use crate::{
    Error,
    body::{MeshBody, ResponseBody},
    layer::{Carrier, PolicyOf},
};

/// Ends requests that take too long.
#[derive(Clone, Debug)]
pub struct Timeout<S, P> {
    inner: S,
    policy: P,
    defaults: StreamLimits,
    quiet: bool,
}

impl<S, P> Timeout<S, P> {
    /// Limits `inner` as `policy` says, else `defaults`; `quiet`: the upstream is not told.
    pub fn new(inner: S, policy: P, defaults: StreamLimits, quiet: bool) -> Self {
        Self {
            inner,
            policy,
            defaults,
            quiet,
        }
    }
}

impl<S, P, R, U> Service<R> for Timeout<S, P>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Carrier,
    P: PolicyOf<R, Timeouts>,
    U: MeshBody,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let (defaults, quiet) = (self.defaults, self.quiet);
        let scan = request.scan();
        let limits = match self.policy.split(&mut request) {
            (Some(policy), http) => {
                let mut resolved = policy.resolve(http.headers_mut(), scan, defaults, quiet);
                if let Some(asked) = resolved.asked.take()
                    && let Some(record) = request.record()
                {
                    record.late().asked = Some(Box::new(asked));
                }
                Limits::new(resolved, &request)
            }
            (None, _) => None,
        };
        ResponseFuture::new(self.inner.call(request), limits)
    }
}
