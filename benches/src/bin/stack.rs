//! What the stack adds to a call: the whole outbound stack over a pool that answers at once, less that pool alone.

use std::{
    convert::Infallible,
    hint::black_box,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header::HeaderValue};
use http_body::{Body, Frame, SizeHint};
use mesh_core::{
    Error,
    body::RequestBody,
    cluster::Cluster,
    model,
    pool::Outgoing,
    route::RouteTable,
    snapshot::{Clusters, Http, RouteCell},
    stack::OutboundParts,
    telemetry::metrics::Metrics,
    transport::{ConnInfo, TokioExec},
};
use tower_service::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: u32 = 7;
const CALLS: u32 = 200_000;

/// A body of known size, or none.
struct Full<B>(Option<B>);

impl<B> Default for Full<B> {
    fn default() -> Self {
        Self(None)
    }
}

impl From<&'static str> for Full<Bytes> {
    fn from(text: &'static str) -> Self {
        Self(Some(Bytes::from_static(text.as_bytes())))
    }
}

impl Body for Full<Bytes> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// A pool that answers at once: what is left is the stack.
#[derive(Clone)]
struct Instant;

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

impl Instant {
    fn answer<B>(request: Request<B>) -> Response<Full<Bytes>> {
        // The head of a response circulates as the head of a request does in hyper: its memory is used again.
        let mut headers = request.into_parts().0.headers;
        headers.clear();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let mut response = Response::new(Full::from("hello"));
        *response.headers_mut() = headers;
        response
    }
}

fn http(retries: bool) -> Arc<Http> {
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
    let clusters: Clusters = [Arc::new(Cluster::new(Arc::new(cluster), None))]
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
            routes: model::RouteRules::List(vec![model::Route {
                name: "r".into(),
                matches: model::RouteMatch {
                    path: model::PathMatch::Prefix("/".into()),
                    case_sensitive: true,
                    headers: Vec::new(),
                    query: Vec::new(),
                    grpc: false,
                    runtime_fraction: None,
                    metadata: Vec::new(),
                    filter_state: Vec::new(),
                    tls: None,
                },
                action: model::Action::Forward(Box::new(forward)),
                headers: Default::default(),
                decorator: None,
                filters: Vec::new(),
                per_request_buffer_limit: None,
                stat_prefix: None,
                metadata: Default::default(),
                origin: Default::default(),
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    let table = RouteTable::compile(&table, &clusters).expect("a valid table");
    let cell = Arc::new(RouteCell::new("t".into(), table));
    let config = Arc::new(model::HttpConnectionManager::default());
    let metrics = Metrics::default();
    let http = Http::new(
        config,
        cell,
        model::Direction::Outbound,
        &metrics,
        &"test".into(),
    );
    Arc::new(http.expect("a valid manager"))
}

/// A request whose head has room, as hyper's has after the first request of a connection.
fn request() -> Request<Full<Bytes>> {
    let mut request = Request::get("/hello")
        .body(Full::default())
        .expect("a request");
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

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let bare = measure(&runtime, None);
    for (name, retries) in [("plain", false), ("with a retry policy", true)] {
        let whole = measure(&runtime, Some(retries));
        println!("{name}: {:.0} ns added to a call", whole - bare);
    }
}

/// The fastest round, in nanoseconds a call; without a stack if `retries` is `None`.
fn measure(runtime: &tokio::runtime::Runtime, retries: Option<bool>) -> f64 {
    let address = |last| model::Address::Socket(([127, 0, 0, last], 80).into());
    let conn = Arc::new(ConnInfo::new(address(1), address(2)));
    let mut stack = retries.map(|retries| {
        OutboundParts::new(http(retries), Instant, TokioExec).connection(Some(conn))
    });
    let round = |_| {
        let start = cpu();
        runtime.block_on(async {
            for _ in 0..CALLS {
                let request = black_box(request());
                match &mut stack {
                    Some(stack) => {
                        let Ok(response) = stack.call(request).await;
                        drain(response.into_body()).await;
                    }
                    None => drain(Instant::answer(request).into_body()).await,
                }
            }
        });
        (cpu() - start) as f64 / f64::from(CALLS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

async fn drain(mut body: impl Body<Data = Bytes> + Unpin) {
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
    black_box(frame.is_some());
}

/// Nanoseconds that this thread has run, so that other work on the machine does not count.
fn cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("needs Linux");
    let run = text.split(' ').next().and_then(|run| run.parse().ok());
    run.expect("the first number is the time on a processor")
}
