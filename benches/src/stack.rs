//! The outbound stack over a pool that answers at once: what is left is the stack.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, header::HeaderValue};
use http_body_util::Full;
use mesh_core::{
    Error,
    body::RequestBody,
    cluster::Cluster,
    model,
    pool::Outgoing,
    route::RouteTable,
    snapshot::{Clusters, Http, RouteCell},
    stack::{Outbound, OutboundParts},
    telemetry::metrics::Metrics,
    transport::{ConnInfo, TokioExec},
};
use tower_service::Service;

/// A pool that answers at once.
#[derive(Clone, Copy, Debug)]
pub struct Instant;

impl Instant {
    /// The answer to a request. Its head is in the memory of the request's, as heads circulate in hyper.
    pub fn answer<B>(request: Request<B>) -> Response<Full<Bytes>> {
        let mut headers = request.into_parts().0.headers;
        headers.clear();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let mut response = Response::new(Full::from("hello"));
        *response.headers_mut() = headers;
        response
    }
}

impl Service<Outgoing<RequestBody<Full<Bytes>>>> for Instant {
    type Response = Response<Full<Bytes>>;
    type Error = Error;
    type Future = std::future::Ready<Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, outgoing: Outgoing<RequestBody<Full<Bytes>>>) -> Self::Future {
        std::future::ready(Ok(Self::answer(outgoing.request)))
    }
}

/// The whole stack for one downstream connection, with one route to one cluster; with a retry policy if `retries`.
pub fn outbound(retries: bool) -> Outbound<Instant> {
    let address = |last| model::Address::Socket(([127, 0, 0, last], 80).into());
    let conn = Arc::new(ConnInfo::new(address(1), address(2)));
    OutboundParts::new(manager(retries), Instant, TokioExec).connection(Some(conn))
}

fn manager(retries: bool) -> Arc<Http> {
    let clusters: Clusters = [Arc::new(Cluster::new(Arc::new(cluster()), None))]
        .into_iter()
        .collect();
    let mut forward = model::Forward::to(model::ClusterChoice::Name("c".into()));
    if retries {
        forward.retry = Some(model::RetryPolicy {
            on: model::RetryOn::parse("connect-failure,refused-stream,unavailable").0,
            retries: 2,
            ..Default::default()
        });
    }
    let table = model::RouteConfiguration {
        virtual_hosts: vec![model::VirtualHost {
            name: "v".into(),
            domains: vec!["*".into()],
            routes: model::RouteRules::List(vec![route(forward)]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let table = RouteTable::compile(&table, &clusters).expect("a valid table");
    let cell = Arc::new(RouteCell::new("t".into(), table));
    let http = Http::new(
        Arc::default(),
        cell,
        model::Direction::Outbound,
        &Metrics::default(),
        &"test".into(),
    );
    Arc::new(http.expect("a valid manager"))
}

fn cluster() -> model::Cluster {
    let mut cluster = model::Cluster::new("c", model::Discovery::Static);
    cluster.load_assignment.localities = vec![model::LocalityEndpoints {
        endpoints: vec![model::LbEndpoint {
            address: model::Address::Socket(([127, 0, 0, 1], 1).into()),
            hostname: "".into(),
            weight: 1,
            health: Default::default(),
            metadata: Default::default(),
        }],
        ..Default::default()
    }];
    cluster
}

fn route(forward: model::Forward) -> model::Route {
    let all = model::RouteMatch::path(model::PathMatch::Prefix("/".into()));
    model::Route {
        name: "r".into(),
        ..model::Route::new(all, model::Action::Forward(Box::new(forward)))
    }
}

/// A request whose head has room, as hyper's has after the first request of a connection, and whose path is shared, so that a
/// clone counts a reference.
pub fn request() -> Request<Full<Bytes>> {
    static URI: OnceLock<http::Uri> = OnceLock::new();
    let mut request = Request::new(Full::default());
    *request.uri_mut() = URI.get_or_init(|| http::Uri::from_static("/hello")).clone();
    request.headers_mut().reserve(32);
    for (name, value) in [
        ("host", "a.test"),
        ("user-agent", "test"),
        ("accept", "*/*"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    request
}
