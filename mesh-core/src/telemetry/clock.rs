//! The clock of requests: tokio's where it is there, so that tests can stop it.

use std::time::{Duration, Instant};

/// In the place of what the clock cannot count to.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Now.
#[cfg_attr(
    not(feature = "net"),
    allow(clippy::disallowed_methods, reason = "this is the clock")
)]
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

/// `time` after `from`. A limit may be as long as its writer likes, so one beyond the clock is far away and no panic.
pub(crate) fn after(from: Instant, time: Duration) -> Instant {
    from.checked_add(time).unwrap_or_else(|| from + FAR)
}
