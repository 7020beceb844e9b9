//! Fakes, golden-case loaders and the conformance runner of the mesh.
//!
//! - [`conformance`]: what a suite is, how its result is counted, where its cases lie.
//! - [`suites`]: one module for each family of third-party cases.

pub mod conformance;
pub mod suites;
