//! Plays in Python, with hyper-h2 and raw sockets.

use std::process::Command;
use std::time::Duration;

use super::{Rig, play, scratch};
use crate::Fallible;
use crate::tools;
use crate::workspace;

/// Those with expectations of their own, `interop/python/NAME.py`.
pub(super) const NAMES: [&str; 9] = [
    "upgrades",
    "failures",
    "filters",
    "continues",
    "router",
    "admin",
    "counters",
    "listeners",
    "upstreams",
];

/// Random files, and requests to each: less than a minute.
const FILES: &str = "6";
const REQUESTS: &str = "100";

/// Runs one of [`NAMES`] against the proxy.
pub(super) fn run(rig: &Rig, name: &str) -> Fallible<String> {
    let program = rig.program()?;
    let plays = workspace::root().join("interop/python");
    let mut command = Command::new(tools::python()?);
    command
        .arg(plays.join(format!("{name}.py")))
        .arg("--proxy")
        .arg(program)
        .arg("--scratch")
        .arg(scratch()?);
    // The expectations were written down from Envoy, and say where meshd differs.
    let file = program.file_name().unwrap_or_default();
    if file.to_string_lossy().contains("envoy") {
        command.arg("--envoy");
    }
    play(&mut command, name, Duration::from_secs(300))
}

/// Plays random Envoy files through the proxy and through Envoy: the same files each time, that a run means something.
pub(super) fn differential(rig: &Rig) -> Fallible<String> {
    let mut command = Command::new(tools::python()?);
    command
        .arg(workspace::root().join("interop/python/differential.py"))
        .arg("--proxy")
        .arg(rig.program()?)
        .arg("--scratch")
        .arg(scratch()?.join("differential"))
        .args([
            "--seed",
            "1011",
            "--count",
            FILES,
            "--odd",
            "0",
            "--requests",
            REQUESTS,
        ]);
    play(&mut command, "differential", Duration::from_secs(300))
}
