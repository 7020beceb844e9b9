//! HTTP/1 and HTTP/2 heads that two parsers could understand differently: what the proxy sends on is read again by a strict
//! parser (`mesh-testkit`, program `smuggling`).

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
        "smuggling",
    ]))?;
    let upstream = process::free_port()?;
    let mut proxy = rig.start("http.yaml", "smuggling", upstream)?;
    let mut command = Command::new(workspace::dev_program("smuggling"));
    command.args([
        "--proxy",
        &proxy.port.to_string(),
        "--upstream",
        &upstream.to_string(),
    ]);
    let ended = process::logged(
        &mut command,
        &scratch()?.join("smuggling-report.log"),
        Duration::from_secs(120),
    )?;
    print!("{}", ended.text);
    proxy.check()?;
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
