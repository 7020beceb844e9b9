//! The commands that README and CI name: `test`, `bars`, `bench`, `release`.

mod bars;
mod bench;
mod budget;
mod counterparts;
mod http;
mod process;
mod release;
mod schema;
mod suites;
mod summary;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a command may end with besides success: a message for the terminal.
type Fallible<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Tests, measures and judges this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every check: format, lints, licences, tests, conformance, budgets, other people's clients and suites
    Test(test::Options),
    /// Measure each demand that has a number, one line each
    Bars(bars::Options),
    /// Run proxies side by side with the harness of $MESH_BENCH [default: ../shared/bench]
    Bench(bench::Options),
    /// Build meshd as it is shipped, optimised by a profile of real traffic, and say where it is
    Release,
    /// Write the table of Envoy's messages that mesh-xds reads JSON by
    Schema {
        /// Only compare it with the committed one
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Test(options) => test::run(&options),
        Command::Bars(options) => bars::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Release => release::run(),
        Command::Schema { check } => schema::run(check).map(|()| true).map_err(Into::into),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
