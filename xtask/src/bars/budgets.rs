//! What others have to carry: crates under mesh-core, and how much code it takes to use it.

use std::fs;

use super::Reading;
use crate::Fallible;
use crate::budget;
use crate::workspace;

/// Lines that a program under `examples/` may have.
const LINES: usize = 100;
/// How many there must be.
const PROGRAMS: usize = 5;

pub(super) fn measure() -> Fallible<Vec<Reading>> {
    let budget = budget::count()?;
    let mut readings = vec![
        Reading::at_most(
            "crates under mesh-core, bare",
            budget.bare as f64,
            budget::BARE as f64,
            "",
        ),
        Reading::at_most(
            "crates under mesh-core, by default",
            budget.default as f64,
            budget::DEFAULT as f64,
            "",
        ),
    ];
    let mut lines = Vec::new();
    for entry in fs::read_dir(workspace::root().join("examples/src/bin"))? {
        let path = entry?.path();
        lines.push(fs::read_to_string(&path)?.lines().count());
    }
    readings.push(Reading::holds(
        "programs under examples",
        lines.len().to_string(),
        format!(">= {PROGRAMS}"),
        lines.len() >= PROGRAMS,
    ));
    let longest = lines.into_iter().max().unwrap_or_default();
    readings.push(Reading::at_most(
        "lines of the longest of them",
        longest as f64,
        LINES as f64,
        "",
    ));
    Ok(readings)
}
