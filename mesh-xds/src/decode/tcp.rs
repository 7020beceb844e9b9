//! The TCP proxy (`extensions.filters.network.tcp_proxy.v3.TcpProxy`).

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::core::v3::BackoffStrategy,
        extensions::filters::network::tcp_proxy::v3::{
            TcpProxy as Proto,
            tcp_proxy::{ClusterSpecifier, WeightedCluster as ProtoWeighted},
        },
        r#type::v3::{HashPolicy as ProtoHash, hash_policy::PolicySpecifier},
    },
    google::protobuf::Duration as ProtoDuration,
};
use mesh_core::model::{
    ClusterChoice, HashPolicy, HashSource, HeaderMutations, TcpProxy, WeightedCluster,
    WeightedClusters,
};

use super::{
    Context, access_log, common,
    set::{ignored, unsupported},
};

/// The proxy's settings.
pub(super) fn proxy(cx: &mut Context, value: &Proto) -> Option<TcpProxy> {
    let Proto {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    ignored!(cx; on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, backoff_options,
        max_downstream_connection_duration_jitter_percentage, access_log_flush_interval,
        flush_access_log_on_connected, access_log_options, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy,
        upstream_connect_mode, max_early_data_bytes, check_drain_close);
    unsupported!(cx; tunneling_config);
    if let Some(times) = backoff_options {
        intervals(cx, times);
    }
    let cluster = match cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => ClusterChoice::Name(name.as_str().into()),
        Some(ClusterSpecifier::WeightedClusters(value)) => {
            ClusterChoice::Weighted(cx.field("weighted_clusters", |cx| weighted(cx, value))?)
        }
        None => {
            cx.reject("", "one of cluster, weighted_clusters must be set");
            return None;
        }
    };
    let hour = Some(Duration::from_secs(3600));
    let field = "max_downstream_connection_duration";
    let longest = max_downstream_connection_duration.as_ref();
    Some(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        cluster,
        idle_timeout: common::timeout(cx, "idle_timeout", idle_timeout.as_ref(), hour),
        max_connect_attempts: common::u32_of(max_connect_attempts.as_ref()).unwrap_or(1),
        max_downstream_connection_duration: common::timeout(cx, field, longest, None),
        access_log: access_log::logs(cx, "access_log", access_log),
        hash: cx.each("hash_policy", hash_policy, hash),
        metadata_match: common::metadata(cx, "metadata_match", metadata_match.as_ref()),
    })
}

/// Between attempts to connect: the longest interval is not the shorter one.
fn intervals(cx: &mut Context, value: &BackoffStrategy) {
    let time = |value: &Option<ProtoDuration>| value.as_ref().map(|it| (it.seconds, it.nanos));
    if let Some(longest) = time(&value.max_interval)
        && time(&value.base_interval).is_some_and(|base| base > longest)
    {
        cx.reject(
            "backoff_options.max_interval",
            "must not be less than base_interval",
        );
    }
}

fn weighted(cx: &mut Context, value: &ProtoWeighted) -> Option<WeightedClusters> {
    let mut total = 0u32;
    let mut arms = Vec::new();
    for (index, arm) in value.clusters.iter().enumerate() {
        let Some(sum) = total.checked_add(arm.weight) else {
            cx.reject("clusters", "the sum of the weights is over 4294967295");
            return None;
        };
        total = sum;
        let metadata_match = cx.item("clusters", index, |cx| {
            cx.ignored("metadata_match", arm.metadata_match.is_some());
            common::metadata(cx, "metadata_match", arm.metadata_match.as_ref())
        });
        arms.push(WeightedCluster {
            name: arm.name.as_str().into(),
            header: None,
            weight: arm.weight,
            headers: HeaderMutations::default(),
            host_rewrite: None,
            metadata_match,
            filters: Vec::new(),
        });
    }
    if total == 0 {
        cx.reject("clusters", "the sum of the weights is 0");
        return None;
    }
    Some(WeightedClusters {
        arms,
        total,
        runtime_key_prefix: "".into(),
        random_header: None,
        use_hash: false,
    })
}

fn hash(cx: &mut Context, value: &ProtoHash) -> Option<HashPolicy> {
    let source = match &value.policy_specifier {
        Some(PolicySpecifier::SourceIp(_)) => HashSource::SourceIp,
        Some(PolicySpecifier::FilterState(state)) => {
            HashSource::FilterState(state.key.as_str().into())
        }
        None => {
            cx.reject("", "one of source_ip, filter_state must be set");
            return None;
        }
    };
    cx.note("", "hashing policies do not act yet");
    Some(HashPolicy {
        source,
        terminal: false,
    })
}
