//! Istio's bookinfo on our mesh: as sidecars and embedded, in one command.
//!
//! `cargo run --release -p bookinfo` starts four services in seven workloads, a sidecar for each, and an ingress gateway,
//! all steered by the Istio and Kubernetes YAML in `mesh/`. See `README.md` beside this package.

pub mod caller;
pub mod load;
pub mod run;
pub mod services;
pub mod watch;
pub mod world;
