//! Requests through the whole stack, over a pool that answers what the input says.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use mesh_core::body::{RequestBody, ResponseBody};
use mesh_core::model::{Address, Priority};
use mesh_core::pool::Outgoing;
use mesh_core::snapshot::Mesh;
use mesh_core::stack::OutboundParts;
use mesh_core::transport::{ConnInfo, TokioExec};
use mesh_core::{Error, Kind};
use mesh_xds::file::FileSource;
use tokio::runtime::Runtime;
use tower_service::Service;

const CONFIG: &str = include_str!("request.yaml");

/// How often a request is polled until its client leaves.
const TURNS: usize = 12;

thread_local! {
    static FIXTURE: (Runtime, Mesh) = {
        let source = FileSource::parse("request.yaml", CONFIG).expect("the file is valid");
        let update = source.first().cloned().unwrap_or_default();
        assert!(update.rejections.is_empty(), "{:?}", update.rejections);
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        driver.apply(update);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        (runtime.enable_time().build().expect("a runtime"), mesh)
    };
}

/// The answers that are left; none: the upstream is gone.
#[derive(Clone)]
struct Answers(Arc<Mutex<VecDeque<Response<String>>>>);

impl<B> Service<Outgoing<RequestBody<B>>> for Answers {
    type Response = Response<String>;
    type Error = Error;
    type Future = Ready<Result<Response<String>, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Outgoing<RequestBody<B>>) -> Self::Future {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = left.pop_front();
        ready(next.ok_or_else(|| Kind::ConnectionTermination.into()))
    }
}

/// Sends a head through each stack: lines of `METHOD URI` and `name:value`, then, each behind a zero byte, the answers of the
/// upstream as lines of `STATUS` and `name:value`. Whatever comes of it, also if the client leaves in between, all places are given back.
pub fn request(data: &[u8]) {
    let mut heads = data
        .split(|byte| *byte == 0)
        .map(|head| head.split(|byte| *byte == b'\n'));
    let Some(request) = heads.next().and_then(asked) else {
        return;
    };
    let answers = heads.filter_map(answered).take(8).collect();
    FIXTURE.with(|(runtime, mesh)| {
        for listener in mesh.snapshot().listeners().values() {
            let http = listener.http(0).expect("all chains are HTTP").clone();
            let address = |last| Address::Socket(([127, 0, 0, last], 80).into());
            let connection = Arc::new(ConnInfo::new(address(1), address(2)));
            let leaf = Answers(Arc::new(Mutex::new(VecDeque::clone(&answers))));
            let parts = OutboundParts::new(http, leaf, TokioExec);
            let mut stack = parts.connection(Some(connection));
            runtime.block_on(async { run(stack.call(request.clone())).await });
        }
        for cluster in mesh.clusters().all().values() {
            let state = cluster.limits(Priority::Default).1;
            let places = [
                state.requests.get().into(),
                state.retries.get().into(),
                cluster.stats().upstream_rq_active.get(),
            ];
            assert_eq!(places, [0; 3], "{} keeps a place", cluster.name());
        }
    });
}

/// Lets an exchange go on for a few turns, reads what comes, and leaves.
async fn run<F>(exchange: F)
where
    F: Future<Output = Result<Response<ResponseBody<String>>, Infallible>>,
{
    {
        let mut exchange = pin!(exchange);
        for _ in 0..TURNS {
            let polled = poll_fn(|context| Poll::Ready(exchange.as_mut().poll(context))).await;
            if let Poll::Ready(Ok(mut response)) = polled {
                let body = response.body_mut();
                poll_fn(|context| {
                    // What is not there at once is not waited for.
                    while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut *body).poll_frame(context) {}
                    Poll::Ready(())
                })
                .await;
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // Mirrors have tasks of their own.
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// A request head made of lines.
fn asked<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Request<String>> {
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::from_bytes(&first[..space]).ok()?;
    if *request.method() != Method::GET {
        request.body_mut().push_str("body");
    }
    *request.uri_mut() = Uri::try_from(&first[space + 1..]).ok()?;
    fill(request.headers_mut(), lines);
    Some(request)
}

/// A response head made of lines.
fn answered<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Response<String>> {
    let mut response = Response::new(String::from("answer"));
    *response.status_mut() = StatusCode::from_bytes(lines.next()?).ok()?;
    fill(response.headers_mut(), lines);
    Some(response)
}

fn fill<'a>(headers: &mut HeaderMap, lines: impl Iterator<Item = &'a [u8]>) {
    for line in lines.take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(&line[colon + 1..]);
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
}
