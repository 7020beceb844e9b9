//! The process itself: its threads, its sockets, its configuration files, and its end.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Instant,
};

use support::{LONG, Meshd, Temp, bootstrap, command, request, until, upstream};

/// The names of the process's threads.
fn threads(id: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("a running process");
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<_> = tasks
        .flatten()
        .filter_map(name)
        .map(|name| name.trim().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn each_worker_is_a_thread_and_has_a_socket_of_its_own() {
    let temp = Temp::new("threads");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &["--concurrency", "3"]);
    let names = threads(meshd.id());
    for worker in ["worker-0", "worker-1", "worker-2"] {
        let count = names.iter().filter(|name| *name == worker).count();
        assert_eq!(count, 1, "{worker} among {names:?}");
    }
    assert!(!names.contains(&"worker-3".to_owned()));
    // SO_REUSEPORT: the kernel knows one listening socket of the port for each worker.
    let port = format!(":{:04X}", meshd.listener("in").port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let listening = table.lines().filter(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    });
    assert_eq!(listening.count(), 3);
}

#[test]
fn a_port_that_another_process_serves_is_refused_and_named() {
    let temp = Temp::new("taken");
    let upstream = upstream();
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream));
    let first = Meshd::start(&temp, &file, &[]);
    let at = first.listener("in");
    // The first one's sockets allow sharing; the second must not join them.
    let file = temp.put("second.yaml", &bootstrap(at.port(), upstream));
    let output = command(&file, &[])
        .output()
        .expect("cargo built the program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("listener in") && text.contains(&at.to_string()),
        "{text}"
    );
    assert_eq!(
        request(at, "GET", "/").map(|answer| answer.status),
        Some(200)
    );

    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("bound").to_string();
    let text = bootstrap(0, upstream).replace(
        "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}",
        &format!(
            "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
            at.rsplit(':').next().expect("a port")
        ),
    );
    let file = temp.put("third.yaml", &text);
    let output = command(&file, &[])
        .output()
        .expect("cargo built the program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the admin server") && text.contains(&at),
        "{text}"
    );
}

#[test]
fn sigterm_lets_requests_in_flight_end_and_closes_what_is_idle() {
    let temp = Temp::new("sigterm");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &["--concurrency", "2"]);
    let at = meshd.listener("in");
    let mut idle = TcpStream::connect(at).expect("a connection");
    idle.set_read_timeout(Some(LONG)).expect("a timeout");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .expect("sent");
    let mut seen = [0; 512];
    assert!(idle.read(&mut seen).is_ok_and(|read| read > 0), "an answer");
    let slow = thread::spawn(move || request(at, "GET", "/slow"));
    until("the request is in flight", || {
        let text = meshd
            .get("/stats?filter=cluster.app.upstream_rq_active")
            .body;
        text == "cluster.app.upstream_rq_active: 1\n"
    });
    let begin = Instant::now();
    meshd.signal("TERM");
    let answer = slow.join().expect("no panic").expect("a whole answer");
    assert_eq!((answer.status, &*answer.body), (200, "hello"));
    assert_eq!(meshd.end().code(), Some(0));
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
    assert_eq!(
        idle.read(&mut seen).ok(),
        Some(0),
        "the idle connection is closed"
    );
    assert!(TcpStream::connect(at).is_err(), "nobody listens any more");
}

#[test]
fn a_graceful_drain_serves_until_its_time_is_over() {
    let temp = Temp::new("drain");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &["--drain-time-s", "1"]);
    let (inbound, tcp) = (meshd.listener("in"), meshd.listener("tcp"));
    assert_eq!(
        meshd.post("/drain_listeners?graceful&inboundonly").body,
        "OK\n"
    );
    assert_eq!(
        request(inbound, "GET", "/").map(|answer| answer.status),
        Some(200)
    );
    until("the inbound listener is closed", || {
        TcpStream::connect(inbound).is_err()
    });
    assert!(TcpStream::connect(tcp).is_ok(), "the other listener stays");
    assert_eq!(meshd.post("/drain_listeners").status, 200);
    until("all are closed", || TcpStream::connect(tcp).is_err());
    assert_eq!(meshd.post("/quitquitquit").body, "OK\n");
    assert_eq!(meshd.end().code(), Some(0));
}

#[test]
fn validate_tells_by_its_exit_code_and_names_the_place() {
    let temp = Temp::new("validate");
    let good = bootstrap(0, upstream());
    let file = temp.put("good.yaml", &good);
    let output = command(&file, &["--mode", "validate"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text, format!("configuration '{}' OK\n", file.display()));

    let file = temp.put(
        "bad.yaml",
        &good.replace("stat_prefix: ingress", "stat_prefixx: ingress"),
    );
    let output = command(&file, &["--mode", "validate"])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("bad.yaml:13:11:") && text.contains("did you mean `stat_prefix`?"),
        "{text}"
    );
}

#[test]
fn routes_from_a_file_act_within_a_second_and_lose_no_request() {
    let temp = Temp::new("files");
    let rds = temp.path("rds.yaml");
    let route = |action: &str| {
        format!(
            "resources:\n- \"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  name: local\n  virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, {action}}}]}}]\n"
        )
    };
    temp.put("rds.yaml", &route("route: {cluster: app}"));
    let text = bootstrap(0, upstream());
    let begin = text.find("          route_config:").expect("there");
    let end = text.find("          http_filters:").expect("there");
    let text = format!(
        "{}          rds: {{route_config_name: local, config_source: {{path_config_source: {{path: {}}}}}}}\n{}",
        &text[..begin],
        rds.display(),
        &text[end..]
    );
    let file = temp.put("envoy.yaml", &text);
    let meshd = Meshd::start(&temp, &file, &[]);
    let at = meshd.listener("in");
    let status = || request(at, "GET", "/").map(|answer| answer.status);
    assert_eq!(status(), Some(200));
    temp.put("rds.yaml", &route("direct_response: {status: 202}"));
    let begin = Instant::now();
    loop {
        match status() {
            Some(202) => break,
            Some(200) => assert!(begin.elapsed() < LONG, "the edit does not act"),
            other => panic!("a request failed: {other:?}"),
        }
    }
    temp.put("rds.yaml", &route("nonsense: {}"));
    until("the refusal is told", || {
        let status = meshd.get("/config_status").json();
        let place = status["rejections"][0]["location"]
            .as_str()
            .map(str::to_owned);
        place.is_some_and(|place| place.contains("rds.yaml:4:"))
    });
    assert_eq!(status(), Some(202), "the last good version stays");
}

#[test]
fn listeners_that_are_renamed_keep_their_sockets_and_a_taken_port_is_tried_again() {
    let temp = Temp::new("renamed");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let second = taken.local_addr().expect("an address");
    let first = {
        let free = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        free.local_addr().expect("an address")
    };
    let listener = |name: &str, port: u16| {
        format!(
            "- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n  name: {name}\n  address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n  filter_chains:\n  - filters:\n    - name: http\n      typed_config:\n        \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n        stat_prefix: http\n        route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {name}}}}}}}]}}]}}\n        http_filters: [{{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]\n"
        )
    };
    let lds = temp.put(
        "lds.yaml",
        &format!("resources:\n{}", listener("a", first.port())),
    );
    let file = temp.put(
        "envoy.yaml",
        &format!(
            "node: {{id: n, cluster: c}}\nadmin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}\ndynamic_resources: {{lds_config: {{path_config_source: {{path: {}}}}}}}\n",
            lds.display()
        ),
    );
    let meshd = Meshd::start(&temp, &file, &[]);
    let body = |at| request(at, "GET", "/").map(|answer| answer.body);
    until("the first listener answers", || {
        body(first).as_deref() == Some("a")
    });
    let both = [listener("b", first.port()), listener("c", second.port())];
    temp.put("lds.yaml", &format!("resources:\n{}", both.concat()));
    let begin = Instant::now();
    loop {
        match body(first).as_deref() {
            Some("b") => break,
            Some("a") => assert!(begin.elapsed() < LONG, "the edit does not act"),
            other => panic!("a request failed: {other:?}"),
        }
    }
    assert_eq!(meshd.listener("b"), first);
    drop(taken);
    until("the port that was taken is served", || {
        body(second).as_deref() == Some("c")
    });
}

#[test]
fn a_flag_without_effect_is_said_at_start() {
    let temp = Temp::new("flags");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let flags = ["--mode", "validate", "--base-id", "3"];
    let output = command(&file, &flags).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("--base-id") && text.contains("there is no hot restart"),
        "{text}"
    );
}
