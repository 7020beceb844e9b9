//! Assembly: admin and signals on this thread, configuration on one of its own, traffic on workers.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use mesh_core::{
    config::{ConfigSource, SourceError},
    server::ServerStats,
    snapshot::{Driver, Mesh, Snapshot, Watch},
};
use tokio::{
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
    task::{AbortHandle, JoinError, JoinHandle},
};

use crate::{
    Failure,
    admin::{self, Admin, Pages},
    cli::{Mode, Options, Source},
    lifecycle::{Drain, Lifecycle, State},
    listeners::Manager,
    log::LogControl,
    source::{Facts, Opened},
    stats::{Scope, Stats, kind_of},
    traffic,
    worker::Workers,
};

/// How long the first configuration may take until the admin server of a folder opens where it is by default. The folder may
/// want it elsewhere, and mostly says so sooner.
const ADMIN_PATIENCE: Duration = Duration::from_millis(500);
/// Longest wait of a clean end for the control thread's own tasks.
const CONTROL_GRACE: Duration = Duration::from_millis(200);

/// Runs until told to end.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let log = LogControl::install(&options).map_err(|source| Failure::Io {
        what: "no log",
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
    let mut asked = Asked::of(&lifecycle);
    let stats = Arc::new(ServerStats::default());
    let mut manager = Manager::new(stats.clone(), &options);
    options.admin = options.admin.or(facts.admin);
    let admin = Admin {
        mesh: mesh.clone(),
        lifecycle: lifecycle.clone(),
        settings: facts.settings.clone(),
        listeners: manager.status(),
        log,
        collect: collector(&mesh, &stats),
        istio_metrics: istio_metrics(&mesh, &options),
        dump: facts.dump,
        dynamic: facts.dynamic,
        reset: Arc::default(),
        options: Arc::new(options.clone()),
    };
    // Before there is a configuration, so that it can be seen what that waits for.
    open_early(&admin, &options)?;
    let (mut driving, _stop) = drive(driver);
    let mut watch = mesh.watch();
    let mut early = EarlyAdmin::default();
    let first = first(&mut watch, &mut driving, &lifecycle, &mut signals);
    let first = early.until(&admin, first).await?;
    let Some(first) = first else { return Ok(()) };
    if facts.strict_start {
        refuse_rejected(&mesh)?;
    }
    if options.mode == Mode::Validate {
        say_valid(&options);
        return Ok(());
    }
    let options = admin.options();
    manager.settle(&options);
    let workers = start_workers(&mesh, options.concurrency)?;
    early.settle(&admin, &options)?;
    manager.apply(&workers, &first)?;
    lifecycle.set(State::Live);
    let listeners = first.listeners().len();
    tracing::info!(listeners, concurrency = options.concurrency, "Serving");
    let serving = Serving {
        mesh,
        lifecycle,
        workers,
        manager,
    };
    serving
        .until_told(&mut watch, &mut driving, &mut asked, &mut signals)
        .await
}

/// Keeps the configuration up to date until the sender is dropped. A large one takes a while to compile: on a thread of its
/// own, so that probes and signals are answered meanwhile.
fn drive<S: ConfigSource + 'static>(driver: Driver<S>) -> (Driving, oneshot::Sender<Infallible>) {
    let (stop, stopped) = oneshot::channel();
    let control = Handle::current();
    let run = async {
        tokio::select! {
            ended = driver.run() => ended,
            _ = stopped => Ok(()),
        }
    };
    let driving = tokio::task::spawn_blocking(move || control.block_on(run));
    (driving, stop)
}

/// The task that takes configuration from the source and puts it in force.
type Driving = JoinHandle<Result<(), SourceError>>;

/// Waits for the first configuration; `None`: the process is told to end before.
async fn first(
    watch: &mut Watch,
    driving: &mut Driving,
    lifecycle: &Lifecycle,
    signals: &mut Signals,
) -> Result<Option<Arc<Snapshot>>, Failure> {
    tokio::select! {
        snapshot = watch.changed() => Ok(Some(snapshot)),
        ended = driving => Err(ended_early(ended)),
        () = signals.end() => Ok(None),
        () = lifecycle.quitting() => Ok(None),
    }
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

/// What the admin server is asked for, from its first page on.
struct Asked {
    drains: watch::Receiver<Drain>,
    failing: watch::Receiver<bool>,
}

impl Asked {
    fn of(lifecycle: &Lifecycle) -> Self {
        Self {
            drains: lifecycle.drains(),
            failing: lifecycle.failing(),
        }
    }
}

/// A process that serves.
struct Serving {
    mesh: Mesh,
    lifecycle: Lifecycle,
    workers: Workers,
    manager: Manager,
}

impl Serving {
    /// Serves until the process is told to end, and ends in order.
    async fn until_told(
        mut self,
        watch: &mut Watch,
        driving: &mut Driving,
        asked: &mut Asked,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let outcome = self.follow(watch, driving, asked, signals).await;
        self.end(signals).await;
        outcome
    }

    /// Follows the configuration and what is asked of the process, until it is to end.
    async fn follow(
        &mut self,
        watch: &mut Watch,
        driving: &mut Driving,
        asked: &mut Asked,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let mut followed = true;
        // A socket that cannot be had later leaves the others, and the old ones, as they are, and is tried again.
        let mut again = Again::default();
        loop {
            tokio::select! {
                snapshot = watch.changed() => {
                    again = Again::after(self.manager.apply(&self.workers, &snapshot));
                    log_applied(&self.mesh);
                }
                ended = &mut *driving, if followed => {
                    followed = false;
                    let why = ended_early(ended);
                    tracing::error!(%why, "Changes of the configuration are not seen any more, what is in force stays");
                }
                () = again.due() => {
                    let snapshot = self.mesh.snapshot();
                    again = again.next(self.manager.apply(&self.workers, &snapshot));
                }
                Ok(()) = asked.drains.changed() => {
                    let drain = *asked.drains.borrow_and_update();
                    self.manager.drain(drain);
                }
                Ok(()) = asked.failing.changed() => {
                    let failing = *asked.failing.borrow_and_update();
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

fn ended_early(ended: Result<Result<(), SourceError>, JoinError>) -> Failure {
    match ended {
        Ok(Err(error)) => Failure::Source(error.reason),
        Ok(Ok(())) => Failure::Ended("the configuration source".into()),
        Err(error) => Failure::Ended(format!("the configuration driver ({error})")),
    }
}

/// Opens the servers of pages whose addresses are known before there is a configuration.
fn open_early(admin: &Admin, options: &Options) -> Result<(), Failure> {
    if options.mode == Mode::Validate {
        return Ok(());
    }
    if options.is_admin_given() {
        open(admin, options.admin, Pages::Admin)?;
    }
    open(admin, options.readiness, Pages::Readiness)?;
    open(admin, options.metrics, Pages::Metrics)?;
    Ok(())
}

/// The admin server of a folder, which may have to open before the folder has said where.
#[derive(Default)]
struct EarlyAdmin {
    open: Option<(SocketAddr, AbortHandle)>,
}

impl EarlyAdmin {
    /// Waits for `ready`. If that takes long, the server opens meanwhile.
    async fn until<T>(&mut self, admin: &Admin, ready: impl Future<Output = T>) -> T {
        tokio::select! {
            ready = ready => ready,
            never = self.open_late(admin) => match never {},
        }
    }

    /// Opens it where it is by default if there is no configuration for long; then waits for ever.
    async fn open_late(&mut self, admin: &Admin) -> Infallible {
        tokio::time::sleep(ADMIN_PATIENCE).await;
        let options = &admin.options;
        if let Some(address) = options.admin.filter(|_| !options.is_admin_given()) {
            match open(admin, Some(address), Pages::Admin) {
                Ok(server) => self.open = server.map(|server| (address, server)),
                // The folder may want it elsewhere.
                Err(error) => tracing::warn!(%error, "No admin server before the configuration"),
            }
        }
        std::future::pending().await
    }

    /// Opens it where the folder wants it, unless it is open there.
    fn settle(self, admin: &Admin, options: &Options) -> Result<(), Failure> {
        let at = self.open.as_ref().map(|(address, _)| *address);
        if options.is_admin_given() || at.is_some() && at == options.admin {
            return Ok(());
        }
        if let Some((_, server)) = self.open {
            server.abort();
        }
        open(admin, options.admin, Pages::Admin).map(drop)
    }
}

/// Opens the admin server or one of its smaller siblings, if it has an address.
fn open(
    admin: &Admin,
    address: Option<SocketAddr>,
    pages: Pages,
) -> Result<Option<AbortHandle>, Failure> {
    let Some(address) = address else {
        return Ok(None);
    };
    let what = pages.name();
    let io = |source| Failure::Bind {
        what: what.to_owned(),
        address: address.to_string(),
        source,
    };
    let listener = admin::bind(what, address)?;
    let local = listener.local_addr().map_err(io)?;
    if let (Pages::Admin, Some(path)) = (pages, &admin.options.admin_address_path) {
        std::fs::write(path, local.to_string()).map_err(|source| Failure::Io {
            what: "--admin-address-path cannot be written",
            source,
        })?;
    }
    tracing::info!(%local, what, "Listening");
    let listener = tokio::net::TcpListener::from_std(listener).map_err(io)?;
    let server = tokio::spawn(admin::serve(admin.clone(), pages, listener));
    Ok(Some(server.abort_handle()))
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

#[cfg(test)]
mod tests;
