//! ServiceEntry and WorkloadEntry objects as services and endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::labels::{ByLabels, Labels};
use super::service::{
    Catalog, Health, Instance, Port, Protocol, Registry, Resolution, Service, Workload,
};
use crate::istio::api::service_entry::{
    Location, Resolution as ApiResolution, ServiceEntry, WorkloadEntry,
};
use crate::istio::api::{Object, Spec};

/// The annotation that says how connections to a name with several addresses are made.
const STRATEGY: &str = "istio.io/connect-strategy";

/// The services of all ServiceEntry objects, and their endpoints: listed ones, selected WorkloadEntry objects, and
/// workloads of Kubernetes that are selected.
#[must_use]
pub fn collect(objects: &[Arc<Object>], pods: &[Arc<Workload>]) -> Catalog {
    let entries: Vec<Entry<'_>> = objects.iter().filter_map(workload_entry).collect();
    let selectable = Selectable::new(pods, &entries);
    let mut catalog = Catalog {
        workloads: entries
            .iter()
            .map(|(workload, _)| workload.clone())
            .collect(),
        ..Catalog::default()
    };
    for object in objects {
        let Spec::ServiceEntry(entry) = &object.spec else {
            continue;
        };
        let instances = instances(object, entry, &selectable);
        for (place, host) in entry.hosts.iter().enumerate() {
            if entry.hosts[..place].contains(host) {
                continue;
            }
            let service = service(object, entry, &host.to_ascii_lowercase());
            let known = catalog.instances.entry(service.key()).or_default();
            let mut own = instances.clone();
            if entry.endpoints.is_empty() && entry.workload_selector.is_none() {
                own.extend(host_itself(object, entry, host));
            }
            for instance in own {
                // One name is asked at a time: the first one.
                let taken = |known: &Instance| known.service_port == instance.service_port;
                if entry.resolution != ApiResolution::DnsRoundRobin || !known.iter().any(taken) {
                    known.push(instance);
                }
            }
            catalog.services.push(service);
        }
    }
    catalog
}

/// A WorkloadEntry with its workload.
type Entry<'o> = (Arc<Workload>, &'o WorkloadEntry);

/// What a ServiceEntry may select.
struct Selectable<'a> {
    pods: ByLabels<'a, &'a Arc<Workload>>,
    entries: ByLabels<'a, &'a Entry<'a>>,
}

impl<'a> Selectable<'a> {
    fn new(pods: &'a [Arc<Workload>], entries: &'a [Entry<'a>]) -> Self {
        fn labelled<T>(workload: &Workload, thing: T) -> (&str, &Labels, T) {
            (&workload.namespace, &workload.labels, thing)
        }
        Self {
            pods: ByLabels::new(pods.iter().map(|pod| labelled(pod, pod))),
            entries: ByLabels::new(entries.iter().map(|entry| labelled(&entry.0, entry))),
        }
    }
}

fn workload_entry(object: &Arc<Object>) -> Option<Entry<'_>> {
    let Spec::WorkloadEntry(entry) = &object.spec else {
        return None;
    };
    Some((Arc::new(entry_workload(object, entry)), entry))
}

/// The workload of a WorkloadEntry: it has the labels of the object and, where they do not differ, of its content.
pub(super) fn entry_workload(object: &Object, entry: &WorkloadEntry) -> Workload {
    let mut labels = entry.labels.clone();
    labels.extend(object.labels.clone());
    let own_name = object.labels.get("service.istio.io/workload-name");
    let name = object.annotations.get("istio.io/autoRegistrationGroup");
    Workload {
        name: object.name.to_string(),
        workload_name: name.or(own_name).map_or(&*object.name, |n| n).to_owned(),
        locality: locality_of(&entry.locality, &labels),
        labels,
        ..workload(object, entry)
    }
}

/// `locality` if it is given, else the one that labels name.
fn locality_of(locality: &str, labels: &BTreeMap<String, String>) -> String {
    if !locality.is_empty() {
        return locality.to_owned();
    }
    labelled_locality(labels).unwrap_or_default()
}

/// The locality that a label names; labels cannot hold a slash, so Istio takes dots.
pub(super) fn labelled_locality(labels: &BTreeMap<String, String>) -> Option<String> {
    let label = ["topology.istio.io/locality", "istio-locality"]
        .iter()
        .find_map(|name| labels.get(*name))?;
    Some(if label.contains('/') {
        label.clone()
    } else {
        label.replace('.', "/")
    })
}

fn workload(object: &Object, entry: &WorkloadEntry) -> Workload {
    Workload {
        name: String::new(),
        workload_name: String::new(),
        namespace: object.namespace.to_string(),
        addresses: vec![entry.address.clone()],
        labels: entry.labels.clone(),
        service_account: entry.service_account.clone(),
        node: String::new(),
        locality: locality_of(&entry.locality, &entry.labels),
        network: entry.network.clone(),
        proxy_config: None,
        not_ready: false,
        origin: object.origin.clone(),
    }
}

fn service(object: &Object, entry: &ServiceEntry, host: &str) -> Service {
    let ports = entry.ports.iter().map(|port| Port {
        name: port.name.clone(),
        port: port.number,
        protocol: Protocol::parse(&port.protocol),
    });
    Service {
        hostname: host.to_owned(),
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        addresses: entry
            .addresses
            .iter()
            .filter_map(|address| plain_address(address))
            .collect(),
        ports: ports.collect(),
        resolution: match entry.resolution {
            ApiResolution::None => Resolution::Passthrough,
            ApiResolution::Static => Resolution::ClientSideLb,
            ApiResolution::Dns => Resolution::DnsLb,
            ApiResolution::DnsRoundRobin => Resolution::DnsRoundRobinLb,
            ApiResolution::DynamicDns => Resolution::DynamicDns,
        },
        registry: Registry::External,
        mesh_external: entry.location == Location::MeshExternal,
        labels: object.labels.clone(),
        selector: entry.workload_selector.clone().unwrap_or_default().labels,
        export_to: entry.export_to.iter().cloned().collect(),
        external_name: None,
        aliases: Vec::new(),
        headless: false,
        creation_time: object.creation_timestamp,
        subject_alt_names: entry.subject_alt_names.clone(),
        target_ports: if entry.resolution == ApiResolution::None {
            let own = entry.ports.iter().filter(|port| port.target_port != 0);
            own.map(|port| (port.number, port.target_port)).collect()
        } else {
            BTreeMap::new()
        },
        races: object
            .annotations
            .get(STRATEGY)
            .is_some_and(|strategy| strategy.eq_ignore_ascii_case("RACE_FIRST_TCP_CONNECT")),
        origin: object.origin.clone(),
    }
}

/// An IP address or a network; a network of one address is that address, anything else does not count.
fn plain_address(address: &str) -> Option<String> {
    if address.parse::<IpAddr>().is_ok() {
        return Some(address.to_owned());
    }
    let (ip, bits) = address.split_once('/')?;
    let parsed: IpAddr = ip.parse().ok()?;
    let bits: u8 = bits.parse().ok()?;
    let full = if parsed.is_ipv4() { 32 } else { 128 };
    match bits {
        bits if bits == full => Some(ip.to_owned()),
        bits if bits < full => Some(address.to_owned()),
        _ => None,
    }
}

fn instances(object: &Object, entry: &ServiceEntry, known: &Selectable<'_>) -> Vec<Instance> {
    let mut found = Vec::new();
    for (index, endpoint) in entry.endpoints.iter().enumerate() {
        let mut workload = workload(object, endpoint);
        workload.workload_name = format!("{}-{index}", object.name);
        let workload = Arc::new(workload);
        found.extend(of_endpoint(entry, endpoint, &workload));
    }
    let Some(selector) = &entry.workload_selector else {
        return found;
    };
    let mut pods = known.pods.selected(&object.namespace, &selector.labels);
    pods.retain(|pod| !pod.not_ready);
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    for pod in pods {
        let Some(address) = pod.addresses.first() else {
            continue;
        };
        let endpoint = WorkloadEntry {
            address: address.clone(),
            ..WorkloadEntry::default()
        };
        found.extend(of_endpoint(entry, &endpoint, pod));
    }
    let mut entries = known.entries.selected(&object.namespace, &selector.labels);
    // What stands at a name or a socket needs a service whose endpoints are looked up.
    entries.retain(|(_, own)| is_by_name(entry) || is_plain(own));
    entries.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    for (workload, endpoint) in entries {
        found.extend(of_endpoint(entry, endpoint, workload));
    }
    found
}

/// Whether endpoints are found by asking DNS.
fn is_by_name(entry: &ServiceEntry) -> bool {
    matches!(
        entry.resolution,
        ApiResolution::Dns | ApiResolution::DnsRoundRobin
    )
}

/// Whether the workload has an IP address, or none that is known.
pub(super) fn is_plain(entry: &WorkloadEntry) -> bool {
    entry.address.is_empty() || entry.address.parse::<IpAddr>().is_ok()
}

/// Whether `labels` hold all of `selector`.
#[must_use]
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

fn of_endpoint(
    entry: &ServiceEntry,
    endpoint: &WorkloadEntry,
    workload: &Arc<Workload>,
) -> Vec<Instance> {
    let unix = endpoint.address.starts_with("unix://");
    let to_instance = |port: &crate::istio::api::service_entry::ServicePort| {
        let target = if port.target_port == 0 {
            port.number
        } else {
            port.target_port
        };
        Instance {
            port_name: port.name.clone(),
            service_port: Some(port.number),
            address: endpoint.address.clone(),
            port: if unix {
                0
            } else {
                endpoint.ports.get(&port.name).copied().unwrap_or(target)
            },
            weight: endpoint.weight,
            health: Health::Healthy,
            workload: workload.clone(),
        }
    };
    entry.ports.iter().map(to_instance).collect()
}

/// Without endpoints the host itself is asked of DNS.
fn host_itself(object: &Object, entry: &ServiceEntry, host: &str) -> Vec<Instance> {
    if !is_by_name(entry) || host.starts_with('*') {
        return Vec::new();
    }
    let endpoint = WorkloadEntry {
        address: host.to_owned(),
        ..WorkloadEntry::default()
    };
    let mut workload = workload(object, &endpoint);
    workload.workload_name = object.name.to_string();
    let workload = Arc::new(workload);
    of_endpoint(entry, &endpoint, &workload)
}
