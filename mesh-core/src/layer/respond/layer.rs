use std::sync::Arc;

use tower_layer::Layer;

use super::{Replies, Respond};
use crate::layer::Standalone;

/// Makes [`Respond`] services.
#[derive(Clone, Debug, Default)]
pub struct RespondLayer {
    replies: Arc<Replies>,
}

impl RespondLayer {
    /// Answers as `replies` say.
    pub fn new(replies: Arc<Replies>) -> Self {
        Self { replies }
    }

    /// Answers as `replies` say, in any tower stack: its errors become responses.
    pub fn fixed(replies: Replies) -> Standalone<Self> {
        Standalone(Self::new(Arc::new(replies)))
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond::new(inner, self.replies.clone())
    }
}
