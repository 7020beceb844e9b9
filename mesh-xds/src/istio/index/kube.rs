//! Kubernetes objects as services, endpoints and workloads.
//!
//! Endpoints come from EndpointSlice objects. A Service with a selector and without any slice takes the Pods (and
//! WorkloadEntry objects) that its selector chooses, as Kubernetes' endpoint controller would. A Deployment (or another kind
//! with a Pod template) stands for workloads that no Pod object shows: it gives a workload with the template's labels and
//! service account, for a sidecar to be started as, but no address and so no endpoint.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::labels::{ByLabels, Selectors};
use super::proxy_config;
use super::service::{
    Catalog, Health, Instance, Port, Protocol, Registry, Resolution, Service, Workload,
};
use super::service_entry::{entry_workload, is_plain, labelled_locality};
use crate::istio::api::k8s::{self, IntOrString, SERVICE_NAME};
use crate::istio::api::mesh_config::MeshProxyConfig;
use crate::istio::api::{Object, Spec, WorkloadEntry};

/// The services, endpoints and workloads that Kubernetes objects declare; `domain` is the cluster's DNS domain.
#[must_use]
pub fn collect(objects: &[Arc<Object>], domain: &str) -> Catalog {
    let (pods, entries) = (pods(objects), entries(objects));
    let found = Found::new(&pods, &entries);
    let mut catalog = Catalog {
        workloads: pods.iter().map(|pod| Arc::clone(&pod.workload)).collect(),
        ..Catalog::default()
    };
    catalog.workloads.extend(templates(objects, &found));
    let slices = slices(objects);
    for object in objects {
        let Spec::Service(spec) = &object.spec else {
            continue;
        };
        let service = service(object, spec, domain);
        let named = (&*object.namespace, &*object.name);
        let instances = match slices.get(&named) {
            Some(slices) => slices
                .iter()
                .flat_map(|(object, slice)| slice_instances(object, slice, &found))
                .collect(),
            None => selected(object, spec, &found),
        };
        let known = catalog.instances.entry(service.key()).or_default();
        known.extend(instances);
        catalog.services.push(service);
    }
    catalog
}

/// A Pod that runs or is going to.
struct Pod<'o> {
    workload: Arc<Workload>,
    spec: &'o k8s::Pod,
}

/// A WorkloadEntry that a Service can use: one at an address.
struct Entry<'o> {
    workload: Arc<Workload>,
    spec: &'o WorkloadEntry,
}

/// Namespace and a name.
type Named<'a> = (&'a str, &'a str);

/// Pods and WorkloadEntry objects, by what refers to them.
struct Found<'a> {
    pods: ByLabels<'a, &'a Pod<'a>>,
    entries: ByLabels<'a, &'a Entry<'a>>,
    by_name: HashMap<Named<'a>, &'a Pod<'a>>,
    by_address: HashMap<Named<'a>, &'a Pod<'a>>,
}

impl<'a> Found<'a> {
    fn new(pods: &'a [Pod<'a>], entries: &'a [Entry<'a>]) -> Self {
        let (mut by_name, mut by_address) = (HashMap::new(), HashMap::new());
        for pod in pods {
            let workload = &*pod.workload;
            let namespace = workload.namespace.as_str();
            by_name
                .entry((namespace, workload.name.as_str()))
                .or_insert(pod);
            for address in &workload.addresses {
                by_address
                    .entry((namespace, address.as_str()))
                    .or_insert(pod);
            }
        }
        let entries = entries.iter().map(|entry| {
            let workload = &*entry.workload;
            (workload.namespace.as_str(), &workload.labels, entry)
        });
        let workloads = pods.iter().map(|pod| {
            let workload = &*pod.workload;
            (workload.namespace.as_str(), &workload.labels, pod)
        });
        Self {
            pods: ByLabels::new(workloads),
            entries: ByLabels::new(entries),
            by_name,
            by_address,
        }
    }
}

fn pods(objects: &[Arc<Object>]) -> Vec<Pod<'_>> {
    let owners = deployments(objects).map(|(owner, template)| {
        let made = &template.template.metadata.labels;
        (&*owner.namespace, made, owner)
    });
    let owners = Selectors::new(owners);
    let mut pods = Vec::new();
    for object in objects {
        let Spec::Pod(pod) = &object.spec else {
            continue;
        };
        // A Pod that has ended serves nothing.
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            continue;
        }
        let owner = owners.first_of(&object.namespace, &object.labels);
        pods.push(Pod {
            workload: Arc::new(workload(object, pod, owner)),
            spec: pod,
        });
    }
    pods
}

fn entries(objects: &[Arc<Object>]) -> Vec<Entry<'_>> {
    let found = objects.iter().filter_map(|object| match &object.spec {
        Spec::WorkloadEntry(spec) if is_plain(spec) => Some(Entry {
            workload: Arc::new(entry_workload(object, spec)),
            spec,
        }),
        _ => None,
    });
    found.collect()
}

fn deployments(objects: &[Arc<Object>]) -> impl Iterator<Item = (&Object, &k8s::Deployment)> {
    objects.iter().filter_map(|object| match &object.spec {
        Spec::Deployment(spec) => Some((&**object, &**spec)),
        _ => None,
    })
}

fn workload(object: &Object, pod: &k8s::Pod, owner: Option<&Object>) -> Workload {
    let mut addresses: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    if addresses.is_empty() && !pod.status.pod_ip.is_empty() {
        addresses.push(pod.status.pod_ip.clone());
    }
    let not_ready = |c: &k8s::Condition| c.kind == "Ready" && c.status != "True";
    let locality = [
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.istio.io/subzone",
    ];
    Workload {
        name: object.name.to_string(),
        workload_name: owner.unwrap_or(object).name.to_string(),
        namespace: object.namespace.to_string(),
        addresses,
        labels: object.labels.clone(),
        service_account: account(&pod.spec),
        node: pod.spec.node_name.clone(),
        locality: match labelled_locality(&object.labels) {
            Some(locality) => locality,
            None => locality
                .iter()
                .map_while(|label| object.labels.get(*label).map(String::as_str))
                .collect::<Vec<_>>()
                .join("/"),
        },
        network: object
            .labels
            .get("topology.istio.io/network")
            .cloned()
            .unwrap_or_default(),
        not_ready: pod.status.conditions.iter().any(not_ready),
        proxy_config: proxy_config(&object.annotations),
        origin: object.origin.clone(),
    }
}

/// The annotation's settings; one that cannot be read was refused with its object.
fn proxy_config(annotations: &BTreeMap<String, String>) -> Option<Box<MeshProxyConfig>> {
    let text = annotations.get(proxy_config::ANNOTATION)?;
    proxy_config::parse_annotation(text).ok().map(Box::new)
}

/// Kubernetes runs Pods without a service account as `default`.
fn account(pod: &k8s::PodSpec) -> String {
    if pod.service_account_name.is_empty() {
        "default".to_owned()
    } else {
        pod.service_account_name.clone()
    }
}

/// Workloads of templates that no Pod shows.
fn templates(objects: &[Arc<Object>], found: &Found<'_>) -> Vec<Arc<Workload>> {
    let shown = |object: &Object, template: &k8s::Deployment| {
        let labels = &template.template.metadata.labels;
        let mut pods = found.pods.chosen(&object.namespace, labels);
        pods.next().is_some()
    };
    deployments(objects)
        .filter(|(object, template)| !shown(object, template))
        .map(|(object, template)| {
            Arc::new(Workload {
                name: object.name.to_string(),
                workload_name: object.name.to_string(),
                namespace: object.namespace.to_string(),
                labels: template.template.metadata.labels.clone(),
                service_account: account(&template.template.spec),
                proxy_config: proxy_config(&template.template.metadata.annotations),
                origin: object.origin.clone(),
                ..Workload::default()
            })
        })
        .collect()
}

fn service(object: &Object, spec: &k8s::Service, domain: &str) -> Service {
    let external = spec.kind == "ExternalName" && !spec.external_name.is_empty();
    let headless = spec.cluster_ip == "None" || spec.cluster_ips.iter().any(|ip| ip == "None");
    let mut addresses = spec.cluster_ips.clone();
    if addresses.is_empty() && !spec.cluster_ip.is_empty() {
        addresses.push(spec.cluster_ip.clone());
    }
    addresses.retain(|address| address != "None");
    let export_to = object
        .annotations
        .get("networking.istio.io/exportTo")
        .map(String::as_str);
    Service {
        hostname: hostname(object, &object.name, domain),
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        addresses,
        ports: spec.ports.iter().map(port).collect(),
        resolution: match (external, headless) {
            (_, true) => Resolution::Passthrough,
            (true, false) => Resolution::Alias,
            (false, false) => Resolution::ClientSideLb,
        },
        registry: Registry::Kubernetes,
        mesh_external: false,
        labels: object.labels.clone(),
        selector: spec.selector.clone(),
        export_to: export_to
            .into_iter()
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
        external_name: external.then(|| spec.external_name.clone()),
        aliases: Vec::new(),
        headless,
        creation_time: object.creation_timestamp,
        subject_alt_names: Vec::new(),
        target_ports: BTreeMap::new(),
        races: false,
        origin: object.origin.clone(),
    }
}

fn hostname(object: &Object, name: &str, domain: &str) -> String {
    format!("{name}.{}.svc.{domain}", object.namespace)
}

/// Ports of protocols whose servers speak first, or that know no streams of bytes: SMTP, DNS, MySQL, MongoDB. As in Istio
/// nobody waits there for a client's first bytes, whatever the port is called.
const SERVER_FIRST: [u32; 4] = [25, 53, 3306, 27017];

/// A port's protocol: `appProtocol`, else the part of its name before the first dash. Neither: the first bytes decide, unless
/// the number tells.
fn port(port: &k8s::ServicePort) -> Port {
    let declared = port.app_protocol.as_deref().unwrap_or(&port.name);
    let protocol = if port.protocol == "UDP" {
        Protocol::Udp
    } else {
        match declared.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Protocol::Http2,
            "kubernetes.io/ws" => Protocol::Http,
            "kubernetes.io/wss" => Protocol::Https,
            name if name.starts_with("grpc-web") => Protocol::GrpcWeb,
            name => match Protocol::parse(name.split('-').next().unwrap_or_default()) {
                Protocol::Unsupported if SERVER_FIRST.contains(&port.port) => Protocol::Tcp,
                protocol => protocol,
            },
        }
    };
    Port {
        name: port.name.clone(),
        port: port.port,
        protocol,
    }
}

type Slices<'o> = BTreeMap<(&'o str, &'o str), Vec<(&'o Object, &'o k8s::EndpointSlice)>>;

/// Slices by namespace and name of their Service.
fn slices(objects: &[Arc<Object>]) -> Slices<'_> {
    let mut slices = Slices::new();
    for object in objects {
        if let (Spec::EndpointSlice(slice), Some(name)) =
            (&object.spec, object.labels.get(SERVICE_NAME))
        {
            let named = (&*object.namespace, name.as_str());
            slices.entry(named).or_default().push((object, slice));
        }
    }
    slices
}

fn slice_instances(
    object: &Object,
    slice: &k8s::EndpointSlice,
    known: &Found<'_>,
) -> Vec<Instance> {
    let mut found = Vec::new();
    // As in Istio: a name is no address of an endpoint.
    if slice.address_type == "FQDN" {
        return found;
    }
    for endpoint in &slice.endpoints {
        let conditions = &endpoint.conditions;
        let health = if conditions.ready.unwrap_or(true) {
            Health::Healthy
        } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
            Health::Draining
        } else {
            Health::Unhealthy
        };
        for address in &endpoint.addresses {
            let workload = behind(object, endpoint, address, known);
            let ports = endpoint.ports.as_ref().unwrap_or(&slice.ports);
            found.extend(ports.iter().filter_map(|port| {
                Some(Instance {
                    port_name: port.name.clone(),
                    service_port: None,
                    address: address.clone(),
                    port: port.port?,
                    weight: 0,
                    health,
                    workload: Arc::clone(&workload),
                })
            }));
        }
    }
    found
}

/// The workload behind an endpoint: the Pod that it refers to, else the one with that address, else one that is not known.
fn behind(
    object: &Object,
    endpoint: &k8s::Endpoint,
    address: &str,
    known: &Found<'_>,
) -> Arc<Workload> {
    let namespace = &*object.namespace;
    let target = endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod");
    let by_name = target.and_then(|target| known.by_name.get(&(namespace, target.name.as_str())));
    let by_address = || known.by_address.get(&(namespace, address));
    match by_name.or_else(by_address) {
        Some(pod) => Arc::clone(&pod.workload),
        None => Arc::new(Workload {
            namespace: object.namespace.to_string(),
            addresses: vec![address.to_owned()],
            node: endpoint.node_name.clone().unwrap_or_default(),
            ..Workload::default()
        }),
    }
}

/// Endpoints of a Service without slices: the Pods and WorkloadEntry objects that its selector chooses.
fn selected(object: &Object, spec: &k8s::Service, known: &Found<'_>) -> Vec<Instance> {
    let mut found = Vec::new();
    for pod in known.pods.chosen(&object.namespace, &spec.selector) {
        let workload = &pod.workload;
        let ready = !workload.not_ready || spec.publish_not_ready_addresses;
        let Some(address) = address_for(spec, workload) else {
            continue;
        };
        for port in &spec.ports {
            if let Some(target) = target_port(port, pod.spec) {
                found.push(Instance {
                    port_name: port.name.clone(),
                    service_port: Some(port.port),
                    address: address.clone(),
                    port: target,
                    weight: 0,
                    health: if ready {
                        Health::Healthy
                    } else {
                        Health::Unhealthy
                    },
                    workload: Arc::clone(workload),
                });
            }
        }
    }
    for entry in known.entries.chosen(&object.namespace, &spec.selector) {
        found.extend(entry_instances(spec, entry));
    }
    found
}

/// The Pod's address of the family that the Service comes first in.
fn address_for<'w>(spec: &k8s::Service, workload: &'w Workload) -> Option<&'w String> {
    let family = |address: &String| address.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4());
    let first = spec.cluster_ips.first().unwrap_or(&spec.cluster_ip);
    let wanted = family(first);
    let fits = |address: &&String| wanted.is_none() || family(address) == wanted;
    workload
        .addresses
        .iter()
        .find(fits)
        .or(workload.addresses.first())
}

/// The Pod's port behind a port of the Service; `None` if it is named and no container has that name.
fn target_port(port: &k8s::ServicePort, pod: &k8s::Pod) -> Option<u32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::Name(name)) => pod
            .spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .find(|candidate| candidate.name == *name)
            .map(|found| found.container_port),
    }
}

fn entry_instances(spec: &k8s::Service, known: &Entry<'_>) -> Vec<Instance> {
    let entry = known.spec;
    let ports = spec.ports.iter().filter_map(|port| {
        let target = match &port.target_port {
            Some(IntOrString::Int(number)) if *number != 0 => *number,
            Some(IntOrString::Name(name)) => *entry.ports.get(name)?,
            _ => port.port,
        };
        Some((port, entry.ports.get(&port.name).copied().unwrap_or(target)))
    });
    ports
        .map(|(port, number)| Instance {
            port_name: port.name.clone(),
            service_port: Some(port.port),
            address: entry.address.clone(),
            port: number,
            weight: entry.weight,
            health: Health::Healthy,
            workload: Arc::clone(&known.workload),
        })
        .collect()
}

#[cfg(test)]
mod tests;
