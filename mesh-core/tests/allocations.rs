//! What the stack costs a plain request: no allocation of its own, and futures of a known size.

#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(all(feature = "client", feature = "server"))]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header::HeaderValue};
use http_body_util::{BodyExt, Full};
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

/// Counts the allocations of the thread that asks for it.
struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn count() {
    let _ = COUNT.try_with(|count| count.set(count.get().map(|count| count + 1)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local without a destructor.
#[allow(
    unsafe_code,
    reason = "an allocator can only be counted by being one; this is a test"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of `work`.
fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    COUNT.set(Some(0));
    let result = work();
    (COUNT.take().unwrap_or_default(), result)
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
        // The head of a response circulates as the head of a request does in hyper: its memory is used again.
        let mut headers = std::mem::take(&mut outgoing.request.into_parts().0.headers);
        headers.clear();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        let mut response = Response::new(Full::from("hello"));
        *response.headers_mut() = headers;
        std::future::ready(Ok(response))
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
    // A path that is shared already, so that a clone counts a reference.
    static URI: std::sync::OnceLock<http::Uri> = std::sync::OnceLock::new();
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

async fn exchange<S, B>(stack: &mut S, request: Request<Full<Bytes>>) -> Bytes
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let Ok(response) = stack.call(request).await;
    let mut body = response.into_body();
    let frame = body.frame().await.expect("a frame").expect("no error");
    frame.into_data().expect("data")
}

#[test]
fn a_plain_request_costs_no_allocation_of_the_stack() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for retries in [false, true] {
        let parts = OutboundParts::new(http(retries), Instant, TokioExec);
        let address = |last| model::Address::Socket(([127, 0, 0, last], 80).into());
        let conn = Arc::new(ConnInfo::new(address(1), address(2)));
        let mut stack = parts.connection(Some(conn));
        let mut worst = 0;
        let mut blocks = 0;
        for turn in 0..300 {
            let request = request();
            let (own, body) = allocations(|| runtime.block_on(exchange(&mut stack, request)));
            assert_eq!(body, "hello");
            // The first requests fill pools and caches; x-request-id takes a block now and then.
            if turn >= 8 {
                worst = worst.max(own);
                blocks += own;
            }
        }
        assert!(
            worst <= 1,
            "retries: {retries}: {worst} allocations in one request"
        );
        assert!(
            blocks <= 292 / 100 + 1,
            "retries: {retries}: {blocks} allocations in 292 requests"
        );
    }
}

#[test]
fn the_future_of_the_stack_stays_small() {
    let parts = OutboundParts::new(http(true), Instant, TokioExec);
    let mut stack = parts.connection(None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let _guard = runtime.enter();
    let size = size_of_val(&stack.call(request()));
    assert!(
        (256..=1400).contains(&size),
        "{size} bytes: adjust the bounds if this is meant"
    );
}
