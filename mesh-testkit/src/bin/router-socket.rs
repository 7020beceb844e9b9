//! Plays `envoy-router-check` through the sockets of a running proxy: `router-socket --proxy PROGRAM --config FILE`.
//!
//! The program is started with Envoy's command line on FILE, which is written first.

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use mesh_testkit::conformance::{self, Ctx, SuiteResult};
use mesh_testkit::router_socket::{self, Play};

/// Play envoy-router-check through a proxy's sockets; exit 1 if any entry fails.
#[derive(Debug, Parser)]
struct Args {
    /// The proxy
    #[arg(long)]
    proxy: PathBuf,
    /// Where its configuration is written
    #[arg(long)]
    config: PathBuf,
    /// Folder of the suites [default: $MESH_CONFORMANCE, else ../shared/conformance]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    match play(&Args::parse()) {
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

fn play(args: &Args) -> Result<SuiteResult, String> {
    let root = args.root.clone().unwrap_or_else(conformance::default_root);
    let play = Play::new(&Ctx::new(root).dir("envoy-router-check"))?;
    std::fs::write(&args.config, play.config()?).map_err(|error| error.to_string())?;
    let mut command = Command::new(&args.proxy);
    command.arg("-c").arg(&args.config).args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "warning",
    ]);
    let _proxy = Ends(
        command
            .spawn()
            .map_err(|error| format!("{}: {error}", args.proxy.display()))?,
    );
    router_socket::wait_for(play.ports(), Duration::from_secs(20))?;
    Ok(play.run())
}

/// Ends the proxy when the play is over.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
