//! Calls that a program makes.

use std::{
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{PortTables, timer::ClientTimer};
use crate::{
    Error,
    body::{MeshBody, RequestBody, ResponseBody},
    model::{Direction, HttpConnectionManager, HttpFilter, HttpFilterKind, ServerHeader},
    pool::{Outgoing, Pool, PoolBody},
    route::RouteTable,
    snapshot::{Http, Mesh, RouteCell},
    stack::{Outbound, OutboundParts},
    transport::{Connector, TokioExec},
};

/// A pool's service, as the stack of a client ends in it.
pub trait ClientLeaf<B>:
    Service<Outgoing<RequestBody<B>>, Response = Response<PoolBody>, Error = Error> + Clone
{
}

impl<B, L> ClientLeaf<B> for L where
    L: Service<Outgoing<RequestBody<B>>, Response = Response<PoolBody>, Error = Error> + Clone
{
}

/// Sends requests through the mesh. Cloning shares connections; it is always ready, and errors are answers.
///
/// A request needs an absolute URI, or a path and `host`. Until there is a configuration it is answered with 503; see
/// [`Mesh::ready`]. Calls are made on a tokio runtime with I/O and time; others than the first may follow on another runtime.
///
/// `L` has no name. A program that keeps a client in a struct is generic over it, or boxes it once:
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use mesh_core::{body::ResponseBody, pool::PoolBody, snapshot::Mesh, transport::TcpConnector};
/// use tower::util::BoxCloneSyncService;
///
/// type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<PoolBody>>, Infallible>;
///
/// #[derive(Clone)]
/// struct App {
///     client: Client,
/// }
///
/// fn app(mesh: &Mesh) -> App {
///     App { client: BoxCloneSyncService::new(mesh.client(TcpConnector)) }
/// }
/// ```
pub struct MeshClient<L> {
    stack: Outbound<L, TokioExec, PortTables>,
    timer: ClientTimer,
}

impl Mesh {
    /// A client whose connections `connector` makes. Its tasks run on the tokio runtime of the calls.
    #[expect(
        clippy::type_complexity,
        reason = "hyper's futures have no name, so the pool's service has none"
    )]
    pub fn client<C, B>(
        &self,
        connector: C,
    ) -> MeshClient<
        impl Service<
            Outgoing<RequestBody<B>>,
            Response = Response<PoolBody>,
            Error = Error,
            Future = impl Future<Output = Result<Response<PoolBody>, Error>> + Send + use<C, B>,
        > + Clone
        + Send
        + Sync
        + use<C, B>,
    >
    where
        C: Connector + Send + Sync + 'static,
        C::Future: Send,
        B: MeshBody + Send + 'static,
    {
        let pool: Pool<C, RequestBody<B>> = Pool::new(connector);
        MeshClient::new(self, pool.service())
    }
}

impl<L: Clone> MeshClient<L> {
    /// A client over `leaf`, a pool's service.
    pub fn new(mesh: &Mesh, leaf: L) -> Self {
        let cell = Arc::new(RouteCell::new("client".into(), RouteTable::empty()));
        let http = Http::embedded(settings(), cell, mesh.metrics());
        let tables = PortTables::new(mesh.reader());
        Self {
            stack: OutboundParts::new(Arc::new(http), leaf, TokioExec).stack(tables, None),
            timer: ClientTimer::default(),
        }
    }
}

/// A connection manager for calls of the program itself: faults and CORS act as routes say, nothing is forwarded.
fn settings() -> HttpConnectionManager {
    let filter = |name: &str, kind| HttpFilter {
        name: name.into(),
        kind,
        disabled: false,
    };
    HttpConnectionManager {
        stat_prefix: "client".into(),
        server_header: ServerHeader::PassThrough,
        // Names under which istiod's routes carry their settings.
        filters: vec![
            filter(
                "envoy.filters.http.fault",
                HttpFilterKind::Fault(Box::default()),
            ),
            filter("envoy.filters.http.cors", HttpFilterKind::Cors),
            filter("envoy.filters.http.router", HttpFilterKind::Router),
        ],
        ..HttpConnectionManager::default()
    }
}

impl Http {
    /// A manager of calls that a program makes itself.
    fn embedded(
        config: HttpConnectionManager,
        cell: Arc<RouteCell>,
        metrics: &crate::telemetry::metrics::Metrics,
    ) -> Self {
        let name = "client".into();
        let http = Self::new(Arc::new(config), cell, Direction::Outbound, metrics, &name);
        http.expect("a manager without formats and matchers compiles")
            .without_proxy(metrics)
    }
}

impl<L, B> Service<Request<B>> for MeshClient<L>
where
    L: ClientLeaf<B>,
    B: MeshBody + Send + 'static,
    Outbound<L, TokioExec, PortTables>:
        Service<Request<B>, Response = Response<ResponseBody<PoolBody>>, Error = Infallible>,
{
    type Response = Response<ResponseBody<PoolBody>>;
    type Error = Infallible;
    type Future = <Outbound<L, TokioExec, PortTables> as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.stack.set_timer(self.timer.get());
        self.stack.call(request)
    }
}

impl<L: Clone> Clone for MeshClient<L> {
    fn clone(&self) -> Self {
        Self {
            stack: self.stack.clone(),
            timer: self.timer.clone(),
        }
    }
}

impl<L> fmt::Debug for MeshClient<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshClient").finish_non_exhaustive()
    }
}
