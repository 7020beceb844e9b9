//! Attacks on HTTP (`mesh-testkit`, program `smuggling`): heads that two parsers could understand differently, of which a strict
//! parser reads what the proxy sends on, and floods, which must not cost more than a connection may.

use std::time::Duration;

use super::{Rig, play};
use crate::Fallible;
use crate::workspace;

pub(super) fn run(rig: &Rig) -> Fallible<String> {
    let mut command = workspace::testkit("smuggling")?;
    command.arg("--meshd").arg(rig.program()?);
    play(&mut command, "smuggling", Duration::from_secs(300))
}
