//! The entries of Envoy's router check tool, through the sockets of the proxy (`mesh-testkit`, program `router-socket`).

use std::time::Duration;

use super::{Rig, play};
use crate::Fallible;
use crate::workspace;

pub(super) fn run(rig: &Rig) -> Fallible<String> {
    let mut command = workspace::testkit("router-socket")?;
    command
        .arg("--proxy")
        .arg(rig.program()?)
        .arg("--root")
        .arg(workspace::shared("MESH_CONFORMANCE", "conformance"));
    play(&mut command, "router-socket", Duration::from_secs(180))
}
