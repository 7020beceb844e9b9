//! Counts requests of one listener or client.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use http::HeaderValue;

use super::{Labels, Metrics, Reporter, Series, Workload, labels::Service};
use crate::{
    model::Name,
    telemetry::{
        flags::Flags,
        peer::Peer,
        record::{Late, Record},
    },
};

/// Series that the cache of one listener holds; beyond it the cache is begun anew.
const CACHED: usize = 512;

/// The last status of gRPC that is defined. As in Istio all beyond it are one, so that a server cannot make series at will.
const LAST_STATUS: u32 = 16;
/// Stands for a status that is none.
const INVALID_STATUS: u32 = u32::MAX;

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
    /// Number of the cluster's handle: a new handle may have new metadata, and costs a look-up. 0: no cluster.
    cluster: u64,
    endpoint: u64,
    status: u16,
    grpc_status: Option<u32>,
    grpc: bool,
    flags: Flags,
    mutual: bool,
    /// Hash of the identity that the caller has proved; 0: none.
    principal: u64,
    /// Hash of the authority, or of the name of a cluster that does not exist, where that is what tells the service; else 0.
    host: u64,
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
            cluster: late.cluster.as_ref().map_or(0, |cluster| cluster.number()),
            endpoint: late.endpoint.as_ref().map_or(0, |endpoint| endpoint.id()),
            status: late.status,
            grpc_status: late.grpc_result().map(known_status),
            grpc: late.grpc,
            flags: late.flags,
            mutual: self.is_mutual(record),
            principal: self
                .principal(record)
                .map_or(0, |name| hash(name.as_bytes())),
            host: self.told_by(late).map_or(0, hash),
            peer: late.peer.as_ref().map_or(0, |peer| peer.id),
        };
        let counted = AT_HAND.try_with(|at_hand| {
            let place = (key.endpoint ^ key.cluster) as usize ^ usize::from(key.status);
            let near = &mut at_hand.borrow_mut()[place % NEAR];
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
        // A thread that ends has nothing at hand.
        if counted.is_err() {
            add(&self.series(&key, record, late), record, late);
        }
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
                .is_some_and(|connection| connection.security.is_mutual())
    }

    /// The identity that the caller has proved.
    fn principal<'a>(&self, record: &'a Record) -> Option<&'a Name> {
        let connection = record.connection()?;
        let identity = connection.security.peer_identity.as_ref();
        identity.filter(|_| self.reporter == Reporter::Destination)
    }

    /// The authority of a request that Istio knows no service for.
    fn host<'a>(&self, late: &'a Late) -> Option<&'a HeaderValue> {
        let unknown = match &late.cluster {
            Some(cluster) => cluster.is_catch_all(),
            None => is_block_all(late),
        };
        let head = late.head.as_ref().filter(|_| unknown);
        head.filter(|_| self.reporter == Reporter::Source)?
            .authority
            .as_ref()
    }

    /// The cluster that the request was led to, where there is none of that name. Istio's filter names the authority then, or
    /// nothing; the service is what helps.
    fn missing<'a>(&self, late: &'a Late) -> Option<&'a Name> {
        if late.cluster.is_some() || self.reporter != Reporter::Source {
            return None;
        }
        let forward = late.route.as_ref()?.forward()?;
        let name = forward.arms().get(late.arm as usize)?.name();
        Some(name).filter(|name| !name.is_empty())
    }

    /// What tells the service, where no cluster does.
    fn told_by<'a>(&self, late: &'a Late) -> Option<&'a [u8]> {
        let host = self.host(late).map(HeaderValue::as_bytes);
        host.or_else(|| self.missing(late).map(|name| name.as_bytes()))
    }

    fn find(&self, key: &Key, record: &Record, late: &Late) -> Arc<Series> {
        let crowded = self.metrics.is_crowded();
        let host = self.host(late).filter(|_| !crowded);
        let peer = late.peer.as_deref().filter(|_| !crowded);
        let chosen = match self.reporter {
            Reporter::Source => host.is_some(),
            Reporter::Destination => peer.is_some(),
        };
        let labels = self.labels(key, record, late, (host, peer));
        let series = match key.grpc {
            true => {
                let messages = self.metrics.messages(labels.of_the_ends());
                let series = self.metrics.requests(labels, chosen);
                series.messages.get_or_init(|| messages);
                series
            }
            false => self.metrics.requests(labels, chosen),
        };
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

    /// The labels of a request, to `host` if no service is known, from `peer` if somebody says who calls.
    fn labels(
        &self,
        key: &Key,
        record: &Record,
        late: &Late,
        (host, peer): (Option<&HeaderValue>, Option<&Peer>),
    ) -> Labels {
        let own = self.metrics.workload();
        let mut service = match late.cluster.as_deref() {
            Some(cluster) => Service::of(cluster),
            None if is_block_all(late) => Service::none("BlackHoleCluster"),
            None => {
                let missing = self.missing(late);
                missing.map_or_else(Service::default, |name| Service::by_name(name))
            }
        };
        if let Some(host) = host {
            service.host = String::from_utf8_lossy(host.as_bytes()).into();
        }
        let mut labels = match self.reporter {
            Reporter::Source => {
                let endpoint = late.endpoint.as_deref();
                let destination = endpoint.map_or_else(Workload::default, Workload::of_endpoint);
                let service = service.at(&destination);
                Labels::ends(self.reporter, own, &destination, &service)
            }
            Reporter::Destination => {
                let source = source(record, peer);
                Labels::ends(self.reporter, &source, own, &service.served_by(own))
            }
        };
        labels.push_raw("request_protocol", if key.grpc { "grpc" } else { "http" });
        labels.push_raw("response_code", key.status.to_string());
        let grpc_status = key.grpc_status.map(|status| match status {
            INVALID_STATUS => "-1".to_owned(),
            known => known.to_string(),
        });
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

/// Whether the request met the route by which istiod refuses hosts that it does not know.
fn is_block_all(late: &Late) -> bool {
    let route = late.route.as_ref();
    route.is_some_and(|route| route.is_block_all())
}

/// Who called.
fn source(record: &Record, peer: Option<&Peer>) -> Workload {
    let identity = record
        .connection()
        .and_then(|connection| connection.security.peer_identity.clone());
    Workload {
        principal: identity.unwrap_or_default(),
        ..peer.map_or_else(Workload::default, |peer| peer.workload.clone())
    }
}

fn known_status(status: u32) -> u32 {
    match status {
        0..=LAST_STATUS => status,
        _ => INVALID_STATUS,
    }
}

fn hash(bytes: &[u8]) -> u64 {
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    STATE.hash_one(bytes)
}

fn add(series: &Series, record: &Record, late: &Late) {
    series.requests.add(1);
    let micros = u64::try_from(late.duration.as_micros()).unwrap_or(u64::MAX);
    series.duration.record_thousandths(micros);
    series.request_bytes.record(record.request_bytes());
    series.response_bytes.record(record.response_bytes());
    if let Some(messages) = series.messages.get() {
        let [requests, responses] = record.grpc_messages();
        messages.requests.add(requests);
        messages.responses.add(responses);
    }
}
