//! Statistics under Envoy's names, as text, JSON and Prometheus.

mod only;
mod shown;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use mesh_core::{
    cluster::{Cluster, LimitState},
    model::{Limits, Priority},
    snapshot::Snapshot,
    telemetry::metrics::{Histogram, RoutePart, RouteScope},
};

pub(crate) use self::shown::Buckets;
use self::{only::Only, shown::Shown};

/// Whether a statistic only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// One statistic.
#[derive(Clone, Debug)]
pub(crate) struct Stat {
    /// Envoy's dotted name.
    pub(crate) name: String,
    /// Prometheus name without the prefix `envoy_`.
    metric: String,
    /// Prometheus labels, names first.
    labels: Vec<(&'static str, String)>,
    pub(crate) kind: Kind,
    pub(crate) value: u64,
}

/// How labels are named in Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tags {
    /// Envoy's own: `envoy_cluster_name`, `envoy_response_code_class="2"`.
    #[default]
    Envoy,
    /// Those of Istio's bootstrap: `cluster_name`, `response_code_class="2xx"`, and names that end in `;` without it.
    Istio,
}

/// Collects statistics.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    tags: Tags,
    only: Only,
    list: Vec<Stat>,
    histograms: Vec<Shown>,
}

/// A group of statistics that share a prefix and a label: `cluster.NAME.`, `http.PREFIX.`, `listener.ADDRESS.`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) prefix: &'static str,
    pub(crate) label: &'static str,
    pub(crate) value: &'a str,
}

impl Stats {
    pub(crate) fn new(tags: Tags) -> Self {
        Self {
            tags,
            ..Self::default()
        }
    }

    /// Collects only what `wanted` takes by name.
    pub(crate) fn only_named(mut self, wanted: impl Fn(&str) -> bool + 'static) -> Self {
        self.only = Only::Named(Box::new(wanted));
        self
    }

    /// Collects what [`Stats::used`] looks at, which has to follow.
    pub(crate) fn only_counted(mut self) -> Self {
        self.only = Only::Counted;
        self
    }

    /// Adds a statistic without a scope, for example `server.uptime`.
    pub(crate) fn plain(&mut self, name: &str, kind: Kind, value: u64) {
        if !self.only.counts(kind, value) || !self.only.names(name) {
            return;
        }
        self.list.push(Stat {
            name: name.into(),
            metric: sanitize(name),
            labels: Vec::new(),
            kind,
            value,
        });
    }

    /// Adds a statistic of a scope.
    pub(crate) fn scoped(&mut self, scope: Scope<'_>, field: &str, kind: Kind, value: u64) {
        if !self.only.counts(kind, value) {
            return;
        }
        let name = format!("{}.{}.{field}", scope.prefix, scope.value);
        if !self.only.names(&name) {
            return;
        }
        let labels = vec![self.label(scope.label, scope.value)];
        let metric = format!("{}_{}", scope.prefix, sanitize(field));
        self.classed(name, metric, labels, kind, value);
    }

    /// Adds a statistic of a virtual cluster, or of a route with a prefix of its own.
    pub(crate) fn routed(&mut self, scope: &RouteScope, field: &str, value: u64) {
        let kind = kind_of(field);
        if !self.only.counts(kind, value) {
            return;
        }
        let part = scope.part.as_str();
        let name = format!("vhost.{}.{part}.{}.{field}", scope.host, scope.name);
        if !self.only.names(&name) {
            return;
        }
        let label = match scope.part {
            RoutePart::VirtualCluster => "envoy_virtual_cluster",
            RoutePart::Route => "envoy_route",
        };
        let mut labels = vec![
            self.label("envoy_virtual_host", &scope.host),
            self.label(label, &scope.name),
        ];
        // In Envoy's order.
        labels.sort_by_key(|(name, _)| std::cmp::Reverse(*name == "envoy_virtual_cluster"));
        let metric = format!("vhost_{part}_{}", sanitize(field));
        self.classed(name, metric, labels, kind, value);
    }

    /// Adds a distribution of a scope.
    pub(crate) fn histogram(&mut self, scope: Scope<'_>, field: &str, histogram: &Histogram) {
        let name = format!("{}.{}.{field}", scope.prefix, scope.value);
        if !self.only.names(&name) {
            return;
        }
        let (label, value) = self.label(scope.label, scope.value);
        self.histograms.push(Shown::of(
            name,
            format!("envoy_{}_{}", scope.prefix, sanitize(field)),
            format!("{label}=\"{}\"", escape(&value)),
            histogram,
        ));
    }

    /// A label as it is named.
    fn label(&self, name: &'static str, value: &str) -> (&'static str, String) {
        match self.tags {
            Tags::Envoy => (name, value.to_owned()),
            Tags::Istio => {
                let name = name.strip_prefix("envoy_").unwrap_or(name);
                let value = value.strip_suffix(';').unwrap_or(value);
                (name, value.to_owned())
            }
        }
    }

    /// Adds a statistic; a status in its name, or the class of one, becomes a label, as in Envoy.
    fn classed(
        &mut self,
        name: String,
        mut metric: String,
        mut labels: Vec<(&'static str, String)>,
        kind: Kind,
        value: u64,
    ) {
        if let Some((family, status)) = metric.rsplit_once('_')
            && family.ends_with("_rq")
        {
            let (class, istio) = ("envoy_response_code_class", self.tags == Tags::Istio);
            let found = match status.as_bytes() {
                [digit, b'x', b'x'] if !digit.is_ascii_digit() => None,
                [_, b'x', b'x'] if istio => Some((class, status, "")),
                [_, b'x', b'x'] => Some((class, &status[..1], "_xx")),
                code if code.len() == 3 && code.iter().all(u8::is_ascii_digit) => {
                    Some(("envoy_response_code", status, ""))
                }
                _ => None,
            };
            if let Some((label, value, end)) = found {
                labels.insert(0, self.label(label, value));
                metric = format!("{family}{end}");
            }
        }
        self.list.push(Stat {
            name,
            metric,
            labels,
            kind,
            value,
        });
    }

    /// Adds a statistic by its whole dotted name: `listener.ADDRESS.FIELD`, `http.PREFIX.FIELD` or `tcp.PREFIX.FIELD`.
    pub(crate) fn dotted(&mut self, name: &str, value: u64) {
        let scopes = [
            ("listener", "envoy_listener_address"),
            ("http", "envoy_http_conn_manager_prefix"),
            ("tcp", "envoy_tcp_prefix"),
        ];
        let parts = name
            .split_once('.')
            .and_then(|(head, rest)| Some((head, rest.rsplit_once('.')?)));
        match parts.and_then(|(head, rest)| {
            Some((scopes.iter().find(|(prefix, _)| *prefix == head)?, rest))
        }) {
            Some(((prefix, label), (value_of, field))) => {
                self.scoped(
                    Scope {
                        prefix,
                        label,
                        value: value_of,
                    },
                    field,
                    kind_of(field),
                    value,
                );
            }
            None => self.plain(name, kind_of(name), value),
        }
    }

    /// Adds what a snapshot's clusters count.
    pub(crate) fn clusters(&mut self, snapshot: &Snapshot) {
        for cluster in snapshot.clusters().all().values() {
            self.cluster(cluster);
        }
    }

    fn cluster(&mut self, cluster: &Cluster) {
        let name = cluster
            .config()
            .alt_stat_name
            .as_ref()
            .unwrap_or(cluster.name());
        let scope = Scope {
            prefix: "cluster",
            label: "envoy_cluster_name",
            value: name,
        };
        cluster.stats().each_histogram(|field, histogram| {
            self.histogram(scope, field, histogram);
        });
        cluster.stats().each(|field, value| {
            self.scoped(scope, field, kind_of(field), value);
        });
        let set = cluster.endpoints();
        let count = |test: fn(&mesh_core::cluster::Endpoint) -> bool| {
            set.all().iter().filter(|e| test(e)).count() as u64
        };
        self.scoped(
            scope,
            "membership_total",
            Kind::Gauge,
            set.all().len() as u64,
        );
        self.scoped(
            scope,
            "membership_healthy",
            Kind::Gauge,
            count(|endpoint| endpoint.is_healthy()),
        );
        self.scoped(
            scope,
            "membership_degraded",
            Kind::Gauge,
            count(|endpoint| endpoint.is_degraded()),
        );
        self.scoped(
            scope,
            "membership_excluded",
            Kind::Gauge,
            count(|endpoint| endpoint.is_excluded()),
        );
        for (priority, word) in [(Priority::Default, "default"), (Priority::High, "high")] {
            let (limits, state) = cluster.limits(priority);
            self.breakers(scope, word, limits, state);
        }
    }

    fn breakers(&mut self, scope: Scope<'_>, priority: &str, limits: &Limits, state: &LimitState) {
        let rows = [
            ("cx", "cx", state.connections.get(), limits.max_connections),
            (
                "rq_pending",
                "pending",
                state.pending.get(),
                limits.max_pending_requests,
            ),
            ("rq", "rq", state.active(), limits.max_requests),
            (
                "rq_retry",
                "retries",
                state.retries.get(),
                limits.max_retries,
            ),
        ];
        for (what, left_of, used, max) in rows {
            let open = u64::from(used >= max);
            self.scoped(
                scope,
                &format!("circuit_breakers.{priority}.{what}_open"),
                Kind::Gauge,
                open,
            );
            if limits.track_remaining {
                let left = u64::from(max.saturating_sub(used));
                self.scoped(
                    scope,
                    &format!("circuit_breakers.{priority}.remaining_{left_of}"),
                    Kind::Gauge,
                    left,
                );
            }
        }
    }

    /// Sorts by Envoy's name, each once.
    pub(crate) fn finish(mut self) -> Self {
        self.list.sort_by(|a, b| a.name.cmp(&b.name));
        self.histograms.sort_by(|a, b| a.name.cmp(&b.name));
        // Server and layers both have the scope `http.PREFIX`; a field that both know counts the same thing.
        self.list.dedup_by(|later, first| {
            let same = later.name == first.name;
            if same {
                first.value = first.value.max(later.value);
            }
            same
        });
        self
    }

    /// Keeps only what `wanted` holds for; distributions stay.
    pub(crate) fn keep(mut self, wanted: impl FnMut(&Stat) -> bool) -> Self {
        self.list.retain(wanted);
        self
    }

    /// Keeps only the distributions whose name `wanted` holds for.
    pub(crate) fn keep_histograms(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.histograms.retain(|shown| wanted(&shown.name));
        self
    }

    /// Keeps only what was written since the start: counters above zero, gauges of the process and of memberships, which
    /// are always set, and gauges of things of which there was one.
    pub(crate) fn used(mut self) -> Self {
        self.histograms.retain(|shown| shown.count > 0);
        let totals: BTreeSet<String> = self
            .list
            .iter()
            .filter(|stat| stat.value > 0)
            .filter_map(|stat| Some(stat.name.strip_suffix("_total")?.to_owned()))
            .collect();
        self.keep(|stat| {
            let had_one = || {
                let thing = stat.name.strip_suffix("_active");
                thing.is_some_and(|thing| totals.contains(thing))
            };
            let always = || stat.labels.is_empty() || stat.metric.contains("membership");
            stat.value > 0 || stat.kind == Kind::Gauge && (always() || had_one())
        })
    }

    /// Counters since `before`, by name; what is not there is as it was.
    pub(crate) fn since(mut self, before: &BTreeMap<String, u64>) -> Self {
        for stat in &mut self.list {
            if let Some(before) = before.get(&stat.name) {
                stat.value = stat.value.saturating_sub(*before);
            }
        }
        self
    }

    /// The counters, by name.
    pub(crate) fn counters(self) -> BTreeMap<String, u64> {
        let counters = self.list.into_iter();
        let counters = counters.filter(|stat| stat.kind == Kind::Counter);
        counters.map(|stat| (stat.name, stat.value)).collect()
    }

    /// `name: value` lines.
    pub(crate) fn text(&self, buckets: Buckets) -> String {
        let mut out = String::with_capacity(self.list.len() * 48);
        for stat in &self.list {
            let _ = writeln!(out, "{}: {}", stat.name, stat.value);
        }
        for shown in &self.histograms {
            out.push_str(&shown.text(buckets));
        }
        out
    }

    /// Envoy's `{"stats": [{"name", "value"}]}`.
    pub(crate) fn json(&self, buckets: Buckets) -> serde_json::Value {
        let mut list: Vec<_> = self
            .list
            .iter()
            .map(|stat| serde_json::json!({"name": stat.name, "value": stat.value}))
            .collect();
        if !self.histograms.is_empty() {
            list.push(shown::json(&self.histograms, buckets));
        }
        serde_json::json!({ "stats": list })
    }

    /// Prometheus' text format; each family once, with its type.
    pub(crate) fn prometheus(&self, buckets: Buckets) -> String {
        let mut families: Vec<&Stat> = self.list.iter().collect();
        families.sort_by(|a, b| a.metric.cmp(&b.metric));
        let mut out = String::with_capacity(self.list.len() * 96);
        let mut last = "";
        for stat in families {
            if stat.metric != last {
                let kind = if stat.kind == Kind::Counter {
                    "counter"
                } else {
                    "gauge"
                };
                let _ = writeln!(out, "# TYPE envoy_{} {kind}", stat.metric);
                last = &stat.metric;
            }
            let _ = write!(out, "envoy_{}{{", stat.metric);
            for (index, (name, value)) in stat.labels.iter().enumerate() {
                let comma = if index > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{name}=\"{}\"", escape(value));
            }
            let _ = writeln!(out, "}} {}", stat.value);
        }
        let mut histograms: Vec<&Shown> = self.histograms.iter().collect();
        histograms.sort_by(|a, b| a.metric.cmp(&b.metric));
        let mut last = "";
        for shown in histograms {
            let summary = buckets == Buckets::Summary;
            if shown.metric != last {
                let kind = if summary { "summary" } else { "histogram" };
                let _ = writeln!(out, "# TYPE {} {kind}", shown.metric);
                last = &shown.metric;
            }
            match summary {
                true => shown.summary(&mut out),
                false => out.push_str(&shown.prometheus),
            }
        }
        out
    }
}

/// Envoy's names of gauges end so.
pub(crate) fn kind_of(field: &str) -> Kind {
    if field.ends_with("_active") || field.ends_with("active_faults") {
        Kind::Gauge
    } else {
        Kind::Counter
    }
}

fn sanitize(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
