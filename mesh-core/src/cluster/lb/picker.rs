//! The seam for policies that are not built in.

use std::{fmt, sync::Arc};

use super::{AnyPicker, Part, PickKey};
use crate::{
    cluster::Endpoint,
    model::{Cluster, LbPolicy},
};

/// A load balancing policy over a fixed set of endpoints. Picks share it, so whatever it counts it counts with atomics.
///
/// It is asked again, with the next [`PickKey::turn`] and another random value, when it named an endpoint that takes no traffic
/// now or that a retry avoids; what it cannot avoid in as many turns as the retry allows is looked for without it.
pub trait Picker: fmt::Debug + Send + Sync {
    /// One of the endpoints that the picker was made for; `None`: it has none for this request, which is answered with 503.
    fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>>;
}

/// A policy of the program's own, set by [`LbPolicy::custom`]: makes a [`Picker`] whenever the endpoints change.
///
/// Priorities, degraded endpoints, the panic threshold and hosts that retries avoid are taken care of around it: it chooses
/// among the endpoints of one priority that are alike in health. A decorator (locality, subset) divides them, and asks
/// [`LbPolicy::picker`] for one picker for each part.
///
/// ```
/// use std::sync::Arc;
///
/// use mesh_core::{
///     cluster::{Balancer, Endpoint, PickKey, Picker},
///     model::{Cluster, Discovery, LbPolicy},
/// };
///
/// /// The endpoint that the hash of the request falls on; another one in each further turn.
/// #[derive(Debug)]
/// struct Modulo(Vec<Arc<Endpoint>>);
///
/// impl Picker for Modulo {
///     fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
///         let place = key.hash.unwrap_or(key.random).wrapping_add(key.turn.into());
///         self.0.get(usize::try_from(place % self.0.len().max(1) as u64).ok()?)
///     }
/// }
///
/// #[derive(Debug)]
/// struct ByHash;
///
/// impl Balancer for ByHash {
///     fn picker(&self, _cluster: &Cluster, members: &[Arc<Endpoint>]) -> Box<dyn Picker> {
///         Box::new(Modulo(members.to_vec()))
///     }
/// }
///
/// let mut reviews = Cluster::new("reviews", Discovery::Eds("reviews".into()));
/// reviews.lb = LbPolicy::custom(ByHash);
/// ```
pub trait Balancer: fmt::Debug + Send + Sync {
    /// A picker for `members`, which have one priority, in the order of the configuration; there may be none.
    fn picker(&self, cluster: &Cluster, members: &[Arc<Endpoint>]) -> Box<dyn Picker>;
}

/// A [`Balancer`] as configuration. Two are equal when they are the same one.
#[derive(Clone, Debug)]
pub struct CustomLb(Arc<dyn Balancer>);

impl CustomLb {
    /// The policy that makes the pickers.
    pub fn balancer(&self) -> &Arc<dyn Balancer> {
        &self.0
    }
}

impl PartialEq for CustomLb {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for CustomLb {}

impl LbPolicy {
    /// A policy of the program's own. A source that reads files knows none: whoever wants one for its clusters puts a source
    /// around it that sets [`Cluster::lb`](crate::model::Cluster).
    pub fn custom(balancer: impl Balancer + 'static) -> Self {
        Self::Custom(CustomLb(Arc::new(balancer)))
    }

    /// The policy's picker over `members` of `cluster`, which must be worth picking: it asks none for its health.
    pub fn picker(&self, cluster: &Cluster, members: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        match self {
            Self::Custom(custom) => custom.0.picker(cluster, members),
            own => Box::new(AnyPicker::new(members.to_vec(), own, cluster, Part::All)),
        }
    }
}
