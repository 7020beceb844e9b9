//! Listeners over real sockets.

mod http1;
mod http2;
mod lifecycle;
pub(crate) mod support;
