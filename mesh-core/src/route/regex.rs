//! Regular expressions with RE2's meaning.

use crate::model::RegexError;

/// A compiled expression: whole-match over bytes, groups for substitution.
#[derive(Clone, Debug)]
pub struct Program {
    #[cfg(feature = "regex")]
    regex: regex_automata::meta::Regex,
}

impl Program {
    /// Compiles `pattern`.
    ///
    /// # Errors
    ///
    /// [`RegexError`] with the reason.
    #[cfg(feature = "regex")]
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let regex = regex_automata::meta::Regex::new(pattern).map_err(|error| RegexError {
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self { regex })
    }

    /// Compiles `pattern`.
    ///
    /// # Errors
    ///
    /// Always: the feature `regex` is absent.
    #[cfg(not(feature = "regex"))]
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        Err(RegexError {
            pattern: pattern.to_owned(),
            reason: "needs the feature `regex` of mesh-core".to_owned(),
        })
    }
}
