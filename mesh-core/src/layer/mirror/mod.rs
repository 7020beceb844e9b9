//! Copies of requests for other clusters; nobody waits for their answers.
//!
//! A request without a body is copied at once, one with a body when the body has passed, as Envoy's shadowing does; a body
//! over the limit is not mirrored. Each copy runs as a task of its own.

mod layer;
mod policy;
mod service;
mod task;

#[cfg(test)]
mod tests;

pub use self::{
    layer::MirrorLayer,
    policy::{FixedMirrors, MirrorsOf, RouteMirrors, Shadow},
    service::Mirror,
    task::ShadowTask,
};
