//! The admin server of a running process, against what Envoy 1.40 answers for the same file.

mod support;

use support::{Answer, Meshd, Temp, bootstrap, free_address, request, until, upstream};

fn start(name: &str) -> (Temp, Meshd) {
    let temp = Temp::new(name);
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(
        &temp,
        &file,
        &["--concurrency", "2", "--service-node", "flag"],
    );
    (temp, meshd)
}

#[test]
fn what_changes_something_wants_post_and_unknown_paths_are_404() {
    let (_temp, meshd) = start("methods");
    for path in [
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/drain_listeners",
        "/logging",
        "/quitquitquit",
        "/reopen_logs",
        "/reset_counters",
        "/runtime_modify",
    ] {
        let answer = meshd.get(path);
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.body, "Method GET not allowed, POST required.");
    }
    let answer = meshd.get("/nope");
    assert_eq!(answer.status, 404);
    assert!(
        answer
            .body
            .starts_with("invalid path. admin commands are:\n")
    );
    let help = meshd.get("/help");
    assert_eq!(help.status, 200);
    assert!(
        help.body
            .contains("\n  /quitquitquit (POST): exit the server\n")
    );
    assert!(help.head.contains("x-content-type-options: nosniff"));

    assert_eq!(meshd.get("/ready").body, "LIVE\n");
    assert_eq!(meshd.post("/healthcheck/fail").body, "OK\n");
    let draining = meshd.get("/ready");
    assert_eq!((draining.status, &*draining.body), (503, "DRAINING\n"));
    assert_eq!(meshd.get("/server_info").json()["state"], "DRAINING");
    meshd.post("/healthcheck/ok");
    assert_eq!(meshd.get("/ready").status, 200);
}

#[test]
fn config_dump_has_typed_sections_elements_and_masks() {
    let (_temp, meshd) = start("dump");
    let dump = meshd.get("/config_dump?include_eds").json();
    let kinds: Vec<_> = dump["configs"]
        .as_array()
        .expect("sections")
        .iter()
        .filter_map(|config| config["@type"].as_str()?.rsplit('.').next())
        .collect();
    // The order and the names are Envoy's.
    assert_eq!(
        kinds,
        [
            "BootstrapConfigDump",
            "ClustersConfigDump",
            "EndpointsConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
    let bootstrap = &dump["configs"][0]["bootstrap"];
    assert_eq!(bootstrap["static_resources"]["clusters"][0]["name"], "app");
    let endpoint = &dump["configs"][2]["static_endpoint_configs"][0]["endpoint_config"];
    assert_eq!(endpoint["cluster_name"], "app");
    assert_eq!(endpoint["policy"]["overprovisioning_factor"], 140);
    let health = &endpoint["endpoints"][0]["lb_endpoints"][0]["health_status"];
    assert_eq!(health, "HEALTHY");
    assert!(dump["configs"][1].get("version_info").is_none());

    let element = meshd
        .get("/config_dump?resource=static_clusters&mask=cluster.name")
        .json();
    let expected = serde_json::json!({"configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "app"},
    }]});
    assert_eq!(element, expected);
    let none = meshd.get("/config_dump?resource=dynamic_listeners").json();
    assert_eq!(none, serde_json::json!({}));
    let masked = meshd.get("/config_dump?mask=bootstrap").json();
    assert_eq!(masked["configs"].as_array().map(Vec::len), Some(1));
    let named = meshd
        .get("/config_dump?resource=static_listeners&name_regex=tc.")
        .json();
    assert_eq!(named["configs"][0]["listener"]["name"], "tcp");
    assert_eq!(named["configs"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_a_config_dump_does_not_hold_is_refused_in_envoys_words() {
    let (_temp, meshd) = start("dump-refused");
    for (query, status, text) in [
        ("resource=nope", 404, "nope not found in config dump"),
        (
            "resource=static_endpoint_configs",
            404,
            "static_endpoint_configs not found in config dump",
        ),
        (
            "resource=bootstrap",
            400,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
        (
            "mask=clusters.nope",
            400,
            "FieldMask clusters.nope could not be successfully applied to any configs.",
        ),
    ] {
        let answer = meshd.get(&format!("/config_dump?{query}"));
        assert_eq!((answer.status, &*answer.body), (status, text), "{query}");
        assert!(answer.head.contains("content-type: text/plain\r\n"));
    }
}

#[test]
fn pages_of_envoys_machinery_say_what_there_is_of_it() {
    let (_temp, meshd) = start("machinery");
    let runtime = serde_json::json!({"layers": [], "entries": {}});
    assert_eq!(meshd.get("/runtime").json(), runtime);
    assert_eq!(meshd.get("/init_dump").json(), serde_json::json!({}));
    let memory = meshd.get("/memory").json()["total_physical_bytes"].clone();
    let bytes: u64 = memory.as_str().and_then(|n| n.parse().ok()).expect("text");
    assert!(bytes > 1 << 20, "{bytes}");
    assert!(meshd.get("/contention").body.contains("not enabled"));
    let refused = meshd.post("/runtime_modify?a=b");
    assert_eq!(
        (refused.status, &*refused.body),
        (503, "No admin layer specified")
    );
    assert_eq!(meshd.post("/runtime_modify").status, 400);
    for absent in ["/heap_dump", "/stats/recentlookups"] {
        assert_eq!(meshd.get(absent).status, 501, "{absent}");
    }
    assert_eq!(meshd.get("/cpuprofiler").status, 405);
    assert_eq!(meshd.post("/cpuprofiler").status, 501);
    let home = meshd.get("/");
    assert!(home.head.contains("content-type: text/html"));
    assert!(home.body.contains("<a href=\"/config_status\">"));
}

#[test]
fn counters_are_reset_and_gauges_are_not() {
    let (_temp, meshd) = start("reset");
    let at = meshd.listener("in");
    for _ in 0..3 {
        assert!(request(at, "GET", "/").is_some());
    }
    let total = || {
        meshd
            .get("/stats?filter=http.ingress.downstream_rq_total$")
            .body
    };
    assert_eq!(total(), "http.ingress.downstream_rq_total: 3\n");
    assert_eq!(meshd.post("/reset_counters").body, "OK\n");
    assert_eq!(total(), "http.ingress.downstream_rq_total: 0\n");
    assert!(request(at, "GET", "/").is_some());
    assert_eq!(total(), "http.ingress.downstream_rq_total: 1\n");
    let gauge = meshd.get("/stats?filter=server.live").body;
    assert_eq!(gauge, "server.live: 1\n");
}

/// A process that has answered four requests: two with 200, one with 404, one with 503.
fn counting(name: &str) -> (Temp, Meshd) {
    let (temp, meshd) = start(name);
    let at = meshd.listener("in");
    for (path, status) in [("/", 200), ("/", 200), ("/404", 404), ("/503", 503)] {
        assert_eq!(request(at, "GET", path).map(|a| a.status), Some(status));
    }
    (temp, meshd)
}

#[test]
fn statistics_have_envoys_names_and_follow_the_traffic() {
    let (_temp, meshd) = counting("stats");
    let text = meshd.get("/stats").body;
    for line in [
        "cluster.app.upstream_rq_total: 4",
        "cluster.app.upstream_rq_completed: 4",
        "cluster.app.upstream_rq_2xx: 2",
        "cluster.app.upstream_rq_4xx: 1",
        "cluster.app.upstream_rq_5xx: 1",
        "cluster.app.upstream_rq_200: 2",
        "cluster.app.upstream_rq_503: 1",
        "cluster.app.membership_healthy: 1",
        "cluster.app.circuit_breakers.default.remaining_rq: 100",
        "cluster.app.circuit_breakers.default.remaining_pending: 1024",
        "cluster.app.circuit_breakers.default.remaining_retries: 3",
        "http.ingress.downstream_rq_total: 4",
        "http.ingress.downstream_rq_2xx: 2",
        "http.ingress.downstream_cx_total: 4",
        // By the address as it is configured, as in Envoy.
        "listener.127.0.0.1_0.downstream_cx_total: 4",
        "listener_manager.workers_started: 1",
        "listener_manager.listener_added: 2",
        "listener_manager.listener_create_success: 4",
        "listener_manager.total_listeners_active: 2",
        "cluster_manager.active_clusters: 1",
        "server.concurrency: 2",
        "server.live: 1",
        "server.state: 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
    // The words with which pilot-agent asks whether its proxy is ready.
    let ready = "/stats?usedonly&filter=%5E(server.state%7Clistener_manager.workers_started)";
    assert_eq!(
        meshd.get(ready).body,
        "listener_manager.workers_started: 1\nserver.state: 0\n"
    );
    let json = meshd
        .get("/stats?format=json&filter=upstream_rq_total")
        .json();
    let expected =
        serde_json::json!({"stats": [{"name": "cluster.app.upstream_rq_total", "value": 4}]});
    assert_eq!(json, expected);
}

#[test]
fn statistics_for_prometheus_have_envoys_labels() {
    let (_temp, meshd) = counting("prometheus");
    // A connection is counted when its end has been seen, after its answer.
    let ended =
        r#"envoy_http_downstream_cx_length_ms_count{envoy_http_conn_manager_prefix="ingress"} 4"#;
    until("the connections have ended", || {
        meshd.get("/stats/prometheus").body.contains(ended)
    });
    let prometheus = meshd.get("/stats/prometheus").body;
    for line in [
        "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"app\"} 2",
        "envoy_http_downstream_rq_xx{envoy_response_code_class=\"5\",envoy_http_conn_manager_prefix=\"ingress\"} 1",
        "# TYPE envoy_cluster_upstream_cx_active gauge",
        "envoy_cluster_upstream_rq{envoy_response_code=\"404\",envoy_cluster_name=\"app\"} 1",
        "# TYPE envoy_cluster_upstream_rq_time histogram",
        "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"app\"} 4",
        "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"ingress\",le=\"+Inf\"} 4",
        "envoy_server_live{} 1",
    ] {
        assert!(
            prometheus.lines().any(|one| one == line),
            "{line} in {prometheus}"
        );
    }
    let filtered = meshd
        .get("/stats?format=prometheus&filter=server.live")
        .body;
    assert_eq!(
        filtered,
        "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n"
    );
    let istio = meshd
        .get("/stats/prometheus?filter=istio_requests_total")
        .body;
    assert!(
        istio.starts_with("# TYPE istio_requests_total counter\n"),
        "{istio}"
    );
    assert!(!istio.contains("istio_request_bytes"), "{istio}");
    let summary = "/stats/prometheus?filter=^cluster.*upstream_rq_time$&histogram_buckets=summary";
    let summary = meshd.get(summary).body;
    assert!(
        summary.starts_with("# TYPE envoy_cluster_upstream_rq_time summary\n"),
        "{summary}"
    );
}

#[test]
fn distributions_are_shown_as_they_are_asked_for() {
    let (_temp, meshd) = counting("distributions");
    let times = meshd.get("/stats?filter=^cluster.*upstream_rq_time$").body;
    assert!(
        times.starts_with("cluster.app.upstream_rq_time: P0(nan,"),
        "{times}"
    );
    let json = meshd
        .get("/stats?format=json&type=Histograms&filter=^http.*rq_time")
        .json();
    let computed = &json["stats"][0]["histograms"]["computed_quantiles"][0];
    assert_eq!(computed["name"], "http.ingress.downstream_rq_time");
    assert_eq!(computed["values"].as_array().map(Vec::len), Some(10));
    let gauges = meshd.get("/stats?type=Gauges").body;
    assert!(gauges.contains("server.live: 1") && !gauges.contains("upstream_rq_total:"));
    let buckets = |mode: &str| {
        let name = "cluster.app.upstream_rq_time";
        let path = format!("/stats?filter=^{name}$&histogram_buckets={mode}");
        meshd.get(&path).body
    };
    assert!(buckets("cumulative").ends_with(" B3600000(0,4)\n"));
    assert!(buckets("disjoint").ends_with(" B3600000(0,0)\n"));
    assert!(buckets("detailed").contains("\n  totals="));
    assert_eq!(buckets("summary"), times);
    for bad in [
        "format=yaml",
        "type=Some",
        "filter=(",
        "histogram_buckets=some",
        "hidden=some",
    ] {
        assert_eq!(meshd.get(&format!("/stats?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_cluster_that_gives_no_response_is_charged_with_the_answer() {
    let temp = Temp::new("charged");
    let file = temp.put("envoy.yaml", &bootstrap(0, free_address()));
    let meshd = Meshd::start(&temp, &file, &[]);
    let answer = request(meshd.listener("in"), "GET", "/").expect("an answer");
    assert_eq!(answer.status, 503);
    let text = meshd.get("/stats?filter=^cluster").body;
    for line in [
        "cluster.app.upstream_rq_503: 1",
        "cluster.app.upstream_rq_5xx: 1",
        "cluster.app.upstream_rq_completed: 1",
        "cluster.app.upstream_rq_pending_failure_eject: 1",
        "cluster.app.upstream_cx_connect_fail: 1",
        "cluster.app.upstream_cx_total: 1",
        "cluster.app.upstream_cx_http1_total: 1",
        "cluster.app.upstream_cx_destroy: 1",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
}

/// The lines are those of Envoy 1.40.
#[test]
fn clusters_tell_the_health_of_each_endpoint_and_who_is_a_canary() {
    let temp = Temp::new("health");
    let at = |port: u16| {
        format!(
            "endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"
        )
    };
    let endpoints = [
        format!("{{health_status: DEGRADED, {}}}", at(1)),
        format!("{{health_status: UNHEALTHY, {}}}", at(2)),
        format!("{{health_status: DRAINING, {}}}", at(3)),
        format!(
            "{{metadata: {{filter_metadata: {{envoy.lb: {{canary: true}}}}}}, {}}}",
            at(4)
        ),
        format!("{{health_status: TIMEOUT, {}}}", at(5)),
    ];
    let file = format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}\nstatic_resources: {{clusters: [{{name: app, type: STATIC, load_assignment: {{cluster_name: app, endpoints: [{{lb_endpoints: [{}]}}]}}}}]}}\n",
        endpoints.join(", ")
    );
    let meshd = Meshd::start(&temp, &temp.put("envoy.yaml", &file), &[]);
    let text = meshd.get("/clusters").body;
    let json = meshd.get("/clusters?format=json").json();
    for (n, (flags, status)) in [
        ("/degraded_eds_health", "DEGRADED"),
        ("/failed_eds_health", "UNHEALTHY"),
        ("/eds_status_draining", "DRAINING"),
        ("healthy", "HEALTHY"),
        ("/failed_eds_health", "UNHEALTHY"),
    ]
    .into_iter()
    .enumerate()
    {
        let port = n + 1;
        let lines = [
            format!("app::127.0.0.1:{port}::health_flags::{flags}"),
            format!("app::127.0.0.1:{port}::canary::{}", port == 4),
        ];
        for line in lines {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
        let host = &json["cluster_statuses"][0]["host_statuses"][n];
        assert_eq!(host["health_status"]["eds_health_status"], status, "{port}");
    }
}

#[test]
fn clusters_listeners_and_server_info_have_envoys_fields() {
    let (_temp, meshd) = start("info");
    let at = meshd.listener("in");
    request(at, "GET", "/").expect("an answer");
    let text = meshd.get("/clusters").body;
    assert!(text.starts_with(
        "app::observability_name::app\napp::default_priority::max_connections::1024\n"
    ));
    assert!(text.contains("\napp::added_via_api::false\n"));
    let json = meshd.get("/clusters?format=json").json();
    let status = &json["cluster_statuses"][0];
    assert_eq!(status["name"], "app");
    assert_eq!(
        status["circuit_breakers"]["thresholds"][1]["priority"],
        "HIGH"
    );
    let host = &status["host_statuses"][0];
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    assert_eq!(
        host["locality"],
        serde_json::json!({"region": "r", "zone": "z"})
    );
    let total = host["stats"]
        .as_array()
        .and_then(|all| all.iter().find(|stat| stat["name"] == "rq_total"));
    assert_eq!(total.map(|stat| stat["value"].clone()), Some("1".into()));

    let listeners = meshd.get("/listeners?format=json").json();
    let first = &listeners["listener_statuses"][0];
    assert_eq!(first["name"], "in");
    assert_eq!(
        first["local_address"]["socket_address"]["port_value"],
        at.port()
    );

    let info = meshd.get("/server_info").json();
    assert_eq!(info["state"], "LIVE");
    assert_eq!(
        info["node"]["id"], "flag",
        "--service-node wins over the file"
    );
    assert_eq!(info["node"]["cluster"], "c1");
    assert_eq!(info["node"]["locality"]["zone"], "z1");
    let line = &info["command_line_options"];
    assert_eq!(line["concurrency"], 2);
    assert_eq!(line["service_node"], "flag");
    assert_eq!(line["mode"], "Serve");
    assert_eq!(line["drain_time"], "600s");
    assert!(
        info["uptime_current_epoch"]
            .as_str()
            .is_some_and(|up| up.ends_with('s'))
    );
}

#[test]
fn levels_of_envoys_loggers_can_be_read_and_changed() {
    let (_temp, meshd) = start("logging");
    let level = |answer: &Answer, logger: &str| {
        let line = format!("  {logger}: ");
        let found = answer.body.lines().find_map(|one| one.strip_prefix(&line));
        found.map(str::to_owned)
    };
    let now = meshd.post("/logging");
    assert!(now.body.starts_with("active loggers:\n"));
    assert_eq!(level(&now, "upstream").as_deref(), Some("error"));
    let changed = meshd.post("/logging?paths=upstream:debug,misc:off");
    assert_eq!(level(&changed, "upstream").as_deref(), Some("debug"));
    assert_eq!(level(&changed, "misc").as_deref(), Some("off"));
    assert_eq!(
        level(&meshd.post("/logging?admin=trace"), "admin").as_deref(),
        Some("trace")
    );
    for (bad, reason) in [
        ("level=loud", "error: unknown logger level\n"),
        ("nope=info", "error: unknown logger name\n"),
        (
            "paths=pool",
            "error: empty logger name or empty logger level\n",
        ),
        (
            "admin=info&pool=info",
            "error: invalid number of parameters\n",
        ),
    ] {
        let answer = meshd.post(&format!("/logging?{bad}"));
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.body.starts_with(reason), "{}", answer.body);
    }
    let all = meshd.post("/logging?level=warning");
    assert_eq!(level(&all, "upstream").as_deref(), Some("warning"));
}
