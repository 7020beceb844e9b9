use std::sync::Arc;

use super::*;
use crate::istio::api::destination_rule::SimpleLb;
use crate::istio::read;

/// The index of a text; every object has to be right.
fn context(yaml: &str) -> Context {
    let parsed = read::parse(&Arc::from("test.yaml"), yaml, &read::TextOptions::default());
    assert_eq!(parsed.refused, [], "{:?}", parsed.findings);
    Context::new(&parsed.objects, "cluster.local")
}

fn sidecar(namespace: &str) -> Proxy {
    Proxy {
        namespace: namespace.to_owned(),
        dns_domain: format!("{namespace}.svc.cluster.local"),
        ..Proxy::default()
    }
}

fn hosts(context: &Context, namespace: &str) -> Vec<String> {
    let scope = SidecarScope::new(context, &sidecar(namespace));
    let mut hosts: Vec<_> = scope
        .services
        .iter()
        .map(|service| service.hostname.clone())
        .collect();
    hosts.sort();
    hosts
}

fn service(name: &str, namespace: &str, annotation: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}, annotations: {{{annotation}}}}}\n\
         spec: {{ports: [{{port: 80, name: http}}], clusterIP: 10.0.0.1}}\n"
    )
}

#[test]
fn export_to_decides_who_sees_a_service() {
    let text = service("all", "a", "")
        + &service("own", "a", "networking.istio.io/exportTo: .")
        + &service("none", "a", "networking.istio.io/exportTo: \"~\"")
        + &service("some", "a", "networking.istio.io/exportTo: \"b,c\"");
    let context = context(&text);
    assert_eq!(
        hosts(&context, "a"),
        ["all.a.svc.cluster.local", "own.a.svc.cluster.local"]
    );
    assert_eq!(
        hosts(&context, "b"),
        ["all.a.svc.cluster.local", "some.a.svc.cluster.local"]
    );
    assert_eq!(hosts(&context, "d"), ["all.a.svc.cluster.local"]);
}

#[test]
fn sidecar_hosts_decide_what_is_imported() {
    let text = service("x", "a", "")
        + &service("y", "a", "")
        + &service("x", "b", "")
        + "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: a}
spec: {egress: [{hosts: ['./x.a.svc.cluster.local', 'b/*']}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: none}
spec: {egress: [{hosts: ['~/*']}]}
";
    let context = context(&text);
    assert_eq!(
        hosts(&context, "a"),
        ["x.a.svc.cluster.local", "x.b.svc.cluster.local"]
    );
    assert_eq!(hosts(&context, "none"), Vec::<String>::new());
    assert_eq!(hosts(&context, "other").len(), 3);
}

#[test]
fn sidecar_of_the_root_namespace_is_the_default() {
    let text = service("x", "a", "")
        + &service("x", "b", "")
        + "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: istio-system}
spec: {egress: [{hosts: ['./*']}]}
";
    assert_eq!(hosts(&context(&text), "a"), ["x.a.svc.cluster.local"]);
}

#[test]
fn sidecar_with_a_selector_comes_first() {
    let text = service("x", "a", "")
        + "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: all, namespace: a, creationTimestamp: '2020-01-01T00:00:00Z'}
spec: {egress: [{hosts: ['./*']}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: some, namespace: a, creationTimestamp: '2021-01-01T00:00:00Z'}
spec: {workloadSelector: {labels: {app: it}}, egress: [{hosts: ['~/*']}]}
";
    let context = context(&text);
    let mut proxy = sidecar("a");
    proxy.labels.insert("app".to_owned(), "it".to_owned());
    assert_eq!(SidecarScope::new(&context, &proxy).services.len(), 0);
    assert_eq!(hosts(&context, "a").len(), 1);
}

#[test]
fn destinations_of_rules_are_imported_with_their_ports() {
    let text = service("x", "a", "")
        + &service("target", "b", "")
        + "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: a}
spec: {egress: [{hosts: ['./*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: x, namespace: a}
spec: {hosts: [x], http: [{route: [{destination: {host: target.b.svc.cluster.local}}]}]}
";
    assert_eq!(
        hosts(&context(&text), "a"),
        ["target.b.svc.cluster.local", "x.a.svc.cluster.local"]
    );
}

const DELEGATION: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: a}
spec:
  hosts: [site.example.com]
  http:
  - name: api
    match: [{uri: {prefix: /api}}]
    timeout: 3s
    delegate: {name: api, namespace: b}
  - route: [{destination: {host: rest}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: api, namespace: b}
spec:
  EXPORT
  http:
  - name: v1
    match: [{uri: {prefix: /api/v1}}]
    route: [{destination: {host: v1}}]
  - match: [{uri: {prefix: /other}}]
    route: [{destination: {host: lost}}]
  - route: [{destination: {host: v2}}]
    timeout: 1s
";

#[test]
fn delegates_are_merged_as_subsets_of_the_root() {
    let context = context(&DELEGATION.replace("EXPORT", "exportTo: ['*']"));
    assert_eq!(
        context.virtual_services.len(),
        1,
        "a delegate is no rule of its own"
    );
    let http = &context.virtual_services[0].spec.http;
    let names: Vec<_> = http.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["api-v1", "api", ""]);
    // A field that the delegate leaves out is the root's; its own stays.
    assert_eq!(http[0].timeout, Some(std::time::Duration::from_secs(3)));
    assert_eq!(http[1].timeout, Some(std::time::Duration::from_secs(1)));
    // Short names belong to the namespace of the rule that has them.
    let target = http[0].route[0]
        .destination
        .as_ref()
        .map(|to| to.host.as_str());
    assert_eq!(target, Some("v1.b.svc.cluster.local"));
    let target = http[2].route[0]
        .destination
        .as_ref()
        .map(|to| to.host.as_str());
    assert_eq!(target, Some("rest.a.svc.cluster.local"));
    // The rule that is no subset is named.
    assert!(
        context.problems[0].text.contains("no subset"),
        "{:?}",
        context.problems
    );
}

#[test]
fn delegates_have_to_be_exported_to_the_root() {
    let context = context(&DELEGATION.replace("EXPORT", "exportTo: ['.']"));
    assert_eq!(context.virtual_services[0].spec.http.len(), 1);
    assert!(
        context.problems[0].text.contains("not exported"),
        "{:?}",
        context.problems
    );
}

fn rules_for(text: &str, namespace: &str) -> Vec<String> {
    let context = context(text);
    let rules = context.virtual_services_for(namespace, MESH_GATEWAY);
    rules.iter().map(|rule| rule.meta.name.clone()).collect()
}

#[test]
fn rules_without_gateways_are_for_sidecars_and_older_ones_come_first() {
    let text = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: young, namespace: a, creationTimestamp: '2022-01-01T00:00:00Z'}
spec: {hosts: [x.com], http: [{route: [{destination: {host: x.com}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: b, creationTimestamp: '2020-01-01T00:00:00Z'}
spec: {hosts: [x.com], http: [{route: [{destination: {host: x.com}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: a}
spec: {hosts: [x.com], gateways: [gw], http: [{route: [{destination: {host: x.com}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: private, namespace: a, creationTimestamp: '2023-01-01T00:00:00Z'}
spec: {hosts: [x.com], exportTo: ['.'], http: [{route: [{destination: {host: x.com}}]}]}
";
    assert_eq!(rules_for(text, "a"), ["private", "old", "young"]);
    assert_eq!(rules_for(text, "c"), ["old", "young"]);
}

#[test]
fn a_gateway_is_named_in_each_of_istios_forms() {
    let named = ["gw", "./gw", "a/gw", "gw.a", "gw.a.svc.cluster.local"];
    for name in named {
        assert_eq!(resolve_gateway(name, "a"), "a/gw", "{name}");
    }
    let elsewhere = named.map(|name| resolve_gateway(name, "b"));
    assert_eq!(elsewhere, ["b/gw", "b/gw", "a/gw", "a/gw", "a/gw"]);
    assert_eq!(resolve_gateway(MESH_GATEWAY, "a"), MESH_GATEWAY);
}

fn destination_rule(name: &str, namespace: &str, host: &str, extra: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{host: {host}{extra}}}\n"
    )
}

fn found(context: &Context, namespace: &str) -> Vec<String> {
    let service = context
        .services
        .iter()
        .find(|service| service.name == "x")
        .expect("the service is there");
    context
        .destination_rules
        .find(namespace, service)
        .iter()
        .map(|rule| rule.meta.name.clone())
        .collect()
}

#[test]
fn destination_rules_are_looked_up_from_the_caller_outwards() {
    let text = service("x", "a", "")
        + &destination_rule("caller", "c", "x.a.svc.cluster.local", "")
        + &destination_rule("service", "a", "x", "")
        + &destination_rule("mesh", "istio-system", "'*.local'", "");
    assert_eq!(found(&context(&text), "c"), ["caller"]);
    assert_eq!(found(&context(&text), "d"), ["service"]);
    let text = service("x", "a", "")
        + &destination_rule("service", "a", "x", ", exportTo: ['.']")
        + &destination_rule("mesh", "istio-system", "'*.local'", "");
    assert_eq!(found(&context(&text), "a"), ["service"]);
    assert_eq!(found(&context(&text), "d"), ["mesh"]);
    let text = service("x", "a", "")
        + &destination_rule("service", "a", "x", ", exportTo: [a, c]")
        + &destination_rule("mesh", "istio-system", "'*.local'", "");
    assert_eq!(found(&context(&text), "c"), ["service"]);
    assert_eq!(found(&context(&text), "d"), ["mesh"]);
}

#[test]
fn destination_rules_of_one_host_are_merged() {
    let policy = ", trafficPolicy: {loadBalancer: {simple: RANDOM}}";
    let text = service("x", "a", "")
        + &destination_rule("d1", "a", "x", ", subsets: [{name: v1, labels: {v: a}}]")
        + &destination_rule(
            "d2",
            "a",
            "x",
            &format!(
                ", subsets: [{{name: v1, labels: {{v: b}}}}, {{name: v2, labels: {{v: c}}}}]{policy}"
            ),
        )
        + &destination_rule("d3", "a", "x", &policy.replace("RANDOM", "ROUND_ROBIN"));
    let context = context(&text);
    let service = &context.services[0];
    let rules = context.destination_rules.find("a", service);
    assert_eq!(rules.len(), 1);
    let subsets: Vec<_> = rules[0]
        .spec
        .subsets
        .iter()
        .map(|subset| (subset.name.as_str(), subset.labels["v"].as_str()))
        .collect();
    assert_eq!(subsets, [("v1", "a"), ("v2", "c")]);
    let policy = rules[0].spec.traffic_policy.as_ref();
    let balancer = policy.and_then(|policy| policy.load_balancer.as_ref());
    assert_eq!(
        balancer.and_then(|balancer| balancer.simple),
        Some(SimpleLb::Random),
        "the first policy counts, wherever it stands"
    );
}

#[test]
fn external_names_lead_to_the_service_that_they_name() {
    let text = service("x", "a", "")
        + "---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: b}
spec: {type: ExternalName, externalName: x.a.svc.cluster.local}
";
    let context = context(&text);
    let concrete = context
        .services
        .iter()
        .find(|service| service.name == "x")
        .expect("the service is there");
    assert_eq!(concrete.aliases, ["alias.b.svc.cluster.local"]);
}

#[test]
fn service_entries_find_their_endpoints() {
    let text = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: listed, namespace: a}
spec:
  hosts: [listed.com]
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}, {number: 90, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1, ports: {tcp: 9090}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named, namespace: a}
spec: {hosts: [named.com], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: selecting, namespace: a}
spec:
  hosts: [selecting.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  location: MESH_INTERNAL
  workloadSelector: {labels: {app: vm}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: a}
spec: {address: 10.0.0.9, labels: {app: vm}, weight: 5}
";
    let context = context(text);
    let endpoints = |host: &str| -> Vec<(String, u32, u32)> {
        let service = context
            .services
            .iter()
            .find(|service| service.hostname == host)
            .expect("the service is there");
        context
            .instances_of(service)
            .iter()
            .map(|i| (i.address.clone(), i.port, i.weight))
            .collect()
    };
    assert_eq!(
        endpoints("listed.com"),
        [
            ("10.0.0.1".to_owned(), 8080, 0),
            ("10.0.0.1".to_owned(), 9090, 0)
        ]
    );
    assert_eq!(endpoints("named.com"), [("named.com".to_owned(), 80, 0)]);
    assert_eq!(endpoints("selecting.com"), [("10.0.0.9".to_owned(), 80, 5)]);
}

#[test]
fn services_without_slices_have_the_pods_that_they_select() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: x, namespace: a}
spec: {selector: {app: x}, ports: [{port: 80, name: http, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: x-1, namespace: a, labels: {app: x}}
spec: {containers: [{name: x, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: x-2, namespace: a, labels: {app: x}}
spec: {containers: [{name: x, ports: [{name: web, containerPort: 8081}]}]}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
";
    let context = context(text);
    let found: Vec<_> = context
        .instances_of(&context.services[0])
        .iter()
        .map(|i| (i.address.as_str(), i.port, i.health))
        .collect();
    assert_eq!(
        found,
        [
            ("10.0.0.1", 8080, Health::Healthy),
            ("10.0.0.2", 8081, Health::Unhealthy)
        ]
    );
}

#[test]
fn services_of_one_age_are_in_order_of_the_names_that_istiod_gives_them() {
    let entry = |name: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: a}}\n\
             spec: {{hosts: [{host}], ports: [{{number: 80, name: http, protocol: HTTP}}], resolution: STATIC}}\n"
        )
    };
    let yaml = entry("a", "z.com") + &entry("b", "y.com") + &service("yy", "a", "");
    let services = context(&yaml).services;
    let order: Vec<&str> = services.iter().map(|s| s.hostname.as_str()).collect();
    assert_eq!(order, ["y.com", "yy.a.svc.cluster.local", "z.com"]);
}

#[test]
fn of_two_services_with_one_host_a_full_name_imports_the_first() {
    let entry = |name: &str, year: u32, port: u32| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: {name}, namespace: a, creationTimestamp: '{year}-01-01T00:00:00Z'}}\n\
             spec: {{hosts: [e.com], ports: [{{number: {port}, name: http, protocol: HTTP}}], resolution: DNS}}\n"
        )
    };
    let ports = |hosts: &str| {
        let sidecar = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: b}}\n\
             spec: {{egress: [{{hosts: [{hosts}]}}]}}\n"
        );
        let context = context(&(entry("young", 2020, 81) + &entry("old", 2010, 82) + &sidecar));
        let scope = SidecarScope::new(&context, &self::sidecar("b"));
        let service = scope.service("e.com").expect("it is imported");
        service
            .ports
            .iter()
            .map(|port| port.port)
            .collect::<Vec<_>>()
    };
    assert_eq!(ports("a/*"), [82, 81]);
    assert_eq!(ports("'*/e.com'"), [82, 81]);
    assert_eq!(ports("a/e.com"), [82]);
}

/// The endpoints of `host` in namespace `a`: address, locality and workload.
fn endpoints_of(context: &Context, host: &str) -> Vec<String> {
    let key = ServiceKey {
        namespace: "a".to_owned(),
        hostname: host.to_owned(),
    };
    let show = |i: &Instance| {
        let workload = &i.workload;
        let text = format!(
            "{} {} {}",
            i.address, workload.locality, workload.workload_name
        );
        text.trim_end().to_owned()
    };
    context.instances[&key].iter().map(show).collect()
}

const SELECTED: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-b, namespace: a, labels: {app: e, istio-locality: r.z.s}}
spec: {address: 10.0.0.2, labels: {app: other}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-a, namespace: a, annotations: {istio.io/autoRegistrationGroup: group}}
spec: {address: 10.0.0.1, labels: {app: e, topology.istio.io/locality: r2.z2}, locality: r1}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: named, namespace: a, labels: {app: e, service.istio.io/workload-name: job}}
spec: {address: some.test}
---
apiVersion: v1
kind: Pod
metadata: {name: ready, namespace: a, labels: {app: e}}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Pod
metadata: {name: starts, namespace: a, labels: {app: e}}
status: {podIP: 10.0.0.4, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {ports: [{port: 80, name: http}], clusterIP: 10.0.0.9, selector: {app: e}}
---
";

fn entry_of(resolution: &str) -> String {
    format!(
        "{SELECTED}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e, namespace: a}}\n\
         spec: {{hosts: [e.test], resolution: {resolution}, workloadSelector: {{labels: {{app: e}}}}, \
         ports: [{{number: 80, name: http, protocol: HTTP}}]}}\n"
    )
}

#[test]
fn workloads_are_selected_by_what_their_objects_are_labelled() {
    let found = context(&entry_of("STATIC"));
    let at_addresses = [
        "10.0.0.3  ready",
        "10.0.0.1 r1 group",
        "10.0.0.2 r/z/s vm-b",
    ];
    assert_eq!(endpoints_of(&found, "e.test"), at_addresses);
    // Names can be looked up only where the entry says so; Kubernetes knows none.
    let by_name = context(&entry_of("DNS"));
    assert_eq!(
        endpoints_of(&by_name, "e.test"),
        [
            at_addresses[0],
            "some.test  job",
            at_addresses[1],
            at_addresses[2]
        ]
    );
    let of_service = endpoints_of(&found, "s.a.svc.cluster.local");
    assert_eq!(of_service.len(), 4, "{of_service:?}");
    assert!(of_service.contains(&at_addresses[2].to_owned()));
}

#[test]
fn one_name_at_a_time_has_one_endpoint() {
    let found = context(&entry_of("DNS_ROUND_ROBIN"));
    assert_eq!(endpoints_of(&found, "e.test"), ["10.0.0.3  ready"]);
}
