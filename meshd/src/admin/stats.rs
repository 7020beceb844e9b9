//! `/stats` and `/stats/prometheus`.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::{Admin, Query, json_page, text};
use crate::{
    lifecycle::State,
    stats::{Kind, Stat, Stats},
};

/// What Envoy says where no certificate is there to expire.
const NEVER: u64 = u32::MAX as u64;

impl Admin {
    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
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
            ("concurrency", self.options.concurrency as u64),
            ("hot_restart_epoch", 0),
            ("parent_connections", 0),
            ("days_until_first_cert_expiring", NEVER),
        ];
        for (name, value) in gauges {
            stats.plain(&format!("server.{name}"), Kind::Gauge, value);
        }
        if let Some(bytes) = resident_memory() {
            stats.plain("server.memory_physical_size", Kind::Gauge, bytes);
        }
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
        let opened = counts.opened * self.options.concurrency as u64;
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
        let types = ["All", "Counters", "Gauges", "Histograms", "TextReadouts"];
        let kind = match query.choice("/stats", "type", &types) {
            Ok(kind) => kind,
            Err(usage) => return text(StatusCode::BAD_REQUEST, usage),
        };
        let wanted = |stat: &Stat| match kind {
            "All" => true,
            "Counters" => stat.kind == Kind::Counter,
            "Gauges" => stat.kind == Kind::Gauge,
            _ => false,
        };
        let stats = match self.selected(query) {
            Ok(stats) => stats
                .keep(wanted)
                .keep_histograms(|_| matches!(kind, "All" | "Histograms")),
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        match format {
            "json" => json_page(&stats.json()),
            _ => text(StatusCode::OK, stats.text()),
        }
    }

    pub(super) fn prometheus(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let stats = match self.selected(query) {
            Ok(stats) => stats,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let mut out = stats.prometheus();
        // Istio's metrics have names of their own, which a filter of statistics does not mean.
        if !query.has("filter") {
            (self.istio_metrics)(&mut out);
        }
        text(StatusCode::OK, out)
    }

    /// What `filter` and `usedonly` leave.
    fn selected(&self, query: Query<'_>) -> Result<Stats, String> {
        let filter = query.filter("filter")?;
        let mut stats = self.stats().finish();
        if query.has("usedonly") {
            stats = stats.used();
        }
        Ok(stats
            .keep(|stat| filter.takes(&stat.name))
            .keep_histograms(|name| filter.takes(name)))
    }
}

/// Bytes of this process in physical memory.
fn resident_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
