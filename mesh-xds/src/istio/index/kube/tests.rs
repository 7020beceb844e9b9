use super::*;
use crate::istio::read::{TextOptions, parse};

fn catalog(text: &str) -> Catalog {
    let parsed = parse(&"a.yaml".into(), text, &TextOptions::default());
    assert!(parsed.refused.is_empty() && !parsed.broken, "{parsed:?}");
    collect(&parsed.objects, "cluster.local")
}

fn endpoints(catalog: &Catalog) -> Vec<String> {
    let show = |i: &Instance| {
        format!(
            "{}={}:{} {}/{:?}",
            i.port_name, i.address, i.port, i.workload.name, i.health
        )
    };
    catalog.instances.values().flatten().map(show).collect()
}

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a, version: v1}}
spec:
  serviceAccountName: sa
  containers: [{name: c, ports: [{name: web, containerPort: 8081}]}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a-2, labels: {app: a, version: v2}}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: done, labels: {app: a}}
status: {podIP: 10.0.0.3, phase: Succeeded}
---
";

#[test]
fn protocols_by_name_and_app_protocol() {
    let ports = [
        ("{port: 1, name: http-web}", Protocol::Http),
        ("{port: 1, name: HTTP2}", Protocol::Http2),
        ("{port: 1, name: grpc-web-x}", Protocol::GrpcWeb),
        ("{port: 1, name: grpc-x}", Protocol::Grpc),
        ("{port: 1, name: web}", Protocol::Unsupported),
        ("{port: 1}", Protocol::Unsupported),
        ("{port: 1, name: tcp, appProtocol: http}", Protocol::Http),
        (
            "{port: 1, name: x, appProtocol: kubernetes.io/h2c}",
            Protocol::Http2,
        ),
        ("{port: 1, name: http, protocol: UDP}", Protocol::Udp),
        ("{port: 1, name: mysql-a}", Protocol::MySql),
        ("{port: 1, name: https}", Protocol::Https),
        ("{port: 3306, name: db}", Protocol::Tcp),
        ("{port: 3306, name: http-db}", Protocol::Http),
        ("{port: 25}", Protocol::Tcp),
    ];
    for (port, want) in ports {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{port}]}}\n"
        );
        assert_eq!(catalog(&text).services[0].ports[0].protocol, want, "{port}");
    }
}

#[test]
fn pods_behind_a_selector_with_ports_by_number_and_name() {
    let service = |spec: &str| {
        format!(
            "{PODS}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, {spec}}}\n"
        )
    };
    let found = catalog(&service(
        "ports: [{name: http, port: 80, targetPort: 8080}]",
    ));
    assert_eq!(
        endpoints(&found),
        [
            "http=10.0.0.1:8080 a-1/Healthy",
            "http=10.0.0.2:8080 a-2/Unhealthy"
        ]
    );
    assert_eq!(found.services[0].hostname, "a.default.svc.cluster.local");
    let found = catalog(&service("ports: [{name: http, port: 80, targetPort: web}]"));
    assert_eq!(endpoints(&found), ["http=10.0.0.1:8081 a-1/Healthy"]);
    let found = catalog(&service(
        "ports: [{name: http, port: 80}], publishNotReadyAddresses: true",
    ));
    assert_eq!(endpoints(&found)[1], "http=10.0.0.2:80 a-2/Healthy");
    let found = catalog(&service(
        "ports: [{name: http, port: 80}], clusterIPs: ['fd00::f', 10.1.1.1]",
    ));
    assert_eq!(endpoints(&found)[0], "http=fd00::1:80 a-1/Healthy");
}

#[test]
fn slices_come_before_selectors() {
    let text = format!(
        "{PODS}apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: a-x, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n\
         endpoints:\n- addresses: [10.0.0.1]\n- addresses: [10.9.9.9]\n  conditions: {{ready: false}}\nports: [{{name: http, port: 8080}}]\n"
    );
    assert_eq!(
        endpoints(&catalog(&text)),
        [
            "http=10.0.0.1:8080 a-1/Healthy",
            "http=10.9.9.9:8080 /Unhealthy"
        ]
    );
    let old = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{name: http, port: 80}]}\n---\n\
               apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 1.2.3.4}], ports: [{name: http, port: 81}]}, {notReadyAddresses: [{ip: 1.2.3.5}], ports: [{name: http, port: 82}]}]\n";
    let seen = ["http=1.2.3.4:81 /Healthy", "http=1.2.3.5:82 /Unhealthy"];
    assert_eq!(endpoints(&catalog(old)), seen);
    let named = text.replace("IPv4", "FQDN");
    assert_eq!(endpoints(&catalog(&named)), [""; 0]);
}

#[test]
fn headless_external_name_and_dual_stack() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: h}\nspec: {clusterIP: None, ports: [{port: 80}]}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: e}\nspec: {type: ExternalName, externalName: x.com, ports: [{port: 80}]}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: d}\nspec: {clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9, 'fd00::9'], ports: [{port: 80}]}\n";
    let services = catalog(text).services;
    assert!(services[0].headless && services[0].addresses.is_empty());
    assert_eq!(services[0].resolution, Resolution::Passthrough);
    assert_eq!(
        (services[1].resolution, services[1].external_name.as_deref()),
        (Resolution::Alias, Some("x.com"))
    );
    assert_eq!(services[2].addresses, ["10.0.0.9", "fd00::9"]);
}

#[test]
fn a_deployment_stands_for_pods_that_are_not_shown() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a-v1}\nspec: {template: {metadata: {labels: {app: a, version: v1}}, spec: {serviceAccountName: sa}}}\n---\n\
                apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: b-v1}\nspec: {template: {metadata: {labels: {app: b}}, spec: {}}}\n---\n";
    let found = catalog(&format!("{text}{PODS}"));
    let show: Vec<String> = found
        .workloads
        .iter()
        .map(|w| format!("{} of {} as {}", w.name, w.workload_name, w.service_account))
        .collect();
    assert_eq!(
        show,
        [
            "a-1 of a-v1 as sa",
            "a-2 of a-2 as default",
            "b-v1 of b-v1 as default"
        ]
    );
}

#[test]
fn a_service_may_select_workload_entries() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: vm}, ports: [{name: http, port: 80}]}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm1}\nspec: {address: 2.2.2.2, labels: {app: vm}, ports: {http: 8080}}\n";
    assert_eq!(endpoints(&catalog(text)), ["http=2.2.2.2:8080 vm1/Healthy"]);
}

#[test]
fn a_name_elsewhere_is_none_without_that_name() {
    let of = |spec: &str| {
        let text =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}}}\n");
        catalog(&text).services[0].resolution
    };
    assert_eq!(
        of("type: ExternalName, externalName: a.test"),
        Resolution::Alias
    );
    assert_eq!(of("type: ExternalName"), Resolution::ClientSideLb);
    assert_eq!(
        of("type: ExternalName, externalName: a.test, clusterIP: None"),
        Resolution::Passthrough
    );
}
