//! Configuration sources for mesh-core: Envoy files, Istio YAML and xDS resources.
