//! The suites that the runner knows, one module for each family of cases.
//!
//! A new suite is a module here and one entry of [`SUITES`], whose name is the name of its folder.

use crate::conformance::Suite;

/// Every suite, in the order in which the runner plays them.
pub const SUITES: &[Suite] = &[];

/// The suite called `name`.
pub fn find(name: &str) -> Option<&'static Suite> {
    SUITES.iter().find(|suite| suite.name == name)
}
