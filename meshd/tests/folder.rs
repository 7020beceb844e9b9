//! `meshd sidecar` on a folder of Istio YAML: what protects acts at once, and what cannot be read ends the start.
#![cfg(unix)]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use support::{LONG, Meshd, Temp, free_address, request, sidecar, upstream};

mod support;

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {selector: {matchLabels: {app: x}}, rulez: []}\n";

/// A folder with the workload `default/x-1`, and where it takes requests.
fn folder(name: &str) -> (Temp, SocketAddr) {
    let temp = Temp::new(name);
    let at = free_address();
    let (port, app) = (at.port(), upstream());
    temp.put(
        "x.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: x-1, labels: {{app: x}}}}\nstatus: {{podIP: 127.0.0.1}}\n---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: x}}\nspec:\n  workloadSelector: {{labels: {{app: x}}}}\n  ingress: [{{port: {{number: {port}, name: http, protocol: HTTP}}, defaultEndpoint: '{app}'}}]\n  egress: [{{hosts: ['~/*']}}]\n"
        ),
    );
    (temp, at)
}

/// The time until a request is answered with `status`; until then it is answered with `before`.
fn until_answered(at: SocketAddr, before: u16, status: u16) -> Duration {
    let begin = Instant::now();
    loop {
        match request(at, "GET", "/").map(|answer| answer.status) {
            Some(seen) if seen == status => return begin.elapsed(),
            Some(seen) if seen == before => {
                assert!(begin.elapsed() < LONG, "still {before}");
            }
            other => panic!("a request failed: {other:?}"),
        }
    }
}

#[test]
fn a_new_policy_that_is_refused_closes_at_once_and_opens_when_it_is_gone() {
    let (temp, at) = folder("refused-policy");
    let meshd = Meshd::sidecar(&temp.path("."), "default/x-1", &[]);
    // A busy machine is slow now and then.
    for _ in 0..10 {
        assert_eq!(
            request(at, "GET", "/").map(|answer| answer.status),
            Some(200)
        );
        let file = temp.path("policy.yaml");
        fs::write(&file, POLICY).expect("written");
        let took = until_answered(at, 200, 403);
        let status = meshd.get("/config_status").body;
        assert!(
            status.contains("rulez") && status.contains("REFUSES TRAFFIC"),
            "{status}"
        );
        fs::remove_file(file).expect("removed");
        if took.max(until_answered(at, 403, 200)) < Duration::from_secs(1) {
            return;
        }
    }
    panic!("an edit takes longer than a second");
}

#[test]
fn what_cannot_be_read_ends_the_start() {
    for (name, text, told) in [
        (
            "mesh.yaml",
            "outboundTrafficPolicy: {mode: REGISTRY_ONLLY}\n",
            "REGISTRY_ONLY",
        ),
        (
            "mesh.yaml",
            "outboundTrafficPolicy: [\n",
            "the settings of the mesh",
        ),
        ("loop.yaml", "", "loop.yaml"),
    ] {
        let (temp, at) = folder("unread");
        match text {
            "" => symlink(name, temp.path(name)).expect("linked"),
            text => fs::write(temp.path(name), text).expect("written"),
        }
        let output = sidecar(
            &temp.path("."),
            "default/x-1",
            SocketAddr::from(([127, 0, 0, 1], 0)),
        )
        .output()
        .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}: {said}");
        assert!(said.contains(name) && said.contains(told), "{name}: {said}");
        assert!(request(at, "GET", "/").is_none(), "{name}: it serves");
    }
}
