//! The endpoints of a cluster, immutable, with one picker a priority.

use std::{collections::HashMap, sync::Arc};

use super::{
    Endpoint,
    lb::{AnyPicker, PickKey, Picker},
};
use crate::model::{Address, ClusterLoadAssignment, LbPolicy};

/// A version of a cluster's endpoints.
#[derive(Debug)]
pub struct EndpointSet {
    all: Vec<Arc<Endpoint>>,
    /// In the order of priority; a priority without endpoints is empty.
    priorities: Vec<AnyPicker>,
    policy: LbPolicy,
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            priorities: Vec::new(),
            policy: LbPolicy::RoundRobin,
        }
    }
}

impl EndpointSet {
    /// The set for `assignment`; endpoints of `previous` that stay are kept.
    pub(super) fn build(
        previous: &Self,
        assignment: &ClusterLoadAssignment,
        policy: &LbPolicy,
    ) -> Self {
        let known: HashMap<&Address, &Arc<Endpoint>> = previous
            .all
            .iter()
            .map(|endpoint| (endpoint.address(), endpoint))
            .collect();
        let mut all = Vec::new();
        for group in &assignment.localities {
            for config in &group.endpoints {
                let kept = known
                    .get(&config.address)
                    .filter(|old| old.fits(config, &group.locality, group.priority));
                all.push(match kept {
                    Some(old) => {
                        old.update(config);
                        Arc::clone(old)
                    }
                    None => Arc::new(Endpoint::new(config, &group.locality, group.priority)),
                });
            }
        }
        Self::assemble(all, policy)
    }

    pub(super) fn with_policy(&self, policy: &LbPolicy) -> Self {
        Self::assemble(self.all.clone(), policy)
    }

    fn assemble(all: Vec<Arc<Endpoint>>, policy: &LbPolicy) -> Self {
        let mut levels: Vec<u32> = all.iter().map(|endpoint| endpoint.priority()).collect();
        levels.sort_unstable();
        levels.dedup();
        let priorities = levels
            .iter()
            .map(|level| {
                let members = all
                    .iter()
                    .filter(|endpoint| endpoint.priority() == *level)
                    .cloned()
                    .collect();
                AnyPicker::new(members, policy)
            })
            .collect();
        Self {
            all,
            priorities,
            policy: policy.clone(),
        }
    }

    pub(super) fn policy(&self) -> &LbPolicy {
        &self.policy
    }

    /// All endpoints, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Chooses among the first priority that has an endpoint for traffic: healthy ones first, then degraded ones.
    pub fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
        self.priorities
            .iter()
            .find_map(|picker| picker.pick(key))
            .or_else(|| {
                self.priorities
                    .iter()
                    .find_map(|picker| picker.pick_degraded(key))
            })
    }
}
