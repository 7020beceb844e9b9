//! A thousand reloads under steady load: embedded, in `meshd` on Istio's folder, and in `meshd` on files of Envoy's
//! resources.

use std::process::Command;
use std::time::Duration;

use super::Reading;
use crate::Fallible;
use crate::process;
use crate::workspace;

/// How many reloads.
const COUNT: &str = "1000";
/// Seconds until an edit acts; the demo's bar.
const EDIT: f64 = 1.0;
/// The longest that all of them may take.
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn measure() -> Fallible<Vec<Reading>> {
    let meshd = workspace::release_program("meshd");
    let mut reloads = Command::new(workspace::release_program("reloads"));
    reloads
        .arg(COUNT)
        .arg("embedded")
        .arg(format!("sidecar={}", meshd.display()))
        .arg(format!("envoy={}", meshd.display()));
    let log = workspace::target().join("xtask/reloads.log");
    let text = process::logged(&mut reloads, &log, LIMIT)?.text;
    Ok(["embedded", "sidecar", "envoy"]
        .iter()
        .flat_map(|home| read(&text, home))
        .collect())
}

/// The line of one home: `HOME: 1000 reloads, N requests, N failed, slowest N ms, N KiB more`.
fn read(text: &str, home: &str) -> Vec<Reading> {
    let name = format!("{home}, requests that fail during {COUNT} reloads");
    let mark = format!("{home}: ");
    // A failed request is told of in a line of its own, which begins alike.
    let line = text.lines().rev().find_map(|line| line.strip_prefix(&mark));
    let parsed = line.and_then(|line| {
        let mut parts = line.strip_prefix(COUNT)?.split(", ").skip(1);
        let requests: u64 = number(parts.next()?, "", " requests")?;
        let failed: u64 = number(parts.next()?, "", " failed")?;
        let slowest: u64 = number(parts.next()?, "slowest ", " ms")?;
        Some((requests, failed, slowest))
    });
    let Some((requests, failed, slowest)) = parsed else {
        let why = line.unwrap_or("not measured");
        return vec![Reading::holds(name, why, "0", false)];
    };
    vec![
        Reading::holds(
            name,
            format!("{failed} of {requests}"),
            "0",
            failed == 0 && requests > 0,
        ),
        Reading::at_most(
            format!("{home}, slowest reload in force"),
            slowest as f64 / 1000.0,
            EDIT,
            " s",
        ),
    ]
}

fn number(part: &str, before: &str, after: &str) -> Option<u64> {
    part.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_a_missing_one_is_missed() {
        let text = "sidecar: something failed\nsidecar: 1000 reloads, 9 requests, 1 failed, slowest 90 ms, 3 KiB more\nenvoy: turn 1 is not in force\n";
        let met =
            |home| -> Vec<bool> { read(text, home).iter().map(|reading| reading.met).collect() };
        assert_eq!(met("sidecar"), [false, true]);
        assert_eq!(met("envoy"), [false]);
        assert_eq!(met("embedded"), [false]);
    }
}
