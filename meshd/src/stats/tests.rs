use super::*;

#[test]
fn the_class_of_a_status_becomes_a_label() {
    let mut stats = Stats::default();
    let scope = Scope {
        prefix: "cluster",
        label: "envoy_cluster_name",
        value: "outbound|80||a",
    };
    stats.scoped(scope, "upstream_rq_2xx", Kind::Counter, 3);
    stats.scoped(scope, "circuit_breakers.default.cx_open", Kind::Gauge, 0);
    stats.plain("server.uptime", Kind::Gauge, 7);
    let scope = RouteScope {
        host: "v".into(),
        part: RoutePart::VirtualCluster,
        name: "users".into(),
    };
    stats.routed(&scope, "upstream_rq_4xx", 2);
    let stats = stats.finish();
    assert!(
        stats
            .text(Buckets::default())
            .contains("cluster.outbound|80||a.upstream_rq_2xx: 3\n")
    );
    assert!(
        stats
            .text(Buckets::default())
            .contains("vhost.v.vcluster.users.upstream_rq_4xx: 2\n")
    );
    let text = stats.prometheus(Buckets::Cumulative);
    let line = "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a\"} 3";
    assert!(text.contains(line), "{text}");
    let line = "envoy_vhost_vcluster_upstream_rq_xx{envoy_response_code_class=\"4\",envoy_virtual_cluster=\"users\",envoy_virtual_host=\"v\"} 2";
    assert!(text.contains(line), "{text}");
    assert!(
        text.contains("# TYPE envoy_server_uptime gauge\nenvoy_server_uptime{} 7"),
        "{text}"
    );
}

#[test]
fn istios_labels_are_those_of_its_bootstrap() {
    let mut stats = Stats::new(Tags::Istio);
    let scope = Scope {
        prefix: "cluster",
        label: "envoy_cluster_name",
        value: "outbound|80||a;",
    };
    for name in ["upstream_rq_2xx", "upstream_rq_200", "upstream_rq_total"] {
        stats.scoped(scope, name, Kind::Counter, 1);
    }
    let stats = stats.finish();
    let text = stats.text(Buckets::default());
    assert!(
        text.contains("cluster.outbound|80||a;.upstream_rq_200: 1\n"),
        "{text}"
    );
    let text = stats.prometheus(Buckets::Cumulative);
    let expected = "# TYPE envoy_cluster_upstream_rq counter\nenvoy_cluster_upstream_rq{response_code=\"200\",cluster_name=\"outbound|80||a\"} 1\nenvoy_cluster_upstream_rq{response_code_class=\"2xx\",cluster_name=\"outbound|80||a\"} 1\n# TYPE envoy_cluster_upstream_rq_total counter\nenvoy_cluster_upstream_rq_total{cluster_name=\"outbound|80||a\"} 1\n";
    assert_eq!(text, expected);
}

#[test]
fn used_are_counters_above_zero_and_gauges_that_were_set() {
    let mut stats = Stats::default();
    let scope = Scope {
        prefix: "cluster",
        label: "envoy_cluster_name",
        value: "a",
    };
    stats.plain("server.state", Kind::Gauge, 0);
    stats.plain("some.counter", Kind::Counter, 0);
    stats.scoped(scope, "membership_degraded", Kind::Gauge, 0);
    stats.scoped(scope, "upstream_cx_total", Kind::Counter, 1);
    stats.scoped(scope, "upstream_cx_active", Kind::Gauge, 0);
    stats.scoped(scope, "upstream_rq_total", Kind::Counter, 0);
    stats.scoped(scope, "upstream_rq_active", Kind::Gauge, 0);
    let text = stats.finish().used().text(Buckets::default());
    let used = "cluster.a.membership_degraded: 0\ncluster.a.upstream_cx_active: 0\ncluster.a.upstream_cx_total: 1\nserver.state: 0\n";
    assert_eq!(text, used);
}

fn two_clusters(mut stats: Stats) -> Stats {
    for value in ["a", "b"] {
        let scope = Scope {
            prefix: "cluster",
            label: "envoy_cluster_name",
            value,
        };
        let used = u64::from(value == "a");
        stats.scoped(scope, "upstream_cx_total", Kind::Counter, used);
        stats.scoped(scope, "upstream_cx_active", Kind::Gauge, 0);
        stats.histogram(scope, "upstream_rq_time", &Histogram::default());
    }
    stats.plain("server.live", Kind::Gauge, 1);
    stats.plain("some.counter", Kind::Counter, 0);
    stats
}

#[test]
fn what_is_not_asked_for_is_not_collected() {
    let named = Stats::default().only_named(|name| name.starts_with("cluster.b."));
    let named = two_clusters(named);
    assert_eq!((named.list.len(), named.histograms.len()), (2, 1));
    let counted = two_clusters(Stats::default().only_counted());
    assert_eq!(counted.list.len(), 4, "{:?}", counted.list);
    // It shows what it would have shown of all.
    let all = two_clusters(Stats::default()).finish().used();
    let (all, counted) = (all.text(Buckets::default()), counted.finish().used());
    assert_eq!(counted.text(Buckets::default()), all);
    assert!(all.contains("cluster.a.upstream_cx_active: 0\n"), "{all}");
}
