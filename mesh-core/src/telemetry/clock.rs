//! The clock of requests: tokio's where it is there, so that tests can stop it.

use std::time::Instant;

/// Now.
pub(crate) fn now() -> Instant {
    #[cfg(feature = "net")]
    {
        tokio::time::Instant::now().into_std()
    }
    #[cfg(not(feature = "net"))]
    {
        Instant::now()
    }
}
