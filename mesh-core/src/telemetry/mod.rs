//! Flags, metrics, propagation and access logs: what is told about a request.

pub mod access_log;
pub(crate) mod clock;
pub(crate) mod context;
pub mod flags;
pub(crate) mod late;
mod messages;
pub mod metrics;
pub mod observer;
pub mod peer;
mod pooled;
pub mod propagate;
pub mod record;
pub mod request_id;
mod sink;
mod way;

use http::HeaderValue;

/// A number as header value; small ones, which are frequent, cost no allocation.
pub(crate) fn small_number(number: u64) -> HeaderValue {
    static SMALL: std::sync::LazyLock<Vec<HeaderValue>> =
        std::sync::LazyLock::new(|| (0..1000_u64).map(HeaderValue::from).collect());
    usize::try_from(number)
        .ok()
        .and_then(|index| SMALL.get(index))
        .map_or_else(|| HeaderValue::from(number), HeaderValue::clone)
}
