//! Regular expressions with RE2's meaning, as configuration.

use std::fmt;

use super::Name;

/// A regular expression in RE2's syntax that is known to compile (`type.matcher.v3.RegexMatcher`).
///
/// Two are equal when their patterns are.
#[derive(Clone)]
pub struct Regex {
    pattern: Name,
    program: crate::route::regex::Program,
}

impl Regex {
    /// Parses `pattern`.
    ///
    /// # Errors
    ///
    /// [`RegexError`] if RE2 would refuse it, if it compiles to more than the size limit, or if the feature `regex` is absent.
    pub fn parse(pattern: &str) -> Result<Self, RegexError> {
        let program = crate::route::regex::Program::compile(pattern)?;
        Ok(Self {
            pattern: pattern.into(),
            program,
        })
    }

    /// The text of the expression.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether the expression matches all of `text`.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.program.is_match(text)
    }

    /// The compiled form.
    pub fn program(&self) -> &crate::route::regex::Program {
        &self.program
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.pattern)
    }
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {reason}")]
pub struct RegexError {
    /// The expression.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}
