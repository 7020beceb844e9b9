use std::time::Duration;

use mesh_core::{
    config::{Change, ConfigSource},
    model::{Action, ClusterChoice, Network, PathMatch, RouteRules, RouteSource, UpstreamProtocol},
    snapshot::Mesh,
};

use super::*;

const HTTP: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
node: {id: sidecar~1, cluster: app}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route: {cluster: app}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9000}}}}]}]
    circuit_breakers: {thresholds: [{max_connections: 8192}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 1000}}
"#;

fn open(text: &str) -> FileSource {
    FileSource::parse("envoy.yaml", text).expect("a bootstrap")
}

fn names(update: &Update) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Cluster(cluster) => format!("+{}", cluster.name),
        Change::Listener(listener) => format!("+{}", listener.name),
        Change::RemoveCluster(name) | Change::RemoveListener(name) => format!("-{name}"),
        other => format!("{other:?}"),
    };
    let mut names: Vec<_> = update.changes.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_bootstrap_becomes_an_update() {
    let source = open(HTTP);
    assert_eq!(
        source
            .bootstrap()
            .admin
            .as_ref()
            .map(ToString::to_string)
            .as_deref(),
        Some("127.0.0.1:9901")
    );
    assert_eq!(&*source.bootstrap().node.id, "sidecar~1");
    let update = source.first().expect("not taken yet");
    assert_eq!(update.rejections, []);
    assert_eq!(update.notes, []);
    assert_eq!(names(update), ["+app", "+in"]);
    for change in &update.changes {
        match change {
            Change::Cluster(cluster) => {
                assert_eq!(cluster.protocol, UpstreamProtocol::Http2);
                assert_eq!(cluster.http2.max_concurrent_streams, Some(1000));
                assert_eq!(cluster.limits[0].max_connections, 8192);
                let endpoint = &cluster.load_assignment.localities[0].endpoints[0];
                assert_eq!(endpoint.address.to_string(), "127.0.0.1:9000");
            }
            Change::Listener(listener) => {
                let Network::Http(manager) = &listener.filter_chains[0].network else {
                    panic!("{listener:?}")
                };
                let RouteSource::Inline(table) = &manager.routes else {
                    panic!("{manager:?}")
                };
                let RouteRules::List(routes) = &table.virtual_hosts[0].routes else {
                    panic!("{table:?}")
                };
                assert_eq!(routes[0].matches.path, PathMatch::Prefix("/".into()));
                let Action::Forward(forward) = &routes[0].action else {
                    panic!("{routes:?}")
                };
                assert_eq!(forward.cluster, ClusterChoice::Name("app".into()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"static_resources": {"clusters": [{"name": "a", "connectTimeout": "1s"}]}}"#;
    assert_eq!(names(open(text).first().expect("there")), ["+a"]);
}

#[test]
fn a_file_that_cannot_be_read_names_line_column_and_field() {
    let text = HTTP.replace("stat_prefix", "stat_prefx");
    let error = FileSource::parse("envoy.yaml", &text)
        .expect_err("an unknown field")
        .to_string();
    assert!(
        error.starts_with("envoy.yaml:13:11: static_resources.listeners[0].filter_chains[0]"),
        "{error}"
    );
    assert!(error.contains("did you mean `stat_prefix`"), "{error}");
    let text = HTTP.replace("node:", "dynamic_resources: {cds_config: {ads: {}}}\nnode:");
    let error = FileSource::parse("envoy.yaml", &text)
        .expect_err("dynamic")
        .to_string();
    assert_eq!(
        error,
        "envoy.yaml:3:21: dynamic_resources.cds_config: only path_config_source is supported: resources from a file"
    );
}

#[test]
fn a_wrong_resource_is_refused_with_its_place() {
    for (from, to, expected) in [
        (
            "stat_prefix: in",
            "stat_prefix: ''",
            "envoy.yaml:13:11: listener in: filter_chains[0].filters[0].typed_config.stat_prefix: must not be empty",
        ),
        (
            "connect_timeout: 5s",
            "connect_timeout: -5s",
            "envoy.yaml:27:5: cluster app: connect_timeout: must be greater than 0s",
        ),
        (
            "address: 127.0.0.1, port_value: 9000",
            "address: localhost, port_value: 9000",
            "envoy.yaml:30:74: cluster app: load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: \"localhost\" is no IP address; host names need type STRICT_DNS or LOGICAL_DNS",
        ),
        (
            "{cluster: app}",
            "{cluster: ap}",
            "envoy.yaml:20:25: listener in: filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.cluster: unknown cluster \"ap\"",
        ),
        (
            "envoy.filters.http.router\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}",
            "c\n            typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}",
            "envoy.yaml:21:11: listener in: filter_chains[0].filters[0].typed_config.http_filters: the last filter must be envoy.filters.http.router",
        ),
    ] {
        let text = HTTP.replace(from, to);
        assert_ne!(text, HTTP, "{from}");
        let source = open(&text);
        let update = source.first().expect("there");
        let seen: Vec<_> = update.rejections.iter().map(ToString::to_string).collect();
        assert_eq!(seen, [expected]);
        assert_eq!(update.changes.len(), 1, "the other resource is used");
    }
}

#[test]
fn what_has_no_effect_is_listed() {
    let text = HTTP
        .replace("    connect_timeout: 5s", "    connect_timeout: 5s\n    health_checks: []\n    lrs_report_endpoint_metrics: []\n    track_timeout_budgets: true\n    outlier_detection: {consecutive_5xx: 5}")
        .replace("static_resources:", "layered_runtime: {layers: []}\noverload_manager: {resource_monitors: [{name: x}]}\nstatic_resources:");
    let source = open(&text);
    let notes: Vec<_> = source
        .first()
        .expect("there")
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.resource, note.path))
        .collect();
    assert_eq!(
        notes,
        [
            "bootstrap: layered_runtime",
            "bootstrap: overload_manager",
            "cluster app: track_timeout_budgets",
            "cluster app: outlier_detection"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_one_update_and_a_broken_one_changes_nothing() {
    let dir = std::env::temp_dir().join(format!("mesh-xds-file-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let path = dir.join("envoy.yaml");
    let write = |text: &str| {
        let new = dir.join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, &path).expect("moved");
    };
    write(HTTP);
    // An edit between the first look at the file and the wish to watch it is not lost.
    let source = FileSource::open(&path).expect("a bootstrap");
    write(&HTTP.replace(
        "- name: app",
        "- {name: early, connect_timeout: 1s}\n  - name: app",
    ));
    let mut early = source.watched();
    assert_eq!(names(&early.next().await.expect("first")), ["+app", "+in"]);
    assert_eq!(names(&early.next().await.expect("an edit")), ["+early"]);

    write(HTTP);
    let mut source = FileSource::open(&path).expect("a bootstrap").watched();
    assert_eq!(names(&source.next().await.expect("first")), ["+app", "+in"]);
    let none = tokio::time::timeout(Duration::from_secs(5), source.next()).await;
    assert!(none.is_err(), "an unchanged file is no update");

    write(
        &HTTP
            .replace("max_connections: 8192", "max_connections: 1")
            .replace(
                "- name: app",
                "- {name: b, connect_timeout: 1s}\n  - name: app",
            ),
    );
    let update = source.next().await.expect("an edit");
    assert_eq!(names(&update), ["+app", "+b"]);

    write(&HTTP.replace("clusters:", "clusers:"));
    let update = source.next().await.expect("a broken edit");
    assert_eq!(update.changes.len(), 0);
    assert!(
        update.rejections[0].location.ends_with("envoy.yaml:24:3"),
        "{:?}",
        update.rejections
    );
    assert_eq!(source.dump().resources(Kind::Cluster).len(), 2);

    // A wrong resource keeps its last good version, a missing one is removed.
    write(&HTTP.replace("stat_prefix: in", "stat_prefix: ''"));
    let update = source.next().await.expect("an edit");
    assert_eq!(names(&update), ["+app", "-b"]);
    assert_eq!(update.rejections.len(), 1);
    assert_eq!(source.dump().resources(Kind::Listener).len(), 1);
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn config_dump_has_envoys_sections() {
    let source = open(HTTP);
    let dump = source.dump().to_value(crate::graph::DumpOptions::default());
    let section = |name: &str| {
        let url = format!("type.googleapis.com/envoy.admin.v3.{name}");
        let configs = dump["configs"].as_array().expect("a list");
        configs
            .iter()
            .find(|config| config["@type"] == url.as_str())
            .cloned()
            .expect("the section")
    };
    assert_eq!(
        section("BootstrapConfigDump")["bootstrap"]["node"]["id"],
        "sidecar~1"
    );
    let cluster = &section("ClustersConfigDump")["static_clusters"][0]["cluster"];
    assert_eq!(cluster["name"], "app");
    assert_eq!(
        cluster["@type"],
        "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    );
    let listener = &section("ListenersConfigDump")["static_listeners"][0]["listener"];
    assert_eq!(listener["address"]["socket_address"]["port_value"], 8080);
    let routes = &section("RoutesConfigDump")["static_route_configs"][0]["route_config"];
    assert_eq!(routes["virtual_hosts"][0]["name"], "all");
}

#[test]
fn a_filter_chain_matcher_names_the_chains() {
    let tree = r#"
    filter_chain_matcher:
      matcher_tree:
        input:
          name: port
          typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput}
        exact_match_map:
          map:
            "80":
              action:
                name: plain
                typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: plain}
      on_no_match:
        matcher:
          matcher_list:
            matchers:
            - predicate:
                single_predicate:
                  input:
                    name: alpn
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput}
                  value_match: {exact: "'h2c'"}
              on_match:
                action:
                  name: plain
                  typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: plain}
    filter_chains:
    - name: plain
      filters:"#;
    let text = HTTP.replacen("\n    filter_chains:\n    - filters:", tree, 1);
    assert_ne!(text, HTTP);
    let source = open(&text);
    let update = source.first().expect("there");
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    let listener = update.changes.iter().find_map(|change| match change {
        Change::Listener(listener) => Some(listener.clone()),
        _ => None,
    });
    let listener = listener.expect("a listener");
    let tree = listener.filter_chain_matcher.as_ref().expect("a tree");
    let chains = mesh_core::snapshot::FilterChains::with_tree(&listener.filter_chains, tree, false)
        .expect("it compiles");
    let find = |port: u16, protocols: &[mesh_core::model::Name]| {
        let address = |port| mesh_core::model::Address::Socket(([192, 0, 2, 1], port).into());
        chains.find(&mesh_core::snapshot::ConnFacts {
            destination: &address(port),
            source: &address(1),
            direct_source: &address(1),
            server_name: "",
            transport_protocol: "raw_buffer",
            application_protocols: protocols,
        })
    };
    assert_eq!(find(80, &[]), Some(0));
    assert_eq!(find(81, &["h2c".into()]), Some(0));
    assert_eq!(find(81, &[]), None);

    let dangling = text.replacen("value: plain}", "value: nobody}", 1);
    let source = open(&dangling);
    let update = source.first().expect("there");
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    let mut reasons = update.notes.iter().map(|note| &note.reason);
    let said = reasons.any(|reason| reason.contains("no filter chain is named \"nobody\""));
    assert!(said, "{:?}", update.notes);

    let wrong = text.replace("{exact: \"'h2c'\"}", "{exact: a}").replace(
        "google.protobuf.StringValue, value: plain",
        "envoy.config.route.v3.RouteList",
    );
    let source = open(&wrong);
    let update = source.first().expect("there");
    assert!(
        update.rejections[0]
            .reason
            .contains("google.protobuf.StringValue is allowed"),
        "{:?}",
        update.rejections
    );
}

#[test]
fn notes_and_what_the_compiler_refuses_have_places() {
    let text = HTTP
        .replace("domains: [\"*\"]", "domains: [a, A]")
        .replace(
            "    type: STATIC",
            "    type: STATIC\n    wait_for_warm_on_init: true",
        )
        .replace("node: {", "stats_flush_interval: 1s\nnode: {");
    let line = |word: &str| {
        let found = text.lines().position(|line| line.contains(word));
        found.expect("it is there") + 1
    };
    let source = open(&text);
    let update = source.first().expect("not taken yet").clone();
    let notes: Vec<String> = update
        .notes
        .iter()
        .map(|note| note.reason.to_string())
        .collect();
    for (path, line, column) in [
        ("stats_flush_interval", line("stats_flush_interval"), 1),
        ("wait_for_warm_on_init", line("wait_for_warm_on_init"), 5),
    ] {
        let note = update.notes.iter().find(|note| &*note.path == path);
        let note = note.unwrap_or_else(|| panic!("{path}: {notes:?}"));
        let place = format!("(envoy.yaml:{line}:{column})");
        assert!(note.reason.ends_with(&place), "{}", note.reason);
    }
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(update);
    let report = mesh.status().load();
    let [rejection] = report.rejections.as_slice() else {
        panic!("{:?}", report.rejections)
    };
    assert_eq!(&*rejection.resource, "listener in");
    assert_eq!(
        &*rejection.path,
        "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].domains[1]"
    );
    let place = format!("envoy.yaml:{}:", line("domains"));
    assert!(rejection.location.starts_with(&place), "{rejection}");
    assert!(
        rejection.reason.contains("\"A\" stands twice"),
        "{rejection}"
    );
}

#[test]
fn one_address_is_for_one_listener() {
    let second = HTTP
        .find("  - name: in\n")
        .zip(HTTP.find("  clusters:\n"))
        .map(|(start, end)| HTTP[start..end].replacen("name: in", "name: too", 1))
        .expect("a listener");
    let text = HTTP.replace("  clusters:\n", &format!("{second}  clusters:\n"));
    let source = open(&text);
    let update = source.first().expect("not taken yet");
    assert_eq!(names(update), ["+app", "+in"]);
    let [rejection] = update.rejections.as_slice() else {
        panic!("{:?}", update.rejections)
    };
    let line = text.lines().position(|line| line.contains("too"));
    let place = format!("envoy.yaml:{}:", line.expect("it is there") + 2);
    assert!(rejection.location.starts_with(&place), "{rejection}");
    assert!(
        rejection
            .reason
            .contains("127.0.0.1:8080 is the address of listener \"in\" too"),
        "{rejection}"
    );
    // A listener that is bound to no port, and one on any port, leave room.
    for (from, to) in [
        ("name: too", "name: too\n    bind_to_port: false"),
        (
            "name: too\n    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}",
            "name: too\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
        ),
    ] {
        let source = open(&text.replace(from, to));
        let update = source.first().expect("not taken yet");
        assert_eq!(update.rejections, [], "{to}");
    }
}
