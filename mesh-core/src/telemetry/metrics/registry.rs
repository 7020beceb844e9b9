//! All series of a process.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt::Write as _,
    sync::{
        Arc, LazyLock, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Histogram, HttpStats, Labels, RouteScope, RouteStats, Workload};
use crate::{
    cluster::Count,
    model::Name,
    snapshot::Health,
    sync::lock,
    telemetry::{peer::Peers, record::Sink},
};

/// Series of requests that tell apart hosts that nobody configured, or what callers say of themselves; beyond it that is no longer
/// told. Each costs some 50 KB of a page for Prometheus.
pub(super) const CROWD: usize = 2_000;

/// The metrics of a mesh. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Said once: by the program, or by the source of configuration.
    workload: OnceLock<Workload>,
    /// Locked when a series is used for the first time, and when all are rendered; never by a request otherwise.
    requests: Mutex<BTreeMap<Labels, Arc<Series>>>,
    /// How many of them have labels that others choose at will.
    chosen: AtomicUsize,
    messages: Mutex<BTreeMap<Labels, Arc<MessageSeries>>>,
    tcp: Mutex<BTreeMap<Labels, Arc<TcpSeries>>>,
    http: Mutex<BTreeMap<Name, Arc<HttpStats>>>,
    peers: Arc<Peers>,
    routes: Mutex<BTreeMap<RouteScope, Arc<RouteStats>>>,
    health: Health,
    /// Who else is told of what is counted here: once, before anything is.
    sinks: OnceLock<Arc<[Arc<dyn Sink>]>>,
}

/// Counters of requests that have all labels in common.
#[derive(Debug, Default)]
pub struct Series {
    /// `istio_requests_total`.
    pub requests: Count,
    /// `istio_request_duration_milliseconds`.
    pub duration: Histogram,
    /// `istio_request_bytes`.
    pub request_bytes: Histogram,
    /// `istio_response_bytes`.
    pub response_bytes: Histogram,
    /// Of gRPC.
    pub(super) messages: OnceLock<Arc<MessageSeries>>,
}

/// Counters of gRPC messages that have all labels of their ends in common; Istio gives them no others.
#[derive(Debug, Default)]
pub struct MessageSeries {
    /// `istio_request_messages_total`.
    pub requests: Count,
    /// `istio_response_messages_total`.
    pub responses: Count,
}

/// Counters of TCP connections that have all labels in common.
#[derive(Debug, Default)]
pub struct TcpSeries {
    /// `istio_tcp_sent_bytes_total`.
    pub sent: Count,
    /// `istio_tcp_received_bytes_total`.
    pub received: Count,
    /// `istio_tcp_connections_opened_total`.
    pub opened: Count,
    /// `istio_tcp_connections_closed_total`.
    pub closed: Count,
}

impl Metrics {
    /// Metrics of the workload that this process belongs to.
    pub fn new(workload: Workload) -> Self {
        Self(Arc::new(Shared {
            workload: OnceLock::from(workload),
            ..Shared::default()
        }))
    }

    /// The workload that this process belongs to; nameless until it is known.
    pub fn workload(&self) -> &Workload {
        static UNKNOWN: LazyLock<Workload> = LazyLock::new(Workload::default);
        self.0.workload.get().unwrap_or(&UNKNOWN)
    }

    /// Says which workload this process belongs to, if nobody has yet.
    pub(crate) fn belong_to(&self, workload: impl FnOnce() -> Option<Workload>) {
        if self.0.workload.get().is_none()
            && let Some(workload) = workload()
        {
            let _ = self.0.workload.set(workload);
        }
    }

    /// Whether so many series have labels that others choose at will that no more should be made.
    pub(super) fn is_crowded(&self) -> bool {
        self.0.chosen.load(Ordering::Relaxed) >= CROWD
    }

    /// What the program answers to health checks.
    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Whoever is told of what is counted here is the program's `sinks`, too.
    pub(crate) fn tell(&self, sinks: Vec<Arc<dyn Sink>>) {
        // Said by the builder, which has these metrics to itself.
        let _ = self.0.sinks.set(sinks.into());
    }

    /// Sinks of the program.
    pub(crate) fn sinks(&self) -> Arc<[Arc<dyn Sink>]> {
        self.0.sinks.get().cloned().unwrap_or_default()
    }

    /// Who called so far.
    pub(crate) fn peers(&self) -> &Arc<Peers> {
        &self.0.peers
    }

    /// The statistics of connection managers with this prefix.
    pub fn http(&self, prefix: &Name) -> Arc<HttpStats> {
        lock(&self.0.http)
            .entry(prefix.clone())
            .or_default()
            .clone()
    }

    /// Each connection manager's prefix and statistics.
    pub fn each_http(&self, mut f: impl FnMut(&Name, &HttpStats)) {
        for (prefix, stats) in lock(&self.0.http).iter() {
            f(prefix, stats);
        }
    }

    /// The statistics of a virtual cluster or a route.
    pub fn route(&self, scope: RouteScope) -> Arc<RouteStats> {
        lock(&self.0.routes).entry(scope).or_default().clone()
    }

    /// Each virtual cluster and each route with statistics of its own, once it was used.
    pub fn each_route(&self, mut f: impl FnMut(&RouteScope, &RouteStats)) {
        for (scope, stats) in lock(&self.0.routes).iter() {
            f(scope, stats);
        }
    }

    /// The series of these labels; `chosen`: there are some among them that others choose at will.
    pub(super) fn requests(&self, labels: Labels, chosen: bool) -> Arc<Series> {
        let mut requests = lock(&self.0.requests);
        let entry = requests.entry(labels);
        if chosen && matches!(entry, Entry::Vacant(_)) {
            self.0.chosen.fetch_add(1, Ordering::Relaxed);
        }
        entry.or_default().clone()
    }

    pub(super) fn messages(&self, labels: Labels) -> Arc<MessageSeries> {
        lock(&self.0.messages).entry(labels).or_default().clone()
    }

    pub(super) fn tcp(&self, labels: Labels) -> Arc<TcpSeries> {
        lock(&self.0.tcp).entry(labels).or_default().clone()
    }

    /// Each series of requests.
    pub fn each(&self, mut f: impl FnMut(&Labels, &Series)) {
        for (labels, series) in lock(&self.0.requests).iter() {
            f(labels, series);
        }
    }

    /// Each series of gRPC messages.
    pub fn each_messages(&self, mut f: impl FnMut(&Labels, &MessageSeries)) {
        for (labels, series) in lock(&self.0.messages).iter() {
            f(labels, series);
        }
    }

    /// Each series of TCP connections.
    pub fn each_tcp(&self, mut f: impl FnMut(&Labels, &TcpSeries)) {
        for (labels, series) in lock(&self.0.tcp).iter() {
            f(labels, series);
        }
    }

    /// All Istio metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let series = rendered(&self.0.requests);
        if !series.is_empty() {
            counters(&series, &REQUESTS, &mut out);
            type Pick = fn(&Series) -> &Histogram;
            let histograms: [(&str, Pick); 3] = [
                ("istio_request_duration_milliseconds", |series| {
                    &series.duration
                }),
                ("istio_request_bytes", |series| &series.request_bytes),
                ("istio_response_bytes", |series| &series.response_bytes),
            ];
            for (name, pick) in histograms {
                let _ = writeln!(out, "# TYPE {name} histogram");
                for (labels, series) in &series {
                    pick(series).render(name, labels, &mut out);
                }
            }
        }
        counters(&rendered(&self.0.messages), &MESSAGES, &mut out);
        counters(&rendered(&self.0.tcp), &TCP, &mut out);
        out
    }
}

/// Series with their labels as text.
type Rendered<T> = Vec<(String, Arc<T>)>;

fn rendered<T>(series: &Mutex<BTreeMap<Labels, Arc<T>>>) -> Rendered<T> {
    let series = lock(series);
    let series = series.iter();
    series
        .map(|(labels, series)| (labels.render(), series.clone()))
        .collect()
}

/// A family of counters.
type Family<T> = (&'static str, fn(&T) -> &Count);

const REQUESTS: [Family<Series>; 1] = [("istio_requests_total", |series| &series.requests)];
const MESSAGES: [Family<MessageSeries>; 2] = [
    ("istio_request_messages_total", |series| &series.requests),
    ("istio_response_messages_total", |series| &series.responses),
];
const TCP: [Family<TcpSeries>; 4] = [
    ("istio_tcp_sent_bytes_total", |series| &series.sent),
    ("istio_tcp_received_bytes_total", |series| &series.received),
    ("istio_tcp_connections_opened_total", |series| {
        &series.opened
    }),
    ("istio_tcp_connections_closed_total", |series| {
        &series.closed
    }),
];

fn counters<T>(series: &Rendered<T>, families: &[Family<T>], out: &mut String) {
    for (name, pick) in families.iter().filter(|_| !series.is_empty()) {
        let _ = writeln!(out, "# TYPE {name} counter");
        for (labels, series) in series {
            let _ = writeln!(out, "{name}{{{labels}}} {}", pick(series).get());
        }
    }
}
