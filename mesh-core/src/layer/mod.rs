//! The tower layers, one folder a mechanism; [`stack`](crate::stack) composes them.
//!
//! Each layer is always ready, adds no allocation to a plain request, and gets its policy by reference from the request
//! ([`ByRoute`]) or from its constructor ([`Fixed`]), so that it works in any tower stack:
//! `TimeoutLayer::fixed(policy)` and its like need no mesh configuration.

mod adopt;
mod policies;
mod policy;
mod request;

#[cfg(feature = "client")]
pub mod admit;
pub mod cors;
#[cfg(feature = "net")]
pub mod fault;
pub mod headers;
#[cfg(feature = "net")]
pub mod mirror;
pub mod observe;
pub mod respond;
#[cfg(feature = "net")]
pub mod retry;
pub mod route;
mod scan;
#[cfg(feature = "net")]
pub mod timeout;

#[cfg(all(test, feature = "client"))]
mod alone;
#[cfg(all(test, feature = "net"))]
pub(crate) mod tests;

#[cfg(feature = "net")]
pub use self::request::RoutedRest;
pub use self::{
    adopt::{Adopt, AdoptFuture, Enter, EnterFuture, Standalone},
    policies::RoutePolicies,
    policy::{ByRoute, Fixed, PolicyOf},
    request::{Carrier, Exchange, Routed},
    scan::Scan,
};
pub use crate::recycle::Pooled;

/// Whether a request is gRPC, by its content type.
pub(crate) fn is_grpc(headers: &http::HeaderMap) -> bool {
    let mut kinds = headers.get_all(http::header::CONTENT_TYPE).iter();
    let rest = kinds
        .next()
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    match rest {
        // A second type goes on behind a comma, as Envoy reads it, and so it is another type.
        Some(b"") => kinds.next().is_none(),
        Some(rest) => matches!(rest[0], b'+' | b';'),
        None => false,
    }
}
