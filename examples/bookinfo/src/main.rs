//! Istio's bookinfo on our mesh: as sidecars and embedded, in one command.

use std::{
    env,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use bookinfo::{run, world};
use clap::{Parser, Subcommand};

/// Runs Istio's bookinfo: every service behind a sidecar of its own, and a gateway in front.
///
/// Open http://127.0.0.1:8080/productpage, edit a file of the mesh folder, and watch the table.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder of Istio and Kubernetes YAML that says what the mesh does
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/mesh"))]
    mesh: PathBuf,
    /// Ask for so many pages per second
    #[arg(long, value_name = "RPS", value_parser = rate)]
    load: Option<f64>,
    /// End so many seconds after the start is complete
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    length: Option<Duration>,
    /// Run everything in this one process: the mesh inside the services, no sidecar
    #[arg(long)]
    embedded: bool,
    /// Show the access log among the notes, where the mesh asks for one: extra/access-log.yaml does
    #[arg(long)]
    access_log: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a mesh folder that uses other addresses, so that a second demo can run beside the first
    NewMesh {
        /// The folder to write
        to: PathBuf,
        /// The second number of its addresses: 20 makes 127.20.0.1 and so on
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
        block: u8,
        /// The folder to start from
        #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/mesh"))]
        from: PathBuf,
    },
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 100000 is wanted".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds above 0 is wanted".to_owned()),
    }
}

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let _program = arguments.next();
    if arguments.next().is_some_and(|first| first == run::MESHD) {
        return sidecar(arguments.collect());
    }
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::NewMesh { to, block, from }) => new_mesh(&from, &to, block),
        None => demo(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookinfo: {error}");
            if error.to_string().contains("Address already in use") {
                eprintln!(
                    "Is another demo running? `bookinfo new-mesh --block 20 DIR` writes a folder with other addresses."
                );
            }
            ExitCode::FAILURE
        }
    }
}

fn new_mesh(from: &Path, to: &Path, block: u8) -> Result<(), Box<dyn std::error::Error>> {
    Ok(world::copy_to_block(from, to, block)?)
}

fn demo(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let options = run::Options {
        mesh: arguments.mesh,
        load: arguments.load,
        length: arguments.length,
        access_log: arguments.access_log,
        embedded: arguments.embedded,
    };
    let outcome = runtime.block_on(run::run(options));
    // A blocking read (of a name, of a terminal) must not hold the end up.
    runtime.shutdown_background();
    Ok(outcome?)
}

/// This process is a sidecar or the gateway. Its standard input is a pipe from the demo, and the end of that is the
/// demo's: then it ends, too, so that no sidecar is left whatever happens to the demo.
fn sidecar(arguments: Vec<std::ffi::OsString>) -> ExitCode {
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    meshd::main_with_args(std::iter::once("meshd".into()).chain(arguments))
}
