//! Istio and Kubernetes YAML, as istiod understands it.

pub mod api;
pub mod read;
pub mod validate;

pub use api::{Object, Origin, Spec};
