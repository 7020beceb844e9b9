//! The HTTP server behind the admin pages.

use std::convert::Infallible;

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::{Admin, Pages};

/// Longest wait for a request head on an admin connection.
const HEADER_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// Admin connections at one time; more wait in the accept queue.
const MAX_CONNECTIONS: usize = 128;

/// Serves `pages` until the process ends.
pub(crate) async fn serve(admin: Admin, pages: Pages, listener: TcpListener) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: the next accept would fail at once too.
                tracing::warn!(%error, "Admin connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<Incoming>| {
                let uri = request.uri();
                let response = admin.answer(
                    pages,
                    request.method(),
                    uri.path(),
                    uri.query().unwrap_or_default(),
                );
                async move { Ok::<_, Infallible>(response) }
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
