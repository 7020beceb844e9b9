//! References that lead nowhere. Istio accepts them, since the other object may come later; until then traffic to a missing
//! host or subset answers 503, and a missing gateway serves nothing. Each is a warning.

use std::borrow::Borrow;
use std::cell::Cell;
use std::collections::btree_map::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::check::{At, Check};
use super::{Problem, SPEC};
use crate::istio::api::virtual_service::{Delegate, Destination, VirtualService};
use crate::istio::api::{DestinationRule, Gateway};
use crate::istio::index::{Context, MESH_GATEWAY, Service, host, resolve_gateway, service_entry};
use crate::istio::{Object, Spec};
use crate::yaml::nearest;

/// The references of all objects that lead nowhere, by object.
pub fn dangling(objects: &[Arc<Object>], context: &Context) -> Vec<(Arc<Object>, Problem)> {
    let references = References::new(objects, context);
    let mut found = Vec::new();
    for object in objects {
        let mut check = Check::default();
        match &object.spec {
            Spec::VirtualService(spec) => references.virtual_service(&mut check, object, spec),
            Spec::DestinationRule(spec) => references.destination_rule(&mut check, object, spec),
            Spec::Gateway(spec) => references.gateway(&mut check, spec),
            _ => {}
        }
        found.extend(
            check
                .into_problems()
                .into_iter()
                .map(|problem| (Arc::clone(object), problem)),
        );
    }
    found
}

/// What can be referred to.
struct References<'c> {
    context: &'c Context,
    /// By host.
    services: BTreeMap<&'c str, Vec<&'c Service>>,
    /// `namespace/name`.
    gateways: BTreeSet<String>,
    /// `namespace/name` of what may be delegated to.
    virtual_services: BTreeSet<String>,
    /// Names of subsets by the rule's full host.
    subsets: BTreeMap<String, BTreeSet<&'c str>>,
    /// Names that a nearest one was looked for among.
    compared: Cell<usize>,
}

/// Names that are compared at most in one round to find a nearest one: a hint must not cost more than what it is about.
const MOST_COMPARED: usize = 20_000;

/// The entries of wildcards among the hosts: they stand together in the order of the keys, since `+` follows `*`.
fn wildcards<K: Borrow<str> + Ord, V>(hosts: &BTreeMap<K, V>) -> Range<'_, K, V> {
    hosts.range::<str, _>((Bound::Included("*"), Bound::Excluded("+")))
}

impl<'c> References<'c> {
    fn new(objects: &'c [Arc<Object>], context: &'c Context) -> Self {
        let mut gateways = BTreeSet::new();
        let mut virtual_services = BTreeSet::new();
        let mut subsets: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for object in objects {
            match &object.spec {
                Spec::Gateway(_) => {
                    gateways.insert(format!("{}/{}", object.namespace, object.name));
                }
                Spec::VirtualService(_) => {
                    virtual_services.insert(format!("{}/{}", object.namespace, object.name));
                }
                Spec::DestinationRule(rule) => {
                    let full = host::resolve(&rule.host, &object.namespace, &context.domain);
                    let names = rule.subsets.iter().map(|s| s.name.as_str());
                    subsets.entry(full).or_default().extend(names);
                }
                _ => {}
            }
        }
        let mut services: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
        for service in &context.services {
            services.entry(&service.hostname).or_default().push(service);
        }
        Self {
            context,
            services,
            gateways,
            virtual_services,
            subsets,
            compared: Cell::new(0),
        }
    }

    fn delegate(&self, c: &mut Check, at: &At<'_>, object: &Object, delegate: &Delegate) {
        let namespace = match delegate.namespace.as_str() {
            "" => &*object.namespace,
            namespace => namespace,
        };
        let full = format!("{namespace}/{}", delegate.name);
        if !self.virtual_services.contains(&full) {
            c.warn(
                &at.key("name"),
                format_args!("there is no VirtualService {full}: the rule is left out"),
            );
        }
    }

    fn virtual_service(&self, c: &mut Check, object: &Object, spec: &VirtualService) {
        self.gateways(c, &SPEC, object, &spec.gateways);
        for (i, route) in spec.http.iter().enumerate() {
            let at = SPEC.item("http", i);
            for (j, matched) in route.matches.iter().enumerate() {
                self.gateways(c, &at.item("match", j), object, &matched.gateways);
            }
            if let Some(delegate) = &route.delegate {
                self.delegate(c, &at.key("delegate"), object, delegate);
            }
            let arms = route.route.iter().map(|arm| &arm.destination);
            self.destinations(c, &at, ("route", arms), object);
            self.destination(c, &at.key("mirror"), object, route.mirror.as_ref());
            let mirrors = route.mirrors.iter().map(|mirror| &mirror.destination);
            self.destinations(c, &at, ("mirrors", mirrors), object);
        }
        for (i, route) in spec.tls.iter().enumerate() {
            let at = SPEC.item("tls", i);
            for (j, matched) in route.matches.iter().enumerate() {
                self.gateways(c, &at.item("match", j), object, &matched.gateways);
            }
            let arms = route.route.iter().map(|arm| &arm.destination);
            self.destinations(c, &at, ("route", arms), object);
        }
        for (i, route) in spec.tcp.iter().enumerate() {
            let at = SPEC.item("tcp", i);
            for (j, matched) in route.matches.iter().enumerate() {
                self.gateways(c, &at.item("match", j), object, &matched.gateways);
            }
            let arms = route.route.iter().map(|arm| &arm.destination);
            self.destinations(c, &at, ("route", arms), object);
        }
    }

    fn gateways(&self, c: &mut Check, at: &At<'_>, object: &Object, names: &[String]) {
        for (i, name) in names.iter().enumerate() {
            let full = resolve_gateway(name, &object.namespace);
            if name != MESH_GATEWAY && !self.gateways.contains(&full) {
                let message = format_args!("there is no Gateway {full}");
                c.warn(&at.item("gateways", i), message);
            }
        }
    }

    fn destinations<'d>(
        &self,
        c: &mut Check,
        at: &At<'_>,
        (field, arms): (&str, impl Iterator<Item = &'d Option<Destination>>),
        object: &Object,
    ) {
        for (i, to) in arms.enumerate() {
            self.destination(
                c,
                &at.item(field, i).key("destination"),
                object,
                to.as_ref(),
            );
        }
    }

    fn destination(&self, c: &mut Check, at: &At<'_>, object: &Object, to: Option<&Destination>) {
        let Some(to) = to else {
            return;
        };
        let full = host::resolve(&to.host, &object.namespace, &self.context.domain);
        let Some(service) = self.service(&full) else {
            self.no_host(c, at, &full);
            return;
        };
        let port = to.port.as_ref().map(|p| p.number);
        if let Some(number) = port.filter(|n| service.port(*n).is_none()) {
            let known: Vec<String> = service.ports.iter().map(|p| p.port.to_string()).collect();
            let message = format!(
                "{full} has no port {number}, only {}: traffic to it answers 503",
                known.join(", ")
            );
            c.warn(&at.key("port").key("number"), message);
        }
        if to.subset.is_empty() {
            return;
        }
        let wild = wildcards(&self.subsets).filter(|(rule, _)| host::subset_of(&full, rule));
        let exact = self.subsets.get(&full).into_iter();
        let known: BTreeSet<&str> = exact
            .chain(wild.map(|(_, names)| names))
            .flatten()
            .copied()
            .collect();
        if !known.contains(to.subset.as_str()) {
            let message = format!(
                "no DestinationRule for {full} has a subset `{}`: traffic to it answers 503",
                to.subset
            );
            let near = nearest(&to.subset, known);
            c.warn_near(&at.key("subset"), message, near);
        }
    }

    /// The service of that name, or one that covers it.
    fn service(&self, full: &str) -> Option<&'c Service> {
        let covers = |(name, _): &(&&str, &Vec<_>)| host::subset_of(full, name);
        let wild = || {
            wildcards(&self.services)
                .find(covers)
                .map(|(_, found)| found)
        };
        let found = self.services.get(full).or_else(wild)?;
        found.first().copied()
    }

    /// The services that a rule for that host concerns.
    fn concerned(&self, full: &str) -> Vec<&'c Service> {
        let overlapping = |(name, _): &(&&'c str, &Vec<_>)| host::matches(name, full);
        let found: Vec<_> = if host::is_wildcard(full) {
            self.services.iter().filter(overlapping).collect()
        } else {
            let exact = self.services.get_key_value(full).into_iter();
            let wild = wildcards(&self.services).filter(overlapping);
            exact.chain(wild).collect()
        };
        found
            .into_iter()
            .flat_map(|(_, all)| all)
            .copied()
            .collect()
    }

    fn nearest_host(&self, full: &str) -> Option<&'c str> {
        let compared = self.compared.get() + self.services.len();
        if compared > MOST_COMPARED {
            return None;
        }
        self.compared.set(compared);
        nearest(full, self.services.keys().copied())
    }

    fn no_host(&self, c: &mut Check, at: &At<'_>, full: &str) {
        let message = format!("there is no service {full}: traffic to it answers 503");
        c.warn_near(&at.key("host"), message, self.nearest_host(full));
    }

    fn destination_rule(&self, c: &mut Check, object: &Object, rule: &DestinationRule) {
        let full = host::resolve(&rule.host, &object.namespace, &self.context.domain);
        let services = self.concerned(&full);
        if services.is_empty() {
            let message = format!("there is no service {full}, so the rule does not act");
            c.warn_near(&SPEC.key("host"), message, self.nearest_host(&full));
            return;
        }
        for (i, subset) in rule.subsets.iter().enumerate() {
            let instances = services.iter().flat_map(|s| self.context.instances_of(s));
            let mut labels = instances.map(|i| &i.workload.labels).peekable();
            // A service without any endpoint says nothing about labels.
            let known = labels.peek().is_some();
            if known && !labels.any(|labels| service_entry::selects(&subset.labels, labels)) {
                let message = format!(
                    "no endpoint of {full} has the labels of subset `{}`: traffic to it answers 503",
                    subset.name
                );
                c.warn(&SPEC.item("subsets", i).key("labels"), message);
            }
        }
    }

    fn gateway(&self, c: &mut Check, gateway: &Gateway) {
        let workloads = &self.context.workloads;
        if !workloads
            .iter()
            .any(|w| service_entry::selects(&gateway.selector, &w.labels))
        {
            c.warn(
                &SPEC.key("selector"),
                "no workload has these labels, so no proxy serves the gateway",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::read::{TextOptions, parse};

    #[test]
    fn what_leads_nowhere_is_named_with_the_nearest_name() {
        let text = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: r1, labels: {app: reviews, version: v1}}
status: {podIP: 10.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {app: reviews}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  gateways: [mesh, gw, edge, edge.default, default/edge]
  http:
  - delegate: {name: reviews}
    match: [{gateways: [edge, nowhere]}]
  - delegate: {name: reviews, namespace: other}
  - route:
    - {destination: {host: reviews, subset: v1}}
    - {destination: {host: reviews, subset: v11}, weight: 1}
    - {destination: {host: reviewz}}
    - {destination: {host: reviews, port: {number: 80}}}
";
        let parsed = parse(&"a.yaml".into(), text, &TextOptions::default());
        assert!(parsed.refused.is_empty(), "{parsed:?}");
        let context = Context::new(&parsed.objects, "cluster.local");
        let found: Vec<String> = dangling(&parsed.objects, &context)
            .into_iter()
            .map(|(object, problem)| {
                let near = problem.nearest.unwrap_or_default();
                format!(
                    "{} {}: {} [{near}]",
                    object.kind, problem.path, problem.message
                )
            })
            .collect();
        let full = "reviews.default.svc.cluster.local";
        assert_eq!(
            found,
            [
                format!(
                    "DestinationRule spec.subsets[1].labels: no endpoint of {full} has the labels of subset `v2`: traffic to it answers 503 []"
                ),
                "VirtualService spec.gateways[1]: there is no Gateway default/gw []".to_owned(),
                "VirtualService spec.http[0].match[0].gateways[1]: there is no Gateway default/nowhere []".to_owned(),
                "VirtualService spec.http[1].delegate.name: there is no VirtualService other/reviews: the rule is left out []".to_owned(),
                format!(
                    "VirtualService spec.http[2].route[1].destination.subset: no DestinationRule for {full} has a subset `v11`: traffic to it answers 503 [v1]"
                ),
                format!(
                    "VirtualService spec.http[2].route[2].destination.host: there is no service reviewz.default.svc.cluster.local: traffic to it answers 503 [{full}]"
                ),
                format!(
                    "VirtualService spec.http[2].route[3].destination.port.number: {full} has no port 80, only 9080: traffic to it answers 503 []"
                ),
            ]
        );
    }
}
