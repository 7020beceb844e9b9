//! The two bodies of the stack: one type for requests, one for responses, each holding every guard that rides on it.

mod content;
mod replay;
mod request;
mod response;
mod tee;
#[cfg(feature = "net")]
mod throttled;
#[cfg(feature = "net")]
mod watched;

use bytes::Bytes;

#[cfg(feature = "net")]
pub(crate) use self::response::Tunnel;
pub(crate) use self::{
    replay::{Replay, ReplayEnd},
    response::Guard,
    tee::{Copied, Tee},
};
pub use self::{request::RequestBody, response::ResponseBody};
use crate::BoxError;

/// Bytes of a body that are held for one request unless something says otherwise: Envoy's default.
#[cfg(feature = "net")]
pub(crate) const BUFFER_LIMIT: u64 = 1 << 20;

/// What the stack asks of the bodies of its user: data as [`Bytes`], no pinning, and nothing borrowed.
///
/// Hyper's `Incoming`, axum's and tonic's `Body` and everything in `http-body-util` are such bodies; others become one by
/// `http_body_util::combinators::BoxBody`.
pub trait MeshBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static {}

impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static> MeshBody for B {}
