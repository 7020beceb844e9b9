//! The mesh's data plane program: sidecar, gateway and Envoy-compatible proxy.
fn main() {}
