//! What one proxy may reach: the Sidecar object that counts for it, and the services, rules and policies it imports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::imported::Imported;
use super::{
    Config, Context, MESH_GATEWAY, MergedRule, Meta, Problem, Protocol, Proxy, ProxyKind, Registry,
    Semantics, Service, VirtualServiceRule, host, service_entry,
};
use crate::istio::api::mesh_config::MeshOutboundMode;
use crate::istio::api::sidecar::{IstioEgressListener, OutboundMode, OutboundTrafficPolicy};
use crate::istio::api::virtual_service::Destination;
use crate::istio::api::{Lost, Object, Sidecar, Spec, WorkloadSelector};

/// One egress listener with what it imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressListener {
    /// The listener as written; a default one imports everything.
    pub spec: IstioEgressListener,
    /// Services, in order of age.
    pub services: Vec<Arc<Service>>,
    /// Rules, in order of precedence.
    pub virtual_services: Vec<Arc<VirtualServiceRule>>,
    /// For each service, namespace and name of the rule whose host covers it most closely.
    pub closest: BTreeMap<String, (String, String)>,
}

impl EgressListener {
    /// Whether the listener is for one port, so that services count only with that port.
    #[must_use]
    pub fn matches_port(&self) -> bool {
        let port = self.spec.port.as_ref();
        port.is_some_and(|port| {
            port.number != 0 && Protocol::parse(&port.protocol) != Protocol::HttpProxy
        })
    }
}

/// What happens to traffic for unknown hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundPolicy {
    /// Whether it is passed on.
    pub mode: OutboundMode,
    /// Where it is passed on to, when not to its own destination.
    pub egress_proxy: Option<Destination>,
}

/// What one proxy may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidecarScope {
    /// The Sidecar object that counts, if there is one.
    pub sidecar: Option<Arc<Config<Sidecar>>>,
    /// Namespace of the proxy.
    pub namespace: String,
    /// Egress listeners; the last one without a port is for all other ports.
    pub egress: Vec<EgressListener>,
    /// Every service that is reached, each host once.
    pub services: Vec<Arc<Service>>,
    /// Places in `services` by host.
    by_host: HashMap<String, usize>,
    /// DestinationRule objects by host of a service.
    pub destination_rules: BTreeMap<String, Vec<Arc<MergedRule>>>,
    /// What happens to unknown hosts.
    pub outbound: OutboundPolicy,
    /// What is refused and may limit the proxy more: Sidecar objects, and settings of the mesh in their form.
    pub lost: Vec<(Lost, Sidecar)>,
}

impl SidecarScope {
    /// The scope of `proxy`.
    #[must_use]
    pub fn new(context: &Context, proxy: &Proxy) -> Self {
        let sidecar = select(context, proxy);
        let mut listeners = sidecar
            .as_ref()
            .map(|sidecar| sidecar.spec.egress.clone())
            .unwrap_or_default();
        if listeners.is_empty() {
            listeners.push(IstioEgressListener {
                hosts: vec!["*/*".to_owned()],
                ..IstioEgressListener::default()
            });
        }
        let egress: Vec<_> = listeners
            .into_iter()
            .map(|spec| listener(context, &proxy.namespace, spec))
            .collect();
        let Imported { services, by_host } = match proxy.kind {
            ProxyKind::Sidecar => imported_services(context, &proxy.namespace, &egress),
            ProxyKind::Router => visible_services(context, &proxy.namespace),
        };
        let destination_rules = services
            .iter()
            .map(|service| {
                (
                    service.hostname.clone(),
                    context.destination_rules.find(&proxy.namespace, service),
                )
            })
            .filter(|(_, rules)| !rules.is_empty())
            .collect();
        let lost = lost(context, proxy, sidecar.as_deref());
        Self {
            outbound: outbound_policy(context, sidecar.as_deref(), &lost),
            lost,
            namespace: proxy.namespace.clone(),
            sidecar,
            egress,
            services,
            by_host,
            destination_rules,
        }
    }

    /// The service of that host.
    #[must_use]
    pub fn service(&self, hostname: &str) -> Option<&Arc<Service>> {
        self.services.get(*self.by_host.get(hostname)?)
    }

    /// The egress listener of that port, else the one for all other ports.
    ///
    /// A listener on a Unix socket has port 0 and is found by its path.
    #[must_use]
    pub fn egress_for(&self, port: u32, bind: &str) -> Option<&EgressListener> {
        self.egress
            .iter()
            .find(|listener| match &listener.spec.port {
                None => true,
                Some(own) if own.number != port => false,
                Some(_) => port != 0 || listener.spec.bind == bind,
            })
    }

    /// The DestinationRule for traffic of `proxy` to that host.
    #[must_use]
    pub fn destination_rule(&self, proxy: &Proxy, hostname: &str) -> Option<&Arc<MergedRule>> {
        let own = |rule: &&Arc<MergedRule>| {
            let selector = rule.spec.workload_selector.as_ref();
            rule.meta.namespace == self.namespace
                && selector
                    .is_some_and(|own| service_entry::selects(&own.match_labels, &proxy.labels))
        };
        let rules = self.destination_rules.get(hostname)?;
        let own = rules.iter().find(own);
        own.or_else(|| self.general_rule(hostname))
    }

    /// The DestinationRule for traffic that others send to that host: one with a selector is for the callers that it selects.
    #[must_use]
    pub fn general_rule(&self, hostname: &str) -> Option<&Arc<MergedRule>> {
        let general = |rule: &&Arc<MergedRule>| rule.spec.workload_selector.is_none();
        self.destination_rules.get(hostname)?.iter().rfind(general)
    }
}

/// All Sidecar objects: those with a selector first, then by age.
pub(super) fn collect(
    objects: &[Arc<Object>],
    problems: &mut Vec<Problem>,
) -> Vec<Arc<Config<Sidecar>>> {
    let mut found: Vec<_> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Sidecar(spec) => Some(Arc::new(Config {
                meta: Meta::of(object),
                spec: (**spec).clone(),
            })),
            _ => None,
        })
        .collect();
    found.sort_by(|a, b| {
        let general = |config: &Config<Sidecar>| config.spec.workload_selector.is_none();
        (general(a), a.meta.age()).cmp(&(general(b), b.meta.age()))
    });
    let mut first: BTreeMap<&str, &Meta> = BTreeMap::new();
    for config in &found {
        if config.spec.workload_selector.is_some() {
            continue;
        }
        let meta = &config.meta;
        let other = *first.entry(&meta.namespace).or_insert(meta);
        if other != meta {
            problems.push(Problem {
                object: format!("Sidecar {}/{}", meta.namespace, meta.name),
                origin: meta.origin.clone(),
                text: format!(
                    "it does not count: Sidecar {}/{} has no workloadSelector either and comes first",
                    other.namespace, other.name
                ),
            });
        }
    }
    found
}

/// How closely a Sidecar of `namespace` is for `proxy`, the closest first: its workload, its namespace, the mesh.
fn rank(
    context: &Context,
    proxy: &Proxy,
    namespace: &str,
    selector: Option<&WorkloadSelector>,
) -> Option<u8> {
    let own = *namespace == *proxy.namespace;
    match selector {
        _ if proxy.kind == ProxyKind::Router => None,
        Some(selector) => {
            let selected = own && service_entry::selects(&selector.labels, &proxy.labels);
            selected.then_some(0)
        }
        None if own => Some(1),
        None => (*namespace == *context.root_namespace()).then_some(2),
    }
}

fn rank_of(context: &Context, proxy: &Proxy, config: &Config<Sidecar>) -> Option<u8> {
    let selector = config.spec.workload_selector.as_ref();
    rank(context, proxy, &config.meta.namespace, selector)
}

fn select(context: &Context, proxy: &Proxy) -> Option<Arc<Config<Sidecar>>> {
    let all = context.sidecars.iter();
    let ranked = all.filter_map(|config| Some((rank_of(context, proxy, config)?, config)));
    ranked
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, config)| config.clone())
}

/// The refused Sidecar objects that are no less for `proxy` than the one in force; refused settings of the mesh count as one
/// where that says nothing.
fn lost(
    context: &Context,
    proxy: &Proxy,
    chosen: Option<&Config<Sidecar>>,
) -> Vec<(Lost, Sidecar)> {
    let most = chosen.and_then(|config| rank_of(context, proxy, config));
    let counts = |lost: &Lost, spec: &Sidecar| {
        let namespace = lost.namespace.as_deref().unwrap_or(&proxy.namespace);
        let own = rank(context, proxy, namespace, spec.workload_selector.as_ref());
        own.is_some_and(|own| most.is_none_or(|most| own <= most))
    };
    let unsaid = proxy.kind == ProxyKind::Sidecar
        && chosen.is_none_or(|config| config.spec.outbound_traffic_policy.is_none());
    let mut found = Vec::new();
    for lost in &context.lost {
        match &lost.spec {
            Some(Spec::Sidecar(spec)) if counts(lost, spec) => {
                found.push((lost.clone(), (**spec).clone()));
            }
            Some(Spec::MeshConfig(mesh)) if mesh.outbound_traffic_policy.is_some() && unsaid => {
                let limit = Sidecar {
                    outbound_traffic_policy: Some(OutboundTrafficPolicy::default()),
                    ..Sidecar::default()
                };
                found.push((lost.clone(), limit));
            }
            _ => {}
        }
    }
    found
}

fn outbound_policy(
    context: &Context,
    sidecar: Option<&Config<Sidecar>>,
    lost: &[(Lost, Sidecar)],
) -> OutboundPolicy {
    // Of what was refused a policy is kept only if it lets no unknown host be reached.
    let limits = |(_, spec): &(Lost, Sidecar)| spec.outbound_traffic_policy.is_some();
    if lost.iter().any(limits) {
        return OutboundPolicy {
            mode: OutboundMode::RegistryOnly,
            egress_proxy: None,
        };
    }
    if let Some(policy) = sidecar.and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref())
    {
        return OutboundPolicy {
            mode: policy.mode,
            egress_proxy: policy.egress_proxy.clone(),
        };
    }
    let mode = match context
        .mesh
        .outbound_traffic_policy
        .as_ref()
        .map(|policy| policy.mode)
    {
        None | Some(MeshOutboundMode::AllowAny) => OutboundMode::AllowAny,
        Some(MeshOutboundMode::RegistryOnly) => OutboundMode::RegistryOnly,
        Some(MeshOutboundMode::AllowAnyDynamicDns) => OutboundMode::AllowAnyDynamicDns,
    };
    OutboundPolicy {
        mode,
        egress_proxy: None,
    }
}

/// Hosts of one namespace that an egress listener imports.
#[derive(Debug, Default)]
struct Imports {
    hosts: Vec<String>,
    excluded: Vec<String>,
}

impl Imports {
    fn covers(&self, name: &str) -> bool {
        self.hosts.iter().any(|host| host::subset_of(name, host))
    }

    fn covers_rule(&self, name: &str, semantics: Semantics) -> bool {
        match semantics {
            Semantics::Gateway => self.covers(name),
            Semantics::VirtualService | Semantics::Ingress => {
                self.hosts.iter().any(|host| host::matches(name, host))
            }
        }
    }

    fn excludes(&self, name: &str) -> bool {
        self.excluded.iter().any(|host| host::subset_of(name, host))
    }
}

/// Imports by namespace; `*` is any.
fn imports(hosts: &[String], own: &str) -> BTreeMap<String, Imports> {
    let mut found: BTreeMap<String, Imports> = BTreeMap::new();
    for entry in hosts {
        let Some((namespace, name)) = entry.split_once('/') else {
            continue;
        };
        let (namespace, excluded) = match namespace.strip_prefix('~') {
            Some("") => ("*", true),
            Some(rest) => (rest, true),
            None => (namespace, false),
        };
        let namespace = if namespace == "." { own } else { namespace };
        let imports = found.entry(namespace.to_owned()).or_default();
        let list = if excluded {
            &mut imports.excluded
        } else {
            &mut imports.hosts
        };
        list.push(name.to_owned());
    }
    found
}

fn listener(context: &Context, namespace: &str, spec: IstioEgressListener) -> EgressListener {
    let imports = imports(&spec.hosts, namespace);
    let mut listener = EgressListener {
        spec,
        services: Vec::new(),
        virtual_services: select_rules(context, namespace, &imports),
        closest: BTreeMap::new(),
    };
    listener.services = select_services(context, namespace, &imports, &listener);
    listener.closest = closest_rules(&listener.virtual_services, &listener.services);
    listener
}

fn excluded(imports: &BTreeMap<String, Imports>, namespace: &str, name: &str) -> bool {
    [namespace, "*"]
        .iter()
        .filter_map(|key| imports.get(*key))
        .any(|imports| imports.excludes(name))
}

fn select_rules(
    context: &Context,
    own: &str,
    imports: &BTreeMap<String, Imports>,
) -> Vec<Arc<VirtualServiceRule>> {
    let imported = |rule: &Arc<VirtualServiceRule>| {
        let namespace = rule.meta.namespace.as_str();
        [namespace, "*"]
            .iter()
            .filter_map(|key| imports.get(*key))
            .any(|import| {
                rule.spec.hosts.iter().any(|name| {
                    import.covers_rule(name, rule.semantics) && !excluded(imports, namespace, name)
                })
            })
    };
    let mut rules = context.virtual_services_for(own, MESH_GATEWAY);
    rules.retain(imported);
    rules
}

/// The services to choose from. Where all imports are full names of namespaces, istiod looks them up: of several services with
/// one host in one namespace that finds the first one, while otherwise the ports of all of them count.
fn candidates(
    context: &Context,
    own: &str,
    imports: &BTreeMap<String, Imports>,
) -> Vec<Arc<Service>> {
    let named = |(namespace, import): (&String, &Imports)| {
        let exact = !import.hosts.iter().any(|name| host::is_wildcard(name));
        exact && (namespace != "*" || import.hosts.is_empty())
    };
    if !imports.iter().all(named) {
        return context.services_for(own);
    }
    let mut found: Vec<Arc<Service>> = Vec::new();
    for (namespace, import) in imports {
        let names: BTreeSet<&String> = import.hosts.iter().collect();
        let services = names.into_iter().filter_map(|name| {
            let by_namespace = context.services_by_host(name);
            by_namespace.get(namespace.as_str()).copied().cloned()
        });
        found.extend(services.filter(|service| context.is_visible(service, own)));
    }
    found.sort_by(|a, b| a.age().cmp(&b.age()));
    found
}

fn select_services(
    context: &Context,
    own: &str,
    imports: &BTreeMap<String, Imports>,
    listener: &EgressListener,
) -> Vec<Arc<Service>> {
    let mut found: Vec<Arc<Service>> = Vec::new();
    for service in candidates(context, own, imports) {
        if excluded(imports, &service.namespace, &service.hostname) {
            continue;
        }
        for key in [service.namespace.as_str(), "*"] {
            let Some(import) = imports
                .get(key)
                .filter(|import| import.covers(&service.hostname))
            else {
                continue;
            };
            if let Some(service) = on_port(&service, listener) {
                found.push(with_imported_aliases(&service, import));
                break;
            }
        }
    }
    let chosen = prefer_own_namespace(&found, own);
    found.retain(|service| chosen.get(&service.hostname) == Some(&service.namespace));
    found
}

/// Of services with one host: the one in the proxy's own namespace, else of Kubernetes, else the oldest.
fn prefer_own_namespace(found: &[Arc<Service>], own: &str) -> BTreeMap<String, String> {
    let mut best: BTreeMap<&str, &Arc<Service>> = BTreeMap::new();
    for service in found {
        let known = best.get(service.hostname.as_str());
        let better = known.is_none_or(|known| {
            let kube = |service: &Service| service.registry == Registry::Kubernetes;
            service.namespace == own || (!kube(known) && kube(service) && known.namespace != own)
        });
        if better {
            best.insert(&service.hostname, service);
        }
    }
    best.into_iter()
        .map(|(hostname, service)| (hostname.to_owned(), service.namespace.clone()))
        .collect()
}

/// The service with the listener's port only; nothing if it lacks that port.
fn on_port(service: &Arc<Service>, listener: &EgressListener) -> Option<Arc<Service>> {
    if !listener.matches_port() {
        return Some(service.clone());
    }
    let number = listener.spec.port.as_ref().map_or(0, |port| port.number);
    let port = service.port(number)?;
    Some(if service.ports.len() == 1 {
        service.clone()
    } else {
        Arc::new(service.with_port(port))
    })
}

fn with_imported_aliases(service: &Arc<Service>, import: &Imports) -> Arc<Service> {
    if service.aliases.iter().all(|alias| import.covers(alias)) {
        return service.clone();
    }
    let mut copy = (**service).clone();
    copy.aliases.retain(|alias| import.covers(alias));
    Arc::new(copy)
}

/// For each service, the rule whose host covers it most closely; of two with one host the first.
fn closest_rules(
    rules: &[Arc<VirtualServiceRule>],
    services: &[Arc<Service>],
) -> BTreeMap<String, (String, String)> {
    let mut by_host: BTreeMap<String, &VirtualServiceRule> = BTreeMap::new();
    for rule in rules {
        for name in &rule.spec.hosts {
            by_host.entry(name.clone()).or_insert(rule);
        }
    }
    services
        .iter()
        .filter_map(|service| {
            let rule = host::closest(&service.hostname, &by_host)?;
            Some((
                service.hostname.clone(),
                (rule.meta.namespace.clone(), rule.meta.name.clone()),
            ))
        })
        .collect()
}

/// All services that a gateway may see; of one host that Kubernetes has, else the first one, be it of another namespace.
fn visible_services(context: &Context, own: &str) -> Imported {
    let mut found = Imported::default();
    for service in context.services_for(own) {
        found.add(&service);
    }
    found
}

/// The services of all listeners, and those that imported rules lead to.
fn imported_services(context: &Context, own: &str, egress: &[EgressListener]) -> Imported {
    let mut found = Imported::default();
    for listener in egress {
        for service in &listener.services {
            found.add(service);
        }
        for rule in &listener.virtual_services {
            for (name, ports) in rule.destinations(own) {
                let Some(service) = destination_service(context, own, name) else {
                    continue;
                };
                let trimmed = if listener.matches_port() {
                    on_port(service, listener)
                } else {
                    on_ports(service, &ports)
                };
                if let Some(service) = trimmed {
                    found.add(&service);
                }
            }
        }
    }
    found
}

/// The service that a rule seen from `own` means: of its own namespace, else of Kubernetes, else the oldest visible.
fn destination_service<'a>(
    context: &'a Context,
    own: &str,
    name: &str,
) -> Option<&'a Arc<Service>> {
    let by_namespace = context.services_by_host(name);
    if let Some(service) = by_namespace.get(own) {
        return Some(service);
    }
    by_namespace
        .into_values()
        .filter(|service| context.is_visible(service, own))
        .min_by_key(|service| {
            (
                service.registry != Registry::Kubernetes,
                service.creation_time,
            )
        })
}

fn on_ports(service: &Arc<Service>, ports: &BTreeSet<u32>) -> Option<Arc<Service>> {
    if ports.is_empty() || ports.contains(&0) {
        return Some(service.clone());
    }
    let mut copy = (**service).clone();
    copy.ports.retain(|port| ports.contains(&port.port));
    match copy.ports.len() {
        0 => None,
        count if count == service.ports.len() => Some(service.clone()),
        _ => Some(Arc::new(copy)),
    }
}
