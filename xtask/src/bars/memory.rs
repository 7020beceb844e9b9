//! Resident memory of meshd: idle, and with 10,000 clusters.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Reading;
use super::ratios::median;
use crate::Fallible;
use crate::bench;
use crate::counterparts::Rig;
use crate::process;
use crate::workspace;

/// MiB that an idle meshd may hold.
const IDLE: f64 = 10.0;
/// MB that 10,000 clusters may add.
const CLUSTERS: f64 = 80.0;
/// Seconds until a meshd with 10,000 clusters answers.
const READY: f64 = 0.6;
/// How long a meshd is left alone before it counts as idle.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures the `meshd` in `folder`.
pub(super) fn measure(folder: &Path) -> Fallible<Vec<Reading>> {
    let mut proxy = Rig::of(folder.join("meshd")).start("http.yaml", "idle", 9)?;
    std::thread::sleep(SETTLE);
    proxy.check()?;
    let idle = proxy.resident_mib()?;
    drop(proxy);
    let file = workspace::target().join("xtask/scale.json");
    process::run(
        bench::harness(folder, &["scale"], "meshd", 1)?
            .arg("--json")
            .arg(&file),
    )?;
    let runs: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let column = |size: &str, n: usize| -> Fallible<f64> {
        let runs = runs["scale"]["meshd"][size]
            .as_array()
            .ok_or("scale was not measured")?;
        Ok(median(
            runs.iter().filter_map(|run| run[n].as_f64()).collect(),
        ))
    };
    let mega = 1024.0 * 1024.0 / 1e6;
    Ok(vec![
        Reading::at_most("idle meshd", idle, IDLE, " MiB"),
        Reading::at_most(
            "10,000 clusters add",
            (column("10000", 2)? - column("10", 2)?) * mega,
            CLUSTERS,
            " MB",
        ),
        Reading::at_most(
            "ready with 10,000 clusters",
            column("10000", 0)?,
            READY,
            " s",
        ),
    ])
}
