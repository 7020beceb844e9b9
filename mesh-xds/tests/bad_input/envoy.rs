//! Envoy's own file.

use mesh_xds::file::FileSource;
use tokio::task::JoinSet;

use super::{Bad, Case, Temp, bomb, next, replaced, report};

const ENVOY: &str = r#"static_resources:
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
              - match: {safe_regex: {regex: "/a[0-9]+"}}
                route: {weighted_clusters: {clusters: [{name: app, weight: 1}]}, timeout: 3s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
"#;

fn envoy(from: &str, to: &str) -> Bad {
    assert!(ENVOY.contains(from), "{from}");
    Bad::Text(ENVOY.replacen(from, to, 1))
}

fn of_envoy() -> Vec<Case> {
    let whole = |name, bad, at, path, reason| Case {
        name,
        bad,
        at,
        resource: "file",
        path,
        reason,
    };
    let of = |resource, name, bad, at, path, reason| Case {
        name,
        bad,
        at,
        resource,
        path,
        reason,
    };
    let indented: String = bomb().lines().map(|line| format!("    {line}\n")).collect();
    let bombed = format!("node:\n  metadata:\n{indented}{ENVOY}");
    let mut not_utf8 = ENVOY.as_bytes().to_vec();
    not_utf8.insert(ENVOY.find("in\n").expect("a name"), 0xff);
    vec![
        whole(
            "envoy: not UTF-8",
            Bad::Bytes(not_utf8),
            "3:11",
            "",
            &["not UTF-8"],
        ),
        whole(
            "envoy: a tab",
            envoy("  clusters:", "\tclusters:"),
            "21:1",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0]",
            &["tab"],
        ),
        whole(
            "envoy: an alias bomb",
            Bad::Text(bombed),
            "8:49",
            "node.metadata.a5[7][0][7][0][7]",
            &["alias"],
        ),
        whole(
            "envoy: 100 MB",
            Bad::Length(100 << 20),
            "1:1",
            "",
            &["104857600", "limit"],
        ),
        whole(
            "envoy: half a text",
            Bad::Text("static_resources: {".to_owned()),
            "1:19",
            "static_resources",
            &["unclosed bracket"],
        ),
        whole(
            "envoy: an empty file",
            Bad::Text(String::new()),
            "",
            "",
            &["empty"],
        ),
        whole(
            "envoy: a duplicate key",
            envoy("    type: STATIC", "    type: STATIC\n    type: STATIC"),
            "24:5",
            "static_resources.clusters[0].type",
            &["duplicate key `type`"],
        ),
        whole(
            "envoy: a wrong type",
            envoy("domains: [\"*\"]", "domains: 7"),
            "14:24",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].domains",
            &["7 is not a string"],
        ),
        whole(
            "envoy: an unknown field",
            envoy("stat_prefix", "stat_prefx"),
            "10:11",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.stat_prefx",
            &["unknown field", "did you mean `stat_prefix`?"],
        ),
        whole(
            "envoy: an unknown type",
            envoy("v3.Router", "v3.Rooter"),
            "20:27",
            "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config",
            &["Rooter", "did you mean"],
        ),
        whole(
            "envoy: an unknown word",
            envoy("STATIC", "STATTIC"),
            "23:11",
            "static_resources.clusters[0].type",
            &[
                "\"STATTIC\" is not one of STATIC, STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST",
                "did you mean `STATIC`?",
            ],
        ),
        whole(
            "envoy: an invalid duration",
            envoy("5s", "5 seconds"),
            "24:22",
            "static_resources.clusters[0].connect_timeout",
            &["5 seconds", "duration"],
        ),
        of(
            "cluster app",
            "envoy: a negative duration",
            envoy("5s", "-5s"),
            "24:5",
            "connect_timeout",
            &["must be greater than 0"],
        ),
        of(
            "listener in",
            "envoy: an invalid regex",
            envoy("[0-9]+", "[0-9+"),
            "16:38",
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].match.safe_regex.regex",
            &["missing ]"],
        ),
        of(
            "listener in",
            "envoy: weights of 0",
            envoy("weight: 1", "weight: 0"),
            "17:45",
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.weighted_clusters.clusters",
            &["weight"],
        ),
        of(
            "listener in",
            "envoy: an unknown cluster",
            envoy("name: app, weight", "name: ap, weight"),
            "17:57",
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.weighted_clusters.clusters[0].name",
            &["unknown cluster \"ap\""],
        ),
        of(
            "listener in",
            "envoy: no host",
            envoy("[\"*\"]", "[]"),
            "14:15",
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].domains",
            &["at least 1"],
        ),
        of(
            "listener in",
            "envoy: a missing port",
            envoy(", port_value: 8080", ""),
            "4:15",
            "address.socket_address",
            &["port"],
        ),
    ]
}

async fn in_a_file(case: Case) -> Result<(), String> {
    let temp = Temp::new(case.name);
    temp.write("envoy.yaml", ENVOY);
    let source = FileSource::open(temp.path("envoy.yaml"));
    let mut source = source.expect("a bootstrap").watched();
    let first = next(&mut source).await;
    if !first.rejections.is_empty() || first.changes.len() != 2 {
        return Err(format!("{}: a bad start: {first:?}", case.name));
    }
    replaced(&case, &temp, ("envoy.yaml", ENVOY), &mut source).await
}

#[tokio::test]
async fn envoy_files() {
    let cases = of_envoy();
    let count = cases.len();
    let running: JoinSet<_> = cases.into_iter().map(in_a_file).collect();
    report(running.join_all().await, count);
}

/// A file that goes away, or is read in the middle of being written, changes nothing until it is sure.
#[tokio::test]
async fn an_envoy_file_that_goes_away_keeps_what_it_said() {
    let temp = Temp::new("gone");
    temp.write("envoy.yaml", ENVOY);
    let source = FileSource::open(temp.path("envoy.yaml"));
    let mut source = source.expect("a bootstrap").watched();
    assert_eq!(next(&mut source).await.changes.len(), 2);
    temp.remove("envoy.yaml");
    let update = next(&mut source).await;
    assert!(update.changes.is_empty(), "{update:?}");
    assert!(
        update.rejections[0].to_string().contains("envoy.yaml"),
        "{update:?}"
    );
    temp.write("envoy.yaml", ENVOY);
    let update = next(&mut source).await;
    assert!(
        update.changes.is_empty() && update.rejections.is_empty(),
        "{update:?}"
    );
}

/// Many resources that are refused each have their place, found in one pass: the text is not read again for each.
#[tokio::test]
async fn many_refused_resources_are_placed_at_once() {
    let temp = Temp::new("many-refused");
    let clusters = |bad: &str| {
        let cluster = |i| {
            format!(
                "  - {{name: c{i}, connect_timeout: {bad}, load_assignment: {{cluster_name: c{i}}}}}\n"
            )
        };
        let all: String = (0..1000).map(cluster).collect();
        format!("static_resources:\n  clusters:\n{all}")
    };
    temp.write("envoy.yaml", &clusters("1s"));
    let source = FileSource::open(temp.path("envoy.yaml"));
    let mut source = source.expect("a bootstrap").watched();
    next(&mut source).await;
    temp.write("envoy.yaml", &clusters("-1s"));
    let update = next(&mut source).await;
    assert_eq!(update.rejections.len(), 1000);
    for (index, rejection) in update.rejections.iter().enumerate() {
        let line = format!("envoy.yaml:{}:", index + 3);
        assert!(rejection.location.contains(&line), "{rejection}");
    }
}
