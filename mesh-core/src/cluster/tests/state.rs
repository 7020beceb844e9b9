//! What is counted, and what a new configuration or assignment leaves as it was.

use std::sync::Arc;

use super::{
    super::{
        AttemptOutcome, Cluster, Endpoint, MAX_ORIGINAL_DESTINATIONS, Originals, PickKey, with,
    },
    cluster, endpoint, group, labels, ports,
};
use crate::{
    Kind,
    model::{
        self, Address, ClusterLoadAssignment, HealthStatus, LbEndpoint, LbPolicy,
        LocalityEndpoints, Priority, Value,
    },
};

#[test]
fn state_survives_a_new_configuration_and_an_update_of_endpoints() {
    let members = vec![
        endpoint(1, 1, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Healthy),
    ];
    let old = Arc::new(Cluster::new(
        Arc::new(cluster(LbPolicy::RoundRobin, vec![group(0, members)])),
        None,
    ));
    let attempt = old
        .attempt(Priority::Default, &PickKey::default())
        .expect("admitted");
    let kept = old.endpoints().all()[1].id();
    let mut config = cluster(
        LbPolicy::Random,
        vec![group(0, vec![endpoint(2, 5, HealthStatus::Healthy)])],
    );
    config.limits[0].max_requests = 1;
    let new = Arc::new(Cluster::new(Arc::new(config), Some(&old)));
    assert_eq!(new.endpoints().all()[0].id(), kept);
    assert_eq!(new.endpoints().all()[0].weight(), 5);
    assert_eq!(new.generation(), 0);
    assert_eq!(
        new.attempt(Priority::Default, &PickKey::default()).err(),
        Some(Kind::Overflow)
    );
    drop(attempt);
    assert!(new.attempt(Priority::Default, &PickKey::default()).is_ok());
}

#[test]
fn health_and_weight_are_news_of_the_same_endpoint() {
    let first = vec![endpoint(1, 1, HealthStatus::Healthy)];
    let old = cluster(LbPolicy::Random, vec![group(0, first)]);
    let old = Cluster::new(Arc::new(old), None);
    let same = endpoint(1, 0, HealthStatus::Unhealthy);
    let named = LbEndpoint {
        hostname: "other".into(),
        ..same.clone()
    };
    let labelled = LbEndpoint {
        metadata: labels(&[("canary", Value::Bool(true))]),
        ..same.clone()
    };
    let elsewhere = LocalityEndpoints {
        locality: model::Locality {
            zone: "z".into(),
            ..Default::default()
        },
        ..group(0, vec![same.clone()])
    };
    for (group, stays) in [
        (group(1, vec![same.clone()]), false),
        (group(0, vec![named]), false),
        (group(0, vec![labelled]), false),
        (elsewhere, false),
        (group(0, vec![same]), true),
    ] {
        let before = Cluster::new(old.config().clone(), Some(&old)).endpoints();
        let next = cluster(LbPolicy::Random, vec![group.clone()]);
        let after = Cluster::new(Arc::new(next), Some(&old)).endpoints();
        let (before, after) = (&before.all()[0], &after.all()[0]);
        assert_eq!(before.id() == after.id(), stays, "{group:?}");
        // Nobody weighs nothing.
        let news = (after.health(), after.weight());
        assert_eq!(news, (HealthStatus::Unhealthy, 1), "{group:?}");
    }
}

#[test]
fn another_policy_acts_on_the_endpoints_that_are_known() {
    let members = vec![
        endpoint(1, 1, HealthStatus::Healthy),
        endpoint(2, 1, HealthStatus::Healthy),
    ];
    let mut config = cluster(LbPolicy::Random, vec![group(0, members)]);
    config.discovery = model::Discovery::Eds("".into());
    let assignment = std::mem::take(&mut config.load_assignment);
    let old = Cluster::new(Arc::new(config.clone()), None);
    old.set_endpoints(&assignment);
    config.lb = LbPolicy::RoundRobin;
    let new = Cluster::new(Arc::new(config), Some(&old));
    let picked = ports(&new, 40);
    assert!(
        picked.windows(2).all(|pair| pair[0] != pair[1]),
        "{picked:?}"
    );
}

#[test]
fn original_destinations_do_not_fill_the_memory() {
    let address = |number: u32| ([10, 0, 0, 1], number as u16).into();
    let made = Arc::new(Endpoint::for_address(address(0)));
    let most = MAX_ORIGINAL_DESTINATIONS as u32;
    let mut known: Originals = (0..most - 1)
        .map(|number| (address(number), made.clone()))
        .collect();
    known = with(&known, address(most), &made);
    assert_eq!(known.len(), MAX_ORIGINAL_DESTINATIONS);
    assert_eq!(with(&known, address(most + 1), &made).len(), 1);
}

#[test]
fn connections_are_made_anew_when_their_manner_changes() {
    let old = cluster(LbPolicy::Random, Vec::new());
    type Change = fn(&mut model::Cluster);
    let changes: [(Change, u64); 9] = [
        (|_| {}, 0),
        (|new| new.lb = LbPolicy::RoundRobin, 0),
        (
            |new| new.transport = model::TransportSocket::Tls(Default::default()),
            1,
        ),
        (
            |new| {
                new.transport_matches = vec![model::TransportMatch {
                    name: "".into(),
                    labels: Vec::new(),
                    transport: model::TransportSocket::RawBuffer,
                }]
            },
            1,
        ),
        (|new| new.protocol = model::UpstreamProtocol::Http2, 1),
        (|new| new.http1.preserve_case = true, 1),
        (|new| new.http2.max_concurrent_streams = Some(1), 1),
        (
            |new| new.bind = Some(Address::Socket(([127, 0, 0, 1], 0).into())),
            1,
        ),
        (|new| new.tcp_keepalive = Some(Default::default()), 1),
    ];
    for (index, (change, wanted)) in changes.into_iter().enumerate() {
        let first = Cluster::new(Arc::new(old.clone()), None);
        let mut config = old.clone();
        change(&mut config);
        let next = Cluster::new(Arc::new(config), Some(&first));
        assert_eq!(next.generation(), wanted, "{index}");
    }
}

#[test]
fn what_finds_no_endpoint_is_counted_and_holds_nothing() {
    let mut config = cluster(LbPolicy::RoundRobin, Vec::new());
    config.limits[0].max_requests = 1;
    let handle = Arc::new(Cluster::new(Arc::new(config), None));
    for _ in 0..2 {
        let refused = handle.attempt(Priority::Default, &PickKey::default());
        assert_eq!(refused.err(), Some(Kind::NoHealthyUpstream));
    }
    assert_eq!(handle.stats().upstream_cx_none_healthy.get(), 2);
    let known = |ports: &[u16]| ClusterLoadAssignment {
        localities: vec![group(
            0,
            ports
                .iter()
                .map(|port| endpoint(*port, 1, HealthStatus::Healthy))
                .collect(),
        )],
        ..Default::default()
    };
    for (ports, changes) in [(&[1][..], 1), (&[1], 1), (&[1, 2], 2), (&[2], 3)] {
        handle.set_endpoints(&known(ports));
        assert_eq!(handle.stats().membership_change.get(), changes, "{ports:?}");
    }
}

#[test]
fn an_outcome_is_counted_once_for_the_cluster_and_its_endpoint() {
    use AttemptOutcome::{Connected, Failed, Response};
    // What the cluster counts; successes, errors and timeouts of the endpoint.
    for (outcome, name, endpoints) in [
        (Response(200), "upstream_rq_200", [1, 0, 0]),
        (Response(499), "upstream_rq_499", [1, 0, 0]),
        (Response(500), "upstream_rq_500", [0, 1, 0]),
        (Connected, "", [0, 0, 0]),
        (Failed(Kind::DownstreamTermination), "", [0, 0, 0]),
        (Failed(Kind::DownstreamProtocol), "", [0, 0, 0]),
        (Failed(Kind::ConnectFailure), "", [0, 1, 0]),
        (
            Failed(Kind::UpstreamTimeout),
            "upstream_rq_timeout",
            [0, 1, 1],
        ),
        (
            Failed(Kind::PerTryTimeout),
            "upstream_rq_per_try_timeout",
            [0, 1, 1],
        ),
        (
            Failed(Kind::MaxDuration),
            "upstream_rq_max_duration_reached",
            [0, 1, 0],
        ),
        (Failed(Kind::RemoteReset), "upstream_rq_rx_reset", [0, 1, 0]),
        (
            Failed(Kind::UpstreamProtocol),
            "upstream_cx_protocol_error",
            [0, 1, 0],
        ),
    ] {
        let members = vec![endpoint(1, 1, HealthStatus::Healthy)];
        let config = cluster(LbPolicy::RoundRobin, vec![group(0, members)]);
        let handle = Arc::new(Cluster::new(Arc::new(config), None));
        let attempt = handle.attempt(Priority::Default, &PickKey::default());
        let mut attempt = attempt.expect("admitted");
        // Put off until it is known whether it is tried again, which nobody says here.
        #[cfg(feature = "net")]
        attempt.defer();
        attempt.record(outcome);
        attempt.record(Response(204));
        drop(attempt);
        let mut counted = Vec::new();
        handle.stats().each(|name, value| {
            let of_codes = name.ends_with("xx") || name.ends_with("completed");
            if value > 0 && !of_codes && name != "membership_change" {
                counted.push((name.to_owned(), value));
            }
        });
        let wanted = Some((name.to_owned(), 1)).filter(|_| !name.is_empty());
        assert_eq!(counted, Vec::from_iter(wanted), "{outcome:?}");
        let all = handle.endpoints();
        let seen = all.all()[0].stats();
        let seen = [&seen.rq_success, &seen.rq_error, &seen.rq_timeout].map(|count| count.get());
        assert_eq!(seen, endpoints, "{outcome:?}");
    }
}
