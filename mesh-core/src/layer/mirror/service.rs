use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{MirrorsOf, Shadow, ShadowTask};
use crate::{
    Error,
    body::{BUFFER_LIMIT, Copied, MeshBody, RequestBody, ResponseBody, Tee},
    layer::Carrier,
    transport::Exec,
};

/// Sends copies of requests.
#[derive(Clone, Debug)]
pub struct Mirror<S, P, M, X> {
    inner: S,
    policy: P,
    shadow: M,
    exec: X,
}

impl<S, P, M, X> Mirror<S, P, M, X> {
    /// Requests go to `inner`, their copies to `shadow` as tasks of `exec`.
    pub fn new(inner: S, policy: P, shadow: M, exec: X) -> Self {
        Self {
            inner,
            policy,
            shadow,
            exec,
        }
    }
}

impl<S, P, M, X, R, B, U, V> Service<R> for Mirror<S, P, M, X>
where
    S: Service<R, Response = Response<ResponseBody<U>>, Error = Error>,
    R: Carrier<Body = RequestBody<B>>,
    P: MirrorsOf<R>,
    B: MeshBody,
    M: Service<
            (Shadow, Request<RequestBody<B>>),
            Response = Response<ResponseBody<V>>,
            Error = Error,
        > + Clone
        + Send
        + Sync
        + 'static,
    V: MeshBody,
    X: Exec<ShadowTask<M::Future, V>> + Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let shadows = self.policy.shadows(&request);
        if !shadows.is_empty() {
            let body = request.request_mut().body_mut();
            let size = body.size_hint();
            // Of one that is empty nobody may ask for the end.
            let empty = body.is_end_stream() || size.exact() == Some(0);
            let mut tee = Tee::new(BUFFER_LIMIT);
            for shadow in shadows {
                let copy = match empty {
                    true => Copied::default(),
                    false => tee.copy(size),
                };
                start(&self.shadow, &self.exec, shadow, copy);
            }
            if !empty {
                let whole = std::mem::replace(body, RequestBody::empty());
                *body = whole.teed(tee);
            }
        }
        self.inner.call(request)
    }
}

fn start<M, X, B, V>(service: &M, exec: &X, shadow: Shadow, copy: Copied)
where
    B: MeshBody,
    V: MeshBody,
    M: Service<
            (Shadow, Request<RequestBody<B>>),
            Response = Response<ResponseBody<V>>,
            Error = Error,
        > + Clone,
    X: Exec<ShadowTask<M::Future, V>>,
{
    let timeout = shadow.timeout;
    let request = shadow.head.clone().map(|()| RequestBody::copied(copy));
    let answer = service.clone().call((shadow, request));
    exec.start(ShadowTask::new(answer, timeout));
}
