//! Where configuration comes from: the one seam between the mesh and xDS, files, Kubernetes or code.

mod memory;
mod source;

pub use self::{
    memory::{MemoryHandle, MemorySource},
    source::{Change, ConfigSource, Outcome, Rejection, SourceError, Update},
};
