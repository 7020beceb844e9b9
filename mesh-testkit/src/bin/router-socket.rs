//! Plays `envoy-router-check` through the sockets of a running proxy: `router-socket --proxy PROGRAM`, a program that takes Envoy's
//! command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mesh_testkit::conformance::{self, Ctx, SuiteResult};
use mesh_testkit::program::Program;
use mesh_testkit::router_socket::Play;

/// Play envoy-router-check through a proxy's sockets; exit 1 if any entry fails.
#[derive(Debug, Parser)]
struct Args {
    /// The proxy
    #[arg(long)]
    proxy: PathBuf,
    /// Folder of the suites [default: $MESH_CONFORMANCE, else ../shared/conformance]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    match play(Args::parse()) {
        Ok(result) => {
            for line in result.failures.iter().chain(&result.notes) {
                println!("{line}");
            }
            println!("{result}");
            if result.is_green() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn play(args: Args) -> Result<SuiteResult, String> {
    let root = args.root.unwrap_or_else(conformance::default_root);
    let play = Play::new(&Ctx::new(root).dir("envoy-router-check"))?;
    let ports: Vec<u16> = play.ports().collect();
    let started = Program::start(&args.proxy, &ports, |_, admin| play.config(admin));
    let proxy = started.map_err(|error| format!("{}: {error}", args.proxy.display()))?;
    let result = play.run();
    proxy.finish().map_err(|error| error.to_string())?;
    Ok(result)
}
