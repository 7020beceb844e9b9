//! Kubernetes objects: values that its API server refuses, since nothing could act on them, and what Istio would act on
//! and nothing here does yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::check::{At, Check};
use super::{METADATA, SPEC, mesh};
use crate::istio::Object;
use crate::istio::api::k8s::{self, IntOrString, SERVICE_NAME};

/// The annotation that has the meaning of `trafficDistribution`.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(super) fn service(c: &mut Check, spec: &k8s::Service, annotations: &BTreeMap<String, String>) {
    ports(c, &spec.ports);
    let types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"];
    one_of(c, &SPEC.key("type"), "type", &spec.kind, &types);
    if spec.kind == "ExternalName" && spec.external_name.is_empty() {
        let text = "an ExternalName needs the name; without it this is a Service like any other";
        c.warn(&SPEC.key("externalName"), text);
    }
    let headless = |ip: &str| ip.is_empty() || ip == "None";
    if !headless(&spec.cluster_ip) {
        ip(c, &SPEC.key("clusterIP"), &spec.cluster_ip);
    }
    let at = SPEC.key("clusterIPs");
    for (index, own) in spec.cluster_ips.iter().enumerate() {
        if !headless(own) {
            ip(c, &at.index(index), own);
        }
    }
    let alike = "it does not act yet: endpoints of all zones and nodes are used alike";
    if !spec.traffic_distribution.is_empty() {
        c.inactive(&SPEC.key("trafficDistribution"), alike);
    }
    if annotations.contains_key(TRAFFIC_DISTRIBUTION) {
        let at = METADATA.key("annotations");
        c.inactive(&at.key(TRAFFIC_DISTRIBUTION), alike);
    }
    if spec.internal_traffic_policy == "Local" {
        c.inactive(&SPEC.key("internalTrafficPolicy"), alike);
    }
}

/// Two ports of one name, or of one number and protocol. The API server of Kubernetes refuses them, istiod takes them: so they
/// act, and are told of.
fn ports(c: &mut Check, ports: &[k8s::ServicePort]) {
    let protocol = |port: &k8s::ServicePort| match port.protocol.as_str() {
        "" => "TCP".to_owned(),
        named => named.to_owned(),
    };
    for (index, port) in ports.iter().enumerate() {
        let at = SPEC.item("ports", index);
        number(c, &at.key("port"), port.port);
        let protocols = ["TCP", "UDP", "SCTP"];
        one_of(
            c,
            &at.key("protocol"),
            "protocol",
            &port.protocol,
            &protocols,
        );
        let target = at.key("targetPort");
        match &port.target_port {
            Some(IntOrString::Int(own)) if *own != 0 => number(c, &target, *own),
            Some(IntOrString::Name(name)) if name.bytes().all(|b| b.is_ascii_digit()) => {
                let text = format!(
                    "in quotes `{name}` is the name of a container's port, which needs a letter: write it without"
                );
                c.error(&target, text);
            }
            _ => {}
        }
        let before = &ports[..index];
        if !port.name.is_empty() && before.iter().any(|other| other.name == port.name) {
            let text = format!(
                "`{}` stands twice; each port has a name of its own",
                port.name
            );
            c.warn(&at.key("name"), text);
        }
        let own = (port.port, protocol(port));
        if before
            .iter()
            .any(|other| (other.port, protocol(other)) == own)
        {
            let text = format!("{} of {} stands twice", own.0, own.1);
            c.warn(&at.key("port"), text);
        }
    }
}

pub(super) fn endpoint_slice(c: &mut Check, slice: &k8s::EndpointSlice, object: &Object) {
    let old = *object.kind == *"Endpoints";
    if !old && !object.labels.contains_key(SERVICE_NAME) {
        let at = METADATA.key("labels");
        c.warn(
            &at,
            format_args!("it belongs to no Service, whose name the label {SERVICE_NAME} says"),
        );
    }
    let at = At::root("addressType");
    one_of(
        c,
        &at,
        "type",
        &slice.address_type,
        &["IPv4", "IPv6", "FQDN"],
    );
    if slice.address_type == "FQDN" {
        let text = "FQDN has no effect, as in Istio: endpoints are addresses";
        return c.inactive(&at, text);
    }
    // The older kind has its addresses in groups, of which nothing is kept.
    let subsets = At::root("subsets");
    let endpoints = At::root("endpoints");
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let own = endpoints.index(index);
        let addresses = own.key("addresses");
        for (index, address) in endpoint.addresses.iter().enumerate() {
            let own = addresses.index(index);
            ip(c, if old { &subsets } else { &own }, address);
        }
    }
    let ports = At::root("ports");
    for (index, port) in slice.ports.iter().enumerate() {
        if let Some(port) = port.port {
            number(c, &ports.index(index).key("port"), port);
        }
    }
}

pub(super) fn pod(c: &mut Check, pod: &k8s::Pod, annotations: &BTreeMap<String, String>) {
    mesh::annotation(c, &METADATA, annotations);
    let status = At::root("status");
    if !pod.status.pod_ip.is_empty() {
        ip(c, &status.key("podIP"), &pod.status.pod_ip);
    }
    let at = status.key("podIPs");
    for (index, own) in pod.status.pod_ips.iter().enumerate() {
        ip(c, &at.index(index).key("ip"), &own.ip);
    }
}

fn ip(c: &mut Check, at: &At<'_>, text: &str) {
    if text.parse::<IpAddr>().is_err() {
        c.error(at, format_args!("`{text}` is not an IP address"));
    }
}

fn number(c: &mut Check, at: &At<'_>, port: u32) {
    if !(1..=65535).contains(&port) {
        c.error(at, format_args!("port {port} is not in the range 1..65535"));
    }
}

/// Refuses a word that is set and none of these.
fn one_of(c: &mut Check, at: &At<'_>, what: &str, word: &str, allowed: &[&str]) {
    if !word.is_empty() && !allowed.contains(&word) {
        c.not_one_of(at, what, word, allowed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::istio::read::{Level, TextOptions, parse};

    #[test]
    fn a_port_that_stands_twice_is_told_of_at_its_place() {
        let told = |ports: &str| {
            let text = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{ports}]}}\n"
            );
            let parsed = parse(&Arc::from("a.yaml"), &text, &TextOptions::default());
            let found = parsed.findings.iter();
            let found = found.filter(|finding| finding.level == Level::Warning);
            found.map(|f| f.path.to_string()).collect::<Vec<_>>()
        };
        let dns = "{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}";
        assert_eq!(told(dns), [""; 0]);
        let same = told("{name: a, port: 80}, {name: b, port: 80, protocol: TCP}");
        assert_eq!(same, ["spec.ports[1].port"]);
        assert_eq!(
            told("{name: a, port: 80}, {name: a, port: 81}"),
            ["spec.ports[1].name"]
        );
    }

    #[test]
    fn what_nothing_could_act_on_is_refused_at_its_place() {
        let service = |spec: &str| {
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}}}\n")
        };
        let slice = |rest: &str| {
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, labels: {{kubernetes.io/service-name: s}}}}\n{rest}\n"
            )
        };
        let pod = |status: &str| {
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nstatus: {{{status}}}\n")
        };
        let old = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: s}\nsubsets: [{addresses: [{ip: x}], ports: [{port: 1}]}]\n";
        for (text, told) in [
            (
                service("ports: [{port: 70000}]"),
                "a.yaml:4:17: Service default/s: spec.ports[0].port: port 70000 is not in the range 1..65535",
            ),
            (
                service("ports: [{name: a}]"),
                "a.yaml:4:16: Service default/s: spec.ports[0].port: port 0 is",
            ),
            (
                service("ports: [{port: 1, protocol: tcp}]"),
                "spec.ports[0].protocol: unknown protocol `tcp`; did you mean `TCP`?; allowed: TCP, UDP, SCTP",
            ),
            (
                service("ports: [{port: 1, targetPort: 70000}]"),
                "spec.ports[0].targetPort: port 70000",
            ),
            (
                service("ports: [{port: 1, targetPort: '8080'}]"),
                "spec.ports[0].targetPort: in quotes `8080`",
            ),
            (
                service("ports: [{port: 1, targetPort: []}]"),
                "spec.ports[0].targetPort: a port's number or name is expected",
            ),
            (
                service("type: ClusterIp"),
                "spec.type: unknown type `ClusterIp`; did you mean `ClusterIP`?",
            ),
            (
                service("clusterIP: 10.0.0.300"),
                "spec.clusterIP: `10.0.0.300` is not an IP address",
            ),
            (
                service("clusterIPs: [10.0.0.1, x]"),
                "a.yaml:4:31: Service default/s: spec.clusterIPs[1]: `x`",
            ),
            (pod("podIP: 1.2.3"), "Pod default/p: status.podIP: `1.2.3`"),
            (pod("podIPs: [{ip: ''}]"), "status.podIPs[0].ip: `` is not"),
            (
                slice("addressType: IPv5"),
                "addressType: unknown type `IPv5`; did you mean `IPv4`?",
            ),
            (
                slice("addressType: IPv4\nendpoints: [{addresses: [a.b]}]"),
                "EndpointSlice default/s: endpoints[0].addresses[0]: `a.b` is not an IP address",
            ),
            (slice("ports: [{port: 0}]"), "ports[0].port: port 0"),
            (
                old.to_owned(),
                "a.yaml:4:1: Endpoints default/s: subsets: `x` is not an IP address",
            ),
        ] {
            let parsed = parse(&Arc::from("a.yaml"), &text, &TextOptions::default());
            let [finding] = parsed.findings.as_slice() else {
                panic!("{text}: {:?}", parsed.findings)
            };
            assert_eq!(finding.level, Level::Refused, "{finding}");
            assert!(finding.to_string().contains(told), "{finding}");
        }
    }

    #[test]
    fn what_istio_would_act_on_is_listed() {
        let inactive = |text: &str| {
            let parsed = parse(&Arc::from("a.yaml"), text, &TextOptions::default());
            assert_eq!(parsed.refused, [], "{:?}", parsed.findings);
            let found = parsed.findings.iter();
            let found = found.filter(|finding| finding.level == Level::Inactive);
            found.map(|f| f.path.to_string()).collect::<Vec<_>>()
        };
        let service = |spec: &str| {
            inactive(&format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{{port: 80}}]{spec}}}\n"
            ))
        };
        assert_eq!(service(", internalTrafficPolicy: Cluster"), [""; 0]);
        assert_eq!(
            service(", internalTrafficPolicy: Local"),
            ["spec.internalTrafficPolicy"]
        );
        assert_eq!(
            service(", trafficDistribution: PreferClose"),
            ["spec.trafficDistribution"]
        );
        let annotated = "apiVersion: v1\nkind: Service\nmetadata: {name: s, annotations: {networking.istio.io/traffic-distribution: PreferClose}}\nspec: {ports: [{port: 80}]}\n";
        assert_eq!(inactive(annotated).len(), 1);
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {kubernetes.io/service-name: s}}\naddressType: FQDN\nendpoints: [{addresses: [a.b]}]\n";
        assert_eq!(inactive(slice), ["addressType"]);
        for (text, path) in [
            (
                slice.replace("kubernetes.io/service-name: s", ""),
                "metadata.labels",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName}\n"
                    .to_owned(),
                "spec.externalName",
            ),
        ] {
            let parsed = parse(&Arc::from("a.yaml"), &text, &TextOptions::default());
            let first = &parsed.findings[0];
            assert_eq!(
                (first.level, first.path.to_string().as_str()),
                (Level::Warning, path)
            );
        }
    }
}
