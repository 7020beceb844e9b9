//! `/stats` and `/stats/prometheus`.

use std::{rc::Rc, sync::PoisonError};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{Admin, Query, info::resident_memory, json_page, text};
use crate::{
    cli::Source,
    lifecycle::State,
    stats::{Buckets, Kind, Stat, Stats, Tags},
};

/// What Envoy says where no certificate is there to expire.
const NEVER: u64 = u32::MAX as u64;

impl Admin {
    pub(super) fn stats(&self) -> Stats {
        self.collected(self.no_stats())
    }

    fn no_stats(&self) -> Stats {
        Stats::new(match self.options.source {
            Source::Folder(..) => Tags::Istio,
            _ => Tags::Envoy,
        })
    }

    fn collected(&self, mut stats: Stats) -> Stats {
        self.server_stats(&mut stats);
        self.config_stats(&mut stats);
        stats.clusters(&self.mesh.snapshot());
        (self.collect)(&mut stats);
        stats
    }

    fn server_stats(&self, stats: &mut Stats) {
        let state = self.lifecycle.state();
        let gauges = [
            ("uptime", self.lifecycle.uptime_s()),
            ("state", state as u64),
            ("live", u64::from(state == State::Live)),
            ("concurrency", self.options().concurrency as u64),
            ("hot_restart_epoch", 0),
            ("parent_connections", 0),
            ("days_until_first_cert_expiring", NEVER),
        ];
        for (name, value) in gauges {
            stats.plain(&format!("server.{name}"), Kind::Gauge, value);
        }
        stats.plain(
            "server.memory_physical_size",
            Kind::Gauge,
            resident_memory(),
        );
    }

    fn config_stats(&self, stats: &mut Stats) {
        let report = self.mesh.status().load();
        stats.plain("mesh.config.generation", Kind::Counter, report.generation);
        let rejected = report.rejected_updates;
        stats.plain("mesh.config.update_rejected", Kind::Counter, rejected);
        let (rejections, notes) = (report.rejections.len(), report.notes.len());
        let clusters = self.mesh.snapshot().clusters().all().len();
        let gauges = [
            ("mesh.config.rejections", rejections),
            ("mesh.config.not_acting", notes),
            ("cluster_manager.active_clusters", clusters),
            ("cluster_manager.warming_clusters", 0),
        ];
        for (name, value) in gauges {
            stats.plain(name, Kind::Gauge, value as u64);
        }
        self.listener_stats(stats);
        // An update is one of all kinds here.
        for (prefix, dynamic) in [
            ("cluster_manager.cds", self.dynamic.clusters),
            ("listener_manager.lds", self.dynamic.listeners),
        ] {
            let updates = [
                ("update_attempt", report.generation),
                ("update_success", report.generation.saturating_sub(rejected)),
                ("update_rejected", rejected),
            ];
            for (field, value) in updates.into_iter().filter(|_| dynamic) {
                stats.plain(&format!("{prefix}.{field}"), Kind::Counter, value);
            }
        }
    }

    fn listener_stats(&self, stats: &mut Stats) {
        let counts = self.listeners.counts();
        let gauges = [
            (
                "total_listeners_active",
                self.listeners.addresses().len() as u64,
            ),
            ("total_listeners_draining", counts.draining),
            ("total_listeners_warming", 0),
            ("workers_started", u64::from(self.lifecycle.has_served())),
        ];
        // Envoy counts one for each worker.
        let opened = counts.opened * self.options().concurrency as u64;
        let counters = [
            ("listener_added", counts.added),
            ("listener_modified", counts.modified),
            ("listener_removed", counts.removed),
            ("listener_create_success", opened),
            ("listener_create_failure", counts.failed),
        ];
        let gauges = gauges.map(|(name, value)| (name, Kind::Gauge, value));
        let counters = counters.map(|(name, value)| (name, Kind::Counter, value));
        for (name, kind, value) in gauges.into_iter().chain(counters) {
            stats.plain(&format!("listener_manager.{name}"), kind, value);
        }
    }

    pub(super) fn stats_page(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let formats = ["text", "json", "prometheus"];
        let format = match query.choice("/stats", "format", &formats) {
            Ok("prometheus") => return self.prometheus(query),
            Ok(format) => format,
            Err(usage) => return text(StatusCode::BAD_REQUEST, usage),
        };
        let selected = buckets(query, Buckets::Summary)
            .and_then(|buckets| Ok((self.selected(query)?, buckets)));
        match (selected, format) {
            (Ok((stats, buckets)), "json") => json_page(&stats.json(buckets)),
            (Ok((stats, buckets)), _) => text(StatusCode::OK, stats.text(buckets)),
            (Err(error), _) => text(StatusCode::BAD_REQUEST, error),
        }
    }

    pub(super) fn prometheus(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let out = buckets(query, Buckets::Cumulative).and_then(|buckets| {
            let mut out = self.selected(query)?.prometheus(buckets);
            self.istio(query, &mut out)?;
            Ok(out)
        });
        match out {
            Ok(out) => text(StatusCode::OK, out),
            Err(error) => text(StatusCode::BAD_REQUEST, error),
        }
    }

    /// Appends those of Istio's metrics whose names `filter` takes.
    fn istio(&self, query: Query<'_>, out: &mut String) -> Result<(), String> {
        let filter = query.filter("filter")?;
        let mut all = String::new();
        (self.istio_metrics)(&mut all);
        let mut wanted = false;
        for line in all.lines() {
            // The line that begins a family of metrics.
            if let Some(family) = line.strip_prefix("# TYPE ") {
                wanted = filter.takes(family.split(' ').next().unwrap_or_default());
            }
            if wanted {
                out.push_str(line);
                out.push('\n');
            }
        }
        Ok(())
    }

    /// What `type`, `filter` and `usedonly` leave.
    fn selected(&self, query: Query<'_>) -> Result<Stats, String> {
        let types = ["All", "Counters", "Gauges", "Histograms", "TextReadouts"];
        let kind = query.choice("/stats", "type", &types)?;
        let filter = Rc::new(query.filter("filter")?);
        // No statistic is hidden here.
        let hidden = query.choice("/stats", "hidden", &["exclude", "include", "only"])?;
        let stats = if query.has("usedonly") {
            // Whether one was used may stand in another.
            self.collected(self.no_stats().only_counted())
                .finish()
                .used()
        } else {
            let filter = Rc::clone(&filter);
            let stats = self.no_stats().only_named(move |name| filter.takes(name));
            self.collected(stats).finish()
        };
        let of_kind = |stat: &Stat| match kind {
            _ if hidden == "only" => false,
            "All" => true,
            "Counters" => stat.kind == Kind::Counter,
            "Gauges" => stat.kind == Kind::Gauge,
            _ => false,
        };
        let reset = self.reset.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stats
            .since(&reset)
            .keep(|stat| of_kind(stat) && filter.takes(&stat.name))
            .keep_histograms(|name| {
                hidden != "only" && matches!(kind, "All" | "Histograms") && filter.takes(name)
            }))
    }
}

/// What is shown of distributions; `default` if nothing is said.
fn buckets(query: Query<'_>, default: Buckets) -> Result<Buckets, String> {
    let name = "histogram_buckets";
    match query.get(name).as_deref() {
        None | Some("") => return Ok(default),
        Some("none") => return Ok(Buckets::Summary),
        Some(_) => {}
    }
    let all = ["cumulative", "disjoint", "detailed", "summary"];
    Ok(match query.choice("/stats", name, &all)? {
        "cumulative" => Buckets::Cumulative,
        "disjoint" => Buckets::Disjoint,
        "detailed" => Buckets::Detailed,
        _ => Buckets::Summary,
    })
}
