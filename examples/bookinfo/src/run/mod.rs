//! The demo as a whole: starts everything, shows the table, and ends in order.

mod admin;
mod apps;
mod embedded;
mod fleet;
mod notes;
mod state;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    load::Load,
    watch::{Input, Plain, Screen, Show, View, figures::Figures},
    world::{World, WorldError},
};

pub use apps::AppError;
pub use embedded::EmbeddedError;
pub use fleet::{FleetError, MESHD};

/// How long the sidecars may take to become ready, also on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How long requests in flight have, once the demo is told to end.
const DRAIN: Duration = Duration::from_millis(4200);

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of Istio and Kubernetes YAML.
    pub mesh: PathBuf,
    /// Pages per second to ask for; none without it.
    pub load: Option<f64>,
    /// How long to run from the moment that all is ready; without it, until Ctrl-C or SIGTERM.
    pub length: Option<Duration>,
    /// Whether the access log is shown, where the mesh asks for one.
    pub access_log: bool,
    /// Everything in this one process, without any sidecar.
    pub embedded: bool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder does not say what to start.
    #[error(transparent)]
    World(#[from] WorldError),
    /// An application cannot listen.
    #[error(transparent)]
    App(#[from] AppError),
    /// A sidecar or the gateway did not start, or died.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The mesh inside this process did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The terminal, or the signals.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Runs the demo until it is told to end, or something in it dies.
///
/// # Errors
/// [`RunError`]; whatever was started has ended by then.
pub async fn run(options: Options) -> Result<(), RunError> {
    let world = World::read(&options.mesh)?;
    let mut ends = Ends::new()?;
    let (notes, mut noted) = notes::Notes::new();
    let mut world_runs = if options.embedded {
        Running::Embedded(embedded::Embedded::start(&world, &options, &notes, START).await?)
    } else {
        let apps = apps::Apps::start(&world).await?;
        Running::Sidecars(fleet::Fleet::start(&world, &options, &notes)?, apps)
    };
    let ready = tokio::select! {
        ready = world_runs.ready() => ready.map(|()| true),
        () = ends.asked() => Ok(false),
    };
    let mut load = None;
    let outcome = match ready {
        Ok(true) => {
            ends.at = options.length.map(|length| Instant::now() + length);
            let address = world.gateway.address;
            load = options.load.map(|rate| Load::start(address, rate));
            watch(address, &mut world_runs, ends, &mut noted).await
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let deadline = Instant::now() + DRAIN;
    let report = match load {
        Some(load) => Some(load.stop(deadline).await),
        None => None,
    };
    world_runs.end(deadline).await;
    // What was said since the last view, on the way to the end or before there was any view.
    let error = outcome.as_ref().err().map(ToString::to_string);
    while let Ok(note) = noted.try_recv() {
        // The error has the last words of what died.
        let said = note.split_once("] ").map_or(&*note, |(_, said)| said);
        if !error.as_ref().is_some_and(|error| error.ends_with(said)) {
            eprintln!("{note}");
        }
    }
    if let Some(report) = report {
        // Nobody may read it any more.
        let _ = writeln!(io::stdout(), "{report}");
    }
    outcome
}

/// What runs: the applications and what joins them.
enum Running {
    /// Each application behind a sidecar process.
    Sidecars(fleet::Fleet, apps::Apps),
    /// All in this process.
    Embedded(embedded::Embedded),
}

impl Running {
    async fn ready(&mut self) -> Result<(), FleetError> {
        match self {
            Self::Sidecars(fleet, _) => fleet.ready(START).await,
            Self::Embedded(_) => Ok(()),
        }
    }

    async fn metrics(&self) -> Vec<String> {
        match self {
            Self::Sidecars(fleet, _) => {
                let texts = fleet.texts("/stats/prometheus").await;
                texts.into_iter().filter_map(|(_, text)| text).collect()
            }
            Self::Embedded(embedded) => embedded.metrics(),
        }
    }

    async fn config(&self) -> state::Gathered {
        match self {
            Self::Sidecars(fleet, _) => {
                let mut gathered = state::Gathered::default();
                for (name, text) in fleet.texts("/config_status").await {
                    gathered.admin(name, text.as_deref());
                }
                gathered
            }
            Self::Embedded(embedded) => embedded.config(),
        }
    }

    async fn died(&mut self) -> FleetError {
        match self {
            Self::Sidecars(fleet, _) => fleet.died().await,
            Self::Embedded(_) => std::future::pending().await,
        }
    }

    async fn end(self, deadline: Instant) {
        match self {
            Self::Sidecars(fleet, apps) => {
                for cut in fleet.drain(deadline).await {
                    eprintln!("{cut} still had requests in flight and was ended");
                }
                apps.stop(deadline).await;
            }
            Self::Embedded(embedded) => embedded.stop(deadline).await,
        }
    }
}

/// Shows the table until the end, which is also that of its reader.
async fn watch(
    gateway: SocketAddr,
    running: &mut Running,
    mut ends: Ends,
    noted: &mut mpsc::UnboundedReceiver<String>,
) -> Result<(), RunError> {
    let (mut show, mut keys) = output()?;
    let mut view = View {
        page: format!("http://{gateway}/productpage"),
        ..View::default()
    };
    view.note(format!("ready: {}", view.page));
    let mut figures = Figures::default();
    // Remarks are said once, however often they are reported.
    let mut told = std::collections::BTreeSet::new();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = seconds.tick() => {
                let texts = running.metrics().await;
                let now = std::time::Instant::now();
                figures.take(now, texts.iter().map(String::as_str));
                view.rows = figures.rows();
                let gathered = running.config().await;
                view.config = gathered.state();
                view.generation(now, gathered.generation());
                for note in gathered.notes() {
                    if told.insert(note.clone()) {
                        view.note(note);
                    }
                }
            }
            Some(note) = noted.recv() => {
                view.note(note);
                while let Ok(note) = noted.try_recv() {
                    view.note(note);
                }
            }
            Some(input) = keys.recv() => if input == Input::Quit { break },
            () = ends.asked() => break,
            error = running.died() => return Err(error.into()),
        }
        match show.show(&view) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            shown => shown?,
        }
    }
    Ok(())
}

/// The terminal if there is one, else lines.
fn output() -> io::Result<(Box<dyn Show + Send>, mpsc::UnboundedReceiver<Input>)> {
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        let (screen, keys) = Screen::open()?;
        return Ok((Box::new(screen), keys));
    }
    let (sender, keys) = mpsc::unbounded_channel();
    drop(sender);
    Ok((Box::new(Plain::new(io::stdout())), keys))
}

/// What ends a run from outside.
struct Ends {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    at: Option<Instant>,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            at: None,
        })
    }

    async fn asked(&mut self) {
        let time = async {
            match self.at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = time => {}
        }
    }
}
