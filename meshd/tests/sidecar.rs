//! A sidecar on a folder of YAML, as `istioctl`, `pilot-agent` and dashboards see it.

mod support;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use support::{Temp, request};

const FOLDER: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: app-1, namespace: shop, labels: {app: app, version: v1}}
spec: {containers: [{name: app}]}
status: {podIP: 127.0.0.1}
";

/// A running sidecar, and where its servers listen; it is killed when the value is dropped.
struct Sidecar {
    child: Child,
    admin: SocketAddr,
    readiness: SocketAddr,
    metrics: SocketAddr,
}

impl Sidecar {
    fn start(temp: &Temp) -> Self {
        temp.put("pod.yaml", FOLDER);
        let mut child = Command::new(env!("CARGO_BIN_EXE_meshd"))
            .args(["sidecar", "--workload", "shop/app-1", "--config"])
            .arg(temp.path(""))
            .args(["--admin", "127.0.0.1:0", "--readiness", "127.0.0.1:0"])
            .args(["--metrics", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo built the program");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        // Each server is told of in the log with its address.
        let mut next = |what: &str| {
            let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
            let line = line.expect("it is told of").expect("text");
            let (_, rest) = line.split_once("local=").expect("an address");
            let at = rest.split(' ').next().unwrap_or_default();
            at.parse().expect("an address")
        };
        let (admin, readiness, metrics) = (
            next("the admin server"),
            next("the readiness server"),
            next("the metrics server"),
        );
        // Nobody reads on, and the log may be long.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            admin,
            readiness,
            metrics,
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_sidecar_says_who_it_is_and_names_statistics_as_istios_does() {
    let temp = Temp::new("sidecar");
    let sidecar = Sidecar::start(&temp);
    support::until("it is ready", || {
        let ready = request(sidecar.readiness, "GET", "/healthz/ready");
        ready.is_some_and(|answer| answer.status == 200)
    });
    let get = |path: &str| request(sidecar.admin, "GET", path).expect("an answer");
    let dump = get("/config_dump?mask=bootstrap").json();
    let node = &dump["configs"][0]["bootstrap"]["node"];
    assert_eq!(
        node["id"],
        "sidecar~127.0.0.1~app-1.shop~shop.svc.cluster.local"
    );
    assert_eq!(node["metadata"]["LABELS"]["app"], "app");
    assert_eq!(get("/server_info").json()["node"]["cluster"], "app.shop");
    // What `pilot-agent` asks for.
    let updates = "/stats?usedonly&filter=%5E(cluster_manager%5C.cds%7Clistener_manager%5C.lds)%5C.(update_success%7Cupdate_rejected)%24";
    assert_eq!(
        get(updates).body,
        "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 1\n"
    );
    let metrics = request(sidecar.metrics, "GET", "/stats/prometheus").expect("an answer");
    for line in [
        "istio_build{component=\"proxy\",tag=",
        "envoy_cluster_upstream_rq_total{cluster_name=\"PassthroughCluster\"} 0",
    ] {
        let found = metrics.body.lines().any(|one| one.starts_with(line));
        assert!(found, "{line} in {}", metrics.body);
    }
    // A workload that is to get no more traffic.
    let failed = request(sidecar.admin, "POST", "/healthcheck/fail");
    assert_eq!(failed.map(|answer| answer.status), Some(200));
    let ready = request(sidecar.readiness, "GET", "/healthz/ready");
    assert_eq!(ready.map(|answer| answer.status), Some(503));
}
