//! What a response body consists of, beside the guards that ride on it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::MeshBody;
#[cfg(feature = "net")]
use super::{throttled::Throttled, watched::Watched};
use crate::Error;

/// The frames of a response body. What few responses need is boxed.
#[derive(Debug)]
pub(super) enum Content<U> {
    Upstream(U),
    /// Held back by an injected fault.
    #[cfg(feature = "net")]
    Throttled(Box<Throttled<U>>),
    /// With a limit for the time between two frames.
    #[cfg(feature = "net")]
    Watched(Box<Watched<U>>),
    Local(Bytes),
    Done,
}

impl<U> Content<U> {
    /// Whether the mesh made it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Local(_) => true,
            #[cfg(feature = "net")]
            Self::Throttled(body) => body.inner().is_local(),
            _ => false,
        }
    }
}

impl<U: MeshBody> Content<U> {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self {
            Self::Upstream(body) => Pin::new(body).poll_frame(context).map_err(Error::adopt),
            #[cfg(feature = "net")]
            Self::Throttled(body) => body.poll_frame(context),
            #[cfg(feature = "net")]
            Self::Watched(body) => body.poll_frame(context),
            Self::Local(bytes) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Local(_) | Self::Done => Poll::Ready(None),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream(body) => body.is_end_stream(),
            #[cfg(feature = "net")]
            Self::Throttled(body) => body.is_end_stream(),
            #[cfg(feature = "net")]
            Self::Watched(body) => body.inner().is_end_stream(),
            Self::Local(bytes) => bytes.is_empty(),
            Self::Done => true,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream(body) => body.size_hint(),
            #[cfg(feature = "net")]
            Self::Throttled(body) => body.size_hint(),
            #[cfg(feature = "net")]
            Self::Watched(body) => body.inner().size_hint(),
            Self::Local(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Done => SizeHint::with_exact(0),
        }
    }
}
