//! DestinationRule objects: merged by host within a namespace, looked up from the caller's namespace outwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Meta, Service, default_export, host, root_namespace};
use crate::istio::api::destination_rule::DestinationRule;
use crate::istio::api::{MeshConfig, Object, Spec};

/// One or several DestinationRule objects for the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedRule {
    /// The oldest of them.
    pub meta: Meta,
    /// The oldest, with the subsets of the others and the first traffic policy.
    pub spec: DestinationRule,
    /// Who may see it; empty is the mesh's default.
    pub export_to: BTreeSet<String>,
}

/// Rules by namespace of the object and host.
type ByNamespace = BTreeMap<String, BTreeMap<String, Vec<Arc<MergedRule>>>>;

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// For callers in the rule's own namespace.
    local: ByNamespace,
    /// For callers elsewhere.
    exported: ByNamespace,
    /// Rules of the root namespace that only it may see.
    root_local: BTreeMap<String, Vec<Arc<MergedRule>>>,
    root: String,
}

impl Rules {
    /// Collects all rules of `objects`.
    #[must_use]
    pub(super) fn collect(objects: &[Arc<Object>], mesh: &MeshConfig, domain: &str) -> Self {
        let mut all: Vec<Arc<MergedRule>> = objects
            .iter()
            .filter_map(|object| read(object, domain).map(Arc::new))
            .collect();
        all.sort_by(|a, b| {
            let key = |rule: &Arc<MergedRule>| rule.spec.workload_selector.is_none();
            (key(a), a.meta.age()).cmp(&(key(b), b.meta.age()))
        });
        let default_private =
            default_export(&mesh.default_destination_rule_export_to).contains(".");
        let mut rules = Self {
            root: root_namespace(mesh).to_owned(),
            ..Self::default()
        };
        for rule in all {
            let namespace = rule.meta.namespace.clone();
            let to = &rule.export_to;
            let own = to.contains(".") || to.contains(&namespace);
            let private = (to.is_empty() && default_private) || (to.len() == 1 && own);
            if to.is_empty() || to.contains("*") || own {
                add(rules.local.entry(namespace.clone()).or_default(), &rule);
            }
            if !private {
                add(rules.exported.entry(namespace).or_default(), &rule);
            } else if namespace == rules.root {
                add(&mut rules.root_local, &rule);
            }
        }
        rules
    }

    /// The rules for `service` as seen from `namespace`: those of the caller's namespace, else of the service's, else of
    /// the root namespace.
    #[must_use]
    pub fn find(&self, namespace: &str, service: &Service) -> Vec<Arc<MergedRule>> {
        let name = &service.hostname;
        let local = if namespace == self.root {
            Some(&self.root_local)
        } else {
            self.local.get(namespace)
        };
        if let Some(found) = local.and_then(|rules| host::closest(name, rules)) {
            return found.clone();
        }
        for owner in [&service.namespace, &self.root] {
            let found = self.exported_by(owner, name, namespace);
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    fn exported_by(&self, owner: &str, name: &str, namespace: &str) -> Vec<Arc<MergedRule>> {
        let found = self
            .exported
            .get(owner)
            .and_then(|rules| host::closest(name, rules));
        let visible = |rule: &&Arc<MergedRule>| {
            let to = &rule.export_to;
            to.is_empty() || to.contains("*") || to.contains(namespace)
        };
        found
            .map(|rules| rules.iter().filter(visible).cloned().collect())
            .unwrap_or_default()
    }

    /// Every rule once, for listings.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<MergedRule>> {
        self.local
            .values()
            .flat_map(|hosts| hosts.values().flatten())
    }
}

fn read(object: &Object, domain: &str) -> Option<MergedRule> {
    let Spec::DestinationRule(spec) = &object.spec else {
        return None;
    };
    let meta = Meta::of(object);
    let mut spec = (**spec).clone();
    spec.host = host::resolve(&spec.host, &meta.namespace, domain);
    let export_to = if spec.workload_selector.is_some() {
        BTreeSet::from([".".to_owned()])
    } else {
        spec.export_to.iter().cloned().collect()
    };
    Some(MergedRule {
        meta,
        spec,
        export_to,
    })
}

/// Adds `rule`, merging it into rules of the same host, selector and visibility.
fn add(hosts: &mut BTreeMap<String, Vec<Arc<MergedRule>>>, rule: &Arc<MergedRule>) {
    let list = hosts.entry(rule.spec.host.clone()).or_default();
    let mut separate = true;
    for known in list.iter_mut() {
        separate = if known.export_to == rule.export_to {
            false
        } else if !known.export_to.is_empty() && rule.export_to.is_superset(&known.export_to) {
            true
        } else {
            separate = true;
            continue;
        };
        match (&known.spec.workload_selector, &rule.spec.workload_selector) {
            (None, None) => separate = false,
            (Some(a), Some(b)) if a == b => separate = false,
            (Some(_), Some(_)) => {
                separate = true;
                continue;
            }
            _ => {}
        }
        merge(Arc::make_mut(known), rule);
    }
    if separate {
        list.push(Arc::clone(rule));
    }
}

fn merge(known: &mut MergedRule, rule: &MergedRule) {
    for subset in &rule.spec.subsets {
        if known.spec.subsets.iter().all(|own| own.name != subset.name) {
            known.spec.subsets.push(subset.clone());
        }
    }
    if known.spec.traffic_policy.is_none() {
        known
            .spec
            .traffic_policy
            .clone_from(&rule.spec.traffic_policy);
    }
}
