//! Kubernetes objects: what Istio would act on and nothing here does yet.

use std::collections::BTreeMap;

use super::check::{At, Check};
use super::{METADATA, SPEC};
use crate::istio::api::k8s;

/// The annotation that has the meaning of `trafficDistribution`.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(super) fn service(c: &mut Check, spec: &k8s::Service, annotations: &BTreeMap<String, String>) {
    ports(c, &spec.ports);
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

pub(super) fn endpoint_slice(c: &mut Check, slice: &k8s::EndpointSlice) {
    if slice.address_type == "FQDN" {
        let at = At::root("addressType");
        c.inactive(
            &at,
            "FQDN has no effect, as in Istio: endpoints are addresses",
        );
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
        let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: FQDN\nendpoints: [{addresses: [a.b]}]\n";
        assert_eq!(inactive(slice), ["addressType"]);
    }
}
