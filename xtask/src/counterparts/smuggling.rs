//! HTTP/1 and HTTP/2 heads that two parsers could understand differently: what the proxy sends on is read again by a strict
//! parser (`mesh-testkit`, program `smuggling`).

use std::time::Duration;

use super::{Rig, play};
use crate::Fallible;
use crate::process;
use crate::workspace;

pub(super) fn run(rig: &Rig) -> Fallible<String> {
    let mut command = workspace::testkit("smuggling")?;
    let upstream = process::free_port()?;
    let mut proxy = rig.start("http.yaml", "smuggling", upstream)?;
    command
        .args(["--proxy", &proxy.port.to_string()])
        .args(["--upstream", &upstream.to_string()]);
    let told = play(&mut command, "smuggling", Duration::from_secs(120));
    proxy.check()?;
    told
}
