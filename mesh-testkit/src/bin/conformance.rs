//! Plays the conformance suites and prints one line for each.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mesh_testkit::conformance::{self, Ctx, Suite, SuiteResult};
use mesh_testkit::suites;

/// Play third-party conformance cases; exit 1 if any of them fails.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Args {
    /// Folder of the suites [default: $MESH_CONFORMANCE, else ../shared/conformance]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Play this suite only; may be given several times
    #[arg(long, value_name = "NAME")]
    suite: Vec<String>,
    /// Also decode and route what a control plane sent, from this folder of recorded responses
    #[arg(long, value_name = "DIR")]
    xds: Option<PathBuf>,
    /// Say for each failed case what was expected and what was seen, and print the suites' remarks
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen = match chosen(&args.suite) {
        Ok(chosen) => chosen,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    let ctx = |root| Ctx {
        root,
        verbose: args.verbose,
    };
    let cases = ctx(args.root.unwrap_or_else(conformance::default_root));
    let mut results: Vec<SuiteResult> = Vec::new();
    for suite in chosen {
        results.push(conformance::play(suite, &cases));
        report(&results[results.len() - 1], args.verbose);
    }
    if let Some(root) = args.xds {
        let recorded = ctx(root);
        for suite in suites::RECORDED {
            results.push(conformance::play_recorded(suite, &recorded));
            report(&results[results.len() - 1], args.verbose);
        }
    }
    let green = !results.is_empty() && results.iter().all(SuiteResult::is_green);
    if green {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The suites named, or all of them.
fn chosen(names: &[String]) -> Result<Vec<&'static Suite>, String> {
    if names.is_empty() {
        return Ok(suites::SUITES.iter().collect());
    }
    let known = || {
        suites::SUITES
            .iter()
            .map(|suite| suite.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    names
        .iter()
        .map(|name| {
            suites::find(name).ok_or_else(|| format!("unknown suite {name:?}; known: {}", known()))
        })
        .collect()
}

fn report(result: &SuiteResult, verbose: bool) {
    println!("{result}");
    for difference in &result.allowed {
        println!("  allowed: {difference}");
    }
    if !verbose {
        return;
    }
    for failure in &result.failures {
        println!("  FAILED {failure}");
    }
    for note in &result.notes {
        println!("  note: {note}");
    }
}
