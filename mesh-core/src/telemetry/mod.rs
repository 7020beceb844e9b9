//! Flags, metrics, propagation and access logs: what is told about a request.

pub mod flags;
