//! Plays in Python (hyper-h2 and raw sockets): upgrades, and peers that leave or break.

use std::process::Command;
use std::time::Duration;

use super::{Rig, scratch};
use crate::Fallible;
use crate::process;
use crate::tools;
use crate::workspace;

/// Runs `interop/python/NAME.py` against the proxy.
pub(super) fn run(rig: &Rig, name: &str) -> Fallible<String> {
    let program = rig.program()?;
    let mut command = Command::new(tools::python()?);
    command
        .arg(
            workspace::root()
                .join("interop/python")
                .join(format!("{name}.py")),
        )
        .arg("--proxy")
        .arg(program)
        .arg("--scratch")
        .arg(scratch()?);
    // The expectations were written down from Envoy, and say where meshd differs.
    let file = program.file_name().unwrap_or_default();
    if file.to_string_lossy().contains("envoy") {
        command.arg("--envoy");
    }
    let ended = process::logged(
        &mut command,
        &scratch()?.join(format!("{name}-report.log")),
        Duration::from_secs(300),
    )?;
    print!("{}", ended.text);
    let last = ended
        .text
        .lines()
        .last()
        .unwrap_or("the play wrote nothing")
        .to_owned();
    if ended.status.success() {
        Ok(last)
    } else {
        Err(last.into())
    }
}
