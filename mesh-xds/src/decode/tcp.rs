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
        access_log_flush_interval: _,
        flush_access_log_on_connected: _,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    ignored!(cx; on_demand, metadata_match, downstream_idle_timeout, upstream_idle_timeout, proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes, check_drain_close);
    unsupported!(cx; tunneling_config);
    let backoff = backoff_options.as_ref();
    let backoff =
        backoff.and_then(|value| cx.field("backoff_options", |cx| self::backoff(cx, value)));
    let cluster = cluster(cx, cluster_specifier.as_ref())?;
    let (on_connected, interval) = flushes(cx, value);
    let jitter = "max_downstream_connection_duration_jitter_percentage";
    let percentage = max_downstream_connection_duration_jitter_percentage.as_ref();
    let hour = Some(Duration::from_secs(3600));
    let field = "max_downstream_connection_duration";
    let longest = max_downstream_connection_duration.as_ref();
    Some(TcpProxy {
        stat_prefix: stat_prefix.as_str().into(),
        cluster,
        idle_timeout: common::timeout(cx, "idle_timeout", idle_timeout.as_ref(), hour),
        max_connect_attempts: common::u32_of(max_connect_attempts.as_ref()).unwrap_or(1),
        backoff,
        max_downstream_connection_duration: common::timeout(cx, field, longest, None),
        max_downstream_connection_duration_jitter: percentage
            .and_then(|percentage| common::basis_points(cx, jitter, percentage))
            .unwrap_or(0),
        flush_access_log_on_start: access_log_options
            .as_ref()
            .is_some_and(|options| options.flush_access_log_on_start),
        flush_access_log_on_connected: on_connected,
        access_log_flush_interval: common::timeout(cx, "access_log_flush_interval", interval, None),
        access_log: access_log::logs(cx, "access_log", access_log),
        hash: cx.each("hash_policy", hash_policy, hash),
        metadata_match: common::metadata(cx, "metadata_match", metadata_match.as_ref()),
    })
}

fn cluster(cx: &mut Context, value: Option<&ClusterSpecifier>) -> Option<ClusterChoice> {
    match value {
        Some(ClusterSpecifier::Cluster(name)) => Some(ClusterChoice::Name(name.as_str().into())),
        Some(ClusterSpecifier::WeightedClusters(value)) => cx
            .field("weighted_clusters", |cx| weighted(cx, value))
            .map(ClusterChoice::Weighted),
        None => {
            cx.reject("", "one of cluster, weighted_clusters must be set");
            None
        }
    }
}

/// Whether the log has a line once the upstream is connected, and how often one on the way.
fn flushes<'v>(cx: &mut Context, value: &'v Proto) -> (bool, Option<&'v ProtoDuration>) {
    let older = (
        value.flush_access_log_on_connected,
        value.access_log_flush_interval.as_ref(),
    );
    let Some(options) = &value.access_log_options else {
        return older;
    };
    if older != (false, None) {
        cx.reject(
            "access_log_options",
            "must not be set beside the deprecated fields flush_access_log_on_connected and access_log_flush_interval",
        );
    }
    let interval = options.access_log_flush_interval.as_ref();
    (options.flush_access_log_on_connected, interval)
}

/// The first and the longest wait before a further attempt.
fn backoff(cx: &mut Context, value: &BackoffStrategy) -> Option<(Duration, Duration)> {
    let BackoffStrategy {
        base_interval,
        max_interval,
    } = value;
    let base = common::some_duration(cx, "base_interval", base_interval.as_ref())?;
    let longest = match max_interval {
        None => base.saturating_mul(10),
        Some(value) => common::duration(cx, "max_interval", value)?,
    };
    if longest < base {
        cx.reject("max_interval", "must not be less than base_interval");
        return None;
    }
    Some((base, longest))
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
