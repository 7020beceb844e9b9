//! How a service calls another one: through its sidecar, or through the mesh inside the process.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc, task, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;

/// The port on which bookinfo's services call one another.
pub const SERVICE_PORT: u16 = 9080;

/// The largest answer that a caller reads, in bytes; a longer one is a [`CallError`].
pub const MAX_ANSWER: usize = 1 << 20;

/// Why a call has no answer. Nothing in bookinfo looks deeper: its pages say "unavailable" for all of them.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The time that the caller gives has passed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, a broken one, or an answer that is not HTTP or longer than [`MAX_ANSWER`].
    #[error("{0}")]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// The future of a [`Caller::call`].
pub type CallFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, CallError>> + Send + 'a>>;

/// The way out of a service. The request names its target as an application does: `http://reviews:9080/reviews/0`.
pub trait Caller: Send + Sync + 'static {
    /// Sends the request and reads the whole answer, whatever its status is.
    fn call(&self, request: Request<Empty<Bytes>>) -> CallFuture<'_>;
}

/// Sends `GET http://SERVICE:9080/PATH` with these headers.
///
/// # Errors
/// [`CallError`] when no whole answer came within `timeout`.
pub async fn get(
    caller: &Arc<dyn Caller>,
    service: &str,
    path: &str,
    headers: &HeaderMap,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), CallError> {
    let mut request = Request::get(format!("http://{service}:{SERVICE_PORT}{path}"))
        .body(Empty::new())
        .map_err(|error| CallError::Failed(error.into()))?;
    *request.headers_mut() = headers.clone();
    let answer = tokio::time::timeout(timeout, caller.call(request))
        .await
        .map_err(|_| CallError::Timeout(timeout))??;
    let (head, body) = answer.into_parts();
    Ok((head.status, body))
}

/// Reads an answer to its end.
///
/// # Errors
/// [`CallError::Failed`] when it breaks off, or is longer than [`MAX_ANSWER`].
pub(crate) async fn whole<B>(answer: Response<B>) -> Result<Response<Bytes>, CallError>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(CallError::Failed)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Plain HTTP/1.1 to one address, whatever the request's authority is; that goes into `Host`, for the sidecar to route by.
#[derive(Clone, Debug)]
pub struct Plain {
    client: Client<FixedAddress, Empty<Bytes>>,
}

impl Plain {
    /// Calls by way of the sidecar (or server) that listens on `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(FixedAddress(address));
        Self { client }
    }
}

impl Caller for Plain {
    fn call(&self, request: Request<Empty<Bytes>>) -> CallFuture<'_> {
        Box::pin(async move {
            let answer = self.client.request(request).await;
            whole(answer.map_err(|error| CallError::Failed(error.into()))?).await
        })
    }
}

/// A connector that goes to one address for every authority.
#[derive(Clone, Copy, Debug)]
struct FixedAddress(SocketAddr);

impl tower_service::Service<Uri> for FixedAddress {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
