//! Circuit breakers: counters that are compared with their maxima when something begins.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::Cluster;
use crate::model::Priority;

/// What is in use of one limit.
#[derive(Debug, Default)]
pub struct Counter(AtomicU32);

impl Counter {
    /// Takes one if fewer than `max` are in use.
    pub(crate) fn try_acquire(&self, max: u32) -> bool {
        // Add first and take back on overflow: one atomic operation on the usual path, and never more than `max` succeed.
        if self.0.fetch_add(1, Ordering::AcqRel) < max {
            return true;
        }
        self.0.fetch_sub(1, Ordering::AcqRel);
        false
    }

    /// Takes one whatever the limit is.
    fn acquire(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives one back.
    pub(crate) fn release(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many are in use.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is in use of a cluster's limits at one priority.
#[derive(Debug, Default)]
pub struct LimitState {
    /// Upstream connections.
    pub connections: Counter,
    /// Requests that wait for a connection.
    pub pending: Counter,
    /// Requests in flight, those that wait for a connection among them.
    pub requests: Counter,
    /// Retries in flight.
    pub retries: Counter,
}

impl LimitState {
    /// Requests that have a connection: the limit of requests is for these.
    pub fn active(&self) -> u32 {
        self.requests.get().saturating_sub(self.pending.get())
    }

    /// Counts a request if fewer than `max` have a connection. Those that wait for one are counted too, and found on the rare path.
    pub(super) fn try_request(&self, max: u32) -> bool {
        if self.requests.try_acquire(max) {
            return true;
        }
        self.requests.acquire();
        let admitted = self.active() <= max;
        if !admitted {
            self.requests.release();
        }
        admitted
    }
}

/// One unit of a cluster's limit, given back on drop.
#[derive(Debug)]
pub struct Permit {
    cluster: Arc<Cluster>,
    priority: Priority,
    what: fn(&LimitState) -> &Counter,
}

impl Permit {
    /// A connection; `None` if all are in use.
    pub fn connection(cluster: &Arc<Cluster>, priority: Priority) -> Option<Self> {
        let max = cluster.limits(priority).0.max_connections;
        Self::acquire(cluster, priority, max, |state| &state.connections)
    }

    /// A connection beyond the limit, which counts like any other.
    pub(crate) fn beyond(cluster: &Arc<Cluster>, priority: Priority) -> Self {
        cluster.limits(priority).1.connections.acquire();
        Self {
            cluster: cluster.clone(),
            priority,
            what: |state| &state.connections,
        }
    }

    /// A place among the requests that wait for a connection; `None` if all are taken.
    pub fn pending(cluster: &Arc<Cluster>, priority: Priority) -> Option<Self> {
        let max = cluster.limits(priority).0.max_pending_requests;
        Self::acquire(cluster, priority, max, |state| &state.pending)
    }

    /// A retry; `None` if all are in use, or the budget is spent.
    ///
    /// A budget counts requests in flight, those that wait for a connection among them, and allows its share of them but at
    /// least its minimum.
    pub fn retry(cluster: &Arc<Cluster>, priority: Priority) -> Option<Self> {
        let (limits, state) = cluster.limits(priority);
        let max = match limits.retry_budget {
            Some(budget) => {
                let load = u64::from(state.requests.get());
                let share = load * u64::from(budget.basis_points) / 10_000;
                u32::try_from(share)
                    .unwrap_or(u32::MAX)
                    .max(budget.min_concurrency)
            }
            None => limits.max_retries,
        };
        Self::acquire(cluster, priority, max, |state| &state.retries)
    }

    fn acquire(
        cluster: &Arc<Cluster>,
        priority: Priority,
        max: u32,
        what: fn(&LimitState) -> &Counter,
    ) -> Option<Self> {
        what(cluster.limits(priority).1)
            .try_acquire(max)
            .then(|| Self {
                cluster: cluster.clone(),
                priority,
                what,
            })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        (self.what)(self.cluster.limits(self.priority).1).release();
    }
}
