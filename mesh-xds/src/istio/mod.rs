//! Istio and Kubernetes YAML, as istiod understands it.

pub mod api;

pub use api::{Object, Origin, Spec};
