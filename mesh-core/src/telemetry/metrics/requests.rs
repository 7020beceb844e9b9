//! Counts requests of one listener or client.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{Labels, Metrics, Reporter, Series, Workload, labels::Service};
use crate::{
    cluster::{Cluster, Endpoint},
    telemetry::{
        flags::Flags,
        record::{Late, Record},
    },
};

/// Series that the cache of one listener holds; beyond it the cache is begun anew.
const CACHED: usize = 512;

/// Series that a thread has at hand.
const NEAR: usize = 16;

/// A series, for whom it was found, and by what.
type Near = (u64, Key, Arc<Series>);

thread_local! {
    static AT_HAND: RefCell<[Option<Near>; NEAR]> = const { RefCell::new([const { None }; NEAR]) };
}

/// Counts requests with Istio's labels.
#[derive(Debug)]
pub struct RequestMetrics {
    /// Unique in the process.
    id: u64,
    metrics: Metrics,
    reporter: Reporter,
    /// Sorted by key.
    cache: ArcSwap<Vec<(Key, Arc<Series>)>>,
}

/// What differs among the requests of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Address of the cluster's handle: a new handle may have new metadata, and costs a look-up.
    cluster: usize,
    endpoint: u64,
    status: u16,
    grpc_status: Option<u32>,
    grpc: bool,
    flags: Flags,
    mutual: bool,
    /// Who called; 0: unknown.
    peer: u64,
}

impl RequestMetrics {
    /// Counts into `metrics` as `reporter`.
    pub fn new(metrics: Metrics, reporter: Reporter) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            metrics,
            reporter,
            cache: ArcSwap::default(),
        }
    }

    /// Where it counts.
    pub(crate) fn registry(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a finished request.
    pub fn count(&self, record: &Record, late: &Late) {
        let key = Key {
            cluster: late
                .cluster
                .as_ref()
                .map_or(0, |cluster| Arc::as_ptr(cluster) as usize),
            endpoint: late.endpoint.as_ref().map_or(0, |endpoint| endpoint.id()),
            status: late.status,
            grpc_status: late.grpc_status,
            grpc: late.grpc,
            flags: late.flags,
            mutual: self.is_mutual(record),
            peer: late.peer.as_ref().map_or(0, |peer| peer.id),
        };
        AT_HAND.with_borrow_mut(|at_hand| {
            let place = key.endpoint as usize ^ key.cluster >> 6 ^ usize::from(key.status);
            let near = &mut at_hand[place % NEAR];
            match near {
                Some((id, known, series)) if *id == self.id && *known == key => {
                    add(series, record, late);
                }
                other => {
                    let series = self.series(&key, record, late);
                    add(&series, record, late);
                    *other = Some((self.id, key, series));
                }
            }
        });
    }

    fn series(&self, key: &Key, record: &Record, late: &Late) -> Arc<Series> {
        let cache = self.cache.load();
        match cache.binary_search_by(|(known, _)| known.cmp(key)) {
            Ok(index) => cache[index].1.clone(),
            Err(_) => self.find(key, record, late),
        }
    }

    fn is_mutual(&self, record: &Record) -> bool {
        self.reporter == Reporter::Destination
            && record
                .connection()
                .is_some_and(|connection| connection.security.peer_identity.is_some())
    }

    fn find(&self, key: &Key, record: &Record, late: &Late) -> Arc<Series> {
        let series = self.metrics.requests(self.labels(key, record, late));
        self.cache.rcu(|cache| {
            let mut cache = if cache.len() < CACHED {
                (**cache).clone()
            } else {
                Vec::new()
            };
            if let Err(at) = cache.binary_search_by(|(known, _)| known.cmp(key)) {
                cache.insert(at, (*key, series.clone()));
            }
            cache
        });
        series
    }

    fn labels(&self, key: &Key, record: &Record, late: &Late) -> Labels {
        let own = self.metrics.workload();
        let cluster = late.cluster.as_deref();
        let service = cluster.map_or_else(Service::default, Service::of);
        let mut labels = match self.reporter {
            Reporter::Source => {
                let destination = destination(late.endpoint.as_deref());
                Labels::ends(self.reporter, own, &destination, &service)
            }
            Reporter::Destination => {
                let source = source(record, late);
                Labels::ends(self.reporter, &source, own, &of_own(&service, own, cluster))
            }
        };
        labels.push_raw("request_protocol", if key.grpc { "grpc" } else { "http" });
        labels.push_raw("response_code", key.status.to_string());
        let grpc_status = key.grpc_status.map(|status| status.to_string());
        labels.push_raw("grpc_response_status", grpc_status.unwrap_or_default());
        labels.push_raw("response_flags", key.flags.to_string());
        labels.push_raw(
            "connection_security_policy",
            match (self.reporter, key.mutual) {
                (Reporter::Source, _) => "unknown",
                (Reporter::Destination, true) => "mutual_tls",
                (Reporter::Destination, false) => "none",
            },
        );
        labels
    }
}

fn destination(endpoint: Option<&Endpoint>) -> Workload {
    endpoint.map_or_else(Workload::default, Workload::of_endpoint)
}

fn source(record: &Record, late: &Late) -> Workload {
    let identity = record
        .connection()
        .and_then(|connection| connection.security.peer_identity.clone());
    Workload {
        principal: identity.unwrap_or_default(),
        ..late
            .peer
            .as_ref()
            .map_or_else(Workload::default, |peer| peer.workload.clone())
    }
}

/// An inbound cluster without a service of its own serves the workload's canonical service.
fn of_own(service: &Service, own: &Workload, cluster: Option<&Cluster>) -> Service {
    let named = cluster.is_some_and(|cluster| !cluster.name().ends_with('|'));
    if named && !service.host.is_empty() {
        return service.clone();
    }
    Service {
        host: own.canonical_service.clone(),
        name: own.canonical_service.clone(),
        namespace: own.namespace.clone(),
    }
}

fn add(series: &Series, record: &Record, late: &Late) {
    series.requests.add(1);
    let micros = u64::try_from(late.duration.as_micros()).unwrap_or(u64::MAX);
    series.duration.record_thousandths(micros);
    series.request_bytes.record(record.request_bytes());
    series.response_bytes.record(record.response_bytes());
}
