//! The entries of Envoy's router check tool, through the sockets of the proxy (`mesh-testkit`, program `router-socket`).

use std::process::Command;
use std::time::Duration;

use super::{Rig, scratch};
use crate::Fallible;
use crate::process;
use crate::workspace;

pub(super) fn run(rig: &Rig) -> Fallible<String> {
    process::run(&mut workspace::cargo([
        "build",
        "--locked",
        "--quiet",
        "-p",
        "mesh-testkit",
        "--bin",
        "router-socket",
    ]))?;
    let mut command = Command::new(workspace::dev_program("router-socket"));
    command
        .arg("--proxy")
        .arg(rig.program()?)
        .arg("--config")
        .arg(scratch()?.join("router-socket.yaml"));
    command
        .arg("--root")
        .arg(workspace::shared("MESH_CONFORMANCE", "conformance"));
    let ended = process::logged(
        &mut command,
        &scratch()?.join("router-socket.log"),
        Duration::from_secs(180),
    )?;
    print!("{}", ended.text);
    let last = ended
        .text
        .lines()
        .last()
        .unwrap_or("the program wrote nothing")
        .to_owned();
    if ended.status.success() {
        Ok(last)
    } else {
        Err(last.into())
    }
}
