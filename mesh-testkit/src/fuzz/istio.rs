//! A folder of Istio and Kubernetes YAML on its whole way: read, judged, translated, decoded, compiled, decided by.

use std::sync::{Arc, LazyLock};

use mesh_core::cluster::PickKey;
use mesh_core::config::{MemorySource, Update};
use mesh_core::model::Address;
use mesh_core::route::{Decision, Head};
use mesh_core::snapshot::{ConnFacts, Mesh};
use mesh_xds::graph::{Graph, Kind};
use mesh_xds::istio::index::{Context, Proxy, ProxyKind, Workload};
use mesh_xds::istio::read::{self, Level, TextOptions};
use mesh_xds::istio::translate::{self, Resources};
use mesh_xds::yaml::{self, Limits};
use prost::Message;

/// What the objects of an input may refer to.
static SURROUNDINGS: LazyLock<read::Parsed> = LazyLock::new(|| {
    let options = TextOptions::default();
    let parsed = read::parse(&"surroundings.yaml".into(), SERVICES, &options);
    let mut findings = parsed.findings.iter();
    let refused = findings.find(|found| found.level == Level::Refused);
    assert!(refused.is_none(), "{refused:?}");
    parsed
});

const SERVICES: &str = include_str!("services.yaml");

/// Reads bytes as a file beside a few services, and makes of all of them what a sidecar and a gateway do with a request.
pub fn istio(data: &[u8]) {
    let limits = Limits {
        max_bytes: 1 << 16,
        ..Limits::default()
    };
    let Ok(text) = yaml::text(data, &limits) else {
        return;
    };
    let options = TextOptions {
        limits,
        ..TextOptions::default()
    };
    let parsed = read::parse(&"mesh.yaml".into(), text, &options);
    for finding in &parsed.findings {
        assert!(!finding.to_string().is_empty(), "a finding says nothing");
    }
    let mut objects = SURROUNDINGS.objects.clone();
    objects.extend(parsed.objects);
    let context = Context::new(&objects, "cluster.local").with_lost(parsed.lost);
    let own = context.workload("default", "productpage-v1").cloned();
    let own = own.unwrap_or_else(|| Arc::new(Workload::default()));
    for kind in [ProxyKind::Sidecar, ProxyKind::Router] {
        let proxy = match kind {
            ProxyKind::Sidecar => Proxy::sidecar(&own, &context),
            ProxyKind::Router => Proxy::router(&own, &context),
        };
        let made = translate::translate(&context, &proxy, &translate::Options::default());
        decide(update(&made));
    }
}

/// The update that a source makes of these resources.
fn update(made: &Resources) -> Update {
    let mut graph = Graph::new(true);
    let mut round = graph.round("1");
    for cluster in &made.clusters {
        round.wire(Kind::Cluster, &cluster.encode_to_vec(), "");
    }
    for endpoints in &made.endpoints {
        round.wire(Kind::Endpoints, &endpoints.encode_to_vec(), "");
    }
    for routes in &made.routes {
        round.wire(Kind::Routes, &routes.encode_to_vec(), "");
    }
    for listener in &made.listeners {
        round.wire(Kind::Listener, &listener.encode_to_vec(), "");
    }
    round.finish(&|paths| paths.iter().map(|_| "".into()).collect())
}

/// Compiles an update, and asks each of its tables and listeners about a request; whatever is counted is given back.
fn decide(update: Update) {
    let (source, _handle) = MemorySource::new();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(update);
    let snapshot = mesh.snapshot();
    let mut reader = mesh.reader();
    let headers: &[(&str, &str)] = &[("end-user", "jason"), ("cookie", "a=b")];
    let heads = ["reviews:9080", "productpage", "a.example.com", "10.0.0.1"]
        .map(|host| Head::new(b"GET", b"http", host.as_bytes(), b"/reviews/0?a=b", headers));
    let mut decisions: Vec<Decision> = Vec::new();
    for table in snapshot.routes().keys() {
        let decided = heads.iter().map(|head| reader.decide(table, head));
        decisions.extend(decided.flatten());
    }
    let source = Address::Socket(([127, 0, 0, 9], 9).into());
    for (name, listener) in snapshot.listeners() {
        let facts = ConnFacts::plain(&listener.config().address, &source);
        if let Ok(chain) = reader.chain(name, &facts) {
            decisions.extend(heads.iter().filter_map(|head| chain.decide(head).ok()));
        }
    }
    for decision in decisions {
        drop(decision.pick(&PickKey::default()));
    }
    for cluster in mesh.clusters().all().values() {
        let active = cluster.stats().upstream_rq_active.get();
        assert_eq!(active, 0, "{} keeps a place", cluster.name());
    }
}
