//! What of the bootstrap that `pilot-agent` writes for a proxy tells who it is: `istioctl` and dashboards read it in the
//! configuration dump.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use mesh_core::telemetry::metrics::Workload as Identity;

use super::index::{Interception, Proxy, ProxyKind};

/// The bootstrap of `proxy`, whose workload metrics name `identity`.
pub(super) fn of(proxy: &Proxy, identity: &Identity) -> Bootstrap {
    let role = match proxy.kind {
        ProxyKind::Sidecar => "sidecar",
        ProxyKind::Router => "router",
    };
    let interception = match proxy.interception {
        Interception::Redirect => "REDIRECT",
        Interception::Tproxy => "TPROXY",
        Interception::None => "NONE",
    };
    let labels = proxy.labels.iter();
    let labels = labels.map(|(key, value)| (key.clone(), text(value)));
    let addresses = proxy.addresses.join(",");
    let fields = [
        ("CLUSTER_ID", text(&identity.cluster)),
        ("INSTANCE_IPS", text(&addresses)),
        ("INTERCEPTION_MODE", text(interception)),
        ("LABELS", object(labels.collect())),
        ("NAME", text(&proxy.name)),
        ("NAMESPACE", text(&proxy.namespace)),
        ("SERVICE_ACCOUNT", text(&proxy.service_account)),
        ("WORKLOAD_NAME", text(&identity.name)),
    ];
    let fields = fields.map(|(key, value)| (key.to_owned(), value)).into();
    let mut place = proxy.locality.split('/').map(str::to_owned);
    let mut part = || place.next().unwrap_or_default();
    let (id, namespace) = (&proxy.name, &proxy.namespace);
    Bootstrap {
        node: Some(Node {
            id: format!(
                "{role}~{}~{id}.{namespace}~{}",
                proxy.address(),
                proxy.dns_domain
            ),
            cluster: format!("{}.{namespace}", identity.canonical_service),
            metadata: Some(Struct { fields }),
            locality: Some(Locality {
                region: part(),
                zone: part(),
                sub_zone: part(),
            }),
            ..Node::default()
        }),
        ..Bootstrap::default()
    }
}

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

fn object(fields: HashMap<String, Value>) -> Value {
    Value {
        kind: Some(Kind::StructValue(Struct { fields })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_name_that_istio_gives_it() {
        let proxy = Proxy {
            name: "reviews-v1-x".to_owned(),
            namespace: "shop".to_owned(),
            dns_domain: "shop.svc.cluster.local".to_owned(),
            addresses: vec!["10.0.0.1".to_owned(), "::1".to_owned()],
            labels: [("app".to_owned(), "reviews".to_owned())].into(),
            locality: "r/z".to_owned(),
            ..Proxy::default()
        };
        let identity = Identity::parse("reviews-v1;shop;reviews;v1;Kubernetes");
        let node = of(&proxy, &identity).node.expect("a node");
        assert_eq!(
            node.id,
            "sidecar~10.0.0.1~reviews-v1-x.shop~shop.svc.cluster.local"
        );
        assert_eq!(node.cluster, "reviews.shop");
        let place = node.locality.expect("a place");
        assert_eq!(
            (&*place.region, &*place.zone, &*place.sub_zone),
            ("r", "z", "")
        );
        let fields = node.metadata.expect("metadata").fields;
        assert_eq!(fields["INSTANCE_IPS"], text("10.0.0.1,::1"));
        assert_eq!(fields["WORKLOAD_NAME"], text("reviews-v1"));
        let labels = object([("app".to_owned(), text("reviews"))].into());
        assert_eq!(fields["LABELS"], labels);
    }
}
