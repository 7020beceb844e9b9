//! Kubernetes objects as services, endpoints and workloads.
//!
//! Endpoints come from EndpointSlice objects. A Service with a selector and without any slice takes the Pods (and
//! WorkloadEntry objects) that its selector chooses, as Kubernetes' endpoint controller would. A Deployment (or another kind
//! with a Pod template) stands for workloads that no Pod object shows: it gives a workload with the template's labels and
//! service account, for a sidecar to be started as, but no address and so no endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::service::{
    Catalog, Health, Instance, Port, Protocol, Registry, Resolution, Service, Workload,
};
use super::service_entry::selects;
use crate::istio::api::k8s::{self, IntOrString};
use crate::istio::api::{Object, Spec};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The services, endpoints and workloads that Kubernetes objects declare; `domain` is the cluster's DNS domain.
#[must_use]
pub fn collect(objects: &[Arc<Object>], domain: &str) -> Catalog {
    let pods = pods(objects);
    let mut catalog = Catalog {
        workloads: pods.iter().map(|pod| Arc::clone(&pod.workload)).collect(),
        ..Catalog::default()
    };
    catalog.workloads.extend(templates(objects, &pods));
    let slices = slices(objects);
    for object in objects {
        let Spec::Service(spec) = &object.spec else {
            continue;
        };
        let service = service(object, spec, domain);
        let named = (&*object.namespace, &*object.name);
        let found = match slices.get(&named) {
            Some(slices) => slices
                .iter()
                .flat_map(|(object, slice)| slice_instances(object, slice, &pods))
                .collect(),
            None => selected(object, spec, objects, &pods),
        };
        let known = catalog.instances.entry(service.key()).or_default();
        known.extend(found);
        catalog.services.push(service);
    }
    catalog
}

/// A Pod that runs or is going to.
struct Pod<'o> {
    workload: Arc<Workload>,
    spec: &'o k8s::Pod,
    ready: bool,
}

fn pods(objects: &[Arc<Object>]) -> Vec<Pod<'_>> {
    let owners: Vec<(&Object, &k8s::Deployment)> = deployments(objects).collect();
    let mut pods = Vec::new();
    for object in objects {
        let Spec::Pod(pod) = &object.spec else {
            continue;
        };
        // A Pod that has ended serves nothing.
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            continue;
        }
        let owner = owners.iter().find(|(owner, template)| {
            owner.namespace == object.namespace && is_of(template, &object.labels)
        });
        let not_ready = |c: &k8s::Condition| c.kind == "Ready" && c.status != "True";
        pods.push(Pod {
            workload: Arc::new(workload(object, pod, owner.map(|(owner, _)| *owner))),
            spec: pod,
            ready: !pod.status.conditions.iter().any(not_ready),
        });
    }
    pods
}

fn deployments(objects: &[Arc<Object>]) -> impl Iterator<Item = (&Object, &k8s::Deployment)> {
    objects.iter().filter_map(|object| match &object.spec {
        Spec::Deployment(spec) => Some((&**object, &**spec)),
        _ => None,
    })
}

/// Whether Pods of these labels are made from the template.
fn is_of(template: &k8s::Deployment, labels: &BTreeMap<String, String>) -> bool {
    let wanted = &template.template.metadata.labels;
    !wanted.is_empty() && selects(wanted, labels)
}

fn workload(object: &Object, pod: &k8s::Pod, owner: Option<&Object>) -> Workload {
    let mut addresses: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    if addresses.is_empty() && !pod.status.pod_ip.is_empty() {
        addresses.push(pod.status.pod_ip.clone());
    }
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
        locality: match object.labels.get("istio-locality") {
            // Labels cannot hold a slash, so Istio takes dots.
            Some(locality) => locality.replace('.', "/"),
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
        origin: object.origin.clone(),
    }
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
fn templates(objects: &[Arc<Object>], pods: &[Pod<'_>]) -> Vec<Arc<Workload>> {
    let shown = |object: &Object, template: &k8s::Deployment| {
        pods.iter().any(|pod| {
            *pod.workload.namespace == *object.namespace && is_of(template, &pod.workload.labels)
        })
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
                origin: object.origin.clone(),
                ..Workload::default()
            })
        })
        .collect()
}

fn service(object: &Object, spec: &k8s::Service, domain: &str) -> Service {
    let external = spec.kind == "ExternalName";
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

fn hostname(object: &Object, name: &str, domain: &str) -> String {
    format!("{name}.{}.svc.{domain}", object.namespace)
}

/// A port's protocol: `appProtocol`, else the part of its name before the first dash. Neither: the first bytes decide.
fn port(port: &k8s::ServicePort) -> Port {
    let declared = port.app_protocol.as_deref().unwrap_or(&port.name);
    let protocol = if port.protocol == "UDP" {
        Protocol::Udp
    } else {
        match declared.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" => Protocol::Http2,
            "kubernetes.io/ws" => Protocol::Http,
            "kubernetes.io/wss" => Protocol::Https,
            name if name == "grpc-web" || name.starts_with("grpc-web-") => Protocol::GrpcWeb,
            name => Protocol::parse(name.split('-').next().unwrap_or_default()),
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

fn slice_instances(object: &Object, slice: &k8s::EndpointSlice, pods: &[Pod<'_>]) -> Vec<Instance> {
    let mut found = Vec::new();
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
            let workload = behind(object, endpoint, address, pods);
            found.extend(slice.ports.iter().filter_map(|port| {
                Some(Instance {
                    port_name: port.name.clone(),
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
    address: &String,
    pods: &[Pod<'_>],
) -> Arc<Workload> {
    let near = |pod: &&Pod<'_>| *pod.workload.namespace == *object.namespace;
    let target = endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod");
    let by_name = target.and_then(|target| {
        pods.iter()
            .filter(near)
            .find(|pod| pod.workload.name == target.name)
    });
    let by_address = || {
        pods.iter()
            .filter(near)
            .find(|pod| pod.workload.addresses.contains(address))
    };
    match by_name.or_else(by_address) {
        Some(pod) => Arc::clone(&pod.workload),
        None => Arc::new(Workload {
            namespace: object.namespace.to_string(),
            addresses: vec![address.clone()],
            node: endpoint.node_name.clone().unwrap_or_default(),
            ..Workload::default()
        }),
    }
}

/// Endpoints of a Service without slices: the Pods and WorkloadEntry objects that its selector chooses.
fn selected(
    object: &Object,
    spec: &k8s::Service,
    objects: &[Arc<Object>],
    pods: &[Pod<'_>],
) -> Vec<Instance> {
    let mut found = Vec::new();
    if spec.selector.is_empty() {
        return found;
    }
    for pod in pods {
        let workload = &pod.workload;
        if *workload.namespace != *object.namespace || !selects(&spec.selector, &workload.labels) {
            continue;
        }
        let ready = pod.ready || spec.publish_not_ready_addresses;
        let Some(address) = address_for(spec, workload) else {
            continue;
        };
        for port in &spec.ports {
            if let Some(target) = target_port(port, pod.spec) {
                found.push(Instance {
                    port_name: port.name.clone(),
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
    for other in objects {
        if let Spec::WorkloadEntry(entry) = &other.spec
            && other.namespace == object.namespace
            && selects(&spec.selector, &entry.labels)
        {
            found.extend(entry_instances(spec, other, entry));
        }
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

fn entry_instances(
    spec: &k8s::Service,
    object: &Object,
    entry: &crate::istio::api::WorkloadEntry,
) -> Vec<Instance> {
    let workload = Arc::new(Workload {
        name: object.name.to_string(),
        workload_name: object.name.to_string(),
        namespace: object.namespace.to_string(),
        addresses: vec![entry.address.clone()],
        labels: entry.labels.clone(),
        service_account: entry.service_account.clone(),
        locality: entry.locality.clone(),
        network: entry.network.clone(),
        origin: object.origin.clone(),
        ..Workload::default()
    });
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
            address: entry.address.clone(),
            port: number,
            weight: entry.weight,
            health: Health::Healthy,
            workload: Arc::clone(&workload),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::read::{TextOptions, parse};

    fn catalog(text: &str) -> Catalog {
        let parsed = parse(&"a.yaml".into(), text, &TextOptions::default());
        assert!(parsed.refused.is_empty() && !parsed.broken, "{parsed:?}");
        collect(&parsed.objects, "cluster.local")
    }

    fn endpoints(catalog: &Catalog) -> Vec<String> {
        let show = |i: &Instance| {
            format!(
                "{}={}:{} {}/{:?}",
                i.port_name, i.address, i.port, i.workload.name, i.health
            )
        };
        catalog.instances.values().flatten().map(show).collect()
    }

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a, version: v1}}
spec:
  serviceAccountName: sa
  containers: [{name: c, ports: [{name: web, containerPort: 8081}]}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, labels: {app: a, version: v2}}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, labels: {app: a}}
status: {podIP: 10.0.0.3, phase: Succeeded}
---
";

    #[test]
    fn protocols_by_name_and_app_protocol() {
        let ports = [
            ("{port: 1, name: http-web}", Protocol::Http),
            ("{port: 1, name: HTTP2}", Protocol::Http2),
            ("{port: 1, name: grpc-web-x}", Protocol::GrpcWeb),
            ("{port: 1, name: grpc-x}", Protocol::Grpc),
            ("{port: 1, name: web}", Protocol::Unsupported),
            ("{port: 1}", Protocol::Unsupported),
            ("{port: 1, name: tcp, appProtocol: http}", Protocol::Http),
            (
                "{port: 1, name: x, appProtocol: kubernetes.io/h2c}",
                Protocol::Http2,
            ),
            ("{port: 1, name: http, protocol: UDP}", Protocol::Udp),
            ("{port: 1, name: mysql-a}", Protocol::MySql),
            ("{port: 1, name: https}", Protocol::Https),
        ];
        for (port, want) in ports {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{port}]}}\n"
            );
            assert_eq!(catalog(&text).services[0].ports[0].protocol, want, "{port}");
        }
    }

    #[test]
    fn pods_behind_a_selector_with_ports_by_number_and_name() {
        let service = |spec: &str| {
            format!(
                "{PODS}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, {spec}}}\n"
            )
        };
        let found = catalog(&service(
            "ports: [{name: http, port: 80, targetPort: 8080}]",
        ));
        assert_eq!(
            endpoints(&found),
            [
                "http=10.0.0.1:8080 a-1/Healthy",
                "http=10.0.0.2:8080 a-2/Unhealthy"
            ]
        );
        assert_eq!(found.services[0].hostname, "a.default.svc.cluster.local");
        let found = catalog(&service("ports: [{name: http, port: 80, targetPort: web}]"));
        assert_eq!(endpoints(&found), ["http=10.0.0.1:8081 a-1/Healthy"]);
        let found = catalog(&service(
            "ports: [{name: http, port: 80}], publishNotReadyAddresses: true",
        ));
        assert_eq!(endpoints(&found)[1], "http=10.0.0.2:80 a-2/Healthy");
        let found = catalog(&service(
            "ports: [{name: http, port: 80}], clusterIPs: ['fd00::f', 10.1.1.1]",
        ));
        assert_eq!(endpoints(&found)[0], "http=fd00::1:80 a-1/Healthy");
    }

    #[test]
    fn slices_come_before_selectors() {
        let text = format!(
            "{PODS}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a-x, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n\
             endpoints:\n- addresses: [10.0.0.1]\n- addresses: [10.9.9.9]\n  conditions: {{ready: false}}\nports: [{{name: http, port: 8080}}]\n"
        );
        assert_eq!(
            endpoints(&catalog(&text)),
            [
                "http=10.0.0.1:8080 a-1/Healthy",
                "http=10.9.9.9:8080 /Unhealthy"
            ]
        );
        let old = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n---\n\
                   apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 1.2.3.4}], ports: [{name: http, port: 81}]}]\n";
        assert_eq!(endpoints(&catalog(old)), ["http=1.2.3.4:81 /Healthy"]);
    }

    #[test]
    fn headless_external_name_and_dual_stack() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: h}\nspec: {clusterIP: None, ports: [{port: 80}]}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: e}\nspec: {type: ExternalName, externalName: x.com, ports: [{port: 80}]}\n---\n\
                    apiVersion: v1\nkind: Service\nmetadata: {name: d}\nspec: {clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9, 'fd00::9'], ports: [{port: 80}]}\n";
        let services = catalog(text).services;
        assert!(services[0].headless && services[0].addresses.is_empty());
        assert_eq!(services[0].resolution, Resolution::Passthrough);
        assert_eq!(
            (services[1].resolution, services[1].external_name.as_deref()),
            (Resolution::Alias, Some("x.com"))
        );
        assert_eq!(services[2].addresses, ["10.0.0.9", "fd00::9"]);
    }

    #[test]
    fn a_deployment_stands_for_pods_that_are_not_shown() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a-v1}\nspec: {template: {metadata: {labels: {app: a, version: v1}}, spec: {serviceAccountName: sa}}}\n---\n\
                    apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b-v1}\nspec: {template: {metadata: {labels: {app: b}}, spec: {}}}\n---\n";
        let found = catalog(&format!("{text}{PODS}"));
        let show: Vec<String> = found
            .workloads
            .iter()
            .map(|w| format!("{} of {} as {}", w.name, w.workload_name, w.service_account))
            .collect();
        assert_eq!(
            show,
            [
                "a-1 of a-v1 as sa",
                "a-2 of a-2 as default",
                "b-v1 of b-v1 as default"
            ]
        );
    }

    #[test]
    fn a_service_may_select_workload_entries() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: vm}, ports: [{name: http, port: 80}]}\n---\n\
                    apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm1}\nspec: {address: 2.2.2.2, labels: {app: vm}, ports: {http: 8080}}\n";
        assert_eq!(endpoints(&catalog(text)), ["http=2.2.2.2:8080 vm1/Healthy"]);
    }
}
