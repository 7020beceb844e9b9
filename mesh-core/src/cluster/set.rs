//! The endpoints of a cluster, immutable, with the pickers of each priority.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Endpoint,
    lb::{AnyPicker, Part, PickKey, Picker, below, next_random},
    shares::{Census, OVERPROVISIONING, Share, shares},
};
use crate::model::{Address, Cluster, ClusterLoadAssignment, LbPolicy};

/// A version of a cluster's endpoints.
#[derive(Debug)]
pub struct EndpointSet {
    all: Vec<Arc<Endpoint>>,
    /// In the order of priority; a priority without endpoints is left out.
    levels: Vec<Level>,
    /// What share of the requests goes where; mostly one.
    shares: Vec<Share>,
    rules: Rules,
}

/// What a set is assembled by, beside its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    policy: LbPolicy,
    overprovisioning: u32,
    panic_threshold: u32,
}

/// The endpoints of one priority.
#[derive(Debug)]
struct Level {
    healthy: AnyPicker,
    /// The degraded ones and all; nothing while all are healthy.
    rest: Option<Box<[AnyPicker; 2]>>,
}

impl Level {
    fn part(&self, part: Part) -> Option<&AnyPicker> {
        match (part, &self.rest) {
            (Part::Healthy, _) => Some(&self.healthy),
            (Part::Degraded, rest) => rest.as_ref().map(|rest| &rest[0]),
            (Part::All, None) => Some(&self.healthy),
            (Part::All, Some(rest)) => Some(&rest[1]),
        }
    }
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            levels: Vec::new(),
            shares: Vec::new(),
            rules: Rules {
                policy: LbPolicy::RoundRobin,
                overprovisioning: OVERPROVISIONING,
                panic_threshold: Cluster::PANIC_THRESHOLD,
            },
        }
    }
}

impl EndpointSet {
    /// The set for `assignment`; endpoints of `previous` that stay are kept.
    pub(super) fn build(
        previous: &Self,
        assignment: &ClusterLoadAssignment,
        cluster: &Cluster,
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
                    None => {
                        let new = Endpoint::new(config, &group.locality, group.priority);
                        if let Some(old) = known.get(&config.address) {
                            new.inherit(old);
                        }
                        Arc::new(new)
                    }
                });
            }
        }
        let factor = assignment.overprovisioning_factor;
        let rules = Rules {
            overprovisioning: factor.unwrap_or(OVERPROVISIONING),
            policy: cluster.lb.clone(),
            panic_threshold: cluster.panic_threshold,
        };
        Self::assemble(all, rules, cluster)
    }

    /// The same endpoints under the rules of `cluster`; `None` if these are the ones in force.
    pub(super) fn under(&self, cluster: &Cluster) -> Option<Self> {
        let rules = Rules {
            overprovisioning: self.rules.overprovisioning,
            policy: cluster.lb.clone(),
            panic_threshold: cluster.panic_threshold,
        };
        (rules != self.rules).then(|| Self::assemble(self.all.clone(), rules, cluster))
    }

    /// The same endpoints, told apart by the health that they have now.
    pub(super) fn sorted(&self, cluster: &Cluster) -> Self {
        Self::assemble(self.all.clone(), self.rules.clone(), cluster)
    }

    fn assemble(all: Vec<Arc<Endpoint>>, rules: Rules, cluster: &Cluster) -> Self {
        let mut priorities: Vec<u32> = all.iter().map(|endpoint| endpoint.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let mut levels = Vec::with_capacity(priorities.len());
        let mut counts = Vec::with_capacity(priorities.len());
        for priority in priorities {
            let members: Vec<Arc<Endpoint>> = all
                .iter()
                .filter(|endpoint| endpoint.priority() == priority)
                .cloned()
                .collect();
            let (level, census) = level(members, &rules.policy, cluster);
            levels.push(level);
            counts.push(census);
        }
        Self {
            all,
            levels,
            shares: shares(&counts, rules.overprovisioning, rules.panic_threshold),
            rules,
        }
    }

    /// The ids of all endpoints.
    pub(super) fn members(&self) -> HashSet<u64> {
        self.all.iter().map(|endpoint| endpoint.id()).collect()
    }

    /// All endpoints, in the order of the configuration.
    pub fn all(&self) -> &[Arc<Endpoint>] {
        &self.all
    }

    /// Chooses a priority by the shares that their health gives them, then one of its endpoints. Where none of these takes
    /// traffic any more, the first priority is asked that has one: for healthy ones first, then for degraded ones.
    pub fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
        let share = match self.shares.as_slice() {
            [share] => share,
            shares => {
                let point = below(next_random(key.random), 100);
                shares.iter().find(|share| share.upto as usize > point)?
            }
        };
        let chosen = self.levels.get(share.level)?.part(share.part);
        chosen.and_then(|picker| picker.pick(key)).or_else(|| {
            let of_part = |part| self.levels.iter().filter_map(move |level| level.part(part));
            of_part(Part::Healthy)
                .chain(of_part(Part::Degraded))
                .find_map(|picker| picker.pick(key))
        })
    }
}

fn level(members: Vec<Arc<Endpoint>>, policy: &LbPolicy, cluster: &Cluster) -> (Level, Census) {
    let count = |members: &[Arc<Endpoint>]| u32::try_from(members.len()).unwrap_or(u32::MAX);
    let all = count(&members);
    let of = |wanted: fn(&Endpoint) -> bool| -> Vec<Arc<Endpoint>> {
        let members = members.iter().filter(|endpoint| wanted(endpoint));
        members.cloned().collect()
    };
    let (healthy, degraded) = (of(Endpoint::is_healthy), of(Endpoint::is_degraded));
    let census = Census {
        all,
        excluded: count(&of(Endpoint::is_excluded)),
        healthy: count(&healthy),
        degraded: count(&degraded),
    };
    let rest = (census.healthy < all).then(|| {
        Box::new([
            AnyPicker::new(degraded, policy, cluster, Part::Degraded),
            AnyPicker::new(members, policy, cluster, Part::All),
        ])
    });
    let healthy = AnyPicker::new(healthy, policy, cluster, Part::Healthy);
    (Level { healthy, rest }, census)
}
