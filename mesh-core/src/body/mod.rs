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

/// Pieces of a body that is kept from which on small ones are joined.
const MANY: usize = 64;
/// A smaller piece costs more than its bytes if it is kept by itself.
const SMALL: usize = 256;
/// Small pieces are joined to one of about this length.
const JOINED: usize = 4096;

/// What to keep of `data` behind `count` pieces, the newest of which is `last`; `None`: it was joined to that one. A body of
/// single bytes would else cost many times its length.
fn kept(count: usize, last: Option<&mut Bytes>, data: &Bytes) -> Option<Bytes> {
    if count < MANY || data.len() >= SMALL {
        return Some(data.clone());
    }
    if let Some(last) = last.filter(|last| last.len() < JOINED) {
        match std::mem::take(last).try_into_mut() {
            Ok(mut own) => {
                own.extend_from_slice(data);
                *last = own.freeze();
                return None;
            }
            Err(shared) => *last = shared,
        }
    }
    Some(Bytes::copy_from_slice(data))
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    /// `http_body_util`'s `BoxBody` and other people's bodies ask for all of it.
    #[test]
    fn bodies_can_be_sent_and_shared() {
        fn whole<B: MeshBody + Send + Sync>() {}
        whole::<RequestBody<hyper::body::Incoming>>();
        whole::<ResponseBody<crate::pool::PoolBody>>();
    }
}
