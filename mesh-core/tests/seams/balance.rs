//! Policies, decorators of policies, and what takes endpoints out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::Empty;
use mesh_core::{
    Kind,
    cluster::{Attempt, AttemptOutcome, Balancer, Endpoint, Monitor, PickKey, Picker},
    config::{Change, MemorySource, Update},
    model::{
        self, ClusterLoadAssignment, Discovery, LbEndpoint, LbPolicy, Locality, LocalityEndpoints,
        Name, Priority,
    },
    snapshot::Mesh,
    transport::TcpConnector,
};
use tower_service::Service;

use crate::everything_to;

/// A hash ring with a few points for each endpoint.
#[derive(Debug)]
struct Ring(BTreeMap<u64, Arc<Endpoint>>);

#[derive(Debug)]
struct ByRing;

fn mixed(value: u64) -> u64 {
    (value ^ (value >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Balancer for ByRing {
    fn picker(&self, _cluster: &model::Cluster, members: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        let points = members.iter().flat_map(|endpoint| {
            let port = u64::from(port(endpoint));
            (0..16).map(move |point| (mixed(port << 8 | point), endpoint.clone()))
        });
        Box::new(Ring(points.collect()))
    }
}

impl Picker for Ring {
    fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
        let hash = mixed(key.hash?.wrapping_add(key.turn.into()));
        let mut on = self.0.range(hash..).chain(&self.0);
        on.next().map(|(_, endpoint)| endpoint)
    }
}

/// The endpoints of one zone by the policy within, all of them where it has none.
#[derive(Debug)]
struct Near(Name, LbPolicy);

#[derive(Debug)]
struct NearOrFar(Option<Box<dyn Picker>>, Box<dyn Picker>);

impl Balancer for Near {
    fn picker(&self, cluster: &model::Cluster, members: &[Arc<Endpoint>]) -> Box<dyn Picker> {
        let near = members.iter().filter(|one| one.locality().zone == self.0);
        let near: Vec<_> = near.cloned().collect();
        let own = (!near.is_empty()).then(|| self.1.picker(cluster, &near));
        Box::new(NearOrFar(own, self.1.picker(cluster, members)))
    }
}

impl Picker for NearOrFar {
    fn pick(&self, key: &PickKey<'_>) -> Option<&Arc<Endpoint>> {
        // A further turn looks farther.
        let near = self.0.as_ref().filter(|_| key.turn == 0);
        near.unwrap_or(&self.1).pick(key)
    }
}

/// Takes an endpoint out at its second failure.
#[derive(Debug, Default)]
struct Ejector {
    failures: Mutex<BTreeMap<u64, u32>>,
    told: AtomicU32,
}

impl Monitor for Ejector {
    fn attempted(&self, attempt: &Attempt, outcome: AttemptOutcome) {
        self.told.fetch_add(1, Ordering::Relaxed);
        let failed = match outcome {
            AttemptOutcome::Response(status) => status >= 500,
            AttemptOutcome::Failed(_) => true,
            _ => false,
        };
        let mut failures = self.failures.lock().expect("no panic under the lock");
        let failures = failures.entry(attempt.endpoint().id()).or_default();
        *failures = if failed { *failures + 1 } else { 0 };
        if *failures == 2 {
            attempt.endpoint().set_ejected(true);
            attempt.cluster().health_changed();
        }
    }
}

fn port(endpoint: &Endpoint) -> u16 {
    endpoint
        .address()
        .socket()
        .map_or(0, |socket| socket.port())
}

/// Endpoints of one zone and priority.
fn group(zone: &str, priority: u32, ports: impl IntoIterator<Item = u16>) -> LocalityEndpoints {
    let endpoint = |port| LbEndpoint::new(model::Address::Socket(([127, 0, 0, 1], port).into()));
    LocalityEndpoints {
        locality: Locality {
            zone: zone.into(),
            ..Locality::default()
        },
        priority,
        endpoints: ports.into_iter().map(endpoint).collect(),
        ..LocalityEndpoints::default()
    }
}

fn cluster(lb: LbPolicy, localities: Vec<LocalityEndpoints>) -> model::Cluster {
    let mut cluster = model::Cluster::new("c", Discovery::Static);
    cluster.lb = lb;
    cluster.panic_threshold = 0;
    cluster.load_assignment = ClusterLoadAssignment {
        localities,
        ..ClusterLoadAssignment::default()
    };
    cluster
}

/// A mesh with this cluster in force, and with a table `80` that leads to it.
fn mesh_of(cluster: model::Cluster, monitor: Arc<Ejector>) -> Mesh {
    let (source, _handle) = MemorySource::new();
    let builder = Mesh::builder().monitor(monitor);
    let (mesh, mut driver) = builder.source(source).build();
    driver.apply(Update {
        changes: vec![
            Change::Cluster(Arc::new(cluster)),
            Change::Routes(Arc::new(everything_to("80", "c"))),
        ],
        ..Update::default()
    });
    mesh
}

fn picked(mesh: &Mesh, key: &PickKey<'_>) -> Arc<Endpoint> {
    let cluster = mesh.clusters().get("c").expect("it is in force");
    cluster.pick(key).expect("an endpoint")
}

#[test]
fn a_ring_of_ones_own_sticks_and_steps_aside() {
    let lb = LbPolicy::custom(ByRing);
    let mesh = mesh_of(cluster(lb, vec![group("a", 0, 1..9)]), Arc::default());
    let by_hash = |hash| PickKey {
        hash: Some(hash),
        ..PickKey::default()
    };
    let mut met = BTreeMap::new();
    for hash in 0..64 {
        let chosen = picked(&mesh, &by_hash(hash));
        assert_eq!(picked(&mesh, &by_hash(hash)).id(), chosen.id());
        met.insert(port(&chosen), hash);
    }
    assert!(met.len() > 4, "{met:?}");
    let (first, hash) = met.first_key_value().expect("one at least");
    let chosen = picked(&mesh, &by_hash(*hash));
    // A retry that avoids it goes elsewhere, and so does everybody once it is out.
    let tried = [chosen.clone()];
    let again = PickKey {
        exclude: &tried,
        host_attempts: 5,
        ..by_hash(*hash)
    };
    assert_ne!(port(&picked(&mesh, &again)), *first);
    chosen.set_ejected(true);
    assert_ne!(port(&picked(&mesh, &by_hash(*hash))), *first);
    mesh.clusters().get("c").expect("known").health_changed();
    assert_ne!(port(&picked(&mesh, &by_hash(*hash))), *first);
}

#[test]
fn a_decorator_divides_endpoints_and_leaves_the_choice_to_what_is_built_in() {
    let lb = LbPolicy::custom(Near("b".into(), LbPolicy::RoundRobin));
    let zones = vec![group("a", 0, 1..3), group("b", 0, 3..5)];
    let mesh = mesh_of(cluster(lb, zones), Arc::default());
    let ports = || -> Vec<u16> {
        let picks = (0..4).map(|_| port(&picked(&mesh, &PickKey::default())));
        picks.collect()
    };
    assert_eq!(ports(), [3, 4, 3, 4]);
    // Without healthy ones near it goes on to the others of its priority.
    let handle = mesh.clusters().get("c").expect("it is in force");
    for endpoint in &handle.endpoints().all()[2..] {
        endpoint.set_failed(true);
    }
    handle.health_changed();
    assert_eq!(ports(), [1, 2, 1, 2]);
}

#[test]
fn what_learns_of_failures_takes_endpoints_out_for_everybody() {
    let ejector = Arc::new(Ejector::default());
    let groups = vec![group("a", 0, [1]), group("a", 1, [2])];
    let mesh = mesh_of(cluster(LbPolicy::Random, groups), ejector.clone());
    let handle = mesh.clusters().get("c").expect("it is in force");
    let attempt = || {
        let key = PickKey::default();
        handle.attempt(Priority::Default, &key).expect("admitted")
    };
    for outcome in [
        AttemptOutcome::Response(503),
        AttemptOutcome::Response(200),
        AttemptOutcome::Failed(Kind::ConnectFailure),
        AttemptOutcome::Response(500),
    ] {
        let attempt = attempt();
        assert_eq!(port(attempt.endpoint()), 1);
        attempt.finish(outcome);
    }
    assert_eq!(port(attempt().endpoint()), 2, "the first one is out");
    assert_eq!(ejector.told.load(Ordering::Relaxed), 4);
    // Back in, the first priority takes all again.
    handle.endpoints().all()[0].set_ejected(false);
    handle.health_changed();
    assert_eq!(port(attempt().endpoint()), 1);
}

#[tokio::test]
async fn attempts_of_a_client_are_told_too() {
    let ejector = Arc::new(Ejector::default());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let config = cluster(LbPolicy::RoundRobin, vec![group("a", 0, [port])]);
    let mesh = mesh_of(config, ejector.clone());
    let mut client = mesh.client(TcpConnector);
    let mut status = async || {
        let request = http::Request::get("http://host/").body(Empty::<Bytes>::new());
        let Ok(response) = client.call(request.expect("a request")).await;
        response.status().as_u16()
    };
    assert_eq!([status().await, status().await], [503, 503]);
    assert_eq!(ejector.told.load(Ordering::Relaxed), 2);
    let handle = mesh.clusters().get("c").expect("it is in force");
    assert!(handle.endpoints().all()[0].is_ejected());
    assert_eq!(status().await, 503);
    assert_eq!(
        ejector.told.load(Ordering::Relaxed),
        2,
        "none was left to try"
    );
}
