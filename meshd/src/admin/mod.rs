//! The admin server: Envoy's paths and formats, on the control thread but for long pages.

mod clusters;
mod dump;
mod help;
mod home;
mod info;
mod mask;
mod query;
mod server;
mod stats;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use mesh_core::{server::ListenersStatus, snapshot::Mesh};
use mesh_xds::{graph::Dump, istio::index::ProcessSettings};
use serde_json::json;

pub(crate) use self::server::serve;
use self::{
    help::{ABSENT, PAGES, help},
    home::home,
    query::Query,
};
use crate::{
    cli::Options,
    lifecycle::{Drain, Lifecycle, State},
    log::LogControl,
    source::Dynamic,
    stats::Stats,
};

/// What admin pages read.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) mesh: Mesh,
    pub(crate) lifecycle: Lifecycle,
    /// The command line.
    pub(crate) options: Arc<Options>,
    /// What a folder asks of the process beside it, there with the first configuration.
    pub(crate) settings: Option<Arc<OnceLock<ProcessSettings>>>,
    pub(crate) listeners: ListenersStatus,
    pub(crate) log: LogControl,
    /// Further statistics: those of connections and requests.
    pub(crate) collect: Arc<dyn Fn(&mut Stats) + Send + Sync>,
    /// Metrics that have Prometheus names of their own (Istio's).
    pub(crate) istio_metrics: Arc<dyn Fn(&mut String) + Send + Sync>,
    /// The resources as their source sent them.
    pub(crate) dump: Dump,
    /// Which kinds of resources may come and go.
    pub(crate) dynamic: Dynamic,
    /// What counters stood at when they were reset, by name.
    pub(crate) reset: Arc<Mutex<BTreeMap<String, u64>>>,
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

impl Pages {
    /// Whose they are, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "the admin server",
            Self::Readiness => "the readiness server",
            Self::Metrics => "the metrics server",
        }
    }
}

impl Admin {
    /// What the command line and the first configuration, once it is there, ask for.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::clone(&self.options);
        let settings = self.settings.as_ref().and_then(|cell| cell.get());
        if let Some(settings) = settings {
            options.settle(settings);
        }
        options
    }

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
                _ => elsewhere(),
            },
            Pages::Metrics => match path {
                "/stats/prometheus" | "/metrics" => self.prometheus(query),
                _ => elsewhere(),
            },
        }
    }

    fn page(&self, method: &Method, path: &str, query: Query<'_>) -> Response<Full<Bytes>> {
        let absent = ABSENT.iter().find(|absent| absent.path == path);
        let changes = PAGES.iter().any(|page| page.path == path && page.post)
            || absent.is_some_and(|absent| absent.post);
        if changes && method != Method::POST {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("Method {method} not allowed, POST required."),
            );
        }
        match path {
            "/" => page(StatusCode::OK, "text/html; charset=UTF-8", home()),
            "/help" => text(StatusCode::OK, help()),
            "/ready" => self.ready(),
            "/healthz/ready" => self.ready(),
            "/server_info" => json_page(&self.server_info()),
            "/clusters" => self.clusters(query),
            "/listeners" => self.listeners_page(query),
            "/config_dump" => self.config_dump(query),
            "/config_status" => json_page(&self.config_status()),
            "/stats" => self.stats_page(query),
            "/stats/prometheus" => self.prometheus(query),
            "/reset_counters" => self.reset_counters(),
            "/reopen_logs" => {
                self.log.reopen_all();
                text(StatusCode::OK, "OK\n".into())
            }
            "/memory" => json_page(&info::memory()),
            "/contention" => text(
                StatusCode::OK,
                "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.".into(),
            ),
            // Runtime values are those of the configuration; what overrides them is listed as not acting.
            "/runtime" => json_page(&json!({"layers": [], "entries": {}})),
            "/runtime_modify" => runtime_modify(query),
            "/init_dump" => json_page(&self.init_dump()),
            "/certs" => json_page(&json!({ "certificates": [] })),
            "/hot_restart_version" => text(StatusCode::OK, "disabled".into()),
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
            _ => match absent {
                Some(absent) => text(StatusCode::NOT_IMPLEMENTED, absent.reason.into()),
                None => not_found(),
            },
        }
    }

    fn reset_counters(&self) -> Response<Full<Bytes>> {
        let counters = self.stats().finish().counters();
        *self.reset.lock().unwrap_or_else(PoisonError::into_inner) = counters;
        text(StatusCode::OK, "OK\n".into())
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

    /// Envoy's dump of what is waited for: here that is the first configuration and its sockets.
    fn init_dump(&self) -> serde_json::Value {
        match self.lifecycle.has_served() {
            true => json!({}),
            false => json!({"unready_targets_dumps": [
                {"name": "init manager Server", "target_names": ["configuration"]},
            ]}),
        }
    }

    fn drain(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        self.lifecycle.drain(Drain {
            inbound_only: query.has("inboundonly"),
            close: !query.has("skip_exit"),
            graceful: query.has("graceful"),
        });
        text(StatusCode::OK, "OK\n".into())
    }

    fn logging(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let mut given = query.pairs();
        given.retain(|(_, value)| !value.is_empty());
        let changes = match given.as_slice() {
            [] => Ok(Vec::new()),
            [(name, level)] => match &**name {
                "level" => Ok(vec![(None, level.clone())]),
                "paths" | "group" => pairs(level),
                _ => Ok(vec![(Some(name.clone()), level.clone())]),
            },
            _ => Err("invalid number of parameters".to_owned()),
        };
        let done = changes.and_then(|changes| self.log.set(&changes));
        match done {
            Ok(()) => text(StatusCode::OK, self.log.describe()),
            Err(reason) => {
                let usage = "usage: /logging?<name>=<level> (change single level)\nusage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\nusage: /logging?level=<level> (change all levels)\nusage: /logging?group=<group_name>:<level> (change group of loggers)\nlevels: trace debug info warning error critical off \n";
                let body = format!("error: {reason}\n\n{usage}{}", self.log.describe());
                text(StatusCode::BAD_REQUEST, body)
            }
        }
    }

    fn listeners_page(&self, query: Query<'_>) -> Response<Full<Bytes>> {
        let bound = self.listeners.addresses();
        if query.get("format").as_deref() == Some("json") {
            let list: Vec<_> = bound
                .iter()
                .map(|(name, addresses)| {
                    let mut status = json!({"name": &**name});
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
}

fn runtime_modify(query: Query<'_>) -> Response<Full<Bytes>> {
    match query.pairs().is_empty() {
        true => text(
            StatusCode::BAD_REQUEST,
            "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       or send the parameters as form values\nuse an empty value to remove a previously added override".into(),
        ),
        false => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "No admin layer specified".into(),
        ),
    }
}

/// `NAME:LEVEL,NAME:LEVEL`.
fn pairs(list: &str) -> Result<Vec<(Option<String>, String)>, String> {
    let pair = |part: &str| match part.split_once(':') {
        Some((name, level)) if !name.is_empty() && !level.is_empty() => {
            Ok((Some(name.to_owned()), level.to_owned()))
        }
        _ => Err("empty logger name or empty logger level".to_owned()),
    };
    list.split(',').map(pair).collect()
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

/// The smaller servers do not have the admin's pages, so they do not list them.
fn elsewhere() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "invalid path\n".into())
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
