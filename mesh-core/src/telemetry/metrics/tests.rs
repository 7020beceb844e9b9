use std::sync::Arc;

use http::Version;

use super::{Histogram, Metrics, Reporter, RequestMetrics, TcpMetrics, Workload};
use crate::{
    cluster::Cluster,
    model::{self, Address, Discovery, LbEndpoint, LocalityEndpoints, Metadata, Value},
    telemetry::record::{Ending, Late, Record, Sink},
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
    let connection = TcpMetrics::new(metrics.clone(), Reporter::Source).open(&cluster, &endpoint);
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
