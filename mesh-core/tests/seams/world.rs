//! One seed, one run.

use std::{
    future::{Ready, ready},
    io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use mesh_core::{
    cluster::{Attempt, AttemptOutcome, Monitor},
    config::{Change, MemorySource, Update},
    model::{
        Action, Cluster, ClusterLoadAssignment, Discovery, LbPolicy, RetryOn, RetryPolicy,
        RouteRules,
    },
    snapshot::Mesh,
    transport::{ConnectError, Connector, Stream, Target},
    world,
};
use tokio::time::Instant;
use tower_service::Service;

use crate::everything_to;

/// Where each attempt went, and when.
#[derive(Debug, Default)]
struct Trace(Mutex<Vec<(u16, Duration)>>, std::sync::OnceLock<Instant>);

impl Monitor for Trace {
    fn attempted(&self, attempt: &Attempt, _outcome: AttemptOutcome) {
        let port = attempt.endpoint().address().socket().map(|one| one.port());
        let at = self.1.get_or_init(Instant::now).elapsed();
        let mut trace = self.0.lock().expect("no panic under the lock");
        trace.push((port.unwrap_or_default(), at));
    }
}

/// Makes no connection, without asking the kernel: its time is not ours.
#[derive(Clone, Copy)]
struct Refused;

impl Connector for Refused {
    type Io = Stream;
    type Future = Ready<Result<Stream, ConnectError>>;

    fn connect(&self, to: &Target) -> Self::Future {
        ready(Err(ConnectError::Io {
            address: to.address().clone(),
            source: io::ErrorKind::ConnectionRefused.into(),
        }))
    }
}

/// What calls to endpoints that nobody serves do under `seed`: a first attempt and three with back-off, each at random.
fn run(seed: u64) -> Vec<(u16, Duration)> {
    let trace = Arc::new(Trace::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let _it = world::begin(seed, SystemTime::UNIX_EPOCH);
        let mut cluster = Cluster::new("c", Discovery::Static);
        cluster.lb = LbPolicy::Random;
        let endpoints = (1..9).map(|port| ([127, 0, 0, 1], port).into());
        cluster.load_assignment = ClusterLoadAssignment::of("c", endpoints);
        let mut table = everything_to("80", "c");
        let RouteRules::List(routes) = &mut table.virtual_hosts[0].routes else {
            unreachable!("it is a list");
        };
        let Action::Forward(forward) = &mut routes[0].action else {
            unreachable!("it forwards");
        };
        forward.timeout = None;
        forward.retry = Some(RetryPolicy {
            on: RetryOn::CONNECT_FAILURE,
            retries: 3,
            ..RetryPolicy::default()
        });
        let (source, _handle) = MemorySource::new();
        let builder = Mesh::builder().monitor(trace.clone());
        let (mesh, mut driver) = builder.source(source).build();
        driver.apply(Update {
            changes: vec![
                Change::Cluster(Arc::new(cluster)),
                Change::Routes(Arc::new(table)),
            ],
            ..Update::default()
        });
        let mut client = mesh.client(Refused);
        for _ in 0..4 {
            let request = http::Request::get("http://host/").body(Empty::<Bytes>::new());
            let Ok(response) = client.call(request.expect("a request")).await;
            assert_eq!(response.status(), 503);
            response.into_body().collect().await.expect("a body");
        }
    });
    std::mem::take(&mut *trace.0.lock().expect("no panic under the lock"))
}

#[test]
fn a_seed_repeats_picks_and_waits() {
    let first = run(7);
    assert_eq!(first.len(), 16, "four calls of four attempts: {first:?}");
    assert!(first.last() > first.first(), "back-off takes time");
    assert_eq!(run(7), first);
    assert_ne!(run(8), first);
}
