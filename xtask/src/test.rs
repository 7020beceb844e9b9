//! `cargo xtask test`: every check, one after another, then the summary.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use crate::Fallible;
use crate::budget;
use crate::counterparts;
use crate::process;
use crate::schema;
use crate::suites;
use crate::summary::Summary;
use crate::tools;
use crate::workspace;

/// The crates that are published.
const PUBLISHED: [&str; 6] = ["-p", "mesh-core", "-p", "mesh-xds", "-p", "meshd"];

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Only what cargo alone can do: no counterparts, no tool to install
    #[arg(long)]
    quick: bool,
    /// Only the steps of these names (as the summary prints them)
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Run the counterparts against this program instead of meshd; it must take Envoy's command line
    #[arg(long, value_name = "PROGRAM")]
    proxy: Option<PathBuf>,
}

/// Runs the steps; `true` if all of them passed.
pub(crate) fn run(options: &Options) -> Fallible<bool> {
    let _alone = workspace::alone()?;
    let mut summary = Summary::new(&options.only);
    let s = &mut summary;
    s.step("format", || {
        silent(workspace::cargo(["fmt", "--all", "--check"]))
    });
    s.step("clippy", || {
        silent(workspace::cargo([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]))
    });
    s.step("docs", || {
        let mut docs = workspace::cargo(["doc", "--locked", "--quiet", "--no-deps"]);
        docs.args(PUBLISHED).env("RUSTDOCFLAGS", "-D warnings");
        silent(docs)
    });
    s.step("schema", || {
        schema::run(true)?;
        Ok(String::new())
    });
    s.step("budgets", budget::check);
    // Each feature of the library alone; all together are what the steps before compiled.
    s.step("bare", || {
        for feature in ["", "net", "client", "server", "regex"] {
            let mut check = workspace::cargo(["check", "--locked", "-p", "mesh-core"]);
            check.args(["--no-default-features", "--features", feature]);
            silent(check)?;
        }
        Ok(String::new())
    });
    // Unit, integration and doc tests; the integration tests play the fuzz bodies on their corpora and run the examples.
    s.step("tests", || {
        let mut tests = workspace::cargo(["test", "--workspace", "--locked", "--no-fail-fast"]);
        process::run_told(&mut tests, |line| {
            line.ends_with("... FAILED") || line.contains("' panicked at ")
        })?;
        Ok(String::new())
    });
    s.step("conformance", suites::check);
    if !options.quick {
        s.step("deny", deny);
        s.step("fuzz-targets", fuzz_targets);
        s.step("package", package);
        counterparts::steps(s, options.proxy.as_deref());
    }
    Ok(summary.finish())
}

fn silent(mut command: Command) -> Fallible<String> {
    process::run(&mut command)?;
    Ok(String::new())
}

fn deny() -> Fallible<String> {
    let mut deny = Command::new(tools::cargo_deny()?);
    deny.args(["--locked", "check", "bans", "licenses", "sources"])
        .current_dir(workspace::root());
    silent(deny)
}

/// The fuzz targets compile; their bodies were played by the tests before. They have a lock file and a target folder of their own.
fn fuzz_targets() -> Fallible<String> {
    let mut check = workspace::cargo(["check", "--locked", "--quiet"]);
    check
        .current_dir(workspace::root().join("fuzz"))
        .env("CARGO_TARGET_DIR", workspace::target().join("fuzz"));
    silent(check)
}

/// The published crates can be packaged (contents and manifest; the code was compiled by the steps before).
fn package() -> Fallible<String> {
    let mut command = workspace::cargo([
        "package",
        "--locked",
        "--no-verify",
        "--allow-dirty",
        "--quiet",
    ]);
    command.args(PUBLISHED);
    silent(command)
}
