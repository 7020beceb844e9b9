//! Named steps, run one after another, and the lines that sum them up.

use std::time::{Duration, Instant};

use crate::Fallible;

/// What a step found.
#[derive(Debug)]
struct Line {
    name: &'static str,
    passed: bool,
    detail: String,
    took: Duration,
}

/// Runs steps and remembers how each ended.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    lines: Vec<Line>,
    only: Vec<String>,
}

impl Summary {
    /// A summary that runs the steps named in `only`, or all of them if it is empty.
    pub(crate) fn new(only: &[String]) -> Self {
        Self {
            lines: Vec::new(),
            only: only.to_vec(),
        }
    }

    /// Runs one step; its `Ok` text is what the summary says besides "passed".
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Fallible<String>) {
        if !self.only.is_empty() && !self.only.iter().any(|wanted| wanted == name) {
            return;
        }
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = run();
        let (passed, detail) = match outcome {
            Ok(detail) => (true, detail),
            Err(error) => (false, error.to_string()),
        };
        if !passed {
            println!("{name} FAILED: {detail}");
        }
        self.lines.push(Line {
            name,
            passed,
            detail,
            took: start.elapsed(),
        });
    }

    /// Prints one line for each step and the total; `true` if steps ran and all passed.
    pub(crate) fn finish(&self) -> bool {
        println!("\n=== summary");
        for line in &self.lines {
            let verdict = if line.passed { "passed" } else { "FAILED" };
            let first = line.detail.lines().next().unwrap_or_default();
            let separator = if first.is_empty() { "" } else { ": " };
            println!(
                "{}: {verdict} in {:.1} s{separator}{first}",
                line.name,
                line.took.as_secs_f64()
            );
        }
        let failed = self.lines.iter().filter(|line| !line.passed).count();
        println!("{} passed, {failed} failed", self.lines.len() - failed);
        failed == 0 && !self.lines.is_empty()
    }
}
