//! Envoy's protobuf resources to the model: one file a resource, every field acted on, noted or refused.
//!
//! Functions take a [`Context`] and the message, and return what the model can hold. Each takes the message apart with a
//! pattern that names every field, so that a new field of the API is a compile error here, not silence. A field without
//! effect is a note ([`Context::ignored`]); a wrong one is a rejection ([`Context::reject`]), and then the resource as a
//! whole is not used. What would protect traffic and cannot act is kept as data and fails closed.

pub(crate) mod access_log;
pub(crate) mod cluster;
mod cluster_http;
pub(crate) mod common;
mod context;
pub(crate) mod endpoint;
pub(crate) mod filter;
pub(crate) mod format;
pub(crate) mod header;
mod lb;
pub(crate) mod matcher;
mod protocol;
pub(crate) mod route;
pub(crate) mod set;
pub(crate) mod transport;

pub use self::{
    context::{Context, Findings},
    route::route_configuration,
};
