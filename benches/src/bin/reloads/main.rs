//! Many reloads of a configuration under steady load: no request may fail, none may miss its answer.
//!
//! Usage: `reloads COUNT HOME…`; a home is `embedded`, or `sidecar=MESHD` or `envoy=MESHD` with the path of the program. All
//! homes are measured at the same time, each with a folder and a load of its own. A line for each:
//! `HOME: COUNT reloads, N requests, N failed, slowest N ms, N KiB more`.

mod files;
mod load;

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use mesh_benches::loopback::{self, Failure, Protocol, free_port};
use mesh_core::{snapshot::Mesh, transport::TcpConnector};
use mesh_xds::istio::source::{IstioOptions, IstioSource, ProxySpec};

use crate::files::{Files, Ports, Shape};
use crate::load::{Caller, Load};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a reload may take until the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is asked whether a reload acts.
const POLL: Duration = Duration::from_millis(5);

/// Where the mesh runs.
#[derive(Clone, Debug)]
enum Home {
    /// In this program, on a folder.
    Embedded,
    /// In this `meshd`, on a folder.
    Sidecar(PathBuf),
    /// In this `meshd`, on files of Envoy's resources.
    Envoy(PathBuf),
}

impl Home {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text.split_once('=') {
            None if text == "embedded" => Ok(Self::Embedded),
            Some(("sidecar", program)) => Ok(Self::Sidecar(program.into())),
            Some(("envoy", program)) => Ok(Self::Envoy(program.into())),
            _ => Err(format!("{text:?} is none of embedded, sidecar=MESHD, envoy=MESHD").into()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Sidecar(_) => "sidecar",
            Self::Envoy(_) => "envoy",
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("reloads: {error}");
            ExitCode::from(2)
        }
    }
}

/// Measures all homes; `true` if no request failed.
fn run(arguments: &[String]) -> Result<bool, Failure> {
    let [count, homes @ ..] = arguments else {
        return Err("usage: reloads COUNT HOME…".into());
    };
    let count: u32 = count.parse()?;
    let homes = homes.iter().map(|home| Home::parse(home));
    let homes = homes.collect::<Result<Vec<_>, _>>()?;
    let runs: Vec<_> = homes
        .into_iter()
        .map(|home| (home.name(), std::thread::spawn(move || alone(&home, count))))
        .collect();
    let mut good = true;
    for (name, run) in runs {
        match run.join() {
            Ok(Ok(report)) => {
                println!("{name}: {}", report.text);
                good &= report.good;
            }
            Ok(Err(error)) => {
                println!("{name}: {error}");
                good = false;
            }
            Err(_) => {
                println!("{name}: the run panicked");
                good = false;
            }
        }
    }
    Ok(good)
}

/// Measures one home with a runtime of its own.
fn alone(home: &Home, count: u32) -> Result<Report, Failure> {
    let ports = ports()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(home, ports, count))
}

/// What one home did.
struct Report {
    text: String,
    good: bool,
}

/// Two apps, and ports for the rest.
fn ports() -> Result<Ports, Failure> {
    let app = || Ok::<_, Failure>(loopback::app(Protocol::Http1)?.port());
    Ok(Ports {
        apps: [app()?, app()?],
        service: free_port()?,
        other: free_port()?,
        admin: free_port()?,
    })
}

async fn measure(home: &Home, ports: Ports, count: u32) -> Result<Report, Failure> {
    let shape = match home {
        Home::Envoy(_) => Shape::Envoy,
        Home::Embedded | Home::Sidecar(_) => Shape::Istio,
    };
    let files = Files::create(shape, ports)?;
    let place = Place::open(home, &files, &ports)?;
    until_in_force(&place.caller, 0).await?;
    let load = Load::start(&place.caller);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = place.resident_kib()?;
    let mut slowest = Duration::ZERO;
    for turn in 1..=count {
        files.write(turn)?;
        slowest = slowest.max(until_in_force(&place.caller, turn).await?);
    }
    let more = place.resident_kib()?.saturating_sub(before);
    let (requests, failures) = load.stop().await;
    for failure in failures.iter().take(10) {
        eprintln!("{}: {failure}", home.name());
    }
    let text = format!(
        "{count} reloads, {requests} requests, {} failed, slowest {} ms, {more} KiB more",
        failures.len(),
        slowest.as_millis(),
    );
    Ok(Report {
        text,
        good: failures.is_empty(),
    })
}

/// Waits until the configuration of this turn answers.
async fn until_in_force(caller: &Caller, turn: u32) -> Result<Duration, Failure> {
    let saved = Instant::now();
    let wanted = turn.to_string();
    let mut last = String::new();
    while saved.elapsed() < PATIENCE {
        match caller.turn().await {
            Ok(seen) if seen == wanted => return Ok(saved.elapsed()),
            Ok(seen) => last = format!("turn {seen}"),
            Err(error) if turn == 0 => last = error.to_string(),
            Err(error) => return Err(format!("turn {turn}: a request failed: {error}").into()),
        }
        tokio::time::sleep(POLL).await;
    }
    Err(format!("turn {turn} is not in force after {PATIENCE:?}: {last}").into())
}

/// A mesh that runs.
struct Place {
    caller: Caller,
    process: Option<Child>,
}

impl Place {
    fn open(home: &Home, files: &Files, ports: &Ports) -> Result<Self, Failure> {
        let admin = format!("127.0.0.1:{}", ports.admin);
        let command = match home {
            Home::Embedded => return Self::embedded(files, ports),
            Home::Sidecar(program) => {
                let mut command = Command::new(program);
                command.arg("sidecar").arg("--config").arg(files.folder());
                command.args(["--workload", "default/client", "--bind", "127.0.0.1"]);
                command.args(["--admin", &admin, "--readiness", "none"]);
                command.args(["--metrics", "none", "-l", "error"]);
                command
            }
            Home::Envoy(program) => {
                let mut command = Command::new(program);
                command.arg("-c").arg(files.folder().join("bootstrap.yaml"));
                command.args(["--concurrency", "2", "-l", "error"]);
                command
            }
        };
        Self::process(command, ports)
    }

    fn process(mut command: Command, ports: &Ports) -> Result<Self, Failure> {
        // The access log goes to standard output.
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start meshd: {error}"))?;
        Ok(Self {
            caller: Caller::proxy(ports.service)?,
            process: Some(process),
        })
    }

    fn embedded(files: &Files, ports: &Ports) -> Result<Self, Failure> {
        let workload = ProxySpec {
            namespace: "default".into(),
            name: "client".into(),
            ..ProxySpec::default()
        };
        let source = IstioSource::new(IstioOptions::new(files.folder(), workload))?;
        let (mesh, driver) = Mesh::builder().source(source).build();
        tokio::spawn(driver.run());
        let client = tower::util::BoxCloneSyncService::new(mesh.client(TcpConnector));
        Ok(Self {
            caller: Caller::embedded(ports.service, client)?,
            process: None,
        })
    }

    /// Memory of the process that the mesh runs in.
    fn resident_kib(&self) -> Result<u64, Failure> {
        let id = self.process.as_ref().map_or(std::process::id(), Child::id);
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS in /proc")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Both fail only if the process is gone already, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
