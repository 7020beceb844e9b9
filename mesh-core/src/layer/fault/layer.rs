use std::sync::Arc;

use tower_layer::Layer;

use super::{ActiveFaults, Fault, FaultOf};
use crate::{
    layer::{Fixed, Routed, Standalone},
    model::{self, Name},
    route::{FaultRules, FilterSetting, header_tests},
};

/// Makes [`Fault`] services, which share the count of faults that act.
#[derive(Clone, Debug, Default)]
pub struct FaultLayer<P> {
    policy: P,
    active: ActiveFaults,
}

impl<P> FaultLayer<P> {
    /// Faults as `policy` says.
    pub fn new(policy: P, active: ActiveFaults) -> Self {
        Self { policy, active }
    }
}

impl FaultLayer<Fixed<Arc<FaultRules>>> {
    /// The same fault for every request, in any tower stack.
    ///
    /// # Errors
    ///
    /// Name of a header that cannot be.
    pub fn fixed(config: model::Fault) -> Result<Standalone<Self>, Name> {
        let headers = header_tests(&config.headers)?;
        let rules = Arc::new(FaultRules { config, headers });
        Ok(Standalone(Self::new(Fixed(rules), ActiveFaults::default())))
    }
}

impl<R> FaultOf<R> for Fixed<Arc<FaultRules>> {
    fn rules<'a>(&'a self, _request: &'a R) -> Option<&'a FaultRules> {
        Some(&self.0)
    }
}

impl<S, P: Clone> Layer<S> for FaultLayer<P> {
    type Service = Fault<S, P>;

    fn layer(&self, inner: S) -> Fault<S, P> {
        Fault::new(inner, self.policy.clone(), self.active.clone())
    }
}

/// The fault of the request's route, else that of the listener's filter. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct RouteFaults(Option<Arc<Filter>>);

#[derive(Debug)]
struct Filter {
    name: Name,
    default: FaultRules,
    /// It acts only where a route says so.
    disabled: bool,
}

impl RouteFaults {
    /// The listener has no fault filter, so routes cannot inject faults either.
    pub fn none() -> Self {
        Self(None)
    }

    /// The filter `name` of a listener.
    ///
    /// # Errors
    ///
    /// Name of a header that cannot be.
    pub fn filter(name: Name, config: model::Fault, disabled: bool) -> Result<Self, Name> {
        let headers = header_tests(&config.headers)?;
        Ok(Self(Some(Arc::new(Filter {
            name,
            default: FaultRules { config, headers },
            disabled,
        }))))
    }

    /// Whether the listener has the filter.
    pub(crate) fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// The rules where `of_route` says what the route has of the filter.
    pub(crate) fn rules<'a>(
        &'a self,
        of_route: impl FnOnce(&str) -> Option<&'a FilterSetting>,
    ) -> Option<&'a FaultRules> {
        let filter = self.0.as_deref()?;
        match of_route(&filter.name) {
            Some(FilterSetting::Disabled) => None,
            Some(FilterSetting::Fault(rules)) => Some(rules),
            _ => (!filter.disabled).then_some(&filter.default),
        }
    }
}

impl<B: 'static> FaultOf<Routed<B>> for RouteFaults {
    fn rules<'a>(&'a self, routed: &'a Routed<B>) -> Option<&'a FaultRules> {
        RouteFaults::rules(self, |name| routed.forwarding.filter(name))
    }

    fn cluster<'a>(&'a self, routed: &'a Routed<B>) -> Option<&'a str> {
        Some(routed.forwarding.cluster_name())
    }
}
