//! Handles of clusters: what outlives a snapshot (endpoints, counters) and how a request is admitted to one.

mod attempt;
mod endpoint;
mod lb;
mod limits;
mod monitor;
mod set;
mod shares;
mod stats;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

pub(crate) use self::stats::Statuses;
pub use self::{
    attempt::{Attempt, AttemptOutcome},
    endpoint::{Endpoint, EndpointStats},
    lb::{Balancer, CustomLb, Omit, PickKey, Picker},
    limits::{Counter, LimitState, Permit},
    monitor::Monitor,
    set::EndpointSet,
    stats::{ClusterStats, ClusterTimes, Count},
};
use crate::{
    Kind,
    model::{self, ClusterLoadAssignment, Discovery, Priority},
    sync::lock,
};

/// A cluster as requests see it: its configuration, and the state that survives reloads under its name.
///
/// A changed configuration makes a new handle over the same state, so that requests in flight finish on the old one and
/// counters, limits in use and pooled connections go on.
#[derive(Debug)]
pub struct Cluster {
    /// Unique in the process: unlike its address, no later handle has it.
    number: u64,
    config: Arc<model::Cluster>,
    in_mesh: bool,
    catch_all: bool,
    /// Who is told of attempts.
    monitor: Option<Arc<dyn Monitor>>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    endpoints: ArcSwap<EndpointSet>,
    /// Held by whoever makes the next set, never by a request.
    assembling: Mutex<()>,
    /// Endpoints of an original-destination cluster, made as connections come.
    original: ArcSwap<Originals>,
    limits: [LimitState; 2],
    stats: ClusterStats,
    /// Rises when connections of before must not be used again.
    generation: AtomicU64,
    /// An endpoint has sent an interim response.
    interims: AtomicBool,
}

/// The endpoints of an original-destination cluster.
type Originals = HashMap<SocketAddr, Arc<Endpoint>>;

/// Most endpoints that an original-destination cluster remembers; beyond it the memory is begun anew.
const MAX_ORIGINAL_DESTINATIONS: usize = 16 * 1024;

impl Cluster {
    /// A handle for `config`, on the state of `previous` if there is one of that name.
    pub fn new(config: Arc<model::Cluster>, previous: Option<&Self>) -> Self {
        let state = match previous {
            Some(previous) => {
                if !same_transport(&previous.config, &config) {
                    previous.state.generation.fetch_add(1, Ordering::Relaxed);
                }
                previous.state.clone()
            }
            None => Arc::new(State {
                endpoints: ArcSwap::from_pointee(EndpointSet::default()),
                assembling: Mutex::default(),
                original: ArcSwap::default(),
                limits: Default::default(),
                stats: ClusterStats::default(),
                generation: AtomicU64::new(0),
                interims: AtomicBool::new(false),
            }),
        };
        let external = config.metadata.get("istio", &["external".into()]);
        let in_mesh = config.name.starts_with("outbound|")
            && !matches!(external, Some(model::Value::Bool(true)));
        let catch_all = matches!(&*config.name, "PassthroughCluster" | "BlackHoleCluster");
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let cluster = Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            config,
            in_mesh,
            catch_all,
            monitor: None,
            state,
        };
        match &cluster.config.discovery {
            Discovery::Static => cluster.set_endpoints(&cluster.config.load_assignment),
            // The rest gets its endpoints later, and keeps what it has; only the policy may have changed.
            _ => cluster.refresh_policy(),
        }
        cluster
    }

    /// Its name.
    pub fn name(&self) -> &model::Name {
        &self.config.name
    }

    /// What tells this handle from all others; never 0.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether its endpoints are workloads of an Istio mesh: an outbound cluster that is not marked as external.
    pub(crate) fn is_in_mesh(&self) -> bool {
        self.in_mesh
    }

    /// Whether it is where Istio sends requests for hosts that it does not know.
    pub(crate) fn is_catch_all(&self) -> bool {
        self.catch_all
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<model::Cluster> {
        &self.config
    }

    /// Whether an endpoint has sent an interim response (1xx), so that more are to be expected.
    #[cfg(feature = "client")]
    pub(crate) fn sends_interims(&self) -> bool {
        self.state.interims.load(Ordering::Relaxed)
    }

    /// An endpoint sent an interim response.
    #[cfg(feature = "client")]
    pub(crate) fn sent_interim(&self) {
        self.state.interims.store(true, Ordering::Relaxed);
    }

    /// What is counted of it.
    pub fn stats(&self) -> &ClusterStats {
        &self.state.stats
    }

    /// Limits of `priority`: counters in use; the maxima stand in the configuration.
    pub fn limits(&self, priority: Priority) -> (&model::Limits, &LimitState) {
        let index = priority as usize;
        (&self.config.limits[index], &self.state.limits[index])
    }

    /// The endpoints now.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        self.state.endpoints.load_full()
    }

    /// Rises when pooled connections must not be used again because transport settings changed.
    pub fn generation(&self) -> u64 {
        self.state.generation.load(Ordering::Relaxed)
    }

    /// Replaces the endpoints. Those that stay, by address, keep health, counters and connections. Requests read the set without
    /// a lock.
    pub(crate) fn set_endpoints(&self, assignment: &ClusterLoadAssignment) {
        let _alone = lock(&self.state.assembling);
        let current = self.state.endpoints.load();
        let next = EndpointSet::build(&current, assignment, &self.config);
        let members = next.members();
        let changed = members != current.members();
        self.state.endpoints.store(Arc::new(next));
        if !changed {
            return;
        }
        self.state.stats.membership_change.add(1);
        let all = self.config.close_on_host_set_change;
        if all {
            self.state.generation.fetch_add(1, Ordering::Relaxed);
        }
        // What idles on a connection to one that is gone closes now, and what is in use with the end of its exchange.
        for endpoint in current.all() {
            match members.contains(&endpoint.id()) {
                false => endpoint.remove(),
                true if all => endpoint.alert(),
                true => {}
            }
        }
    }

    /// Counts anew which endpoints are healthy, after what was found out about some of them has changed: priorities,
    /// overprovisioning and the panic threshold go by it. It costs by the number of endpoints, so it is called once for all
    /// that changed at one time, off the request path; requests meet the new set without a lock.
    pub fn health_changed(&self) {
        let _alone = lock(&self.state.assembling);
        let next = self.state.endpoints.load().sorted(&self.config);
        self.state.endpoints.store(Arc::new(next));
    }

    /// `monitor` is told of attempts at its endpoints.
    #[must_use]
    pub(crate) fn monitored(mut self, monitor: Option<Arc<dyn Monitor>>) -> Self {
        self.monitor = monitor;
        self
    }

    fn refresh_policy(&self) {
        let _alone = lock(&self.state.assembling);
        let current = self.state.endpoints.load();
        if let Some(next) = current.under(&self.config) {
            self.state.endpoints.store(Arc::new(next));
        }
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    ///
    /// [`Kind::NoHealthyUpstream`] if none can take traffic.
    pub fn pick(&self, key: &PickKey<'_>) -> Result<Arc<Endpoint>, Kind> {
        if let Discovery::OriginalDst(config) = &self.config.discovery {
            let mut addr = key.original_dst.ok_or(Kind::NoHealthyUpstream)?;
            addr.set_port(config.port_override.unwrap_or(addr.port()));
            return Ok(self.original(addr));
        }
        self.state
            .endpoints
            .load()
            .pick(key)
            .cloned()
            .ok_or_else(|| {
                self.state.stats.upstream_cx_none_healthy.add(1);
                Kind::NoHealthyUpstream
            })
    }

    /// Admits a request: counts it against the limits of `priority`, then picks.
    ///
    /// # Errors
    ///
    /// [`Kind::Overflow`] over the limit of requests, [`Kind::FailClosed`] if the configuration says that nothing may
    /// pass, [`Kind::NoHealthyUpstream`] if no endpoint can take traffic.
    pub fn attempt(
        self: &Arc<Self>,
        priority: Priority,
        key: &PickKey<'_>,
    ) -> Result<Attempt, Kind> {
        let max = self.limits(priority).0.max_requests;
        Attempt::begin(self, priority, key, max)
    }

    /// The same for a connection that carries bytes: it counts as a request, and as in Envoy the limit of requests is not for it.
    #[cfg(feature = "server")]
    pub(crate) fn attempt_of_bytes(
        self: &Arc<Self>,
        priority: Priority,
        key: &PickKey<'_>,
    ) -> Result<Attempt, Kind> {
        Attempt::begin(self, priority, key, u32::MAX)
    }

    /// Counts a request to `endpoint` (`upstream_rq_total`, `rq_total`). As in Envoy it counts once it has a connection, so the
    /// [pool](crate::pool) says so, and whoever else sends what [`Cluster::attempt`] admitted.
    pub fn count_request(&self, endpoint: &Endpoint) {
        self.stats().upstream_rq_total.add(1);
        endpoint.stats().rq_total.add(1);
    }

    fn original(&self, addr: SocketAddr) -> Arc<Endpoint> {
        if let Some(endpoint) = self.state.original.load().get(&addr) {
            return endpoint.clone();
        }
        let made = Arc::new(Endpoint::for_address(addr));
        self.state.original.rcu(|known| with(known, addr, &made));
        self.state
            .original
            .load()
            .get(&addr)
            .cloned()
            .unwrap_or(made)
    }
}

/// `known` and one more; whoever asks for ever new ones begins anew.
fn with(known: &Originals, addr: SocketAddr, made: &Arc<Endpoint>) -> Originals {
    let mut known = match known.len() < MAX_ORIGINAL_DESTINATIONS {
        true => known.clone(),
        false => Originals::default(),
    };
    known.entry(addr).or_insert_with(|| made.clone());
    known
}

/// Whether connections made under `old` may serve requests under `new`.
fn same_transport(old: &model::Cluster, new: &model::Cluster) -> bool {
    old.transport == new.transport
        && old.transport_matches == new.transport_matches
        && old.protocol == new.protocol
        && old.http1 == new.http1
        && old.http2 == new.http2
        && old.bind == new.bind
        && old.tcp_keepalive == new.tcp_keepalive
}

#[cfg(test)]
mod tests;
