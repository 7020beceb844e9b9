//! Istio's standard metrics, as a scraper of the running demo's sidecars sees them.

mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use bookinfo::caller::Plain;
use support::{Demo, Mode, fetch};

/// The series of a family: labels and value.
type Series = Vec<(BTreeMap<String, String>, f64)>;

/// What the metrics server of the proxy at an address says.
async fn scrape(ip: IpAddr) -> String {
    let address = SocketAddr::new(ip, 15090);
    let (status, text) = fetch(
        &Plain::new(address),
        &address.to_string(),
        "/stats/prometheus",
        None,
    )
    .await;
    assert_eq!(status, 200);
    text
}

fn series(text: &str, family: &str) -> Series {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").expect("labels and a value");
            let labels = labels.split("\",").map(|label| {
                let (name, value) = label.split_once("=\"").expect("a label");
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            });
            (labels.collect(), value.parse().expect("a number"))
        })
        .collect()
}

/// The series with these labels.
fn with<'s>(all: &'s Series, labels: &[(&str, &str)]) -> &'s (BTreeMap<String, String>, f64) {
    all.iter()
        .find(|(known, _)| {
            let has = |(name, value): &(&str, &str)| known.get(*name).is_some_and(|v| v == value);
            labels.iter().all(has)
        })
        .unwrap_or_else(|| panic!("no series with {labels:?} in {all:#?}"))
}

/// Every label that Istio's documentation lists for HTTP, in the order in which Istio's proxies write them.
const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

#[tokio::test]
async fn both_ends_of_a_call_name_both_workloads() {
    let demo = Demo::start(Mode::Sidecars, 50, &[]).await;
    demo.pages(4, None).await;
    let ip = |pod: &str| {
        let mut workloads = demo.world.workloads.iter();
        let found = workloads.find(|workload| workload.pod == pod);
        found.expect("a workload").admin().ip()
    };
    let page = scrape(ip("productpage-v1")).await;
    let details = scrape(ip("details-v1")).await;
    let gateway = scrape(demo.world.gateway.admin().ip()).await;

    let call = [
        ("source_workload", "productpage-v1"),
        ("source_workload_namespace", "default"),
        ("source_app", "productpage"),
        ("source_version", "v1"),
        ("source_canonical_service", "productpage"),
        ("source_canonical_revision", "v1"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", "details-v1"),
        ("destination_workload_namespace", "default"),
        ("destination_app", "details"),
        ("destination_version", "v1"),
        ("destination_canonical_service", "details"),
        ("destination_canonical_revision", "v1"),
        ("destination_cluster", "Kubernetes"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
    ];
    for (text, reporter, policy) in [
        (&page, "source", "unknown"),
        (&details, "destination", "none"),
    ] {
        let requests = series(text, "istio_requests_total");
        let side = [
            ("reporter", reporter),
            ("connection_security_policy", policy),
        ];
        let labels: Vec<_> = call.iter().chain(&side).copied().collect();
        let (found, value) = with(&requests, &labels);
        assert_eq!(*value, 4.0, "{found:?}");
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        let mut wanted = LABELS;
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        for family in [
            "istio_request_duration_milliseconds",
            "istio_request_bytes",
            "istio_response_bytes",
        ] {
            let counts = series(text, &format!("{family}_count"));
            let (_, count) = with(&counts, &labels);
            assert_eq!(*count, 4.0, "{family}");
            let mut bucket = labels.clone();
            bucket.push(("le", "+Inf"));
            let buckets = series(text, &format!("{family}_bucket"));
            let (_, count) = with(&buckets, &bucket);
            assert_eq!(*count, 4.0, "{family}");
        }
    }
    let service = [
        ("destination_service", "details.default.svc.cluster.local"),
        ("destination_service_name", "details"),
        ("destination_service_namespace", "default"),
    ];
    with(&series(&page, "istio_requests_total"), &service);

    // The gateway tells who it is too; what the browser says of itself does not count.
    let into_page = [
        ("source_workload", "istio-ingressgateway"),
        ("source_workload_namespace", "istio-system"),
        ("destination_workload", "productpage-v1"),
    ];
    for (text, reporter) in [(&gateway, "source"), (&page, "destination")] {
        let labels: Vec<_> = into_page
            .iter()
            .copied()
            .chain([("reporter", reporter)])
            .collect();
        let (_, value) = with(&series(text, "istio_requests_total"), &labels).clone();
        assert!(value >= 4.0, "{value}");
    }
}
