//! The conformance runner: plays third-party cases and counts what passed.
//!
//! A suite is one folder under the conformance root. The runner knows nothing about the form of the cases; a [`Suite`]
//! reads its own folder and returns a [`SuiteResult`]. A missing folder, an empty suite and a panic are failures: a suite
//! that did not run must never look like one that passed.

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

/// What a suite is given: where the cases lie, and how the run was asked for.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// The conformance root, the parent of one folder for each suite.
    pub root: PathBuf,
    /// Whether failures should say what was expected and what was seen.
    pub verbose: bool,
}

impl Ctx {
    /// A context for the cases under `root`, not verbose.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            verbose: false,
        }
    }

    /// The folder of the suite `name`.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// What one suite found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SuiteResult {
    /// The suite's name, which is the name of its folder.
    pub name: String,
    /// Cases that did what their file asserts.
    pub passed: usize,
    /// Cases that did something else, or that were not understood.
    pub failed: usize,
    /// One entry for each failed case, `CASE: expected …, seen …`; the case's identifier comes first.
    pub failures: Vec<String>,
    /// Differences that a case may show and pass all the same.
    pub allowed: Vec<Allowance>,
    /// What a reader should know besides; `apart: CASE: …` of a case that failed and does not count.
    pub notes: Vec<String>,
}

impl SuiteResult {
    /// An empty result of the suite `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Counts a case that passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Counts the failed case `case`; `detail` says what was expected and what was seen.
    pub fn fail(&mut self, case: impl fmt::Display, detail: impl fmt::Display) {
        self.failed += 1;
        self.failures.push(format!("{case}: {detail}"));
    }

    /// Counts one case by its outcome; the error says what was expected and what was seen.
    pub fn case(&mut self, case: impl fmt::Display, outcome: Result<(), impl fmt::Display>) {
        match outcome {
            Ok(()) => self.pass(),
            Err(detail) => self.fail(case, detail),
        }
    }

    /// Tells of an allowed difference, and how often it was used.
    pub fn allow(&mut self, place: &'static str, uses: usize, reason: &'static str) {
        self.allowed.push(Allowance {
            place,
            uses,
            reason,
        });
    }

    /// Adds a remark that is neither a pass nor a failure.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether cases ran and none of them failed.
    pub fn is_green(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    /// What is allowed without a need. With all cases there is none; with a part of them it says nothing.
    pub fn needless(&self) -> Vec<&Allowance> {
        let unused = |one: &&Allowance| one.uses == 0;
        self.allowed.iter().filter(unused).collect()
    }
}

/// A difference that a case may show and pass all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Where.
    pub place: &'static str,
    /// How often it was so; what is never used is to be taken off the list.
    pub uses: usize,
    /// Why.
    pub reason: &'static str,
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} times: {}", self.place, self.uses, self.reason)
    }
}

impl fmt::Display for SuiteResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} passed, {} failed",
            self.name, self.passed, self.failed
        )
    }
}

/// A registered suite: the name of its folder and the function that plays it.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// The folder's name under the conformance root.
    pub name: &'static str,
    /// Plays all cases of the folder.
    pub run: fn(&Ctx) -> SuiteResult,
}

/// Plays one suite. A missing folder, a suite without cases and a panic each count as one failure.
pub fn play(suite: &Suite, ctx: &Ctx) -> SuiteResult {
    play_in(suite, ctx, &ctx.dir(suite.name))
}

/// Plays a suite whose cases lie in the root itself, as recorded responses do. What counts as a failure is as for [`play`].
pub fn play_recorded(suite: &Suite, ctx: &Ctx) -> SuiteResult {
    play_in(suite, ctx, &ctx.root)
}

fn play_in(suite: &Suite, ctx: &Ctx, dir: &Path) -> SuiteResult {
    if !dir.is_dir() {
        return broken(suite.name, &format!("no folder {}", dir.display()));
    }
    match panic::catch_unwind(AssertUnwindSafe(|| (suite.run)(ctx))) {
        Ok(result) if result.passed + result.failed == 0 => broken(suite.name, "no case was found"),
        Ok(result) => result,
        Err(payload) => broken(
            suite.name,
            &format!("panicked: {}", panic_text(payload.as_ref())),
        ),
    }
}

/// The default conformance root: `MESH_CONFORMANCE`, else `../shared/conformance` beside the repository.
pub fn default_root() -> PathBuf {
    std::env::var_os("MESH_CONFORMANCE")
        .map_or_else(|| beside_repository("conformance"), PathBuf::from)
}

/// The folder `name` of the shared material that lies beside the repository (`../shared/NAME`).
///
/// A linked work tree may lie deeper than the repository itself, so each ancestor is tried; without any, the nearest place is
/// returned, for the error to name.
fn beside_repository(name: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let nearest = repository.join("../shared").join(name);
    repository
        .ancestors()
        .skip(1)
        .map(|ancestor| ancestor.join("shared").join(name))
        .find(|candidate| candidate.is_dir())
        .unwrap_or(nearest)
}

fn broken(name: &str, why: &str) -> SuiteResult {
    let mut result = SuiteResult::new(name);
    result.fail("suite", why);
    result
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Ctx {
        Ctx::new(env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn missing_folder_is_a_failure() {
        let suite = Suite {
            name: "no-such-folder",
            run: |_| SuiteResult::new("never"),
        };
        let result = play(&suite, &here());
        assert_eq!((result.passed, result.failed), (0, 1));
        assert!(
            result.failures[0].contains("no-such-folder"),
            "{:?}",
            result.failures
        );
    }

    #[test]
    fn suite_without_cases_is_a_failure() {
        let suite = Suite {
            name: "src",
            run: |_| SuiteResult::new("src"),
        };
        assert!(!play(&suite, &here()).is_green());
    }

    #[test]
    fn panic_is_a_failure_that_says_why() {
        let suite = Suite {
            name: "src",
            run: |_| panic!("case 7 is odd"),
        };
        let result = play(&suite, &here());
        assert_eq!(result.failures, ["suite: panicked: case 7 is odd"]);
    }

    #[test]
    fn what_is_allowed_and_never_used_is_told() {
        let mut result = SuiteResult::new("demo");
        result.allow(".a", 1, "a reason");
        result.allow(".b", 0, "a reason of old");
        let needless: Vec<String> = result
            .needless()
            .iter()
            .map(|one| one.to_string())
            .collect();
        assert_eq!(needless, [".b, 0 times: a reason of old"]);
    }

    #[test]
    fn outcome_of_each_case_is_counted_and_printed() {
        let mut result = SuiteResult::new("demo");
        result.case("a", Ok::<(), String>(()));
        result.case("b", Err("expected 1, seen 2"));
        assert_eq!(result.to_string(), "demo: 1 passed, 1 failed");
        assert_eq!(result.failures, ["b: expected 1, seen 2"]);
    }
}
