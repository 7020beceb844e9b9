//! The tower layers, one folder a mechanism; [`stack`](crate::stack) composes them.
//!
//! Each layer is ready when the service behind it is, adds no allocation to a plain request, and gets its policy by reference
//! from the request ([`ByRoute`]) or from its constructor ([`Fixed`]), so that it works in any tower stack:
//! `TimeoutLayer::fixed(policy)` and its like need no mesh configuration:
//!
//! ```
//! # #[cfg(feature = "net")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! use http::{Request, Response, StatusCode};
//! use mesh_core::{
//!     BoxError,
//!     layer::{respond::RespondLayer, retry::{Retries, RetryLayer}},
//!     model::RetryOn,
//! };
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! static TRIES: AtomicU32 = AtomicU32::new(0);
//!
//! // Each layer has a body of its own around that of the request.
//! async fn app<B>(_: Request<B>) -> Result<Response<String>, BoxError> {
//!     match TRIES.fetch_add(1, Ordering::Relaxed) {
//!         0..2 => Err("not yet".into()),
//!         _ => Ok(Response::new("hello".to_owned())),
//!     }
//! }
//!
//! let service = ServiceBuilder::new()
//!     .layer(RespondLayer::fixed(Default::default())) // errors become answers
//!     .layer(RetryLayer::fixed(Retries::simple(RetryOn::RESET, 2)))
//!     .service_fn(app);
//! let Ok(response) = service.oneshot(Request::new(String::new())).await;
//! assert_eq!((response.status(), TRIES.load(Ordering::Relaxed)), (StatusCode::OK, 3));
//! # }
//! # #[cfg(not(feature = "net"))]
//! # fn main() {}
//! ```

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
pub(crate) use self::policies::{CONSUMED, buffer_limit};
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
