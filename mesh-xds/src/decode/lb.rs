//! How a cluster chooses an endpoint: `lb_policy` with its settings, and `load_balancing_policy`.

use envoy_types::pb::{
    envoy::{
        config::cluster::v3::{Cluster, LoadBalancingPolicy, cluster},
        extensions::load_balancing_policies::{
            common::v3::LocalityLbConfig, least_request::v3::LeastRequest, maglev::v3::Maglev,
            random::v3::Random, ring_hash::v3::RingHash, round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
    },
    google::protobuf::UInt64Value,
};
use mesh_core::model::{Cluster as Model, LbPolicy};

use super::{
    Context, common,
    context::Typed,
    set::{ignored, unsupported},
};

/// Envoy's default sizes.
const RING: (u64, u64) = (1024, 8 << 20);
const MAGLEV: u64 = 65_537;

/// How many endpoints least request compares unless told.
const CHOICES: u32 = 2;

/// The policy of the cluster: `load_balancing_policy` where it is set, else `lb_policy`.
pub(super) fn policy(cx: &mut Context, value: &Cluster) -> LbPolicy {
    let policy = match &value.load_balancing_policy {
        Some(policies) => cx.field("load_balancing_policy", |cx| extension(cx, policies)),
        None => classic(cx, value),
    };
    let policy = policy.unwrap_or(LbPolicy::RoundRobin);
    unused_settings(cx, value);
    if matches!(policy, LbPolicy::RingHash { .. } | LbPolicy::Maglev { .. }) {
        let field = match &value.load_balancing_policy {
            Some(_) => "load_balancing_policy",
            None => "lb_policy",
        };
        cx.note(
            field,
            "hashing policies do not act yet: endpoints are chosen at random",
        );
    }
    policy
}

/// Settings of a policy that is not the cluster's.
fn unused_settings(cx: &mut Context, value: &Cluster) {
    use cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy as Proto};
    let original = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
    let (field, used) = match &value.lb_config {
        None => return,
        Some(LbConfig::OriginalDstLbConfig(_)) => {
            let used = value.cluster_discovery_type == Some(original);
            cx.ignored("original_dst_lb_config", !used);
            return;
        }
        Some(LbConfig::RingHashLbConfig(_)) => ("ring_hash_lb_config", Proto::RingHash),
        Some(LbConfig::MaglevLbConfig(_)) => ("maglev_lb_config", Proto::Maglev),
        Some(LbConfig::LeastRequestLbConfig(_)) => ("least_request_lb_config", Proto::LeastRequest),
        Some(LbConfig::RoundRobinLbConfig(_)) => ("round_robin_lb_config", Proto::RoundRobin),
    };
    let replaced = value.load_balancing_policy.is_some();
    cx.ignored(field, replaced || value.lb_policy() != used);
}

fn classic(cx: &mut Context, value: &Cluster) -> Option<LbPolicy> {
    use cluster::{LbConfig, LbPolicy as Proto};
    let config = value.lb_config.as_ref();
    Some(match value.lb_policy() {
        Proto::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = config {
                cx.ignored(
                    "round_robin_lb_config.slow_start_config",
                    config.slow_start_config.is_some(),
                );
            }
            LbPolicy::RoundRobin
        }
        Proto::LeastRequest => LbPolicy::LeastRequest {
            choices: match config {
                Some(LbConfig::LeastRequestLbConfig(config)) => classic_choices(cx, config),
                _ => CHOICES,
            },
        },
        Proto::Random => LbPolicy::Random,
        Proto::ClusterProvided => LbPolicy::ClusterProvided,
        Proto::RingHash => cx.field("ring_hash_lb_config", |cx| match config {
            Some(LbConfig::RingHashLbConfig(config)) => {
                let cluster::RingHashLbConfig {
                    minimum_ring_size,
                    hash_function,
                    maximum_ring_size,
                } = config;
                ignored!(cx; hash_function);
                ring(cx, minimum_ring_size.as_ref(), maximum_ring_size.as_ref())
            }
            _ => ring(cx, None, None),
        }),
        Proto::Maglev => cx.field("maglev_lb_config", |cx| match config {
            Some(LbConfig::MaglevLbConfig(config)) => table(cx, config.table_size.as_ref()),
            _ => table(cx, None),
        }),
        Proto::LoadBalancingPolicyConfig => {
            cx.reject("load_balancing_policy", "must be set");
            return None;
        }
    })
}

fn classic_choices(cx: &mut Context, config: &cluster::LeastRequestLbConfig) -> u32 {
    cx.field("least_request_lb_config", |cx| {
        let cluster::LeastRequestLbConfig {
            choice_count,
            active_request_bias,
            slow_start_config,
        } = config;
        ignored!(cx; active_request_bias, slow_start_config);
        common::u32_of(choice_count.as_ref()).unwrap_or(CHOICES)
    })
}

/// A ring of at least and at most so many entries.
fn ring(cx: &mut Context, min: Option<&UInt64Value>, max: Option<&UInt64Value>) -> LbPolicy {
    let min_size = min.map_or(RING.0, |size| size.value);
    let max_size = max.map_or(RING.1, |size| size.value);
    if min_size > max_size {
        let reason = format_args!("{min_size} is over maximum_ring_size, {max_size}");
        cx.reject("minimum_ring_size", reason);
    }
    LbPolicy::RingHash { min_size, max_size }
}

/// A Maglev table of that size.
fn table(cx: &mut Context, size: Option<&UInt64Value>) -> LbPolicy {
    let table_size = size.map_or(MAGLEV, |size| size.value);
    if !is_prime(table_size) {
        let reason = format_args!("{table_size} is no prime number");
        cx.reject("table_size", reason);
    }
    LbPolicy::Maglev { table_size }
}

/// A prime number, as Envoy counts them for Maglev tables.
pub(crate) fn is_prime(n: u64) -> bool {
    if n < 4 {
        return n != 0;
    }
    !n.is_multiple_of(2)
        && (3..)
            .step_by(2)
            .take_while(|f| f * f <= n)
            .all(|f| !n.is_multiple_of(f))
}

/// The first policy of the list that is known, as Envoy chooses.
fn extension(cx: &mut Context, value: &LoadBalancingPolicy) -> Option<LbPolicy> {
    let mut unknown = Vec::new();
    for (index, policy) in value.policies.iter().enumerate() {
        let Some(config) = &policy.typed_extension_config else {
            cx.item("policies", index, |cx| {
                cx.reject("typed_extension_config", "must be set")
            });
            return None;
        };
        let Some(any) = &config.typed_config else {
            cx.item("policies", index, |cx| {
                cx.reject("typed_extension_config.typed_config", "must be set");
            });
            return None;
        };
        let found = cx.item("policies", index, |cx| {
            cx.field("typed_extension_config.typed_config", |cx| {
                let typed = cx.typed(any)?;
                one(cx, &typed).or_else(|| {
                    unknown.push(typed.name);
                    None
                })
            })
        });
        if found.is_some() || cx.is_rejected() {
            return found;
        }
    }
    cx.reject(
        "policies",
        format_args!("none is supported: {}", unknown.join(", ")),
    );
    None
}

fn one(cx: &mut Context, typed: &Typed) -> Option<LbPolicy> {
    let kind = typed
        .name
        .strip_prefix("envoy.extensions.load_balancing_policies.")?;
    Some(match kind {
        "round_robin.v3.RoundRobin" => {
            let RoundRobin {
                slow_start_config,
                locality_lb_config,
            } = &cx.message(typed)?;
            ignored!(cx; slow_start_config);
            locality(cx, locality_lb_config.as_ref());
            LbPolicy::RoundRobin
        }
        "least_request.v3.LeastRequest" => {
            let message = cx.message(typed)?;
            least_request(cx, &message)
        }
        "random.v3.Random" => {
            let Random { locality_lb_config } = &cx.message(typed)?;
            locality(cx, locality_lb_config.as_ref());
            LbPolicy::Random
        }
        "cluster_provided.v3.ClusterProvided" => LbPolicy::ClusterProvided,
        "ring_hash.v3.RingHash" => {
            let message = cx.message(typed)?;
            ring_hash(cx, &message)
        }
        "maglev.v3.Maglev" => {
            let message = cx.message(typed)?;
            maglev(cx, &message)
        }
        "wrr_locality.v3.WrrLocality" => {
            let WrrLocality {
                endpoint_picking_policy,
            } = cx.message(typed)?;
            cx.note("", "ignored: localities are not weighted");
            let policies = endpoint_picking_policy.unwrap_or_default();
            cx.field("endpoint_picking_policy", |cx| extension(cx, &policies))?
        }
        _ => return None,
    })
}

fn least_request(cx: &mut Context, value: &LeastRequest) -> LbPolicy {
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = value;
    ignored!(cx; active_request_bias, slow_start_config, enable_full_scan, selection_method);
    locality(cx, locality_lb_config.as_ref());
    LbPolicy::LeastRequest {
        choices: common::u32_of(choice_count.as_ref()).unwrap_or(CHOICES),
    }
}

fn maglev(cx: &mut Context, value: &Maglev) -> LbPolicy {
    let Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = value;
    ignored!(cx; consistent_hashing_lb_config, locality_weighted_lb_config);
    table(cx, table_size.as_ref())
}

fn ring_hash(cx: &mut Context, value: &RingHash) -> LbPolicy {
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = value;
    ignored!(cx; hash_function, use_hostname_for_hashing, hash_balance_factor, consistent_hashing_lb_config,
        locality_weighted_lb_config);
    ring(cx, minimum_ring_size.as_ref(), maximum_ring_size.as_ref())
}

fn locality(cx: &mut Context, value: Option<&LocalityLbConfig>) {
    let set = value.is_some_and(|config| config.locality_config_specifier.is_some());
    cx.ignored("locality_lb_config", set);
}

/// Settings of all policies (`common_lb_config`).
pub(super) fn common(cx: &mut Context, value: &cluster::CommonLbConfig, out: &mut Model) {
    let cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    ignored!(cx; update_merge_window, ignore_new_hosts_until_first_hc, consistent_hashing_lb_config,
        override_host_status);
    out.close_on_host_set_change = *close_connections_on_host_set_change;
    match locality_config_specifier {
        None => {}
        Some(cluster::common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(_)) => {
            cx.ignored("zone_aware_lb_config", true);
        }
        Some(cluster::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            cx.ignored("locality_weighted_lb_config", true);
        }
    }
    if let Some(threshold) = healthy_panic_threshold
        && let Some(points) = common::basis_points(cx, "healthy_panic_threshold", threshold)
    {
        out.panic_threshold = (points + 50) / 100;
    }
}

/// Subsets send requests to fewer endpoints than there are: leaving them out would send them elsewhere.
pub(super) fn subsets(cx: &mut Context, value: &Cluster) {
    let lb_subset_config = &value.lb_subset_config;
    unsupported!(cx; lb_subset_config);
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes_are_told_from_products() {
        assert!([2, 3, 65_537].into_iter().all(is_prime));
        assert!(![0, 9, 65_536].into_iter().any(is_prime));
    }
}
