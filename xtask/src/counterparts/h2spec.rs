//! h2spec, the conformance suite of HTTP/2, against a cleartext listener.

use std::process::Command;
use std::time::Duration;

use super::{Rig, scratch, upstream};
use crate::Fallible;
use crate::process;
use crate::tools;

/// Tests that a cleartext run of the pinned version has.
pub(crate) const TESTS: usize = 145;
/// How many must pass; bare hyper passes as many.
pub(crate) const BAR: usize = 143;

/// What a run counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) total: usize,
    pub(crate) passed: usize,
}

impl Score {
    /// Whether the bar is met, and no test is missing.
    pub(crate) fn met(self) -> bool {
        self.total == TESTS && self.passed >= BAR
    }
}

pub(crate) fn run(rig: &Rig) -> Fallible<String> {
    let score = play(rig)?;
    let value = format!("{} of {} (bar {BAR} of {TESTS})", score.passed, score.total);
    if score.met() {
        Ok(value)
    } else {
        Err(value.into())
    }
}

/// Plays all tests; those that fail are printed.
pub(crate) fn play(rig: &Rig) -> Fallible<Score> {
    let program = tools::go_program("github.com/summerwind/h2spec/cmd/h2spec", "h2spec")?;
    let (_app, port) = upstream("h2spec")?;
    let mut proxy = rig.start("h2spec.yaml", "h2spec", port)?;
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", &proxy.port.to_string(), "-o", "2"]);
    let ended = process::logged(
        &mut command,
        &scratch()?.join("h2spec-report.log"),
        Duration::from_secs(300),
    )?;
    proxy.check()?;
    let score = totals(&ended.text).ok_or_else(|| process::tail(&ended.text, 20))?;
    if !score.met() {
        println!("{}", failures(&ended.text));
    }
    Ok(score)
}

/// Reads the last line, `145 tests, 143 passed, 0 skipped, 2 failed`.
fn totals(text: &str) -> Option<Score> {
    let line = text.lines().rev().find(|line| line.contains(" tests, "))?;
    let mut numbers = line
        .split(", ")
        .map(|part| part.split(' ').next().unwrap_or_default().parse().ok());
    Some(Score {
        total: numbers.next()??,
        passed: numbers.next()??,
    })
}

fn failures(text: &str) -> &str {
    text.find("Failures:").map_or(text, |start| &text[start..])
}

#[cfg(test)]
mod tests {
    use super::{Score, totals};

    #[test]
    fn totals_come_from_the_last_line() {
        let text =
            "Failures:\n...\nFinished in 2.3 seconds\n145 tests, 143 passed, 0 skipped, 2 failed\n";
        let score = Score {
            total: 145,
            passed: 143,
        };
        assert_eq!(totals(text), Some(score));
        assert!(score.met());
        assert_eq!(totals("nothing ran"), None);
    }
}
