//! Tries request smuggling on a proxy: `smuggling --proxy PORT --upstream PORT`, both on 127.0.0.1.
//!
//! The proxy must forward every path to the upstream port, over HTTP/1.1, and take HTTP/1.1 and cleartext HTTP/2.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use mesh_testkit::smuggling::{self, Upstream};

/// Try request smuggling on a proxy; exit 1 if any case fools it.
#[derive(Debug, Parser)]
struct Args {
    /// Port of the proxy
    #[arg(long)]
    proxy: u16,
    /// Port where the upstream of the proxy is to listen
    #[arg(long)]
    upstream: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let outcome = Upstream::listen(loopback(args.upstream))
        .and_then(|upstream| smuggling::play(loopback(args.proxy), &upstream));
    let outcomes = match outcome {
        Ok(outcomes) => outcomes,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let failed = outcomes
        .iter()
        .filter(|(_, outcome)| outcome.is_err())
        .count();
    for (name, outcome) in &outcomes {
        if let Err(why) = outcome {
            println!("{name}: FAILED: {why}");
        }
    }
    println!("{} cases read strictly, {failed} failed", outcomes.len());
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
