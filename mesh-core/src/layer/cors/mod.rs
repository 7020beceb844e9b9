//! Cross-origin resource sharing: answers preflights, and tells browsers who may read a response.

mod future;
mod layer;
mod policy;
mod service;

#[cfg(test)]
mod tests;

pub use self::{future::ResponseFuture, layer::CorsLayer, service::Cors};
