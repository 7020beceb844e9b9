//! Collecting problems with the path of the field they are in.

use std::fmt::Display;

use crate::yaml::{Path, Segment, nearest};

/// How much a [`Problem`] weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The object is refused.
    Error,
    /// The object is taken; it is probably not what was meant.
    Warning,
    /// The field is taken and has no effect.
    Inactive,
}

/// Something wrong with a field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it weighs.
    pub severity: Severity,
    /// The field, from the object's root (`spec.…`).
    pub path: Path,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What is allowed instead; empty when it is not a short list.
    pub allowed: Vec<String>,
    /// The allowed name that looks most like the one written.
    pub nearest: Option<String>,
}

/// The field being checked, as a chain on the stack: a path is built only for a problem.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
    Item(&'a str, usize),
}

impl<'a> At<'a> {
    pub(super) const fn root(key: &'a str) -> Self {
        Self {
            parent: None,
            step: Step::Key(key),
        }
    }

    pub(super) const fn key(&'a self, key: &'a str) -> Self {
        Self {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    pub(super) const fn index(&'a self, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An item of the list `key`.
    pub(super) const fn item(&'a self, key: &'a str, index: usize) -> Self {
        Self {
            parent: Some(self),
            step: Step::Item(key, index),
        }
    }

    fn path(&self) -> Path {
        let mut segments = Vec::new();
        let mut at = Some(self);
        while let Some(here) = at {
            let (key, index) = match here.step {
                Step::Key(key) => (Some(key), None),
                Step::Index(index) => (None, Some(index)),
                Step::Item(key, index) => (Some(key), Some(index)),
            };
            segments.extend(index.map(Segment::Index));
            segments.extend(key.map(|key| Segment::Key(key.to_owned())));
            at = here.parent;
        }
        segments.into_iter().rev().collect()
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Check {
    problems: Vec<Problem>,
}

impl Check {
    pub(super) fn error(&mut self, at: &At<'_>, message: impl Display) {
        self.push(Severity::Error, at, message);
    }

    pub(super) fn warn(&mut self, at: &At<'_>, message: impl Display) {
        self.push(Severity::Warning, at, message);
    }

    /// Warns of a name that leads nowhere, with the nearest one that does not.
    pub(super) fn warn_near(&mut self, at: &At<'_>, message: impl Display, nearest: Option<&str>) {
        self.warn(at, message);
        if let Some(problem) = self.problems.last_mut() {
            problem.nearest = nearest.map(str::to_owned);
        }
    }

    /// Reports a rule's refusal of a value.
    pub(super) fn rule(&mut self, at: &At<'_>, result: Result<(), String>) {
        if let Err(message) = result {
            self.error(at, message);
        }
    }

    /// Refuses a word that is none of a short list.
    pub(super) fn not_one_of(&mut self, at: &At<'_>, what: &str, word: &str, allowed: &[&str]) {
        self.error(at, format_args!("unknown {what} `{word}`"));
        if let Some(problem) = self.problems.last_mut() {
            problem.allowed = allowed.iter().map(|a| (*a).to_owned()).collect();
            problem.nearest = nearest(word, allowed.iter().copied()).map(str::to_owned);
        }
    }

    /// Names a field without effect.
    pub(super) fn inactive(&mut self, at: &At<'_>, message: impl Display) {
        self.push(Severity::Inactive, at, message);
    }

    /// Says that the whole object has no effect.
    pub(super) fn inactive_object(&mut self, message: impl Display) {
        self.problems.push(Problem {
            severity: Severity::Inactive,
            path: Path::root(),
            message: message.to_string(),
            allowed: Vec::new(),
            nearest: None,
        });
    }

    /// Refuses a field that does not exist.
    pub(super) fn unknown(&mut self, at: &At<'_>, field: &str, nearest: Option<&str>) {
        self.error(at, format_args!("unknown field `{field}`"));
        if let Some(problem) = self.problems.last_mut() {
            problem.nearest = nearest.map(str::to_owned);
        }
    }

    /// Takes what was found elsewhere; nothing of it refuses the object.
    pub(super) fn take_as_warnings(&mut self, found: Self) {
        let found = found.problems.into_iter().map(|problem| Problem {
            severity: match problem.severity {
                Severity::Error => Severity::Warning,
                other => other,
            },
            ..problem
        });
        self.problems.extend(found);
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Reports what weighs that much.
    pub(super) fn push(&mut self, severity: Severity, at: &At<'_>, message: impl Display) {
        self.problems.push(Problem {
            severity,
            path: at.path(),
            message: message.to_string(),
            allowed: Vec::new(),
            nearest: None,
        });
    }
}
