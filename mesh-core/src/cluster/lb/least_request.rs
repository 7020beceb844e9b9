//! The less loaded of a few random members (power of two choices).

use std::sync::Arc;

use super::{Endpoint, cumulative_weights, next_random, weighted};

#[derive(Debug)]
pub(super) struct LeastRequest {
    choices: u32,
    sums: Box<[u64]>,
}

impl LeastRequest {
    pub(super) fn new(members: &[Arc<Endpoint>], choices: u32) -> Self {
        Self {
            choices: choices.max(2),
            sums: cumulative_weights(members),
        }
    }

    pub(super) fn choose<'a>(
        &self,
        members: &'a [Arc<Endpoint>],
        mut random: u64,
    ) -> Option<&'a Arc<Endpoint>> {
        let mut best = weighted(members, &self.sums, random)?;
        if members.len() == 1 {
            return Some(best);
        }
        for _ in 1..self.choices {
            random = next_random(random);
            let other = weighted(members, &self.sums, random)?;
            if load(other) < load(best) {
                best = other;
            }
        }
        Some(best)
    }
}

/// Requests in flight; a member that was taken out counts as the most loaded.
fn load(endpoint: &Endpoint) -> u32 {
    if endpoint.is_out() {
        u32::MAX
    } else {
        endpoint.active()
    }
}
