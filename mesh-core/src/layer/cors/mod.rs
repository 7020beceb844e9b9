//! Cross-origin resource sharing: answers preflights, and tells browsers who may read a response.

mod future;
mod layer;
mod policy;
mod service;

#[cfg(test)]
mod tests;

pub(crate) use self::policy::Marks;
#[cfg(feature = "net")]
pub(crate) use self::policy::{Verdict, judge};
pub use self::{future::ResponseFuture, layer::CorsLayer, policy::Acts, service::Cors};
