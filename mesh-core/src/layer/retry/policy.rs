//! A compiled retry policy.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use crate::{
    body::BUFFER_LIMIT,
    cluster::Omit,
    model::{self, Name, RateLimitedBackOff, RetryOn},
    route::{HeaderTest, RetryRules, header_tests},
};

/// Envoy's default for the first back-off.
const BASE_INTERVAL: Duration = Duration::from_millis(25);
/// Envoy's default for `num_retries`.
pub(super) const DEFAULT_RETRIES: u32 = 1;

/// When and how a request is tried again, compiled from a [`model::RetryPolicy`]. Cloning shares.
#[derive(Clone, Debug)]
pub struct Retries(pub(super) Arc<Compiled>);

#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) on: RetryOn,
    pub(super) retries: u32,
    pub(super) codes: Vec<StatusCode>,
    pub(super) headers: Box<[HeaderTest]>,
    pub(super) request_headers: Box<[HeaderTest]>,
    /// Limit of one attempt until its response begins.
    pub(super) per_try: Option<Duration>,
    /// Longest time within an attempt in which nothing comes.
    pub(super) per_try_idle: Option<Duration>,
    pub(super) base: Duration,
    pub(super) max: Duration,
    pub(super) rate_limited: Option<RateLimitedBackOff>,
    pub(super) avoid_previous: bool,
    pub(super) host_attempts: u32,
    pub(super) omit: Option<Omit>,
    pub(super) buffer: u64,
}

impl Retries {
    /// Compiles a policy. A request body is kept up to `buffer` bytes; `None`: 1 MiB.
    ///
    /// # Errors
    ///
    /// What is wrong with a header matcher.
    pub fn new(policy: &model::RetryPolicy, buffer: Option<u64>) -> Result<Self, Name> {
        Ok(Self::compile(
            policy,
            header_tests(&policy.headers)?,
            header_tests(&policy.request_headers)?,
            buffer.unwrap_or(BUFFER_LIMIT),
        ))
    }

    /// The retries of a route. A request body is kept up to `buffer` bytes.
    pub(crate) fn of(rules: &RetryRules, buffer: u64) -> Self {
        let (headers, request_headers) = (rules.headers.clone(), rules.request_headers.clone());
        Self::compile(&rules.config, headers, request_headers, buffer)
    }

    fn compile(
        policy: &model::RetryPolicy,
        headers: Box<[HeaderTest]>,
        request_headers: Box<[HeaderTest]>,
        buffer: u64,
    ) -> Self {
        let base = policy.base_interval.unwrap_or(BASE_INTERVAL);
        let positive = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        Self(Arc::new(Compiled {
            on: policy.on,
            retries: policy.retries,
            codes: policy.codes.clone(),
            headers,
            request_headers,
            per_try: positive(policy.per_try_timeout),
            per_try_idle: positive(policy.per_try_idle_timeout),
            base,
            max: policy
                .max_interval
                .unwrap_or(base.saturating_mul(10))
                .max(base),
            rate_limited: policy.rate_limited.clone(),
            avoid_previous: policy.avoid_previous_hosts,
            host_attempts: policy.host_selection_attempts,
            omit: Omit::of(policy),
            buffer,
        }))
    }

    /// A policy with Envoy's defaults: conditions and how often.
    pub fn simple(on: RetryOn, retries: u32) -> Self {
        let policy = model::RetryPolicy {
            on,
            retries,
            ..model::RetryPolicy::default()
        };
        Self::compile(&policy, Box::default(), Box::default(), BUFFER_LIMIT)
    }

    /// What a request without a policy of its own uses when its headers ask for retries.
    pub(super) fn asked() -> Self {
        static ASKED: std::sync::OnceLock<Retries> = std::sync::OnceLock::new();
        ASKED
            .get_or_init(|| Self::simple(RetryOn::default(), DEFAULT_RETRIES))
            .clone()
    }

    /// Which endpoints retries avoid by what they are.
    pub fn omit(&self) -> Option<&Omit> {
        self.0.omit.as_ref()
    }
}

impl Compiled {
    /// Whether there is anything to do for a request that asks for nothing itself.
    pub(super) fn acts(&self) -> bool {
        !self.on.is_empty() || self.per_try.is_some() || self.per_try_idle.is_some()
    }

    /// The back-off before retry number `retry` (from 0): a random part of `base · 2^retry`, at most of `max`.
    pub(super) fn back_off(&self, retry: u32, random: u64) -> Duration {
        let ceiling = self
            .base
            .checked_mul(1_u32.checked_shl(retry).unwrap_or(u32::MAX))
            .map_or(self.max, |ceiling| ceiling.min(self.max));
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(random % nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_maximum() {
        let policy = Retries::simple(RetryOn::SERVER_ERROR, 3);
        for (retry, most) in [
            (0, 25_u32),
            (1, 50),
            (2, 100),
            (3, 200),
            (4, 250),
            (40, 250),
        ] {
            let longest = policy.0.back_off(retry, u64::from(most) * 1_000_000 - 1);
            assert_eq!(longest.as_millis() + 1, u128::from(most), "retry {retry}");
            assert_eq!(policy.0.back_off(retry, 0), Duration::ZERO);
        }
    }
}
