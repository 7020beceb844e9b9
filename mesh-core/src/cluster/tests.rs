//! Picks, shares, limits.

mod state;

use std::sync::Arc;

use super::{AttemptOutcome, Cluster, Omit, Permit, PickKey};
use crate::{
    Kind,
    model::{
        self, Address, ClusterLoadAssignment, Discovery, HealthStatus, LbEndpoint, LbPolicy,
        LocalityEndpoints, Metadata, Priority, RetryPolicy, Value,
    },
};

fn endpoint(port: u16, weight: u32, health: HealthStatus) -> LbEndpoint {
    LbEndpoint {
        address: Address::Socket(([127, 0, 0, 1], port).into()),
        hostname: "".into(),
        weight,
        health,
        metadata: Default::default(),
    }
}

fn group(priority: u32, endpoints: Vec<LbEndpoint>) -> LocalityEndpoints {
    LocalityEndpoints {
        priority,
        endpoints,
        ..Default::default()
    }
}

fn cluster(lb: LbPolicy, localities: Vec<LocalityEndpoints>) -> model::Cluster {
    let mut cluster = model::Cluster::new("c", Discovery::Static);
    cluster.lb = lb;
    cluster.load_assignment = ClusterLoadAssignment {
        cluster: "c".into(),
        localities,
        ..Default::default()
    };
    cluster
}

fn ports(cluster: &Cluster, picks: usize) -> Vec<u16> {
    (0..picks)
        .map(|turn| {
            let key = PickKey {
                random: (turn as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                ..PickKey::default()
            };
            cluster
                .pick(&key)
                .expect("an endpoint")
                .address()
                .socket()
                .expect("a socket")
                .port()
        })
        .collect()
}

#[test]
fn round_robin_takes_turns_by_weight_and_skips_the_unhealthy() {
    let members = vec![
        endpoint(1, 2, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Unknown),
        endpoint(3, 1, HealthStatus::Unhealthy),
    ];
    let cluster = Cluster::new(
        Arc::new(cluster(LbPolicy::RoundRobin, vec![group(0, members)])),
        None,
    );
    let picked = ports(&cluster, 400);
    assert!(!picked.contains(&3));
    assert!(picked.iter().filter(|port| **port == 1).count() >= 200);
}

#[test]
fn a_lower_priority_serves_only_when_the_first_has_no_healthy_endpoint() {
    let config = cluster(
        LbPolicy::Random,
        vec![
            group(0, vec![endpoint(1, 1, HealthStatus::Healthy)]),
            group(1, vec![endpoint(2, 1, HealthStatus::Healthy)]),
        ],
    );
    let handle = Cluster::new(Arc::new(config), None);
    assert_eq!(ports(&handle, 5), [1; 5]);
    handle.endpoints().all()[0].set_ejected(true);
    assert_eq!(ports(&handle, 5), [2; 5]);
}

#[test]
fn random_does_not_ask_for_weights() {
    let members = vec![
        endpoint(1, 9, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Healthy),
    ];
    let handle = Cluster::new(
        Arc::new(cluster(LbPolicy::Random, vec![group(0, members)])),
        None,
    );
    let first = ports(&handle, 10_000)
        .iter()
        .filter(|port| **port == 1)
        .count();
    assert!((4_700..5_300).contains(&first), "{first}");
}

/// How many of 10,000 picks each port gets, per cent.
fn percent(cluster: &Cluster) -> Vec<(u16, u32)> {
    let mut counts = std::collections::BTreeMap::new();
    for port in ports(cluster, 10_000) {
        *counts.entry(port).or_insert(0_u32) += 1;
    }
    let rounded = counts.into_iter().map(|(port, n)| (port, (n + 50) / 100));
    rounded.collect()
}

#[test]
fn priorities_share_by_health_and_panic_as_in_envoy() {
    use HealthStatus::{Degraded, Draining, Healthy, Unhealthy};
    let endpoints = |from: u16, health: &[HealthStatus]| -> Vec<LbEndpoint> {
        let ports = from..;
        ports
            .zip(health)
            .map(|(port, health)| endpoint(port, 1, *health))
            .collect()
    };
    type Expected<'a> = &'a [(u16, u32)];
    let cases: [(&[HealthStatus], &[HealthStatus], Expected<'_>); 6] = [
        (&[Healthy], &[Healthy], &[(10, 100)]),
        (&[Healthy, Unhealthy], &[Healthy], &[(10, 70), (20, 30)]),
        (&[Draining, Unhealthy], &[Healthy], &[(20, 100)]),
        (&[Unhealthy, Draining], &[], &[(10, 50), (11, 50)]),
        (&[Healthy, Degraded], &[], &[(10, 70), (11, 30)]),
        (
            &[Healthy, Unhealthy, Unhealthy, Unhealthy],
            &[Healthy],
            &[(10, 35), (20, 65)],
        ),
    ];
    for policy in [
        LbPolicy::RoundRobin,
        LbPolicy::Random,
        LbPolicy::LeastRequest { choices: 2 },
    ] {
        for (first, second, expected) in cases {
            let groups = vec![
                group(0, endpoints(10, first)),
                group(1, endpoints(20, second)),
            ];
            let handle = Cluster::new(Arc::new(cluster(policy.clone(), groups)), None);
            let seen = percent(&handle);
            let near = seen.len() == expected.len()
                && seen
                    .iter()
                    .zip(expected)
                    .all(|((port, n), (wanted, percent))| {
                        port == wanted && n.abs_diff(*percent) <= 2
                    });
            assert!(
                near,
                "{policy:?} {first:?} {second:?}: {seen:?}, not {expected:?}"
            );
        }
    }
    // Without a panic threshold nothing unhealthy is asked.
    let mut config = cluster(
        LbPolicy::Random,
        vec![group(0, endpoints(10, &[Unhealthy]))],
    );
    config.panic_threshold = 0;
    let handle = Cluster::new(Arc::new(config), None);
    assert_eq!(
        handle.pick(&PickKey::default()).err(),
        Some(Kind::NoHealthyUpstream)
    );
}

#[test]
fn an_assignment_says_how_far_the_healthy_carry_the_rest() {
    use HealthStatus::{Healthy, Unhealthy};
    let half = vec![endpoint(1, 1, Healthy), endpoint(2, 1, Unhealthy)];
    let groups = vec![group(0, half), group(1, vec![endpoint(3, 1, Healthy)])];
    let mut config = cluster(LbPolicy::Random, groups);
    config.discovery = Discovery::Eds("".into());
    let assignment = ClusterLoadAssignment {
        overprovisioning_factor: Some(100),
        ..std::mem::take(&mut config.load_assignment)
    };
    let old = Cluster::new(Arc::new(config.clone()), None);
    old.set_endpoints(&assignment);
    // Another policy keeps what the assignment says.
    config.lb = LbPolicy::RoundRobin;
    let new = Cluster::new(Arc::new(config), Some(&old));
    for handle in [old, new] {
        let first = percent(&handle)[0];
        assert!(first.0 == 1 && first.1.abs_diff(50) <= 2, "{first:?}");
    }
}

#[test]
fn one_percent_is_no_more() {
    let mut first = vec![endpoint(1, 1, HealthStatus::Unhealthy); 99];
    first.push(endpoint(2, 1, HealthStatus::Healthy));
    let second = vec![endpoint(3, 1, HealthStatus::Healthy)];
    let mut config = cluster(LbPolicy::Random, vec![group(0, first), group(1, second)]);
    config.panic_threshold = 0;
    let handle = Cluster::new(Arc::new(config), None);
    let picked = ports(&handle, 10_000);
    let first = picked.iter().filter(|port| **port == 2).count();
    assert!((60..140).contains(&first), "{first}");
}

#[test]
fn whoever_is_ejected_serves_nobody_while_others_do() {
    use HealthStatus::{Degraded, Healthy, Unhealthy};
    for (health, policy) in [
        (Healthy, LbPolicy::RoundRobin),
        (Degraded, LbPolicy::RoundRobin),
        (Healthy, LbPolicy::LeastRequest { choices: 8 }),
    ] {
        let members = vec![
            endpoint(1, 1, health),
            endpoint(2, 1, health),
            endpoint(3, 1, Unhealthy),
        ];
        let mut config = cluster(policy, vec![group(0, members)]);
        config.panic_threshold = 0;
        let handle = Cluster::new(Arc::new(config), None);
        handle.endpoints().all()[0].set_ejected(true);
        assert_eq!(ports(&handle, 20), [2; 20], "{health:?}");
    }
}

#[test]
fn least_request_asks_for_weights() {
    let members = vec![
        endpoint(1, 1, HealthStatus::Healthy),
        endpoint(2, 3, HealthStatus::Healthy),
    ];
    let config = cluster(
        LbPolicy::LeastRequest { choices: 2 },
        vec![group(0, members)],
    );
    let handle = Cluster::new(Arc::new(config), None);
    // Both are idle, so the first choice stays.
    let first = percent(&handle)[0];
    assert!(first.0 == 1 && first.1.abs_diff(25) <= 2, "{first:?}");
}

#[test]
fn least_request_prefers_the_idle_endpoint() {
    let members = vec![
        endpoint(1, 1, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Healthy),
    ];
    let handle = Arc::new(Cluster::new(
        Arc::new(cluster(
            LbPolicy::LeastRequest { choices: 8 },
            vec![group(0, members)],
        )),
        None,
    ));
    let held = handle
        .attempt(Priority::Default, &PickKey::default())
        .expect("admitted");
    let busy = held.endpoint().id();
    let random = (1..50_u64).map(|turn| turn.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let chosen = random.map(|random| {
        let key = PickKey {
            random,
            ..PickKey::default()
        };
        handle.pick(&key).expect("an endpoint").id()
    });
    // Eight choices among two miss the idle one once in 2^8.
    assert!(chosen.filter(|id| *id == busy).count() <= 2);
    held.finish(AttemptOutcome::Response(200));
    assert_eq!(
        handle
            .endpoints()
            .all()
            .iter()
            .map(|endpoint| endpoint.active())
            .sum::<u32>(),
        0
    );
}

#[test]
fn limits_refuse_at_once_and_are_given_back() {
    let mut config = cluster(
        LbPolicy::RoundRobin,
        vec![group(0, vec![endpoint(1, 1, HealthStatus::Healthy)])],
    );
    config.limits[0].max_requests = 1;
    config.limits[0].max_retries = 0;
    let handle = Arc::new(Cluster::new(Arc::new(config), None));
    let first = handle
        .attempt(Priority::Default, &PickKey::default())
        .expect("the first is admitted");
    assert_eq!(
        handle.attempt(Priority::Default, &PickKey::default()).err(),
        Some(Kind::Overflow)
    );
    assert!(
        handle.attempt(Priority::High, &PickKey::default()).is_ok(),
        "priorities have limits of their own"
    );
    drop(first);
    assert!(
        handle
            .attempt(Priority::Default, &PickKey::default())
            .is_ok()
    );
    assert!(Permit::retry(&handle, Priority::Default).is_none());
}

#[test]
fn a_retry_budget_allows_its_minimum() {
    let mut config = cluster(
        LbPolicy::RoundRobin,
        vec![group(0, vec![endpoint(1, 1, HealthStatus::Healthy)])],
    );
    config.limits[0].retry_budget = Some(model::RetryBudget {
        basis_points: 2_000,
        min_concurrency: 2,
    });
    let handle = Arc::new(Cluster::new(Arc::new(config), None));
    let held: Vec<_> = (0..3)
        .map(|_| Permit::retry(&handle, Priority::Default))
        .collect();
    assert_eq!(held.iter().flatten().count(), 2);
    // A fifth of what is in flight, once that is more.
    let flying = (0..20).map(|_| handle.attempt(Priority::Default, &PickKey::default()));
    let flying: Vec<_> = flying.collect();
    let more: Vec<_> = (0..3)
        .map(|_| Permit::retry(&handle, Priority::Default))
        .collect();
    assert_eq!(more.iter().flatten().count(), 2);
    drop(flying);
}

#[test]
fn an_original_destination_is_one_endpoint_each() {
    let handle = Cluster::new(
        Arc::new(model::Cluster::new(
            "p",
            Discovery::OriginalDst(Default::default()),
        )),
        None,
    );
    let key = PickKey {
        original_dst: Some(([10, 0, 0, 1], 80).into()),
        ..PickKey::default()
    };
    let (first, second) = (
        handle.pick(&key).expect("made"),
        handle.pick(&key).expect("kept"),
    );
    assert_eq!(first.id(), second.id());
    assert_eq!(
        handle.pick(&PickKey::default()).err(),
        Some(Kind::NoHealthyUpstream)
    );
    let discovery = Discovery::OriginalDst(model::OriginalDst {
        port_override: Some(15_008),
        ..model::OriginalDst::default()
    });
    let handle = Cluster::new(Arc::new(model::Cluster::new("p", discovery)), None);
    let address = handle.pick(&key).expect("made").address().to_string();
    assert_eq!(address, "10.0.0.1:15008");
}

#[test]
fn a_previous_host_is_avoided_while_another_takes_traffic() {
    let members = vec![
        endpoint(1, 1, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Healthy),
    ];
    let handle = Cluster::new(
        Arc::new(cluster(LbPolicy::Random, vec![group(0, members)])),
        None,
    );
    let tried = [handle.endpoints().all()[0].clone()];
    for random in 0..20 {
        let key = PickKey {
            random: random << 59,
            exclude: &tried,
            host_attempts: 5,
            ..PickKey::default()
        };
        assert_ne!(handle.pick(&key).expect("an endpoint").id(), tried[0].id());
    }
    // Without attempts to find another, chance decides.
    let again = (0..20).any(|random| {
        let key = PickKey {
            random: random << 59,
            exclude: &tried,
            ..PickKey::default()
        };
        handle.pick(&key).expect("an endpoint").id() == tried[0].id()
    });
    assert!(again);
}

/// Metadata in `envoy.lb`.
fn labels(labels: &[(&str, Value)]) -> Metadata {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).into(), value.clone()))
        .collect();
    Metadata {
        namespaces: vec![("envoy.lb".into(), Value::Object(labels))],
    }
}

#[test]
fn retries_avoid_endpoints_by_their_metadata() {
    let text = |text: &str| Value::String(text.into());
    let of = |port, metadata| LbEndpoint {
        metadata,
        ..endpoint(port, 1, HealthStatus::Healthy)
    };
    let members = vec![
        of(1, labels(&[("canary", Value::Bool(true))])),
        of(2, labels(&[("stage", text("dev")), ("zone", text("a"))])),
        of(
            3,
            labels(&[("stage", Value::List(vec![text("prod"), text("dev")]))]),
        ),
        of(4, Metadata::default()),
    ];
    let picked = |policy: RetryPolicy| {
        let members = vec![group(0, members.clone())];
        let handle = Cluster::new(Arc::new(cluster(LbPolicy::RoundRobin, members)), None);
        let omit = Omit::of(&policy);
        let mut ports: Vec<u16> = (0..16)
            .map(|_| {
                let key = PickKey {
                    host_attempts: 5,
                    omit: omit.as_ref(),
                    ..PickKey::default()
                };
                let endpoint = handle.pick(&key).expect("an endpoint");
                endpoint.address().socket().expect("a socket").port()
            })
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    assert_eq!(picked(RetryPolicy::default()), [1, 2, 3, 4]);
    let canaries = RetryPolicy {
        omit_canary_hosts: true,
        ..RetryPolicy::default()
    };
    assert_eq!(picked(canaries), [2, 3, 4]);
    for (wanted, left) in [
        (&[("stage", text("dev"))][..], &[1, 4][..]),
        (&[("stage", text("dev")), ("zone", text("a"))], &[1, 3, 4]),
        (&[("stage", text("none"))], &[1, 2, 3, 4]),
        (&[], &[1, 2, 3, 4]),
    ] {
        let policy = RetryPolicy {
            omit_host_metadata: labels(wanted),
            ..RetryPolicy::default()
        };
        assert_eq!(picked(policy), left, "{wanted:?}");
    }
}

#[test]
fn one_that_is_to_be_avoided_is_picked_if_there_is_no_other() {
    let only = LbEndpoint {
        metadata: labels(&[("canary", Value::Bool(true))]),
        ..endpoint(1, 1, HealthStatus::Healthy)
    };
    let config = cluster(LbPolicy::RoundRobin, vec![group(0, vec![only])]);
    let handle = Cluster::new(Arc::new(config), None);
    let omit = Omit::of(&RetryPolicy {
        omit_canary_hosts: true,
        ..RetryPolicy::default()
    });
    let key = PickKey {
        // Not all of them are made.
        host_attempts: u32::MAX,
        omit: omit.as_ref(),
        ..PickKey::default()
    };
    assert!(handle.pick(&key).is_ok());
}

#[test]
fn what_was_found_out_of_an_endpoint_outlasts_an_update_of_its_labels() {
    let group_of = |metadata| {
        let one = endpoint(1, 1, HealthStatus::Healthy);
        vec![group(0, vec![LbEndpoint { metadata, ..one }])]
    };
    let before = group_of(Metadata::default());
    let config = cluster(LbPolicy::RoundRobin, before);
    let handle = Cluster::new(Arc::new(config), None);
    handle.endpoints().all()[0].set_ejected(true);
    handle.set_endpoints(&ClusterLoadAssignment {
        localities: group_of(labels(&[("stage", Value::Bool(true))])),
        ..ClusterLoadAssignment::default()
    });
    let now = handle.endpoints();
    assert!(!now.all()[0].metadata().namespaces.is_empty());
    assert!(now.all()[0].is_ejected() && !now.all()[0].is_healthy());
}
