//! What Envoy asks of the parts of a cluster together.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster as Proto, cluster::LbPolicy};
use mesh_core::model::{Cluster, Discovery};

use super::Context;

/// Refuses what Envoy refuses of the whole.
pub(super) fn check(cx: &mut Context, value: &Proto, cluster: &Cluster) {
    match &cluster.discovery {
        Discovery::LogicalDns(_) => one_host(cx, value),
        Discovery::OriginalDst(_) => {
            if value.lb_policy() != LbPolicy::ClusterProvided {
                let reason = "only CLUSTER_PROVIDED is allowed with type ORIGINAL_DST";
                cx.reject("lb_policy", reason);
            }
            if value.load_assignment.is_some() {
                cx.reject("load_assignment", "must not be set with type ORIGINAL_DST");
            }
        }
        Discovery::Eds(_) if value.eds_cluster_config.is_none() => {
            cx.reject("eds_cluster_config", "must be set with type EDS");
        }
        _ => {}
    }
}

/// A cluster of one name has one endpoint.
fn one_host(cx: &mut Context, value: &Proto) {
    let groups = value.load_assignment.as_ref().map(|load| &load.endpoints);
    let one = groups.is_some_and(|groups| groups.len() == 1 && groups[0].lb_endpoints.len() == 1);
    if !one {
        let reason = "must have a single group with a single endpoint with type LOGICAL_DNS";
        cx.reject("load_assignment", reason);
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::cluster;
    use super::*;

    #[test]
    fn the_parts_of_a_cluster_have_to_fit() {
        let one = r#"{"cluster_name":"a","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":"a.test","port_value":1}}}}]}]}"#;
        let two = r#"{"cluster_name":"a","endpoints":[{"lb_endpoints":[]}]}"#;
        let original = r#""type":"ORIGINAL_DST""#;
        for (fields, wanted) in [
            (
                format!(r#""type":"LOGICAL_DNS","load_assignment":{one}"#),
                None,
            ),
            (
                format!(r#""type":"LOGICAL_DNS","load_assignment":{two}"#),
                Some("load_assignment"),
            ),
            (
                r#""type":"LOGICAL_DNS""#.to_owned(),
                Some("load_assignment"),
            ),
            (original.to_owned(), Some("lb_policy")),
            (
                format!(r#"{original},"lb_policy":"CLUSTER_PROVIDED""#),
                None,
            ),
            (
                format!(r#"{original},"lb_policy":"CLUSTER_PROVIDED","load_assignment":{two}"#),
                Some("load_assignment"),
            ),
            (
                format!(
                    r#"{original},"lb_policy":"CLUSTER_PROVIDED","original_dst_lb_config":{{"use_http_header":true,"http_header_name":":authority"}}"#
                ),
                None,
            ),
            (
                format!(
                    r#"{original},"lb_policy":"CLUSTER_PROVIDED","original_dst_lb_config":{{"http_header_name":"x-to"}}"#
                ),
                Some("original_dst_lb_config.http_header_name"),
            ),
            (r#""type":"EDS""#.to_owned(), Some("eds_cluster_config")),
            (
                r#""circuit_breakers":{"per_host_thresholds":[{"max_requests":1}]}"#.to_owned(),
                Some("circuit_breakers.per_host_thresholds[0].max_requests"),
            ),
            (
                r#""circuit_breakers":{"per_host_thresholds":[{"max_connections":1}]}"#.to_owned(),
                None,
            ),
        ] {
            let text = format!(r#"{{"name":"a",{fields}}}"#);
            let message: Proto =
                crate::json::from_str("envoy.config.cluster.v3.Cluster", &text).expect("a cluster");
            let mut cx = Context::new("cluster a");
            cluster(&mut cx, &message);
            let findings = cx.finish();
            let paths: Vec<&str> = findings.rejections.iter().map(|it| &*it.path).collect();
            assert_eq!(paths, wanted.into_iter().collect::<Vec<_>>(), "{text}");
        }
    }
}
