//! Resources in files that an Envoy bootstrap names: read, moved, broken, repaired.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use mesh_core::config::{Change, ConfigSource as _, Update};
use mesh_xds::file::{FileOptions, FileSource};

mod support;

use support::{Temp, next};

fn bootstrap(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "node: {{id: n, cluster: c}}
dynamic_resources:
  lds_config: {{path_config_source: {{path: {folder}/lds.yaml}}}}
  cds_config: {{resource_api_version: V3, path_config_source: {{path: {folder}/cds.json, watched_directory: {{path: {folder}}}}}}}
static_resources:
  clusters:
  - {{name: fixed, connect_timeout: 1s, type: STATIC}}
"
    )
}

fn listeners(folder: &Path) -> String {
    format!(
        r#"version_info: "1"
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: in
  address: {{socket_address: {{address: 127.0.0.1, port_value: 8080}}}}
  filter_chains:
  - filters:
    - name: hcm
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: in
        rds: {{route_config_name: r, config_source: {{path_config_source: {{path: {}/rds.yaml}}}}}}
        http_filters:
        - name: router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#,
        folder.display()
    )
}

fn clusters(folder: &Path) -> String {
    format!(
        r#"{{"resources": [{{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "name": "app", "resource": {{
  "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "app", "type": "EDS", "connect_timeout": "1s",
  "eds_cluster_config": {{"eds_config": {{"path": "{}/eds.yaml"}}}}}}}}]}}"#,
        folder.display()
    )
}

fn routes(cluster: &str) -> String {
    format!(
        r#"resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: r
  virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]
"#
    )
}

fn endpoints(port: u16) -> String {
    format!(
        r#"resources:
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: app
  endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
"#
    )
}

/// Everything in its place.
fn whole(name: &str) -> Temp {
    let temp = Temp::new(name);
    temp.put("envoy.yaml", &bootstrap(&temp.0));
    temp.put("lds.yaml", &listeners(&temp.0));
    temp.put("cds.json", &clusters(&temp.0));
    temp.put("rds.yaml", &routes("app"));
    temp.put("eds.yaml", &endpoints(9000));
    temp
}

fn names(update: &Update) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Cluster(one) => format!("cluster {}", one.name),
        Change::Endpoints(one) => format!("endpoints {}", one.cluster),
        Change::Routes(one) => format!("routes {}", one.name),
        Change::Listener(one) => format!("listener {}", one.name),
        other => format!("{other:?}"),
    };
    let mut names: Vec<_> = update.changes.iter().map(name).collect();
    names.sort();
    names
}

async fn nothing(source: &mut FileSource) {
    let none = tokio::time::timeout(Duration::from_secs(5), source.next()).await;
    assert!(none.is_err(), "nothing has changed: {none:?}");
}

#[tokio::test(start_paused = true)]
async fn all_four_kinds_come_from_files_and_follow_them() {
    let temp = whole("kinds");
    let mut source = FileSource::open(temp.path("envoy.yaml")).expect("a bootstrap");
    let update = next(&mut source).await;
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    assert!(update.notes.is_empty(), "{:?}", update.notes);
    assert_eq!(
        names(&update),
        [
            "cluster app",
            "cluster fixed",
            "endpoints app",
            "listener in",
            "routes r"
        ]
    );
    nothing(&mut source).await;

    temp.put("rds.yaml", &routes("fixed"));
    assert_eq!(names(&next(&mut source).await), ["routes r"]);
    temp.put("eds.yaml", &endpoints(9001));
    assert_eq!(names(&next(&mut source).await), ["endpoints app"]);

    temp.put("cds.json", r#"{"resources": []}"#);
    let update = next(&mut source).await;
    let gone = names(&update);
    assert!(gone[0].starts_with("RemoveCluster"), "{gone:?}");
    assert!(gone[1].starts_with("RemoveEndpoints"), "{gone:?}");
    assert_eq!(gone.len(), 2, "the static cluster stays: {gone:?}");

    // The bootstrap itself is read once, as Envoy reads it.
    temp.put("envoy.yaml", "static_resources: {}");
    nothing(&mut source).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_changes_nothing_and_is_named_until_it_is_whole() {
    let temp = whole("broken");
    let mut source = FileSource::open(temp.path("envoy.yaml")).expect("a bootstrap");
    next(&mut source).await;

    temp.put("rds.yaml", &routes("app").replace("domains", "domain"));
    let update = next(&mut source).await;
    assert_eq!(names(&update), Vec::<String>::new());
    let seen: Vec<_> = update.rejections.iter().map(ToString::to_string).collect();
    assert!(
        seen[0].contains("rds.yaml:4:") && seen[0].contains("did you mean `domains`?"),
        "{seen:?}"
    );

    // A resource that is wrong in itself has its own place.
    let wrong = listeners(&temp.0).replace("stat_prefix: in", "stat_prefix: ''");
    temp.put("lds.yaml", &wrong);
    let update = next(&mut source).await;
    let seen: Vec<_> = update.rejections.iter().map(ToString::to_string).collect();
    assert_eq!(seen.len(), 2, "both files are broken now: {seen:?}");
    assert!(
        seen.iter()
            .any(|one| one.contains("lds.yaml:11:") && one.contains("stat_prefix")),
        "{seen:?}"
    );

    temp.put("lds.yaml", &endpoints(1));
    let update = next(&mut source).await;
    let seen: Vec<_> = update.rejections.iter().map(ToString::to_string).collect();
    assert!(
        seen.iter().any(|one| one.contains("lds.yaml:2:")
            && one.contains("envoy.config.listener.v3.Listener is expected")),
        "{seen:?}"
    );

    temp.put("lds.yaml", &listeners(&temp.0));
    temp.put("rds.yaml", &routes("fixed"));
    let mut update = next(&mut source).await;
    if !update.rejections.is_empty() {
        update = next(&mut source).await;
    }
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
}

#[tokio::test(start_paused = true)]
async fn a_folder_behind_a_link_is_followed_when_the_link_moves() {
    let temp = Temp::new("link");
    let data = temp.0.join("..data");
    for (name, cluster) in [("v1", "app"), ("v2", "fixed")] {
        fs::create_dir(temp.0.join(name)).expect("a folder");
        fs::write(temp.0.join(name).join("rds.yaml"), routes(cluster)).expect("written");
    }
    symlink("v1", &data).expect("a link");
    symlink("..data/rds.yaml", temp.0.join("rds.yaml")).expect("a link");
    temp.put("envoy.yaml", &bootstrap(&temp.0));
    temp.put("lds.yaml", &listeners(&temp.0));
    temp.put("cds.json", &clusters(&temp.0));
    temp.put("eds.yaml", &endpoints(9000));
    let mut source = FileSource::open(temp.path("envoy.yaml")).expect("a bootstrap");
    next(&mut source).await;
    nothing(&mut source).await;

    let new = temp.0.join("..new");
    symlink("v2", &new).expect("a link");
    fs::rename(new, data).expect("moved");
    assert_eq!(names(&next(&mut source).await), ["routes r"]);
}

#[test]
fn a_missing_file_and_another_kind_of_source_are_refused_at_start() {
    let temp = whole("missing");
    fs::remove_file(temp.0.join("lds.yaml")).expect("removed");
    let error = FileSource::open(temp.path("envoy.yaml")).expect_err("no listeners");
    assert!(error.to_string().contains("lds.yaml"), "{error}");

    // Nobody writes into the pipe, so that reading it would never end.
    let made = std::process::Command::new("mkfifo")
        .arg(temp.path("lds.yaml"))
        .status();
    assert!(made.expect("mkfifo").success());
    let error = FileSource::open(temp.path("envoy.yaml")).expect_err("a pipe");
    assert!(error.to_string().contains("regular file"), "{error}");

    let ads = "dynamic_resources:\n  lds_config: {ads: {}}\n";
    let error = FileSource::parse("envoy.yaml", ads).expect_err("there is no control plane");
    let text = error.to_string();
    assert!(
        text.starts_with("envoy.yaml:2:3: dynamic_resources.lds_config: "),
        "{text}"
    );
}

#[tokio::test]
async fn an_overlay_and_the_nodes_flags_complete_the_bootstrap() {
    let overlay = "node: {id: over, metadata: {WORKLOAD_NAME: w, NAMESPACE: ns, LABELS: {app: a, version: v2}}}
static_resources: {clusters: [{name: second, connect_timeout: 1s}, {name: bad, connect_timeout: 1s, lb_policy: nope}]}";
    let temp = whole("overlay");
    let open = |overlay: String| {
        let options = FileOptions {
            overlay: Some(overlay),
            node_id: None,
            node_cluster: Some("flag".into()),
            node_zone: Some("z".into()),
        };
        FileSource::open_with(temp.path("envoy.yaml"), options)
    };
    let error = open(overlay.to_owned()).expect_err("an unknown policy");
    assert!(error.to_string().starts_with("--config-yaml:2:"), "{error}");

    let mut source = open(overlay.replace("lb_policy: nope", "type: STRICT_DNS")).expect("whole");
    let node = &source.bootstrap().node;
    assert_eq!(
        (&*node.id, &*node.cluster, &*node.locality.zone),
        ("over", "flag", "z")
    );
    let identity = source.workload().expect("the node says it");
    assert_eq!(
        [
            &*identity.name,
            &identity.namespace,
            &identity.app,
            &identity.version
        ],
        ["w", "ns", "a", "v2"]
    );
    assert_eq!(source.dump().node()["cluster"], "flag");
    let update = next(&mut source).await;
    assert!(names(&update).contains(&"cluster second".to_owned()));
    assert!(names(&update).contains(&"cluster fixed".to_owned()));
}

#[test]
fn the_dump_tells_static_from_dynamic() {
    let temp = whole("dump");
    let source = FileSource::open(temp.path("envoy.yaml")).expect("a bootstrap");
    let dump = source
        .dump()
        .to_value(mesh_xds::graph::DumpOptions { include_eds: true });
    let configs = dump["configs"].as_array().expect("a list");
    let section = |name: &str| {
        let url = format!("type.googleapis.com/envoy.admin.v3.{name}");
        configs
            .iter()
            .find(|config| config["@type"] == url.as_str())
            .expect("the section")
    };
    let clusters = section("ClustersConfigDump");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "fixed");
    let dynamic = &clusters["dynamic_active_clusters"][0];
    assert_eq!(dynamic["cluster"]["name"], "app");
    assert_eq!(dynamic["version_info"], "1");
    let listener = &section("ListenersConfigDump")["dynamic_listeners"][0];
    assert_eq!(listener["name"], "in");
    assert_eq!(listener["active_state"]["listener"]["name"], "in");
    let routes = &section("RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(routes["route_config"]["name"], "r");
    let endpoints = &section("EndpointsConfigDump")["dynamic_endpoint_configs"][0];
    assert_eq!(endpoints["endpoint_config"]["cluster_name"], "app");
    let bootstrap = &section("BootstrapConfigDump")["bootstrap"];
    assert_eq!(
        bootstrap["static_resources"]["clusters"][0]["name"],
        "fixed"
    );
    assert_eq!(
        bootstrap["static_resources"]["clusters"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}
