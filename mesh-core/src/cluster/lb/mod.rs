//! Load balancing: immutable pickers over shared atomics.

mod least_request;
mod picker;
mod round_robin;

use std::{net::SocketAddr, sync::Arc};

pub use self::picker::{Balancer, CustomLb, Picker};
use self::{least_request::LeastRequest, round_robin::RoundRobin};
use super::Endpoint;
use crate::model::{Cluster, LbPolicy, Name, RetryPolicy, Value};

/// What a pick may depend on. More may come: write `..PickKey::default()`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickKey<'a> {
    /// A random value for this pick.
    pub random: u64,
    /// The request's hash, for policies that stick.
    pub hash: Option<u64>,
    /// The address that the connection was meant for, or that the request names instead.
    pub original_dst: Option<SocketAddr>,
    /// Endpoints to avoid (`previous_hosts`).
    pub exclude: &'a [Arc<Endpoint>],
    /// How often another endpoint is looked for to avoid one of `exclude` (`host_selection_retry_max_attempts`).
    pub host_attempts: u32,
    /// How often the [`Picker`] was asked for this pick before; whoever begins a pick leaves it at 0.
    pub turn: u32,
    /// Endpoints that a retry avoids by what they are.
    pub omit: Option<&'a Omit>,
}

impl PickKey<'_> {
    fn excludes(&self, endpoint: &Endpoint) -> bool {
        let tried = || {
            self.exclude
                .iter()
                .any(|previous| previous.id() == endpoint.id())
        };
        tried() || self.omit.is_some_and(|omit| omit.holds(endpoint))
    }
}

/// Endpoints that retries avoid by their metadata in `envoy.lb` (`omit_canary_hosts`, `omit_host_metadata`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Omit {
    canaries: bool,
    /// All of these; empty: none is avoided by them.
    labels: Box<[(Name, Value)]>,
}

impl Omit {
    const NAMESPACE: &str = "envoy.lb";

    /// What `policy` avoids, if that is anything.
    pub fn of(policy: &RetryPolicy) -> Option<Self> {
        let labels = match policy.omit_host_metadata.get(Self::NAMESPACE, &[]) {
            Some(Value::Object(labels)) => labels.clone().into_boxed_slice(),
            _ => Box::default(),
        };
        let this = Self {
            canaries: policy.omit_canary_hosts,
            labels,
        };
        (this != Self::default()).then_some(this)
    }

    /// Whether `endpoint` is avoided. A value that is a list holds each of its items, as in Envoy.
    fn holds(&self, endpoint: &Endpoint) -> bool {
        if self.canaries && endpoint.is_canary() {
            return true;
        }
        let Some(own) = endpoint.metadata().get(Self::NAMESPACE, &[]) else {
            return false;
        };
        let holds = |(key, wanted): &(Name, Value)| match own.get(key) {
            Some(Value::List(items)) if items.contains(wanted) => true,
            found => found == Some(wanted),
        };
        !self.labels.is_empty() && self.labels.iter().all(holds)
    }
}

/// Which endpoints of a priority are chosen among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The healthy ones.
    Healthy,
    /// The degraded ones.
    Degraded,
    /// All, whatever is known of their health: too few are healthy to take all requests (Envoy's panic mode).
    All,
}

impl Part {
    fn holds(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Healthy => endpoint.is_healthy(),
            Self::Degraded => endpoint.is_degraded(),
            Self::All => true,
        }
    }
}

/// Chance is tried so often at most, whatever a policy says: what it cannot find is then looked for.
const MAX_HOST_ATTEMPTS: u32 = 64;

/// The picker of a policy.
#[derive(Debug)]
pub(super) struct AnyPicker {
    members: Vec<Arc<Endpoint>>,
    part: Part,
    kind: AnyKind,
}

#[derive(Debug)]
enum AnyKind {
    RoundRobin(RoundRobin),
    LeastRequest(LeastRequest),
    /// By chance alone: as in Envoy, weights of endpoints do not count.
    Random,
    /// By a policy of the program's own.
    Custom(Box<dyn Picker>),
}

impl AnyPicker {
    /// Over `members` of `cluster`, which are a `part` of their priority when it is made.
    pub(super) fn new(
        members: Vec<Arc<Endpoint>>,
        policy: &LbPolicy,
        cluster: &Cluster,
        part: Part,
    ) -> Self {
        let kind = match policy {
            LbPolicy::RoundRobin | LbPolicy::ClusterProvided => {
                AnyKind::RoundRobin(RoundRobin::new(&members))
            }
            LbPolicy::LeastRequest { choices } => {
                AnyKind::LeastRequest(LeastRequest::new(&members, *choices))
            }
            // The hashing pickers come with the balancing engine; until then the decoder lists them as not acting.
            LbPolicy::Random | LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. } => {
                AnyKind::Random
            }
            LbPolicy::Custom(custom) => {
                AnyKind::Custom(custom.balancer().picker(cluster, &members))
            }
        };
        Self {
            members,
            part,
            kind,
        }
    }

    fn choose(&self, key: &PickKey<'_>, random: u64, turn: u32) -> Option<&Arc<Endpoint>> {
        match &self.kind {
            AnyKind::RoundRobin(picker) => picker.choose(&self.members),
            AnyKind::LeastRequest(picker) => picker.choose(&self.members, random),
            AnyKind::Random => self.members.get(below(random, self.members.len())),
            AnyKind::Custom(picker) => picker.pick(&PickKey {
                random,
                turn,
                ..*key
            }),
        }
    }
}

impl Picker for AnyPicker {
    /// An endpoint that takes traffic, or `None`. An excluded one is still picked when the attempts to avoid it are used up, as
    /// Envoy does.
    fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
        let mut random = key.random;
        let mut last = None;
        for turn in 0..=key.host_attempts.min(MAX_HOST_ATTEMPTS) {
            let mut chosen = self.choose(key, random, turn)?;
            if !self.part.holds(chosen) {
                chosen = scan(&self.members, random, |endpoint| self.part.holds(endpoint))?;
            }
            if !key.excludes(chosen) {
                return Some(chosen);
            }
            last = Some(chosen);
            random = next_random(random);
        }
        // Chance found only tried ones; one that was not tried is better than the same again.
        scan(&self.members, random, |endpoint| {
            self.part.holds(endpoint) && !key.excludes(endpoint)
        })
        .filter(|_| key.host_attempts > 0)
        .or(last)
    }
}

/// The first member from a random place on for which `wanted` holds.
fn scan(
    members: &[Arc<Endpoint>],
    random: u64,
    wanted: impl Fn(&Endpoint) -> bool,
) -> Option<&Arc<Endpoint>> {
    let start = below(random, members.len());
    members[start..]
        .iter()
        .chain(&members[..start])
        .find(|endpoint| wanted(endpoint))
}

/// A place below `len` from a random value, without a division (Lemire's method).
pub(super) fn below(random: u64, len: usize) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// A further random value from one (SplitMix64), so that a pick takes a single one from its caller.
pub(super) fn next_random(random: u64) -> u64 {
    let mut z = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Running sums of weights; empty when all are equal.
fn cumulative_weights(members: &[Arc<Endpoint>]) -> Box<[u64]> {
    let first = members.first().map(|endpoint| endpoint.weight());
    if members
        .iter()
        .all(|endpoint| Some(endpoint.weight()) == first)
    {
        return Box::default();
    }
    members
        .iter()
        .scan(0, |sum, endpoint| {
            *sum += u64::from(endpoint.weight());
            Some(*sum)
        })
        .collect()
}

/// A member by weight.
fn weighted<'a>(
    members: &'a [Arc<Endpoint>],
    sums: &[u64],
    random: u64,
) -> Option<&'a Arc<Endpoint>> {
    let Some(total) = sums.last() else {
        return members.get(below(random, members.len()));
    };
    let point = ((u128::from(random) * u128::from(*total)) >> 64) as u64;
    members.get(sums.partition_point(|sum| *sum <= point))
}
