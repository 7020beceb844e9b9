//! Fakes, golden-case loaders and the conformance runner of the mesh.
//!
//! - [`conformance`]: what a suite is, how its result is counted, where its cases lie.
//! - [`suites`]: one module for each family of third-party cases.
//! - [`fuzz`]: the bodies of the fuzz targets.
//! - [`simulation`]: where a call goes in one configuration, without sockets.
//! - [`program`]: a proxy that is started for a play.
//! - [`router_socket`]: `envoy-router-check` through the sockets of a running proxy.
//! - [`strict`] and [`smuggling`]: what a proxy sends on, read again by a parser that repairs nothing.

pub mod conformance;
pub mod fuzz;
pub mod program;
pub mod router_socket;
pub mod simulation;
pub mod smuggling;
pub mod strict;
pub mod suites;

/// README's program compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
