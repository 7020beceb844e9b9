//! A member by chance and weight.

use std::sync::Arc;

use super::{Endpoint, cumulative_weights, weighted};

#[derive(Debug)]
pub(super) struct Random {
    sums: Box<[u64]>,
}

impl Random {
    pub(super) fn new(members: &[Arc<Endpoint>]) -> Self {
        Self {
            sums: cumulative_weights(members),
        }
    }

    pub(super) fn choose<'a>(
        &self,
        members: &'a [Arc<Endpoint>],
        random: u64,
    ) -> Option<&'a Arc<Endpoint>> {
        weighted(members, &self.sums, random)
    }
}
