use tower_layer::Layer;

use super::{FixedMirrors, Mirror};
use crate::transport::TokioExec;

/// Makes [`Mirror`] services.
#[derive(Clone, Debug)]
pub struct MirrorLayer<P, M, X = TokioExec> {
    policy: P,
    shadow: M,
    exec: X,
}

impl<P, M, X> MirrorLayer<P, M, X> {
    /// Copies go to `shadow`, as tasks of `exec`. It must always be ready, as pools are.
    pub fn new(policy: P, shadow: M, exec: X) -> Self {
        Self {
            policy,
            shadow,
            exec,
        }
    }
}

impl<M> MirrorLayer<FixedMirrors, M> {
    /// Copies a share of all requests to `shadow`, in any tower stack; the copies are tasks of tokio's. A clone of `shadow`
    /// takes each copy and is not asked whether it is ready: it must be always. The body of a copy
    /// comes as the inner service reads its own, and breaks off where that leaves it unread; a copy that lags behind by 1 MiB is
    /// waited for.
    pub fn fixed(policy: FixedMirrors, shadow: M) -> crate::layer::Standalone<Self> {
        crate::layer::Standalone(Self::new(policy, shadow, TokioExec))
    }
}

impl<S, P: Clone, M: Clone, X: Clone> Layer<S> for MirrorLayer<P, M, X> {
    type Service = Mirror<S, P, M, X>;

    fn layer(&self, inner: S) -> Self::Service {
        Mirror::new(
            inner,
            self.policy.clone(),
            self.shadow.clone(),
            self.exec.clone(),
        )
    }
}
