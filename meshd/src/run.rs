//! Assembly: configuration and admin on this thread, traffic on workers of their own.

use std::{sync::Arc, time::Duration};

use mesh_core::{
    config::{ConfigSource, SourceError},
    server::ServerStats,
    snapshot::{Mesh, Watch},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    Failure,
    admin::{self, Admin, Pages},
    cli::{Mode, Options, Source},
    lifecycle::{Lifecycle, State},
    listeners::Manager,
    log::LogControl,
    source::{Facts, Opened},
    stats::{Scope, Stats, kind_of},
    traffic,
    worker::Workers,
};

/// Longest wait of a clean end for the control thread's own tasks.
const CONTROL_GRACE: Duration = Duration::from_millis(200);

/// Runs until told to end.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let log = LogControl::install(&options).map_err(|source| Failure::Io {
        what: "the log cannot be opened",
        source,
    })?;
    for (flag, reason) in &options.ignored {
        tracing::warn!(flag, reason, "Flag without effect");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::Io {
            what: "no runtime",
            source,
        })?;
    let opened = Opened::open(&options)?;
    let result = match opened {
        Opened::File(source, facts) => runtime.block_on(serve(options, log, source, facts)),
        Opened::Folder(source, facts) => runtime.block_on(serve(options, log, source, facts)),
    };
    runtime.shutdown_timeout(CONTROL_GRACE);
    result
}

async fn serve<S: ConfigSource + 'static>(
    mut options: Options,
    log: LogControl,
    source: S,
    facts: Facts,
) -> Result<(), Failure> {
    let mut signals = Signals::listen(log.clone())?;
    let (mesh, driver) = Mesh::builder().source(source).build();
    let lifecycle = Lifecycle::new();
    let mut driving = tokio::spawn(driver.run());
    let mut watch = mesh.watch();

    let first = tokio::select! {
        snapshot = watch.changed() => snapshot,
        ended = &mut driving => return Err(ended_early(ended)),
        () = signals.end() => return Ok(()),
    };
    facts.settle(&mut options);
    let options = Arc::new(options);
    if facts.strict_start {
        refuse_rejected(&mesh)?;
    }
    if options.mode == Mode::Validate {
        say_valid(&options);
        return Ok(());
    }
    let workers = start_workers(&mesh, options.concurrency)?;
    let stats = Arc::new(ServerStats::default());
    let mut manager = Manager::new(stats.clone(), &options);
    let admin = Admin {
        mesh: mesh.clone(),
        lifecycle: lifecycle.clone(),
        options: options.clone(),
        listeners: manager.status(),
        log,
        collect: collector(&mesh, &stats),
        istio_metrics: istio_metrics(&mesh, &options),
        dump: facts.dump,
        dynamic: facts.dynamic,
        reset: Arc::default(),
    };
    serve_pages(&admin, &options, facts.admin)?;
    manager.apply(&workers, &first)?;
    lifecycle.set(State::Live);
    let (listeners, concurrency) = (first.listeners().len(), options.concurrency);
    tracing::info!(listeners, concurrency, "Serving");

    let mut serving = Serving {
        mesh,
        lifecycle,
        workers,
        manager,
    };
    let outcome = serving.follow(&mut watch, &mut signals).await;
    serving.end(&mut signals).await;
    driving.abort();
    outcome
}

fn start_workers(mesh: &Mesh, concurrency: usize) -> Result<Workers, Failure> {
    let clusters = mesh.clusters().clone();
    Workers::start(concurrency, move || traffic::worker(clusters.clone()))
}

/// Fails where anything of the configuration was rejected.
fn refuse_rejected(mesh: &Mesh) -> Result<(), Failure> {
    let report = mesh.status().load();
    match report.rejections.is_empty() {
        true => Ok(()),
        false => Err(Failure::Refused(report.rejections.clone())),
    }
}

fn say_valid(options: &Options) {
    let path = options.config_path.as_deref().map(|path| path.display());
    let path = path.map(|path| path.to_string()).unwrap_or_default();
    println!("configuration '{path}' OK");
}

/// A process that serves.
struct Serving {
    mesh: Mesh,
    lifecycle: Lifecycle,
    workers: Workers,
    manager: Manager,
}

impl Serving {
    /// Follows the configuration and what is asked of the process, until it is to end.
    async fn follow(&mut self, watch: &mut Watch, signals: &mut Signals) -> Result<(), Failure> {
        let (mut drains, mut failing) = (self.lifecycle.drains(), self.lifecycle.failing());
        // A socket that cannot be had later leaves the others, and the old ones, as they are, and is tried again.
        let mut again = Again::default();
        loop {
            tokio::select! {
                snapshot = watch.changed() => {
                    again = Again::after(self.manager.apply(&self.workers, &snapshot));
                    log_applied(&self.mesh);
                }
                () = again.due() => {
                    let snapshot = self.mesh.snapshot();
                    again = again.next(self.manager.apply(&self.workers, &snapshot));
                }
                Ok(()) = drains.changed() => {
                    let drain = *drains.borrow_and_update();
                    self.manager.drain(drain);
                }
                Ok(()) = failing.changed() => {
                    let failing = *failing.borrow_and_update();
                    self.manager.fail_health_checks(failing);
                    self.mesh.health().set_failing(failing);
                }
                () = self.lifecycle.quitting() => return Ok(()),
                () = signals.end() => return Ok(()),
                name = self.workers.died() => return Err(Failure::Ended(name)),
            }
        }
    }

    /// Lets connections go, and ends the workers. `/quitquitquit`, and a second signal, do not wait for requests in flight.
    async fn end(self, signals: &mut Signals) {
        self.lifecycle.set(State::Draining);
        tokio::select! {
            biased;
            () = self.lifecycle.quitting() => {}
            () = signals.end() => tracing::warn!("Told twice to end, connections are closed"),
            () = self.manager.finish() => {}
        }
        self.workers.finish().await;
    }
}

/// When listeners whose sockets could not be had are tried again: soon at first, then ever more rarely.
#[derive(Clone, Copy, Debug, Default)]
struct Again {
    wait: Option<Duration>,
}

impl Again {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(60);

    fn after(outcome: Result<(), Failure>) -> Self {
        let wait = outcome.is_err().then_some(Self::FIRST);
        Self { wait }
    }

    fn next(self, outcome: Result<(), Failure>) -> Self {
        let longer = self.wait.map(|wait| (wait * 2).min(Self::LONGEST));
        Self {
            wait: longer.filter(|_| outcome.is_err()),
        }
    }

    async fn due(self) {
        match self.wait {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    }
}

/// Statistics of connections and requests.
fn collector(mesh: &Mesh, server: &Arc<ServerStats>) -> Arc<dyn Fn(&mut Stats) + Send + Sync> {
    let (metrics, server) = (mesh.metrics().clone(), server.clone());
    Arc::new(move |stats| {
        server.each(|name, value| stats.dotted(name, value));
        server.each_histogram(|prefix, value, field, histogram| {
            let label = match prefix {
                "listener" => "envoy_listener_address",
                _ => "envoy_http_conn_manager_prefix",
            };
            let scope = Scope {
                prefix,
                label,
                value,
            };
            stats.histogram(scope, field, histogram);
        });
        metrics.each_http(|prefix, http| {
            let scope = Scope {
                prefix: "http",
                label: "envoy_http_conn_manager_prefix",
                value: prefix,
            };
            http.each(|field, value| stats.scoped(scope, field, kind_of(field), value));
            stats.histogram(scope, "downstream_rq_time", &http.downstream_rq_time);
        });
        metrics.each_route(|scope, counts| {
            counts.each(|field, value| stats.routed(scope, field, value));
        });
    })
}

/// Istio's standard metrics, which have Prometheus names of their own.
fn istio_metrics(mesh: &Mesh, options: &Options) -> Arc<dyn Fn(&mut String) + Send + Sync> {
    let metrics = mesh.metrics().clone();
    let build = match options.source {
        Source::Folder(..) => concat!(
            "# TYPE istio_build gauge\nistio_build{component=\"proxy\",tag=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1\n"
        ),
        _ => "",
    };
    Arc::new(move |out| {
        out.push_str(build);
        out.push_str(&metrics.render());
    })
}

fn ended_early(ended: Result<Result<(), SourceError>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(error)) => Failure::Source(error.reason),
        Ok(Ok(())) => Failure::Ended("the configuration source".into()),
        Err(error) => Failure::Ended(format!("the configuration driver ({error})")),
    }
}

/// Opens the admin server and its smaller siblings.
fn serve_pages(
    admin: &Admin,
    options: &Options,
    bootstrap: Option<std::net::SocketAddr>,
) -> Result<(), Failure> {
    let servers = [
        (
            "the admin server",
            options.admin.or(bootstrap),
            Pages::Admin,
        ),
        ("the readiness server", options.readiness, Pages::Readiness),
        ("the metrics server", options.metrics, Pages::Metrics),
    ];
    for (what, address, pages) in servers {
        let Some(address) = address else { continue };
        let io = |source| Failure::Bind {
            what: what.to_owned(),
            address: address.to_string(),
            source,
        };
        let listener = admin::bind(what, address)?;
        let local = listener.local_addr().map_err(io)?;
        if let (Pages::Admin, Some(path)) = (pages, &options.admin_address_path) {
            std::fs::write(path, local.to_string()).map_err(|source| Failure::Io {
                what: "--admin-address-path cannot be written",
                source,
            })?;
        }
        tracing::info!(%local, what, "Listening");
        let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
        tokio::spawn(admin::serve(admin.clone(), pages, listener));
    }
    Ok(())
}

/// Says that a configuration is in force; what it holds without effect is in the driver's log.
fn log_applied(mesh: &Mesh) {
    let report = mesh.status().load();
    tracing::info!(
        generation = report.generation,
        notes = report.notes.len(),
        rejections = report.rejections.len(),
        "Configuration applied"
    );
}

/// Signals, listened for from the start so that none is missed.
struct Signals {
    term: Signal,
    int: Signal,
    usr1: Signal,
    hup: Signal,
    log: LogControl,
}

impl Signals {
    fn listen(log: LogControl) -> Result<Self, Failure> {
        let open = |kind| {
            signal(kind).map_err(|source| Failure::Io {
                what: "signals cannot be listened for",
                source,
            })
        };
        Ok(Self {
            term: open(SignalKind::terminate())?,
            int: open(SignalKind::interrupt())?,
            usr1: open(SignalKind::user_defined1())?,
            hup: open(SignalKind::hangup())?,
            log,
        })
    }

    /// Resolves on SIGTERM and SIGINT. Meanwhile SIGUSR1 opens the log files again, and SIGHUP does nothing, as in Envoy.
    async fn end(&mut self) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.usr1.recv() => self.log.reopen_all(),
                _ = self.hup.recv() => tracing::warn!("SIGHUP has no effect: there is no hot restart"),
            }
        }
    }
}
