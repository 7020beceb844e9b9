//! An embeddable service mesh: routing, resilience and telemetry as tower layers over one compiled snapshot.

pub mod body;
pub mod client;
pub mod cluster;
pub mod config;
pub mod decide;
mod error;
pub mod layer;
pub mod model;
#[cfg(feature = "client")]
pub mod pool;
#[cfg(feature = "net")]
mod recycle;
pub mod route;
mod scratch;
#[cfg(feature = "server")]
pub mod server;
pub mod snapshot;
pub mod stack;
#[cfg(feature = "server")]
pub mod tcp;
pub mod telemetry;
pub mod transport;

pub use self::error::{BoxError, Error, Kind, Reply};
