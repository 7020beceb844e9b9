//! Configuration sources for mesh-core: Envoy files, Istio YAML and xDS resources.

pub mod decode;
#[cfg(feature = "file")]
pub mod file;
pub mod graph;
#[cfg(feature = "istio")]
pub mod istio;
pub mod json;
pub mod yaml;
