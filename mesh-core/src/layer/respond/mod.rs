//! Turns errors into local replies, and puts every response into the form that leaves the mesh: status, body and gRPC
//! trailers as Envoy writes them, `local_reply_config`, `server`, `via`, no headers of the connection.

mod future;
mod layer;
mod replies;
mod service;

#[cfg(test)]
mod tests;

pub(crate) use self::{future::OwnReply, replies::append};
pub use self::{future::ResponseFuture, layer::RespondLayer, replies::Replies, service::Respond};
