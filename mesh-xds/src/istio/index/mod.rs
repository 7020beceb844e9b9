//! The index: what all objects together say, ready for questions of one proxy. Istiod calls it the push context.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::api::{Lost, MeshConfig, Object, Origin, Spec};

pub mod destination_rule;
pub mod host;
mod imported;
pub mod kube;
mod labels;
pub mod proxy;
pub mod proxy_config;
pub mod service;
pub mod service_entry;
pub mod sidecar;
pub mod virtual_service;

pub use destination_rule::MergedRule;
pub use proxy::{Interception, Proxy, ProxyKind};
pub use proxy_config::ProcessSettings;
pub use service::{
    Catalog, Health, Instance, Port, Protocol, Registry, Resolution, Service, ServiceKey, Workload,
};
pub use sidecar::{EgressListener, SidecarScope};
pub(crate) use virtual_service::resolve_gateway;
pub use virtual_service::{Semantics, VirtualServiceRule};

/// The name that stands for all sidecars where gateways are named.
pub const MESH_GATEWAY: &str = "mesh";

/// Name, namespace and source of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Seconds since 1970.
    pub creation_time: i64,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where it was read.
    pub origin: Origin,
}

impl Meta {
    /// The metadata of `object`.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        Self {
            name: object.name.to_string(),
            namespace: object.namespace.to_string(),
            creation_time: object.creation_timestamp,
            annotations: object.annotations.clone(),
            origin: object.origin.clone(),
        }
    }

    /// The key by which objects are put in order of age.
    #[must_use]
    pub fn age(&self) -> (i64, &str, &str) {
        (self.creation_time, &self.name, &self.namespace)
    }
}

/// An object with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<T> {
    /// Name, namespace and source.
    pub meta: Meta,
    /// Content.
    pub spec: T,
}

/// The index of one set of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Settings of the mesh, as given.
    pub mesh: MeshConfig,
    /// DNS domain of the cluster, `cluster.local` unless set otherwise.
    pub domain: String,
    /// All services, the oldest first.
    pub services: Vec<Arc<Service>>,
    /// Places in `services` by host.
    by_host: HashMap<String, Vec<usize>>,
    /// Endpoints by service.
    pub instances: BTreeMap<ServiceKey, Vec<Instance>>,
    /// All workloads.
    pub workloads: Vec<Arc<Workload>>,
    /// VirtualService rules with resolved names and merged delegates, the oldest first.
    pub virtual_services: Vec<Arc<VirtualServiceRule>>,
    /// DestinationRule objects, merged by host.
    pub destination_rules: destination_rule::Rules,
    /// Sidecar objects: those with a selector first, then by age.
    pub sidecars: Vec<Arc<Config<super::api::Sidecar>>>,
    /// Gateway objects, the oldest first.
    pub gateways: Vec<Arc<Config<super::api::Gateway>>>,
    /// Objects that this index does not cover, for those who ask for them by kind.
    pub objects: Vec<Arc<Object>>,
    /// Objects that were refused and have no version in force; those whose content could be told stand in
    /// [`destination_rules`](Self::destination_rules) and [`gateways`](Self::gateways) for the TLS that they ask for.
    pub lost: Vec<Lost>,
    /// What went wrong while indexing, as a missing delegate.
    pub problems: Vec<Problem>,
}

/// Something wrong with an object that leaves the rest of the configuration working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The object's name for people, as `VirtualService default/reviews`.
    pub object: String,
    /// Where it was read.
    pub origin: Origin,
    /// What is wrong.
    pub text: String,
}

impl Context {
    /// Indexes `objects`; `domain` is the cluster's DNS domain.
    #[must_use]
    pub fn new(objects: &[Arc<Object>], domain: &str) -> Self {
        let mut catalog = kube::collect(objects, domain);
        let pods = catalog.workloads.clone();
        catalog.extend(service_entry::collect(objects, &pods));
        Self::with_catalog(objects, catalog, domain)
    }

    /// Indexes `objects` over services that were found elsewhere.
    #[must_use]
    pub fn with_catalog(objects: &[Arc<Object>], catalog: Catalog, domain: &str) -> Self {
        let mesh = objects
            .iter()
            .rev()
            .find_map(|object| match &object.spec {
                Spec::MeshConfig(mesh) => Some((**mesh).clone()),
                _ => None,
            })
            .unwrap_or_default();
        let mut services = catalog.services;
        services.sort_by(|a, b| a.age().cmp(&b.age()));
        resolve_aliases(&mut services);
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, service) in services.iter().enumerate() {
            by_host
                .entry(service.hostname.clone())
                .or_default()
                .push(place);
        }
        let mut problems = Vec::new();
        let virtual_services = virtual_service::collect(objects, &mesh, domain, &mut problems);
        Self {
            virtual_services,
            destination_rules: destination_rule::Rules::collect(objects, &mesh, domain),
            sidecars: sidecar::collect(objects, &mut problems),
            gateways: collect_gateways(objects),
            services: services.into_iter().map(Arc::new).collect(),
            by_host,
            instances: catalog.instances,
            workloads: catalog.workloads,
            domain: domain.to_owned(),
            objects: objects.to_vec(),
            lost: Vec::new(),
            mesh,
            problems,
        }
    }

    /// The index with what was refused, so that nothing is open that it would have protected.
    #[must_use]
    pub fn with_lost(mut self, lost: Vec<Lost>) -> Self {
        let stand_ins = lost.iter().filter_map(Lost::stand_in).map(Arc::new);
        let mut all: Vec<Arc<Object>> = stand_ins.collect();
        if !all.is_empty() {
            all.extend(self.objects.iter().cloned());
            self.destination_rules =
                destination_rule::Rules::collect(&all, &self.mesh, &self.domain);
            self.gateways = collect_gateways(&all);
        }
        self.lost = lost;
        self
    }

    /// The namespace whose objects count for the whole mesh.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        root_namespace(&self.mesh)
    }

    /// Whether `namespace` may see `service`.
    #[must_use]
    pub fn is_visible(&self, service: &Service, namespace: &str) -> bool {
        let export_to = self.service_export_to(service);
        export_to.contains("*")
            || (export_to.contains(".") && service.namespace == namespace)
            || export_to.contains(namespace)
    }

    fn service_export_to(&self, service: &Service) -> BTreeSet<String> {
        if service.export_to.is_empty() {
            default_export(&self.mesh.default_service_export_to)
        } else {
            service.export_to.clone()
        }
    }

    /// The services that `namespace` may see: first those shown to it by name, then those shown to all.
    #[must_use]
    pub fn services_for(&self, namespace: &str) -> Vec<Arc<Service>> {
        let public = |service: &Arc<Service>| self.service_export_to(service).contains("*");
        let mut found: Vec<_> = Vec::new();
        let hidden = |service: &Arc<Service>| self.service_export_to(service).contains("~");
        found.extend(
            self.services
                .iter()
                .filter(|s| !public(s) && !hidden(s) && self.is_visible(s, namespace))
                .cloned(),
        );
        found.extend(self.services.iter().filter(|s| public(s)).cloned());
        found
    }

    /// The services with that host, by namespace; in one namespace Kubernetes comes first, then age.
    #[must_use]
    pub fn services_by_host(&self, hostname: &str) -> BTreeMap<&str, &Arc<Service>> {
        let mut found: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
        for service in self
            .by_host
            .get(hostname)
            .into_iter()
            .flatten()
            .map(|place| &self.services[*place])
        {
            let known = found.get(service.namespace.as_str());
            let take = known.is_none_or(|known| {
                known.registry != Registry::Kubernetes && service.registry == Registry::Kubernetes
            });
            if take {
                found.insert(&service.namespace, service);
            }
        }
        found
    }

    /// The endpoints of `service`.
    #[must_use]
    pub fn instances_of(&self, service: &Service) -> &[Instance] {
        self.instances
            .get(&service.key())
            .map_or(&[], Vec::as_slice)
    }

    /// The rules bound to `gateway` that `namespace` may see: private ones, then those shown by name, then public ones.
    #[must_use]
    pub fn virtual_services_for(
        &self,
        namespace: &str,
        gateway: &str,
    ) -> Vec<Arc<VirtualServiceRule>> {
        let bound = |rule: &&Arc<VirtualServiceRule>| rule.gateways().any(|name| name == gateway);
        let mut ranked: Vec<(u8, &Arc<VirtualServiceRule>)> = Vec::new();
        for rule in self.virtual_services.iter().filter(bound) {
            let rank = if rule.export_to.contains("*") {
                let local =
                    rule.semantics == Semantics::Gateway && rule.meta.namespace == namespace;
                if local { 2 } else { 3 }
            } else if rule.export_to.contains("~") || !rule.export_to.contains(namespace) {
                continue;
            } else {
                u8::from(rule.meta.namespace != namespace)
            };
            ranked.push((rank, rule));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, rule)| rule.clone()).collect()
    }

    /// The workload of that namespace and name.
    #[must_use]
    pub fn workload(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads
            .iter()
            .find(|workload| workload.namespace == namespace && workload.name == name)
    }
}

/// The namespace whose objects count for the whole mesh.
#[must_use]
pub fn root_namespace(mesh: &MeshConfig) -> &str {
    if mesh.root_namespace.is_empty() {
        "istio-system"
    } else {
        &mesh.root_namespace
    }
}

/// The mesh's default for `exportTo`, which is everybody when nothing is set.
#[must_use]
pub(crate) fn default_export(setting: &[String]) -> BTreeSet<String> {
    if setting.is_empty() {
        BTreeSet::from(["*".to_owned()])
    } else {
        setting.iter().cloned().collect()
    }
}

/// Tells each concrete service by which other names (ExternalName) it is called.
fn resolve_aliases(services: &mut [Service]) {
    let raw: BTreeMap<String, String> = services
        .iter()
        .filter(|service| service.resolution == Resolution::Alias)
        .filter_map(|service| Some((service.hostname.clone(), service.external_name.clone()?)))
        .collect();
    let mut by_target: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (alias, first) in &raw {
        let mut target = first;
        let mut seen = BTreeSet::from([alias]);
        let looped = loop {
            if !seen.insert(target) {
                break true;
            }
            match raw.get(target) {
                Some(next) => target = next,
                None => break false,
            }
        };
        if !looped {
            by_target
                .entry(target.clone())
                .or_default()
                .push(alias.clone());
        }
    }
    for service in services {
        if let Some(aliases) = by_target.get(&service.hostname) {
            service.aliases.clone_from(aliases);
        }
    }
}

fn collect_gateways(objects: &[Arc<Object>]) -> Vec<Arc<Config<super::api::Gateway>>> {
    let mut gateways: Vec<_> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Gateway(spec) => Some(Arc::new(Config {
                meta: Meta::of(object),
                spec: (**spec).clone(),
            })),
            _ => None,
        })
        .collect();
    gateways.sort_by(|a, b| a.meta.age().cmp(&b.meta.age()));
    gateways
}

#[cfg(test)]
mod tests;
