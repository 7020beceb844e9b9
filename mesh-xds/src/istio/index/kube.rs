//! Kubernetes objects as services, endpoints and workloads.

use std::sync::Arc;

use super::service::{
    Catalog, Health, Instance, Port, Protocol, Registry, Resolution, Service, ServiceKey, Workload,
};
use super::service_entry::selects;
use crate::istio::api::{Object, Spec, k8s};

/// The services, endpoints and workloads that Kubernetes objects declare; `domain` is the cluster's DNS domain.
#[must_use]
pub fn collect(objects: &[Arc<Object>], domain: &str) -> Catalog {
    let mut catalog = Catalog::default();
    for object in objects {
        match &object.spec {
            Spec::Service(spec) => catalog.services.push(service(object, spec, domain)),
            Spec::Pod(pod) => catalog.workloads.push(Arc::new(workload(object, pod))),
            _ => {}
        }
    }
    for object in objects {
        let Spec::EndpointSlice(slice) = &object.spec else {
            continue;
        };
        let Some(name) = object.labels.get("kubernetes.io/service-name") else {
            continue;
        };
        let key = ServiceKey {
            namespace: object.namespace.to_string(),
            hostname: format!("{name}.{}.svc.{domain}", object.namespace),
        };
        let found = slice_instances(object, slice, &catalog.workloads);
        catalog.instances.entry(key).or_default().extend(found);
    }
    select_pods(objects, &mut catalog);
    catalog
}

/// Does what Kubernetes' own controller does where its EndpointSlice objects are not there: a Service with a selector has
/// the Pods that carry its labels.
fn select_pods(objects: &[Arc<Object>], catalog: &mut Catalog) {
    for object in objects {
        let Spec::Service(spec) = &object.spec else {
            continue;
        };
        let service = catalog
            .services
            .iter()
            .find(|service| service.namespace == *object.namespace && service.name == *object.name);
        let Some(service) = service.filter(|service| !service.selector.is_empty()) else {
            continue;
        };
        if catalog.instances.contains_key(&service.key()) {
            continue;
        }
        let mut found = Vec::new();
        for pod in objects
            .iter()
            .filter(|pod| pod.namespace == object.namespace)
        {
            let Spec::Pod(content) = &pod.spec else {
                continue;
            };
            if selects(&service.selector, &pod.labels) {
                found.extend(pod_instances(pod, content, spec, &catalog.workloads));
            }
        }
        catalog.instances.insert(service.key(), found);
    }
}

fn pod_instances(
    pod: &Object,
    content: &k8s::Pod,
    service: &k8s::Service,
    workloads: &[Arc<Workload>],
) -> Vec<Instance> {
    let known = workloads
        .iter()
        .find(|w| w.namespace == *pod.namespace && w.name == *pod.name);
    let Some((workload, address)) = known.and_then(|w| Some((w, w.addresses.first()?))) else {
        return Vec::new();
    };
    let ready = content
        .status
        .conditions
        .iter()
        .find(|condition| condition.kind == "Ready");
    let ready = ready.is_none_or(|condition| condition.status == "True");
    let healthy = ready || service.publish_not_ready_addresses;
    let containers = content.spec.containers.iter();
    let named: Vec<_> = containers.flat_map(|container| &container.ports).collect();
    let instance = |port: &k8s::ServicePort| {
        let number = match &port.target_port {
            None | Some(k8s::IntOrString::Int(0)) => port.port,
            Some(k8s::IntOrString::Int(number)) => *number,
            Some(k8s::IntOrString::Name(name)) => {
                named.iter().find(|port| port.name == *name)?.container_port
            }
        };
        Some(Instance {
            port_name: port.name.clone(),
            address: address.clone(),
            port: number,
            weight: 0,
            health: if healthy {
                Health::Healthy
            } else {
                Health::Unhealthy
            },
            workload: workload.clone(),
        })
    };
    service.ports.iter().filter_map(instance).collect()
}

fn service(object: &Object, spec: &k8s::Service, domain: &str) -> Service {
    let external = spec.kind == "ExternalName";
    let headless = spec.cluster_ip == "None";
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
        hostname: format!("{}.{}.svc.{domain}", object.name, object.namespace),
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        addresses,
        ports: spec.ports.iter().map(port).collect(),
        resolution: match (external, headless) {
            (true, _) => Resolution::Alias,
            (false, true) => Resolution::Passthrough,
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
        origin: object.origin.clone(),
    }
}

fn port(port: &k8s::ServicePort) -> Port {
    let declared = port.app_protocol.as_deref().unwrap_or(&port.name);
    let protocol = if port.protocol == "UDP" {
        Protocol::Udp
    } else if declared.eq_ignore_ascii_case("kubernetes.io/h2c") {
        Protocol::Http2
    } else if declared
        .get(..8)
        .is_some_and(|start| start.eq_ignore_ascii_case("grpc-web"))
    {
        Protocol::GrpcWeb
    } else {
        Protocol::parse(declared.split('-').next().unwrap_or_default())
    };
    Port {
        name: port.name.clone(),
        port: port.port,
        protocol,
    }
}

fn workload(object: &Object, pod: &k8s::Pod) -> Workload {
    let mut addresses: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    if addresses.is_empty() && !pod.status.pod_ip.is_empty() {
        addresses.push(pod.status.pod_ip.clone());
    }
    Workload {
        name: object.name.to_string(),
        workload_name: object.name.to_string(),
        namespace: object.namespace.to_string(),
        addresses,
        labels: object.labels.clone(),
        service_account: pod.spec.service_account_name.clone(),
        node: pod.spec.node_name.clone(),
        locality: String::new(),
        network: String::new(),
        origin: object.origin.clone(),
    }
}

fn slice_instances(
    object: &Object,
    slice: &k8s::EndpointSlice,
    pods: &[Arc<Workload>],
) -> Vec<Instance> {
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        let ready = endpoint.conditions.ready.unwrap_or(true);
        let health = if ready {
            Health::Healthy
        } else {
            Health::Unhealthy
        };
        for address in &endpoint.addresses {
            let known = pods
                .iter()
                .find(|pod| pod.namespace == *object.namespace && pod.addresses.contains(address));
            let unknown = || {
                Arc::new(Workload {
                    namespace: object.namespace.to_string(),
                    addresses: vec![address.clone()],
                    ..Workload::default()
                })
            };
            let workload = known.cloned().unwrap_or_else(unknown);
            found.extend(slice.ports.iter().filter_map(|port| {
                Some(Instance {
                    port_name: port.name.clone(),
                    address: address.clone(),
                    port: port.port?,
                    weight: 0,
                    health,
                    workload: workload.clone(),
                })
            }));
        }
    }
    found
}
