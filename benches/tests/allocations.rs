//! What the stack costs a plain request: no allocation of its own, and futures of a known size.

#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use mesh_benches::loopback::{self, Client, Failure, Protocol};
use mesh_benches::stack::{outbound, request};
use mesh_core::transport::TcpConnector;
use tokio::runtime::Runtime;
use tower_service::Service;

/// Counts the allocations of the thread that asks for it.
struct Counting;

thread_local! {
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn note() {
    let _ = COUNT.try_with(|count| count.set(count.get().map(|count| count + 1)));
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local without a destructor.
#[allow(
    unsafe_code,
    reason = "an allocator can only be counted by being one; this is a test"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
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
    let runtime = loopback::runtime().expect("a runtime");
    for retries in [false, true] {
        let mut stack = outbound(retries);
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
    let mut stack = outbound(true);
    let runtime = loopback::runtime().expect("a runtime");
    let _guard = runtime.enter();
    let size = size_of_val(&stack.call(request()));
    assert!(
        (256..=1400).contains(&size),
        "{size} bytes: adjust the bounds if this is meant"
    );
}

/// Requests that are counted, and those before them that fill pools, caches and buffers.
const COUNTED: u32 = 500;
const WARM: u32 = 100;

/// What goes to the app.
#[derive(Clone, Copy)]
enum By {
    /// Connections of hyper's.
    Bare,
    /// The mesh, with these lines in its route.
    Mesh(&'static str),
}

impl By {
    fn generates(self) -> bool {
        matches!(self, Self::Mesh(route) if !route.is_empty())
    }
}

/// Headers that are made for each request and each response.
const GENERATED: &str = r#"request_headers_to_add: [{header: {key: x-from, value: "%DOWNSTREAM_REMOTE_ADDRESS% over %PROTOCOL%"}}]
                response_headers_to_add: [{header: {key: x-to, value: "%UPSTREAM_HOST% of %UPSTREAM_CLUSTER%"}}]"#;

/// Texts that are made for a request are cut from blocks; a block serves about a hundred requests.
const POOLED: f64 = 0.05;

/// Allocations a request of this thread, which runs a proxy. Client and app are other threads'.
fn proxy(protocol: Protocol, by: By) -> Result<f64, Failure> {
    let app = loopback::app(protocol)?;
    let runtime = loopback::runtime()?;
    let address = runtime.block_on(async {
        match by {
            By::Bare => loopback::bare_proxy(protocol, app).await,
            By::Mesh(route) => loopback::mesh_proxy(&loopback::mesh(protocol, app, route)?),
        }
    })?;
    let round = |count| {
        let (done, wait) = tokio::sync::oneshot::channel();
        let client = std::thread::spawn(move || {
            let sent = loopback::runtime()?.block_on(loopback::send(protocol, address, count));
            let _ = done.send(());
            sent
        });
        let (own, _) = allocations(|| runtime.block_on(wait));
        let headers = client.join().expect("no panic")?;
        assert_eq!(headers.contains_key("x-to"), by.generates());
        Ok::<_, Failure>(own)
    };
    // The first fills pools and caches; the second is a connection with fewer requests.
    round(WARM)?;
    let fewer = round(WARM)?;
    Ok((round(WARM + COUNTED)? - fewer) as f64 / f64::from(COUNTED))
}

/// Allocations a call of this thread, which is a client of the app.
fn calls(protocol: Protocol, by: By) -> Result<f64, Failure> {
    let app = loopback::app(protocol)?;
    let runtime = loopback::runtime()?;
    let uri = loopback::uri(Protocol::Http2, app);
    let own = match by {
        By::Bare => {
            let client = runtime.block_on(Client::connect(protocol, app))?;
            let uri = loopback::uri(protocol, app);
            count(&runtime, async || {
                loopback::is_answer(client.send(loopback::get(&uri)).await?).await
            })
        }
        By::Mesh(route) => {
            let mut client = loopback::mesh(protocol, app, route)?.client(TcpConnector);
            count(&runtime, async || {
                let Ok(response) = client.call(loopback::get(&uri)).await;
                assert_eq!(response.headers().contains_key("x-to"), by.generates());
                loopback::is_answer(response).await
            })
        }
    }?;
    Ok(own as f64 / f64::from(COUNTED))
}

/// Allocations of [`COUNTED`] calls.
fn count(
    runtime: &Runtime,
    mut call: impl AsyncFnMut() -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let mut round = |count| {
        runtime.block_on(async {
            for _ in 0..count {
                call().await?;
            }
            Ok(())
        })
    };
    round(WARM)?;
    let (own, sent) = allocations(|| round(COUNTED));
    sent.map(|()| own)
}

/// tokio boxes a future of more than 2 KiB when it is spawned, as those of HTTP/2 streams are; without debug assertions it does
/// so from 16 KiB on, which they stay below.
fn boxed(protocol: Protocol, what: &str) -> f64 {
    match protocol {
        Protocol::Http2 if what == "proxy" && cfg!(debug_assertions) => 1.0,
        _ => 0.0,
    }
}

/// Holds what is ours, the allocations beyond those of hyper alone, against the bars.
fn judge(what: &str, measure: impl Fn(Protocol, By) -> Result<f64, Failure>) {
    let measure = |protocol, by| measure(protocol, by).expect("loopback works");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let bare = measure(protocol, By::Bare);
        for (headers, route, bar) in [("", "", 0.0), (", generated headers", GENERATED, 1.0)] {
            let ours = measure(protocol, By::Mesh(route)) - bare - boxed(protocol, what);
            let name = format!("{what}, {protocol:?}{headers}");
            println!("{name}: {ours:.3} allocations a request, beside {bare:.3} of hyper");
            let bar = bar + POOLED;
            assert!(ours <= bar, "{name}: {ours:.3}, at most {bar}");
        }
    }
}

#[test]
fn a_proxied_request_on_real_connections_costs_no_allocation_of_ours() {
    judge("proxy", proxy);
}

#[test]
fn a_call_on_real_connections_costs_no_allocation_of_ours() {
    judge("client", calls);
}
