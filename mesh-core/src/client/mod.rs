//! The mesh inside a program: calls that it makes, and an application that it serves.
//!
//! [`MeshClient`] is a `tower` service for outgoing requests: the virtual host is found by their authority, in the route
//! table of their port, then all of the outbound stack acts. [`Mesh::inbound`] wraps what the program serves.

mod inbound;
#[cfg(feature = "client")]
mod outbound;
#[cfg(feature = "client")]
mod tables;
#[cfg(feature = "client")]
mod timer;

#[cfg(all(test, feature = "client"))]
mod tests;

pub(crate) use self::inbound::refusal;
#[cfg(feature = "client")]
pub use self::{
    outbound::{ClientLeaf, MeshClient},
    tables::PortTables,
};
#[allow(unused_imports, reason = "for links in the documentation")]
use crate::snapshot::Mesh;
