//! The HTTP server behind the admin pages.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use super::{Admin, Pages};

/// Longest wait for a request head on an admin connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Admin connections at one time; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 128;

/// How often it is said at most that none can be accepted.
const SAID_EVERY: Duration = Duration::from_secs(10);
/// Pages that are as long as the configuration.
const LONG: [&str; 7] = [
    "/stats",
    "/stats/prometheus",
    "/metrics",
    "/clusters",
    "/config_dump",
    "/config_status",
    "/reset_counters",
];

/// Answers a request. Long pages are made one at a time on a thread apart, so that probes are answered meanwhile.
async fn answer(
    admin: Admin,
    pages: Pages,
    request: Request<Incoming>,
    apart: Arc<Semaphore>,
) -> Response<Full<Bytes>> {
    let turn = match LONG.contains(&request.uri().path()) {
        true => apart.acquire_owned().await.ok(),
        false => None,
    };
    let answer = move || {
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        admin.answer(pages, request.method(), uri.path(), query)
    };
    let Some(turn) = turn else {
        return answer();
    };
    // The turn ends with the page, also when nobody waits for it any more.
    let made = tokio::task::spawn_blocking(move || (answer(), turn)).await;
    made.map_or_else(|_| failed(), |(page, _)| page)
}

/// A page that could not be made.
fn failed() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// Serves `pages` until the process ends.
pub(crate) async fn serve(admin: Admin, pages: Pages, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let apart = Arc::new(Semaphore::new(1));
    let mut said: Option<Instant> = None;
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: the next accept would fail at once too.
                if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                    tracing::warn!(%error, "Admin connection not accepted");
                    said = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (admin, apart) = (admin.clone(), apart.clone());
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let (admin, apart) = (admin.clone(), apart.clone());
                async move { Ok::<_, Infallible>(answer(admin, pages, request, apart).await) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "Admin connection ended");
            }
        });
    }
}
