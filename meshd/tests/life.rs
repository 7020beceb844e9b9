//! The process itself: its threads, its sockets, its configuration files, and its end.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Instant,
};

use support::{
    LONG, Meshd, Temp, bootstrap, command, free_address, request, sidecar, until, upstream,
};

/// Waits until the process has so many workers: a thread takes its name when it first runs.
fn until_workers(meshd: &Meshd, count: usize) {
    let wanted: Vec<_> = (0..count).map(|n| format!("worker-{n}")).collect();
    until("the workers are there", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", meshd.id()));
        let tasks = tasks.expect("a running process").flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        let mut workers: Vec<_> = names
            .map(|name| name.trim().to_owned())
            .filter(|name| name.starts_with("worker-"))
            .collect();
        workers.sort();
        workers == wanted
    });
}

#[test]
fn each_worker_is_a_thread_and_has_a_socket_of_its_own() {
    let temp = Temp::new("threads");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &["--concurrency", "3"]);
    until_workers(&meshd, 3);
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
fn a_sidecar_has_as_many_workers_as_its_proxy_config_asks_for() {
    let temp = Temp::new("proxy-config");
    temp.put(
        "mesh.yaml",
        "defaultConfig: {concurrency: 1, terminationDrainDuration: 2s, drainDuration: 7s}\n",
    );
    temp.put(
        "objects.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: w, labels: {app: w}}\nstatus: {podIP: 127.0.0.1}\n---\n\
         apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: w}\n\
         spec: {selector: {matchLabels: {app: w}}, concurrency: 3}\n",
    );
    for (flags, workers) in [(&[][..], 3), (&["--concurrency", "2"][..], 2)] {
        let meshd = Meshd::sidecar(&temp.path("."), "default/w", flags);
        until_workers(&meshd, workers);
        let info = meshd.get("/server_info").json();
        let options = &info["command_line_options"];
        assert_eq!(options["concurrency"], workers);
        assert_eq!(options["drain_time"], "7s");
    }
}

/// What is said of a file with which the program cannot start.
fn refused(file: &Path) -> String {
    let output = command(file, &[])
        .output()
        .expect("cargo built the program");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
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
    let text = refused(&file);
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
    let text = refused(&file);
    assert!(
        text.contains("the admin server") && text.contains(&at),
        "{text}"
    );
}

#[test]
fn sigterm_lets_requests_in_flight_end_and_closes_what_is_idle() {
    let temp = Temp::new("sigterm");
    let upstream = upstream();
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream));
    let meshd = Meshd::start(&temp, &file, &["--concurrency", "2"]);
    let at = meshd.listener("in");
    let mut idle = TcpStream::connect(at).expect("a connection");
    idle.set_read_timeout(Some(LONG)).expect("a timeout");
    idle.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .expect("sent");
    let mut seen = [0; 512];
    assert!(idle.read(&mut seen).is_ok_and(|read| read > 0), "an answer");
    let slow = thread::spawn(move || request(at, "GET", "/held"));
    until("the request is in flight", || {
        let text = meshd
            .get("/stats?filter=cluster.app.upstream_rq_active$")
            .body;
        text == "cluster.app.upstream_rq_active: 1\n"
    });
    meshd.signal("TERM");
    until("nobody listens any more", || {
        TcpStream::connect(at).is_err()
    });
    assert_eq!(
        idle.read(&mut seen).ok(),
        Some(0),
        "the idle connection is closed"
    );
    request(upstream, "GET", "/release").expect("the upstream answers");
    let answer = slow.join().expect("no panic").expect("a whole answer");
    assert_eq!((answer.status, &*answer.body), (200, "hello"));
    assert_eq!(meshd.end().code(), Some(0));
}

/// A request that nobody will answer is in flight.
fn in_flight(meshd: &Meshd) -> thread::JoinHandle<bool> {
    let at = meshd.listener("in");
    let waiting = thread::spawn(move || request(at, "GET", "/held").is_none());
    until("the request is in flight", || {
        let active = "/stats?filter=cluster.app.upstream_rq_active$";
        meshd.get(active).body == "cluster.app.upstream_rq_active: 1\n"
    });
    waiting
}

#[test]
fn quitting_and_a_second_signal_do_not_wait_for_requests() {
    let temp = Temp::new("quit");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &[]);
    let waiting = in_flight(&meshd);
    assert_eq!(meshd.post("/quitquitquit").body, "OK\n");
    assert_eq!(meshd.end().code(), Some(0));
    assert!(waiting.join().expect("no panic"), "it is cut off");

    let meshd = Meshd::start(&temp, &file, &[]);
    let waiting = in_flight(&meshd);
    meshd.signal("TERM");
    until("it drains", || meshd.get("/ready").body == "DRAINING\n");
    meshd.signal("TERM");
    assert_eq!(meshd.end().code(), Some(0));
    assert!(waiting.join().expect("no panic"), "it is cut off");
}

#[test]
fn sigusr1_opens_the_logs_again_and_sighup_does_nothing() {
    let temp = Temp::new("signals");
    let (access, log) = (temp.path("access.log"), temp.path("meshd.log"));
    let logged = format!(
        "stat_prefix: ingress\n          access_log: [{{name: file, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {}}}}}]",
        access.display()
    );
    let text = bootstrap(0, upstream()).replace("stat_prefix: ingress", &logged);
    let file = temp.put("envoy.yaml", &text);
    let path = log.display().to_string();
    let flags = ["--log-path", &path, "--component-log-level", "main:info"];
    let meshd = Meshd::start(&temp, &file, &flags);
    let at = meshd.listener("in");
    let ask = |path: &str| request(at, "GET", path).map(|answer| answer.status);
    let has =
        |file: &Path, word: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(word));
    assert_eq!(ask("/one"), Some(200));
    until("the line is there", || has(&access, "/one"));
    assert!(has(&log, "Serving"));
    for (round, reopen) in ["signal", "page"].into_iter().enumerate() {
        let away = |file: &Path| file.with_extension(format!("{round}"));
        for file in [&access, &log] {
            fs::rename(file, away(file)).expect("our own file");
        }
        match reopen {
            "signal" => meshd.signal("USR1"),
            _ => assert_eq!(meshd.post("/reopen_logs").body, "OK\n"),
        }
        until("both are opened again", || access.exists() && log.exists());
        let path = format!("/new-{round}");
        assert_eq!(ask(&path), Some(200));
        until("the line is in the new file", || has(&access, &path));
        assert!(!has(&away(&access), &path));
    }
    meshd.signal("HUP");
    until("it is told", || has(&log, "SIGHUP"));
    assert_eq!(ask("/three"), Some(200));
}

#[test]
fn a_drain_tells_connections_by_its_strategy() {
    let temp = Temp::new("strategy");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    for (strategy, drain, closes, open) in [
        ("immediate", "", true, false),
        ("immediate", "?graceful", true, true),
        ("immediate", "?skip_exit", true, true),
        ("gradual", "", false, false),
        ("gradual", "?graceful", false, true),
    ] {
        // Over weeks, so that no connection's turn comes at once.
        let flags = ["--drain-strategy", strategy, "--drain-time-s", "3600000"];
        let meshd = Meshd::start(&temp, &file, &flags);
        let at = meshd.listener("in");
        let mut old = TcpStream::connect(at).expect("a connection");
        assert!(!closes_after(&mut old));
        assert_eq!(meshd.post(&format!("/drain_listeners{drain}")).status, 200);
        if !open {
            until("it is closed", || TcpStream::connect(at).is_err());
        } else if closes {
            until("it is told", || {
                let mut new = TcpStream::connect(at).expect("still open");
                closes_after(&mut new)
            });
        }
        assert_eq!(closes_after(&mut old), closes, "{strategy} {drain}");
        assert_eq!(meshd.get("/ready").status, 200);
    }
}

/// Whether the response to a request says that the connection closes.
fn closes_after(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(LONG)).expect("a timeout");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        .expect("sent");
    let mut seen = [0; 1024];
    let read = stream.read(&mut seen).expect("an answer");
    let head = String::from_utf8_lossy(&seen[..read]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    head.contains("connection: close")
}

#[test]
fn while_health_checks_fail_clients_are_told_to_go() {
    let temp = Temp::new("health");
    let check = "          http_filters:\n          - name: check\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck, pass_through_mode: false, headers: [{name: \":path\", string_match: {exact: /check}}]}\n";
    let text = bootstrap(0, upstream()).replace("          http_filters:\n", check);
    let file = temp.put("envoy.yaml", &text);
    let meshd = Meshd::start(&temp, &file, &[]);
    let at = meshd.listener("in");
    let mut old = TcpStream::connect(at).expect("a connection");
    let checked = || request(at, "GET", "/check").map(|answer| answer.status);
    assert!(!closes_after(&mut old));
    assert_eq!(checked(), Some(200));
    meshd.post("/healthcheck/fail");
    until("checks fail", || checked() == Some(503));
    let head = request(at, "GET", "/check").expect("an answer").head;
    assert!(
        head.contains("x-envoy-immediate-health-check-fail: true"),
        "{head}"
    );
    let counted = meshd
        .get("/stats?filter=^http.ingress.downstream_rq_[25]xx$")
        .body;
    assert_eq!(
        counted, "http.ingress.downstream_rq_2xx: 1\nhttp.ingress.downstream_rq_5xx: 0\n",
        "checks are not the service's"
    );
    assert!(closes_after(&mut old), "a connection of before");
    let mut new = TcpStream::connect(at).expect("still open");
    assert!(closes_after(&mut new), "a new connection");
    meshd.post("/healthcheck/ok");
    until("checks pass", || checked() == Some(200));
    let mut new = TcpStream::connect(at).expect("still open");
    assert!(!closes_after(&mut new));
}

#[test]
fn a_graceful_drain_serves_until_its_time_is_over() {
    let temp = Temp::new("drain");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    let meshd = Meshd::start(&temp, &file, &["--drain-time-s", "3"]);
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
fn routes_from_a_file_act_and_lose_no_request() {
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
    let (first, second) = (free_address(), free_address());
    let taken = TcpListener::bind(second).expect("our port");
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

#[test]
fn what_is_asked_to_be_printed_is_printed_as_envoy_does() {
    for (flag, text) in [
        ("--hot-restart-version", "disabled\n"),
        (
            "--version",
            concat!("meshd ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
    ] {
        let output = command(Path::new("none"), &[flag])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{flag}");
    }
}

#[test]
fn a_start_without_a_log_or_a_folder_says_why() {
    let temp = Temp::new("no-start");
    let file = temp.put("envoy.yaml", &bootstrap(0, upstream()));
    for (flags, said) in [
        (
            ["--component-log-level", "nope:info"],
            "meshd: no log: --component-log-level: \"nope:info\": unknown logger name\n",
        ),
        (
            ["--log-path", "/nowhere/at/all"],
            "meshd: no log: --log-path /nowhere/at/all: No such file or directory (os error 2)\n",
        ),
    ] {
        let output = command(&file, &flags).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8_lossy(&output.stderr), said);
    }
    let admin = ([127, 0, 0, 1], 0).into();
    let output = sidecar(Path::new("/nowhere"), "n/w", admin).output();
    let output = output.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "meshd: folder /nowhere cannot be read: No such file or directory (os error 2)\n"
    );
}
