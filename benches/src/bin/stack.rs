//! What the stack adds to a call: the whole outbound stack over a pool that answers at once, less that pool alone.

use std::hint::black_box;

use bytes::Bytes;
use http_body::Body;
use mesh_benches::loopback;
use mesh_benches::stack::{Instant, outbound, request};
use tower_service::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: u32 = 7;
const CALLS: u32 = 200_000;

fn main() {
    let runtime = loopback::runtime().expect("a runtime");
    let bare = measure(&runtime, None);
    for (name, retries) in [("plain", false), ("with a retry policy", true)] {
        let whole = measure(&runtime, Some(retries));
        println!("{name}: {:.0} ns added to a call", whole - bare);
    }
}

/// The fastest round, in nanoseconds a call; without a stack if `retries` is `None`.
fn measure(runtime: &tokio::runtime::Runtime, retries: Option<bool>) -> f64 {
    let mut stack = retries.map(outbound);
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
