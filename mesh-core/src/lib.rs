//! An embeddable service mesh: routing, resilience and telemetry as tower layers over one compiled snapshot.

pub mod model;
pub mod route;
