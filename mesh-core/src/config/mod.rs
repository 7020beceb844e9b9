//! Where configuration comes from: the one seam between the mesh and xDS, files, Kubernetes or code.
//!
//! `mesh-xds` has the sources for Envoy's and Istio's files, [`MemorySource`] is fed by the program; any other is a type with
//! two methods:
//!
//! ```
//! use std::future::pending;
//!
//! use mesh_core::{
//!     config::{ConfigSource, Outcome, SourceError, Update},
//!     snapshot::Mesh,
//! };
//!
//! /// Delivers one configuration, and no other.
//! struct Once(Option<Update>);
//!
//! impl ConfigSource for Once {
//!     async fn next(&mut self) -> Result<Update, SourceError> {
//!         match self.0.take() {
//!             Some(update) => Ok(update),
//!             None => pending().await,
//!         }
//!     }
//!
//!     fn report(&mut self, outcome: &Outcome) {
//!         for rejection in &outcome.rejections {
//!             eprintln!("refused: {rejection}");
//!         }
//!     }
//! }
//!
//! let (mesh, driver) = Mesh::builder().source(Once(Some(Update::default()))).build();
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! tokio::spawn(driver.run());
//! assert_eq!(mesh.watch().changed().await.generation(), 1);
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

mod memory;
mod source;

pub use self::{
    memory::{MemoryHandle, MemorySource},
    source::{Change, ConfigSource, Outcome, Rejection, SourceError, Update},
};
