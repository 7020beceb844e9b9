//! Carries the bytes of an upgraded exchange until both directions are closed.

use hyper_util::rt::TokioIo;

use crate::{Kind, body::Guard, cluster::Attempt, layer::route::Ends, telemetry::record::Ending};

/// Splices both ends; the request's record is completed, and its place in the limits given back, at the end.
pub(super) async fn run(ends: Ends, mut guard: Guard, attempt: Option<Attempt>) {
    let ending = match tokio::try_join!(ends.client, ends.upstream) {
        Ok((client, upstream)) => {
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
                Ok((received, sent)) => {
                    if let Some(record) = guard.record() {
                        record.spliced(received, sent);
                    }
                    Ending::Complete
                }
                // Peers of a WebSocket rarely close both directions; a reset at the end is how most of them end.
                Err(error) => {
                    tracing::debug!(%error, "Upgraded connection ended");
                    Ending::Complete
                }
            }
        }
        Err(error) => {
            tracing::debug!(%error, "Upgrade failed");
            Ending::Broken(Kind::ConnectionTermination)
        }
    };
    drop(attempt);
    guard.finish(ending);
}
