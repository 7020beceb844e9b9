use std::sync::Arc;

use http::Version;

use super::{Histogram, Metrics, Reporter, RequestMetrics, TcpMetrics, Workload, registry::CROWD};
use crate::{
    cluster::Cluster,
    model::{self, Address, Discovery, LbEndpoint, LocalityEndpoints, Metadata, Value},
    route::RouteTable,
    snapshot::Clusters,
    telemetry::{
        flags::{Flag, Flags},
        peer::Peer,
        record::{Ending, Late, Record, RecordedHead, Sink},
    },
    transport::{ConnInfo, Security},
};

#[derive(Debug)]
struct Counted(RequestMetrics);

impl Sink for Counted {
    fn finish(&self, record: &Record, late: &Late) {
        self.0.count(record, late);
    }
}

fn cluster() -> Arc<Cluster> {
    let istio = |key: &str, value| Metadata {
        namespaces: vec![("istio".into(), Value::Object(vec![(key.into(), value)]))],
    };
    let mut config = model::Cluster::new(
        "outbound|9080|v1|reviews.default.svc.cluster.local",
        Discovery::Static,
    );
    config.load_assignment.localities = vec![LocalityEndpoints {
        endpoints: vec![LbEndpoint {
            address: Address::Socket(([127, 0, 0, 1], 9080).into()),
            hostname: "".into(),
            weight: 1,
            health: Default::default(),
            metadata: istio(
                "workload",
                Value::String("reviews-v1;default;reviews;v1;here".into()),
            ),
        }],
        ..Default::default()
    }];
    Arc::new(Cluster::new(Arc::new(config), None))
}

fn count(metrics: &Arc<Counted>, cluster: &Arc<Cluster>, status: u16) {
    let record = Record::begin(None, Version::HTTP_11, false);
    {
        let mut late = record.late();
        late.status = status;
        late.cluster = Some(cluster.clone());
        late.endpoint = cluster.endpoints().all().first().cloned();
    }
    record.finish(Ending::Complete, &**metrics);
}

#[test]
fn requests_have_istios_labels() {
    let own = Workload::parse("productpage-v1;default;productpage;v1;here");
    let metrics = Metrics::new(own);
    let counted = Arc::new(Counted(RequestMetrics::new(
        metrics.clone(),
        Reporter::Source,
    )));
    let cluster = cluster();
    for status in [200, 200, 503] {
        count(&counted, &cluster, status);
    }
    let mut seen = Vec::new();
    metrics.each(|labels, series| {
        for (name, wanted) in [
            ("reporter", "source"),
            ("source_workload", "productpage-v1"),
            ("destination_workload", "reviews-v1"),
            ("destination_version", "v1"),
            ("destination_service", "reviews.default.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "default"),
            ("source_principal", "unknown"),
            ("request_protocol", "http"),
            ("response_flags", "-"),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(labels.get(name), Some(wanted), "{name}");
        }
        let code = labels.get("response_code").expect("a code").to_owned();
        seen.push((code, series.requests.get()));
    });
    assert_eq!(seen, [("200".to_owned(), 2), ("503".to_owned(), 1)]);
    let text = metrics.render();
    assert!(
        text.contains("istio_request_duration_milliseconds_bucket{"),
        "{text}"
    );
    assert!(text.contains("le=\"+Inf\"} 2"), "{text}");
}

/// A cluster without endpoints; `services`: host, name and namespace of what istiod's metadata say.
fn named(name: &str, services: Option<[&str; 3]>) -> Arc<Cluster> {
    let mut config = model::Cluster::new(name, Discovery::Static);
    if let Some(values) = services {
        let fields = ["host", "name", "namespace"].into_iter().zip(values);
        let fields = fields.filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(key, value)| (key.into(), Value::String(value.into())));
        let services = Value::List(vec![Value::Object(fields.collect())]);
        let istio = Value::Object(vec![("services".into(), services)]);
        config.metadata.namespaces = vec![("istio".into(), istio)];
    }
    Arc::new(Cluster::new(Arc::new(config), None))
}

/// `destination_service`, its name and its namespace, of a request that met `cluster`, or none and the route `route`.
fn service(reporter: Reporter, cluster: Option<Arc<Cluster>>, route: &str) -> [String; 3] {
    led(reporter, cluster, (route, ""))
}

/// The same, where the route leads to a cluster `to`, which does not exist.
fn led(
    reporter: Reporter,
    cluster: Option<Arc<Cluster>>,
    (route, to): (&str, &str),
) -> [String; 3] {
    let metrics = Metrics::new(Workload::parse("own-v1;home;own;v1;here"));
    let counted = Counted(RequestMetrics::new(metrics.clone(), reporter));
    let record = Record::begin(None, Version::HTTP_11, false);
    let mut table = crate::snapshot::tests::table("t", "a");
    let mut named = crate::snapshot::tests::forward(to);
    named.name = route.into();
    table.virtual_hosts[0].routes = model::RouteRules::List(vec![named]);
    let table = RouteTable::compile(&table, &Clusters::default()).expect("valid");
    {
        let mut late = record.late();
        let endpoints = cluster.as_ref().map(|cluster| cluster.endpoints());
        let request = http::Request::get("http://a.test/").body(());
        late.head = Some(RecordedHead::of(&request.expect("a request")));
        late.endpoint = endpoints.and_then(|all| all.all().first().cloned());
        late.cluster = cluster;
        late.route = table.routes().next().cloned();
    }
    record.finish(Ending::Complete, &counted);
    let mut found = Vec::new();
    metrics.each(|labels, _| {
        found.push(
            [
                "destination_service",
                "destination_service_name",
                "destination_service_namespace",
            ]
            .map(|label| labels.get(label).expect("a label").to_owned()),
        );
    });
    found.pop().expect("a series")
}

#[test]
fn services_are_named_as_istios_filter_names_them() {
    use Reporter::{Destination, Source};
    let host = "reviews.shop.svc.cluster.local";
    let said = Some([host, "reviews", "shop"]);
    let of = |reporter, name, services| service(reporter, Some(named(name, services)), "r");
    assert_eq!(of(Source, "any", said), [host, "reviews", "shop"]);
    assert_eq!(
        of(Source, "any", Some(["a.test", "", ""])),
        ["a.test", "a", "unknown"]
    );
    assert_eq!(
        service(Source, Some(cluster()), "r"),
        ["reviews.default.svc.cluster.local", "reviews", "default"]
    );
    assert_eq!(
        of(Source, "PassthroughCluster", None),
        ["a.test", "PassthroughCluster", "unknown"]
    );
    assert_eq!(
        service(Source, None, "block_all"),
        ["a.test", "BlackHoleCluster", "unknown"]
    );
    assert_eq!(service(Source, None, "r"), ["unknown"; 3]);
    let subset = "outbound|9080|v9|reviews.shop.svc.cluster.local";
    assert_eq!(led(Source, None, ("r", subset)), [host, "reviews", "shop"]);
    assert_eq!(
        led(Source, None, ("block_all", subset)),
        ["a.test", "BlackHoleCluster", "unknown"]
    );
    assert_eq!(
        led(Destination, None, ("r", subset)),
        ["own", "own", "home"]
    );
    // The server's side is in the namespace of its workload, whatever the cluster says.
    assert_eq!(
        of(Destination, "inbound|9080||", said),
        [host, "reviews", "home"]
    );
    assert_eq!(
        of(Destination, "inbound|9080||", None),
        ["own", "own", "home"]
    );
    assert_eq!(
        of(Destination, "InboundPassthroughCluster", None),
        ["own", "InboundPassthroughCluster", "home"]
    );
}

#[test]
fn a_grpc_request_counts_its_messages_by_its_ends_alone() {
    let metrics = Metrics::new(Workload::parse("own-v1;home;own;v1;here"));
    let counted = Counted(RequestMetrics::new(metrics.clone(), Reporter::Source));
    let message = [0, 0, 0, 0, 1, 7];
    for status in [200, 503] {
        let record = Record::begin(None, Version::HTTP_2, true);
        record.late().cluster = Some(cluster());
        record.request_messages(&message);
        record.request_messages(&message);
        let kind = if status == 200 {
            "application/grpc"
        } else {
            "text/html"
        };
        let response = http::Response::builder().status(status);
        let response = response.header("content-type", kind);
        let mut response = response.body(()).expect("a response");
        record.see_response(&mut response, &Default::default());
        record.response_messages(&message);
        record.finish(Ending::Complete, &counted);
    }
    let mut statuses = Vec::new();
    metrics.each(|labels, _| {
        let label = |name| labels.get(name).expect("a label").to_owned();
        statuses.push((label("response_code"), label("grpc_response_status")));
    });
    // 200 without a gRPC status says nothing of gRPC; 503 stands for UNAVAILABLE.
    let expected = [("200", "2"), ("503", "14")];
    assert_eq!(
        statuses,
        expected.map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
    let text = metrics.render();
    let line = |name: &str| {
        let mut lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        let line = lines.next().expect("one").to_owned();
        assert_eq!(lines.next(), None, "one series");
        line
    };
    let requests = line("istio_request_messages_total");
    assert!(
        requests.ends_with(",destination_cluster=\"unknown\"} 4"),
        "{requests}"
    );
    let responses = line("istio_response_messages_total");
    assert!(responses.ends_with("} 1"), "{responses}");
    // A record that is used again has none.
    let plain = Record::begin(None, Version::HTTP_11, false);
    assert_eq!(plain.grpc_messages(), [0, 0]);
}

#[test]
fn callers_are_told_apart_by_the_identity_that_they_proved() {
    let metrics = Metrics::default();
    let http = RequestMetrics::new(metrics.clone(), Reporter::Destination);
    let http = Arc::new(Counted(http));
    let tcp = TcpMetrics::new(metrics.clone(), Reporter::Destination);
    for identity in ["spiffe://td/a", "spiffe://td/b"] {
        let address = || Address::Socket(([127, 0, 0, 1], 1).into());
        let mut conn = ConnInfo::new(address(), address());
        conn.security.peer_identity = Some(identity.into());
        drop(tcp.open(Some(&cluster()), None, Flags::default(), &conn.security));
        let record = Record::begin(Some(Arc::new(conn)), Version::HTTP_11, false);
        record.late().status = 200;
        record.finish(Ending::Complete, &*http);
    }
    let text = metrics.render();
    for family in ["istio_requests_total", "istio_tcp_connections_opened_total"] {
        for identity in ["spiffe://td/a", "spiffe://td/b"] {
            let principal = format!("source_principal=\"{identity}\"");
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with(family) && line.contains(&principal));
            let line = line.unwrap_or_else(|| panic!("{family} of {identity} in {text}"));
            assert!(
                line.contains("=\"mutual_tls\"") && line.ends_with(" 1"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_connection_that_failed_counts_with_its_flags() {
    let metrics = Metrics::default();
    let mut flags = Flags::default();
    flags.insert(Flag::UpstreamConnectionFailure);
    flags.insert(Flag::UpstreamRetryLimitExceeded);
    let inbound = TcpMetrics::new(metrics.clone(), Reporter::Destination);
    drop(inbound.open(Some(&cluster()), None, flags, &Security::default()));
    let text = metrics.render();
    for name in ["opened", "closed"] {
        let start = format!("istio_tcp_connections_{name}_total{{reporter=\"destination\",");
        let line = text.lines().find(|line| line.starts_with(&start));
        let line = line.expect("a series");
        assert!(line.contains("response_flags=\"UF,URX\""), "{line}");
        assert!(!line.contains("response_code"), "{line}");
    }
}

#[test]
fn a_workload_is_named_by_its_labels_as_istio_names_it() {
    let of = |labels: &'static [(&str, &str)]| {
        let label = |name: &'static str| {
            let found = labels.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        };
        let it = Workload::labelled("w-1", "n", label);
        [
            it.app,
            it.version,
            it.canonical_service,
            it.canonical_revision,
        ]
        .map(|v| v.to_string())
    };
    assert_eq!(of(&[]), ["", "", "w-1", ""]);
    assert_eq!(of(&[("app", "a"), ("version", "1")]), ["a", "1", "a", "1"]);
    let kubernetes = of(&[
        ("app", "a"),
        ("app.kubernetes.io/name", "k"),
        ("app.kubernetes.io/version", "2"),
    ]);
    assert_eq!(kubernetes, ["a", "", "k", "2"]);
    let istio = of(&[
        ("app.kubernetes.io/name", "k"),
        ("service.istio.io/canonical-name", "i"),
        ("service.istio.io/canonical-revision", ""),
        ("version", "3"),
    ]);
    assert_eq!(istio, ["", "3", "i", "3"]);
}

#[test]
fn connections_are_counted_as_closed_when_they_are_dropped() {
    let metrics = Metrics::default();
    let cluster = cluster();
    let endpoint = cluster.endpoints().all()[0].clone();
    let connection = TcpMetrics::new(metrics.clone(), Reporter::Source).open(
        Some(&cluster),
        Some(&endpoint),
        Flags::default(),
        &Security::default(),
    );
    connection.sent(7);
    connection.received(3);
    drop(connection);
    let text = metrics.render();
    for (name, value) in [
        ("sent_bytes", 7),
        ("received_bytes", 3),
        ("connections_opened", 1),
        ("connections_closed", 1),
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("istio_tcp_{name}_total{{")));
        assert!(
            line.is_some_and(|line| line.ends_with(&format!("}} {value}"))),
            "{name} in {text}"
        );
    }
}

#[test]
fn quantiles_lie_within_their_buckets() {
    let histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), 0.0);
    for value in [2, 2, 2, 2, 2, 2, 2, 2, 2, 400] {
        histogram.record(value);
    }
    assert_eq!(histogram.count(), 10);
    assert_eq!(histogram.sum(), 418.0);
    assert!((1.0..=5.0).contains(&histogram.quantile(0.5)));
    assert!((250.0..=500.0).contains(&histogram.quantile(0.99)));
}

/// Their handles come and go at the same place in memory.
#[test]
fn clusters_that_are_gone_lend_their_labels_to_nobody() {
    let metrics = Metrics::new(Workload::default());
    let counted = Arc::new(Counted(RequestMetrics::new(
        metrics.clone(),
        Reporter::Source,
    )));
    for turn in 0..100 {
        let name = format!("outbound|80||web{turn}.default.svc.cluster.local");
        count(&counted, &named(&name, None), 503);
    }
    let mut services = std::collections::BTreeSet::new();
    metrics.each(|labels, series| {
        assert_eq!(series.requests.get(), 1);
        services.insert(labels.get("destination_service").map(str::to_owned));
    });
    assert_eq!(services.len(), 100);
}

#[test]
fn statuses_that_grpc_does_not_define_are_one() {
    let metrics = Metrics::new(Workload::default());
    let counted = Counted(RequestMetrics::new(metrics.clone(), Reporter::Source));
    for status in 0..100_u32 {
        let record = Record::begin(None, Version::HTTP_2, true);
        {
            let mut late = record.late();
            late.status = 200;
            late.grpc_status = Some(status);
        }
        record.finish(Ending::Complete, &counted);
    }
    let mut statuses = Vec::new();
    metrics.each(|labels, series| {
        let status = labels.get("grpc_response_status").expect("a label");
        statuses.push((status.to_owned(), series.requests.get()));
    });
    assert_eq!(statuses.len(), 18, "{statuses:?}");
    assert!(statuses.contains(&("-1".to_owned(), 100 - 17)));
}

#[test]
fn callers_cannot_make_series_without_end() {
    let metrics = Metrics::new(Workload::default());
    let counted = Counted(RequestMetrics::new(metrics.clone(), Reporter::Destination));
    let statuses = 200..220;
    for id in 1..=1000 {
        let workload = Workload::parse(&format!("w{id};n;s;v;c"));
        let peer = Arc::new(Peer { id, workload });
        for status in statuses.clone() {
            let record = Record::begin(None, Version::HTTP_11, false);
            {
                let mut late = record.late();
                late.status = status;
                late.peer = Some(peer.clone());
            }
            record.finish(Ending::Complete, &counted);
        }
    }
    let (mut series, mut requests) = (0, 0);
    metrics.each(|_, one| {
        series += 1;
        requests += one.requests.get();
    });
    assert_eq!(requests, 20_000, "each is counted somewhere");
    assert!(series <= CROWD + statuses.len(), "{series}");
}
