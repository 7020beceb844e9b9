//! Listeners over real sockets.

mod acceptor;
mod answers;
mod attacks;
mod handover;
mod http1;
mod http2;
mod inspectors;
mod lifecycle;
mod listeners;
pub(crate) mod support;
