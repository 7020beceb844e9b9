//! Kubernetes objects: what Istio would act on and nothing here does yet.

use std::collections::BTreeMap;

use super::check::{At, Check};
use super::{METADATA, SPEC};
use crate::istio::api::k8s;

/// The annotation that has the meaning of `trafficDistribution`.
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(super) fn service(c: &mut Check, spec: &k8s::Service, annotations: &BTreeMap<String, String>) {
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
