//! Istio's bookinfo on our mesh: as sidecars and embedded, in one command.
fn main() {}
