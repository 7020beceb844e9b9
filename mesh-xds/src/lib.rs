//! Configuration sources for mesh-core: Envoy files, Istio YAML and xDS resources.

#[cfg(feature = "istio")]
pub mod istio;
pub mod json;
pub mod yaml;
