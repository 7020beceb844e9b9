//! One endpoint: address, health and counters, shared by all snapshots and workers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::Waker,
};

use super::stats::Count;
use crate::{
    model::{Address, HealthStatus, LbEndpoint, Locality, Metadata, Name, Value},
    sync::lock,
};

/// An endpoint of a cluster. Kept over updates as long as its address stays.
#[derive(Debug)]
pub struct Endpoint {
    id: u64,
    address: Address,
    hostname: Name,
    locality: Locality,
    priority: u32,
    metadata: Metadata,
    weight: AtomicU32,
    health: AtomicU8,
    /// What was found out here about its health: [`EJECTED`], [`FAILED`].
    found: AtomicU8,
    removed: AtomicBool,
    active: AtomicU32,
    stats: EndpointStats,
    watchers: Mutex<HashMap<u64, Watcher>>,
}

/// Who wants to know at once that connections to the endpoint may have to end: a sign that is set, and who looks at it.
#[derive(Debug)]
struct Watcher {
    sign: Arc<AtomicBool>,
    waker: Waker,
}

/// Outlier detection took it out.
const EJECTED: u8 = 1;
/// Active health checks fail.
const FAILED: u8 = 2;

/// What is counted of an endpoint, under Envoy's names.
#[derive(Debug, Default)]
pub struct EndpointStats {
    /// Connections made.
    pub cx_total: Count,
    /// Connections open.
    pub cx_active: Count,
    /// Connections that failed.
    pub cx_connect_fail: Count,
    /// Requests that got a connection.
    pub rq_total: Count,
    /// Requests that wait for a connection (gauge).
    pub rq_pending_active: Count,
    /// Requests answered without a 5xx.
    pub rq_success: Count,
    /// Requests answered with a 5xx, or not at all.
    pub rq_error: Count,
    /// Requests that timed out.
    pub rq_timeout: Count,
}

impl Endpoint {
    pub(crate) fn new(config: &LbEndpoint, locality: &Locality, priority: u32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            address: config.address.clone(),
            hostname: config.hostname.clone(),
            locality: locality.clone(),
            priority,
            metadata: config.metadata.clone(),
            weight: AtomicU32::new(config.weight.max(1)),
            health: AtomicU8::new(config.health as u8),
            found: AtomicU8::new(0),
            removed: AtomicBool::new(false),
            active: AtomicU32::new(0),
            stats: EndpointStats::default(),
            watchers: Mutex::default(),
        }
    }

    pub(crate) fn for_address(addr: SocketAddr) -> Self {
        let config = LbEndpoint {
            address: Address::Socket(addr),
            hostname: "".into(),
            weight: 1,
            health: HealthStatus::Unknown,
            metadata: Metadata::default(),
        };
        Self::new(&config, &Locality::default(), 0)
    }

    /// Unique in the process and never used again: the key of pooled connections.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its host name; may be empty.
    pub fn hostname(&self) -> &Name {
        &self.hostname
    }

    /// Where it is.
    pub fn locality(&self) -> &Locality {
        &self.locality
    }

    /// 0 is the first choice.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// What the control plane says of it beside that.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Requests in flight, those that wait for a connection among them.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// What is counted.
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// What the control plane says of its health; outlier detection says more.
    pub fn health(&self) -> HealthStatus {
        use HealthStatus::*;
        let health = self.health.load(Ordering::Relaxed);
        let all = [Unknown, Healthy, Unhealthy, Draining, Timeout, Degraded];
        let found = all.into_iter().find(|one| *one as u8 == health);
        found.unwrap_or_default()
    }

    /// Whether its metadata call it a canary (`canary` in `envoy.lb`).
    pub fn is_canary(&self) -> bool {
        let canary = self.metadata.get("envoy.lb", &["canary".into()]);
        canary == Some(&Value::Bool(true))
    }

    /// Whether it takes traffic as a first choice.
    pub fn is_healthy(&self) -> bool {
        let said = self.health.load(Ordering::Relaxed);
        (said == HealthStatus::Unknown as u8 || said == HealthStatus::Healthy as u8)
            && !self.is_out()
    }

    /// Whether it takes traffic if healthy ones are too few.
    pub fn is_degraded(&self) -> bool {
        let said = self.health.load(Ordering::Relaxed);
        said == HealthStatus::Degraded as u8 && !self.is_out()
    }

    /// Whether outlier detection took it out.
    pub fn is_ejected(&self) -> bool {
        self.has(EJECTED)
    }

    /// Takes it out, or back in: the seam of outlier detection. No pick finds it from now on; that priorities and the panic
    /// threshold count anew, [`Cluster::health_changed`](super::Cluster::health_changed) says.
    pub fn set_ejected(&self, ejected: bool) {
        self.set(EJECTED, ejected);
    }

    /// Whether active health checks fail.
    pub fn is_failed(&self) -> bool {
        self.has(FAILED)
    }

    /// Says whether active health checks fail: their seam, as [`set_ejected`](Self::set_ejected) is that of outlier detection.
    pub fn set_failed(&self, failed: bool) {
        self.set(FAILED, failed);
    }

    /// Whether it was found out here that it should get no traffic.
    pub(super) fn is_out(&self) -> bool {
        self.found.load(Ordering::Relaxed) != 0
    }

    fn has(&self, what: u8) -> bool {
        self.found.load(Ordering::Relaxed) & what != 0
    }

    fn set(&self, what: u8, on: bool) {
        match on {
            true => self.found.fetch_or(what, Ordering::Relaxed),
            false => self.found.fetch_and(!what, Ordering::Relaxed),
        };
        self.alert();
    }

    /// Takes over what was found out about `old`, which stood at the same address.
    pub(super) fn inherit(&self, old: &Self) {
        let found = old.found.load(Ordering::Relaxed);
        self.found.store(found, Ordering::Relaxed);
    }

    /// Whether it is left out where endpoints are counted, since it is about to go (`DRAINING`).
    pub fn is_excluded(&self) -> bool {
        self.health.load(Ordering::Relaxed) == HealthStatus::Draining as u8
    }

    /// Whether its cluster has it no longer.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Its cluster has it no longer.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        self.alert();
    }

    /// All who watch look whether their connection may stay.
    pub(super) fn alert(&self) {
        for watcher in lock(&self.watchers).values() {
            watcher.sign.store(true, Ordering::Relaxed);
            watcher.waker.wake_by_ref();
        }
    }

    /// From now on `sign` is set, and `waker` woken, when connections to it may have to end.
    #[cfg(feature = "client")]
    pub(crate) fn watch(&self, id: u64, sign: Arc<AtomicBool>, waker: Waker) {
        lock(&self.watchers).insert(id, Watcher { sign, waker });
    }

    /// Ends what [`Endpoint::watch`] began.
    #[cfg(feature = "client")]
    pub(crate) fn unwatch(&self, id: u64) {
        lock(&self.watchers).remove(&id);
    }

    pub(super) fn update(&self, config: &LbEndpoint) {
        self.weight.store(config.weight.max(1), Ordering::Relaxed);
        self.health.store(config.health as u8, Ordering::Relaxed);
    }

    /// Whether an update may keep this endpoint: only weight and health may differ.
    pub(super) fn fits(&self, config: &LbEndpoint, locality: &Locality, priority: u32) -> bool {
        self.address == config.address
            && self.priority == priority
            && self.locality == *locality
            && self.hostname == config.hostname
            && self.metadata == config.metadata
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}
