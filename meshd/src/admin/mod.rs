//! The admin server: Envoy's paths and formats, on the control thread.

mod clusters;
mod dump;
mod server;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use mesh_core::{
    model::{Regex, RegexError},
    snapshot::Mesh,
};
use serde_json::json;

pub(crate) use self::server::serve;
use crate::{
    cli::Options,
    lifecycle::{Drain, Lifecycle, State},
    log::LogControl,
    stats::{Kind, Stats},
};

/// What admin pages read.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) mesh: Mesh,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) options: Arc<Options>,
    pub(crate) listeners: BoundListeners,
    pub(crate) log: LogControl,
    /// Further statistics: those of connections and requests.
    pub(crate) collect: Arc<dyn Fn(&mut Stats) + Send + Sync>,
    /// Metrics that have Prometheus names of their own (Istio's).
    pub(crate) istio_metrics: Arc<dyn Fn(&mut String) + Send + Sync>,
    /// The resources as their source sent them, in the shape of `/config_dump`.
    pub(crate) dump: Arc<dyn Fn(bool) -> Vec<serde_json::Value> + Send + Sync>,
}

/// Which listener is bound where.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoundListeners {
    shared: Arc<Mutex<BTreeMap<String, Vec<mesh_core::model::Address>>>>,
}

impl BoundListeners {
    pub(crate) fn set(&self, name: &str, addresses: Vec<mesh_core::model::Address>) {
        self.lock().insert(name.to_owned(), addresses);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Vec<mesh_core::model::Address>> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<mesh_core::model::Address>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server serves: the whole admin, or only a part on a port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// All.
    Admin,
    /// `/healthz/ready`, for probes.
    Readiness,
    /// `/stats/prometheus`, for scrapers.
    Metrics,
}

/// Paths, whether they change something (POST only), and what they are for.
const HELP: &[(&str, bool, &str)] = &[
    ("/clusters", false, "upstream cluster status"),
    (
        "/config_dump",
        false,
        "dump current configuration; include_eds adds endpoints, resource and name_regex select",
    ),
    (
        "/config_status",
        false,
        "what is refused and what has no effect, with file, line and field",
    ),
    (
        "/drain_listeners",
        true,
        "drain listeners; graceful, inboundonly, skip_exit",
    ),
    (
        "/healthcheck/fail",
        true,
        "cause the server to fail health checks",
    ),
    (
        "/healthcheck/ok",
        true,
        "cause the server to pass health checks",
    ),
    ("/help", false, "print out list of admin commands"),
    ("/listeners", false, "print listener info; format=json"),
    (
        "/logging",
        true,
        "query or change logging levels; level=LEVEL, paths=NAME:LEVEL,…, NAME=LEVEL",
    ),
    ("/quitquitquit", true, "exit the server"),
    (
        "/ready",
        false,
        "print server state, return 200 if LIVE, otherwise return 503",
    ),
    (
        "/server_info",
        false,
        "print server version and status information",
    ),
    (
        "/stats",
        false,
        "print server stats; filter=REGEX, usedonly, format=json|prometheus",
    ),
    (
        "/stats/prometheus",
        false,
        "print server stats in Prometheus format",
    ),
];

impl Admin {
    /// Answers a request.
    pub(crate) fn answer(
        &self,
        pages: Pages,
        method: &Method,
        path: &str,
        query: &str,
    ) -> Response<Full<Bytes>> {
        let query = Query(query);
        match pages {
            Pages::Admin => self.page(method, path, query),
            Pages::Readiness => match path {
                "/healthz/ready" | "/ready" => self.ready(),
                _ => not_found(),
            },
            Pages::Metrics => match path {
                "/stats/prometheus" | "/metrics" => text(StatusCode::OK, self.prometheus(query)),
                _ => not_found(),
            },
        }
    }

    fn page(&self, method: &Method, path: &str, query: Query<'_>) -> Response<Full<Bytes>> {
        let changes = HELP.iter().any(|(page, post, _)| *page == path && *post);
        if changes && method != Method::POST {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, POST required."),
            );
        }
        match path {
            "/" | "/help" => text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/healthz/ready" => self.ready(),
            "/server_info" => json_page(&self.server_info()),
            "/clusters" => self.clusters(query),
            "/listeners" => self.listeners_page(query),
            "/config_dump" => self.config_dump(query),
            "/config_status" => json_page(&self.config_status()),
            "/stats" => self.stats_page(query),
            "/stats/prometheus" => text(StatusCode::OK, self.prometheus(query)),
            "/logging" => self.logging(query),
            "/healthcheck/fail" | "/healthcheck/ok" => {
                self.lifecycle.fail_health_checks(path.ends_with("fail"));
                text(StatusCode::OK, "OK\n".into())
            }
            "/drain_listeners" => self.drain(query),
            "/quitquitquit" => {
                self.lifecycle.quit();
                text(StatusCode::OK, "OK\n".into())
            }
            _ => not_found(),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let state = self.lifecycle.state();
        let status = if state == State::Live {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        text(status, format!("{}\n", state.name()))
    }

    fn drain(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let graceful = query.has("graceful");
        self.lifecycle.drain(Drain {
            connections: graceful || query.has("skip_exit"),
            inbound_only: query.has("inboundonly"),
            close: !query.has("skip_exit"),
            graceful,
        });
        text(StatusCode::OK, "OK\n".into())
    }

    fn logging(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        for (name, value) in query.pairs() {
            let done = match &*name {
                "level" => self.log.set_level(&value),
                "paths" => value
                    .split(',')
                    .try_for_each(|part| match part.split_once(':') {
                        Some((component, level)) => self.log.set_component(component, level),
                        None => Err(format!("{part:?} is not NAME:LEVEL")),
                    }),
                component => self.log.set_component(component, &value),
            };
            if let Err(reason) = done {
                return text(StatusCode::BAD_REQUEST, format!("{reason}\n"));
            }
        }
        text(StatusCode::OK, self.log.describe())
    }

    fn listeners_page(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let bound = self.listeners.all();
        if query.get("format").as_deref() == Some("json") {
            let list: Vec<_> = bound
                .iter()
                .map(|(name, addresses)| {
                    let mut status = json!({"name": name});
                    let mut all = addresses.iter().map(dump::address);
                    status["local_address"] = all.next().unwrap_or_default();
                    let more: Vec<_> = all.collect();
                    if !more.is_empty() {
                        status["additional_local_addresses"] = json!(more);
                    }
                    status
                })
                .collect();
            return json_page(&json!({ "listener_statuses": list }));
        }
        let lines: Vec<_> = bound
            .iter()
            .flat_map(|(name, addresses)| {
                addresses
                    .iter()
                    .map(move |address| format!("{name}::{address}\n"))
            })
            .collect();
        text(StatusCode::OK, lines.concat())
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let state = self.lifecycle.state();
        stats.plain("server.uptime", Kind::Gauge, self.lifecycle.uptime_s());
        stats.plain("server.state", Kind::Gauge, state as u64);
        stats.plain("server.live", Kind::Gauge, u64::from(state == State::Live));
        stats.plain(
            "server.concurrency",
            Kind::Gauge,
            self.options.concurrency as u64,
        );
        let report = self.mesh.status().load();
        stats.plain("mesh.config.generation", Kind::Counter, report.generation);
        stats.plain(
            "mesh.config.update_rejected",
            Kind::Counter,
            report.rejected_updates,
        );
        stats.plain(
            "mesh.config.rejections",
            Kind::Gauge,
            report.rejections.len() as u64,
        );
        stats.plain(
            "mesh.config.not_acting",
            Kind::Gauge,
            report.notes.len() as u64,
        );
        let snapshot = self.mesh.snapshot();
        stats.plain(
            "cluster_manager.active_clusters",
            Kind::Gauge,
            snapshot.clusters().all().len() as u64,
        );
        stats.plain(
            "listener_manager.total_listeners_active",
            Kind::Gauge,
            self.listeners.all().len() as u64,
        );
        stats.clusters(&snapshot);
        (self.collect)(&mut stats);
        stats
    }

    fn stats_page(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let filter = match query.filter() {
            Ok(filter) => filter,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let used = query.has("usedonly");
        let stats = self.stats().finish(|stat| {
            (!used || stat.value > 0)
                && filter
                    .as_ref()
                    .is_none_or(|regex| regex.program().is_match(stat.name.as_bytes()))
        });
        match query.get("format").as_deref() {
            Some("json") => json_page(&stats.json()),
            Some("prometheus") => {
                let mut out = stats.prometheus();
                (self.istio_metrics)(&mut out);
                text(StatusCode::OK, out)
            }
            _ => text(StatusCode::OK, stats.text()),
        }
    }

    fn prometheus(&self, query: Query<'_>) -> String {
        let used = query.has("usedonly");
        let mut out = self
            .stats()
            .finish(|stat| !used || stat.value > 0)
            .prometheus();
        (self.istio_metrics)(&mut out);
        out
    }

    fn server_info(&self) -> serde_json::Value {
        let options = &self.options;
        let uptime = format!("{}s", self.lifecycle.uptime_s());
        json!({
            "version": format!("meshd/{}", env!("CARGO_PKG_VERSION")),
            "state": self.lifecycle.state().name(),
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "command_line_options": {
                "concurrency": options.concurrency,
                "config_path": options.config_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
                "config_yaml": options.config_yaml.as_deref().unwrap_or_default(),
                "log_level": options.log_level.name(),
                "component_log_level": options.log_components.as_deref().unwrap_or_default(),
                "log_path": options.log_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
                "service_cluster": options.node.cluster.as_deref().unwrap_or_default(),
                "service_node": options.node.id.as_deref().unwrap_or_default(),
                "service_zone": options.node.zone.as_deref().unwrap_or_default(),
                "drain_time": format!("{}s", options.drain_time.as_secs()),
                "drain_strategy": if options.drain_gradual { "Gradual" } else { "Immediate" },
                "disable_hot_restart": true,
                "mode": "Serve",
            },
            "node": {
                "id": options.node.id.as_deref().unwrap_or_default(),
                "cluster": options.node.cluster.as_deref().unwrap_or_default(),
                "user_agent_name": "meshd",
            },
        })
    }
}

/// A query string, decoded as it is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(&'a str);

impl Query<'_> {
    fn pairs(self) -> Vec<(String, String)> {
        let parts = self.0.split('&').filter(|part| !part.is_empty());
        parts
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                (decode(name), decode(value))
            })
            .collect()
    }

    fn get(self, name: &str) -> Option<String> {
        self.pairs()
            .into_iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The expression of `filter`, which matches a part of a name; `None`: no filter was given.
    fn filter(self) -> Result<Option<Regex>, RegexError> {
        let pattern = self.get("filter");
        pattern
            .map(|pattern| Regex::parse(&format!(".*(?:{pattern}).*")))
            .transpose()
    }
}

/// Percent-decodes; an escape that is not one stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten();
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn help() -> String {
    let mut out = String::from("admin commands are:\n");
    for (path, post, what) in HELP {
        let post = if *post { " (POST)" } else { "" };
        out.push_str(&format!("  {path}{post}: {what}\n"));
    }
    out
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=UTF-8", body)
}

fn json_page(value: &serde_json::Value) -> Response<Full<Bytes>> {
    // A `Value` always serializes: its keys are strings.
    let body = serde_json::to_string_pretty(value).unwrap_or_default();
    page(StatusCode::OK, "application/json", body)
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    headers.insert(
        http::header::CACHE_CONTROL,
        http::HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        http::HeaderValue::from_static("nosniff"),
    );
    response
}

fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, format!("invalid path. {}", help()))
}

/// Opens the socket of one of the smaller servers, without sharing its port.
pub(crate) fn bind(what: &str, addr: SocketAddr) -> Result<std::net::TcpListener, crate::Failure> {
    let listener = std::net::TcpListener::bind(addr)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|source| crate::Failure::Bind {
            what: what.to_owned(),
            address: addr.to_string(),
            source,
        })?;
    Ok(listener)
}
