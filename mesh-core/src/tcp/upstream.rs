//! The upstream's side of a proxied connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

use crate::{
    Kind,
    cluster::{Attempt, AttemptOutcome, Permit},
    model::{ClusterChoice, Name},
    transport::ConnectError,
};

/// What an upstream connection holds of its cluster's limits.
pub(super) struct Held {
    pub(super) attempt: Attempt,
    pub(super) _connection: Permit,
    /// While it is made.
    pub(super) pending: Option<Permit>,
    /// Counted as open.
    pub(super) open: bool,
    /// The upstream has said all before the end.
    pub(super) ended: bool,
}

impl Held {
    pub(super) fn opened(&mut self) {
        self.open = true;
        self.pending = None;
        let (stats, endpoint) = (
            self.attempt.cluster().stats(),
            self.attempt.endpoint().stats(),
        );
        stats.upstream_cx_total.add(1);
        stats.upstream_cx_active.add(1);
        stats.upstream_rq_pending_total.add(1);
        endpoint.cx_total.add(1);
        endpoint.cx_active.add(1);
        let cluster = self.attempt.cluster();
        cluster.count_request(self.attempt.endpoint());
    }

    pub(super) fn finish(mut self, outcome: AttemptOutcome) {
        self.attempt.record(outcome);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.open {
            let stats = self.attempt.cluster().stats();
            stats.upstream_cx_active.sub(1);
            stats.connection_ended(self.ended);
            self.attempt.endpoint().stats().cx_active.sub(1);
        }
    }
}

/// Why there is no attempt at an endpoint.
pub(super) enum Unchosen {
    /// There can be none.
    Failed(Kind),
    /// Too many wait for a connection just now.
    Full,
}

impl From<Kind> for Unchosen {
    fn from(kind: Kind) -> Self {
        Self::Failed(kind)
    }
}

/// Takes nothing until somebody is there.
pub(super) struct Nobody;

impl AsyncWrite for Nobody {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// Envoy's words for a connection that could not be made (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
pub(super) fn failure(error: &ConnectError) -> Name {
    let ConnectError::Io { source, .. } = error else {
        return error.to_string().into();
    };
    let text = source.to_string();
    // What the standard library adds to the system's words.
    let words = text.split(" (os error").next().unwrap_or(&text);
    format!("delayed connect error: {words}")
        .replace(' ', "_")
        .into()
}

/// The cluster that a choice means; `None` if a request would have to say it.
pub(super) fn cluster_name(choice: &ClusterChoice, random: u64) -> Option<&Name> {
    match choice {
        ClusterChoice::Name(name) => Some(name),
        ClusterChoice::Weighted(weighted) if weighted.total > 0 => {
            let mut left = random % u64::from(weighted.total);
            let arm = weighted.arms.iter().find(|arm| {
                let weight = u64::from(arm.weight);
                let hit = left < weight;
                left = left.saturating_sub(weight);
                hit
            });
            arm.map(|arm| &arm.name)
        }
        _ => None,
    }
}
