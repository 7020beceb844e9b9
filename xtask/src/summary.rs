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
    /// Every step there is, run or not.
    steps: Vec<&'static str>,
}

impl Summary {
    /// A summary that runs the steps named in `only`, or all of them if it is empty.
    pub(crate) fn new(only: &[String]) -> Self {
        Self {
            only: only.to_vec(),
            ..Self::default()
        }
    }

    /// Runs one step; its `Ok` text is what the summary says besides "passed".
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> Fallible<String>) {
        self.steps.push(name);
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
            println!("{name} FAILED");
        }
        self.lines.push(Line {
            name,
            passed,
            detail,
            took: start.elapsed(),
        });
    }

    /// Runs one step as [`Summary::step`] does, and once more if it fails: programs with deadlines of their own fail on a busy
    /// machine now and then, a fault fails again. The summary tells of the first try.
    pub(crate) fn step_twice(&mut self, name: &'static str, run: impl Fn() -> Fallible<String>) {
        self.step(name, || {
            run().or_else(|first| {
                println!("{name}, a second time after: {first}");
                let detail = run()?;
                let first = first.to_string();
                let first = first.lines().next().unwrap_or_default();
                Ok(format!("{detail} (second try; the first: {first})"))
            })
        });
    }

    /// Prints one line for each step and the total; `true` if all steps that were asked for ran and passed.
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
        for line in self.lines.iter().filter(|line| !line.passed) {
            println!("\n{} FAILED:\n{}", line.name, line.detail);
        }
        let unknown = self.unknown();
        for wanted in &unknown {
            let steps = self.steps.join(", ");
            println!("\nno step is called `{wanted}` here; there are: {steps}");
        }
        failed == 0 && unknown.is_empty() && !self.lines.is_empty()
    }

    /// The names that were asked for and are no step's.
    fn unknown(&self) -> Vec<&str> {
        let asked = self.only.iter().map(String::as_str);
        asked.filter(|name| !self.steps.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A run that fails so many times, and its summary.
    fn after(failures: usize) -> Summary {
        let left = Cell::new(failures);
        let mut summary = Summary::new(&[]);
        summary.step_twice("play", || {
            if left.get() == 0 {
                return Ok("3 cases".to_owned());
            }
            left.set(left.get() - 1);
            Err("1 failed\nmore".into())
        });
        summary
    }

    #[test]
    fn one_failure_is_told_and_two_fail() {
        assert_eq!(after(0).lines[0].detail, "3 cases");
        let told = "3 cases (second try; the first: 1 failed)";
        assert_eq!(after(1).lines[0].detail, told);
        assert!(after(1).finish());
        assert!(!after(2).finish());
    }

    #[test]
    fn a_step_that_does_not_exist_fails_beside_one_that_passes() {
        let mut summary = Summary::new(&["format".to_owned(), "formt".to_owned()]);
        summary.step("format", || Ok(String::new()));
        summary.step("clippy", || Err("not asked for".into()));
        assert_eq!(summary.unknown(), ["formt"]);
        assert!(!summary.finish());
    }
}
