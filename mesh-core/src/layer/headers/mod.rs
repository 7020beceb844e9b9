//! Changes of headers on the way up and on the way down, and of path and authority on the way up.
//!
//! In a stack these are those of the route and its arm (`request_headers_to_add`, `prefix_rewrite`, …), the attempt count
//! where the virtual host wants it, and `x-envoy-upstream-service-time`.

mod future;
mod layer;
mod rules;
mod service;

#[cfg(test)]
mod tests;

pub use self::{
    future::ResponseFuture,
    layer::HeadersLayer,
    rules::{HeaderRules, RouteRules},
    service::Headers,
};

use crate::body::ResponseBody;

/// Changes heads of requests and of their responses.
pub trait Rules<R> {
    /// What the response needs of its request; small, since it waits in the future.
    type Later: Later;

    /// Changes the request.
    fn request(&self, request: &mut R) -> Self::Later;
}

/// What is done with a response.
pub trait Later {
    /// Changes its headers.
    fn response<U>(self, response: &mut http::Response<ResponseBody<U>>);
}
