//! Rules of Istio's API that are easily missed, each seen in the resources that come out.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{NoteLevel, Options, Resources, translate};
use crate::istio::index::{Context, Proxy, ProxyKind};
use crate::istio::read;

mod appendix;
mod cluster;
mod decoded;
mod fields;
mod gateway;
mod listener;
mod route;
mod trace;

/// Two services in namespace `a`, with two endpoints.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: x, namespace: a}
spec: {clusterIP: 10.0.0.1, ports: [{port: 80, name: http}], selector: {app: x}}
---
apiVersion: v1
kind: Service
metadata: {name: y, namespace: a}
spec: {clusterIP: 10.0.0.2, ports: [{port: 80, name: http}, {port: 9000, name: tcp}]}
---
apiVersion: v1
kind: Pod
metadata: {name: x-1, namespace: a, labels: {app: x, version: v1}}
spec: {serviceAccountName: x}
status: {podIP: 127.1.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: x-2, namespace: a, labels: {app: x, version: v2}}
status: {podIP: 127.1.0.2}
";

fn context(yaml: &str) -> Context {
    let text = format!("{SERVICES}---{yaml}");
    let parsed = read::parse(
        &Arc::from("test.yaml"),
        &text,
        &read::TextOptions::default(),
    );
    assert_eq!(parsed.refused, [], "{:?}", parsed.findings);
    Context::new(&parsed.objects, "cluster.local")
}

/// The resources of the sidecar of `x-1`.
fn sidecar(yaml: &str) -> Resources {
    let context = context(yaml);
    let workload = context.workload("a", "x-1").expect("the workload is there");
    translate(
        &context,
        &Proxy::sidecar(workload, &context),
        &Options::default(),
    )
}

/// A gateway with the label `istio: ingressgateway`.
fn edge_proxy() -> Proxy {
    let mut proxy = Proxy {
        kind: ProxyKind::Router,
        namespace: "istio-system".to_owned(),
        dns_domain: "istio-system.svc.cluster.local".to_owned(),
        ..Proxy::default()
    };
    proxy
        .labels
        .insert("istio".to_owned(), "ingressgateway".to_owned());
    proxy
}

/// The resources of [`edge_proxy`].
fn gateway(yaml: &str) -> Resources {
    translate(&context(yaml), &edge_proxy(), &Options::default())
}

impl Resources {
    fn route_config(&self, name: &str) -> Value {
        let found = self
            .routes
            .iter()
            .find(|config| config.name == name)
            .expect("the route configuration is there");
        crate::json::to_value("envoy.config.route.v3.RouteConfiguration", found)
            .expect("it can be written")
    }

    /// The routes of a virtual host.
    fn routes_of(&self, config: &str, host: &str) -> Vec<Value> {
        let config = self.route_config(config);
        let hosts = config["virtual_hosts"]
            .as_array()
            .expect("there are virtual hosts");
        let found = hosts.iter().find(|candidate| candidate["name"] == host);
        let routes = found.unwrap_or_else(|| panic!("no {host} in {config}"))["routes"].as_array();
        routes.cloned().unwrap_or_default()
    }

    fn cluster(&self, name: &str) -> Value {
        let found = self
            .clusters
            .iter()
            .find(|cluster| cluster.name == name)
            .expect("the cluster is there");
        crate::json::to_value("envoy.config.cluster.v3.Cluster", found).expect("it can be written")
    }

    fn listener(&self, name: &str) -> Value {
        let found = self
            .listeners
            .iter()
            .find(|listener| listener.name == name)
            .expect("the listener is there");
        crate::json::to_value("envoy.config.listener.v3.Listener", found)
            .expect("it can be written")
    }

    fn refusing(&self) -> Vec<&str> {
        let notes = self
            .notes
            .iter()
            .filter(|note| note.level == NoteLevel::Refusing);
        notes.map(|note| note.object.as_str()).collect()
    }
}

const X: &str = "x.a.svc.cluster.local:80";

/// The routes of service `x` under a VirtualService with these `http` rules.
fn x_routes(http: &str) -> Vec<Value> {
    let yaml = format!(
        "\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: x, namespace: a}}\n\
         spec:\n  hosts: [x]\n  http:\n{http}"
    );
    sidecar(&yaml).routes_of("80", X)
}
