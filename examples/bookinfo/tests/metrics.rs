//! Istio's standard metrics, as a scraper of the running demo's sidecars sees them.

mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bookinfo::caller::Plain;
use support::{Demo, LONG, Mode, fetch};
use tokio::time::{Instant, sleep};

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

/// The first series with these labels.
fn find<'s>(
    all: &'s Series,
    labels: &[(&str, &str)],
) -> Option<&'s (BTreeMap<String, String>, f64)> {
    all.iter().find(|(known, _)| {
        let has = |(name, value): &(&str, &str)| known.get(*name).is_some_and(|v| v == value);
        labels.iter().all(has)
    })
}

/// The first series with these labels, which must be there.
fn with<'s>(all: &'s Series, labels: &[(&str, &str)]) -> &'s (BTreeMap<String, String>, f64) {
    find(all, labels).unwrap_or_else(|| panic!("no series with {labels:?} in {all:#?}"))
}

/// What has to be counted once for each page.
const COUNTS: [&str; 4] = [
    "istio_requests_total",
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_count",
    "istio_response_bytes_count",
];

/// What the metrics server says once it counted this many requests with each of these lists of labels: a request is
/// counted when its exchange has ended, which may be after its page was read. When that takes too long, what it says then.
async fn counted(ip: IpAddr, wanted: f64, calls: &[&[(&str, &str)]]) -> String {
    let deadline = Instant::now() + LONG;
    loop {
        let text = scrape(ip).await;
        let told = COUNTS.iter().all(|family| {
            let all = series(&text, family);
            let enough = |labels: &&[_]| find(&all, labels).is_some_and(|(_, n)| *n >= wanted);
            calls.iter().all(enough)
        });
        if told || Instant::now() >= deadline {
            return text;
        }
        sleep(Duration::from_millis(20)).await;
    }
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

/// Four calls with these labels are counted, and no other label is there but Istio's.
fn four_calls(text: &str, labels: &[(&'static str, &'static str)]) {
    let requests = series(text, "istio_requests_total");
    let (found, value) = with(&requests, labels);
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
        let (_, count) = with(&counts, labels);
        assert_eq!(*count, 4.0, "{family}");
        let mut bucket = labels.to_vec();
        bucket.push(("le", "+Inf"));
        let buckets = series(text, &format!("{family}_bucket"));
        let (_, count) = with(&buckets, &bucket);
        assert_eq!(*count, 4.0, "{family}");
    }
}

/// A call from the page to the details, as both ends name it.
const CALL: [(&str, &str); 18] = [
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

#[tokio::test]
async fn both_ends_of_a_call_name_both_workloads() {
    let demo = Demo::start(Mode::Sidecars, &[]).await;
    demo.pages(4, None).await;
    let ip = |pod: &str| {
        let mut workloads = demo.world.workloads.iter();
        let found = workloads.find(|workload| workload.pod == pod);
        found.expect("a workload").admin().ip()
    };
    let side = |reporter, policy| {
        let side = [
            ("reporter", reporter),
            ("connection_security_policy", policy),
        ];
        CALL.into_iter().chain(side).collect::<Vec<_>>()
    };
    let (out, into) = (side("source", "unknown"), side("destination", "none"));
    let into_page = |reporter| {
        [
            ("source_workload", "istio-ingressgateway"),
            ("source_workload_namespace", "istio-system"),
            ("destination_workload", "productpage-v1"),
            ("reporter", reporter),
        ]
    };
    let (from_gateway, at_page) = (into_page("source"), into_page("destination"));
    let page = counted(ip("productpage-v1"), 4.0, &[&out, &at_page]).await;
    let details = counted(ip("details-v1"), 4.0, &[&into]).await;
    let gateway = demo.world.gateway.admin().ip();
    let gateway = counted(gateway, 4.0, &[&from_gateway]).await;

    for (text, labels) in [(&page, out), (&details, into)] {
        four_calls(text, &labels);
    }
    let service = [
        ("destination_service", "details.default.svc.cluster.local"),
        ("destination_service_name", "details"),
        ("destination_service_namespace", "default"),
    ];
    with(&series(&page, "istio_requests_total"), &service);

    // The gateway tells who it is too; what the browser says of itself does not count.
    for (text, labels) in [(&gateway, from_gateway), (&page, at_page)] {
        let (_, value) = with(&series(text, "istio_requests_total"), &labels).clone();
        assert!(value >= 4.0, "{value}");
    }
}
