//! The styles in which people and programs write such files: each reads without a remark, to the same objects.

use super::*;

fn ids(parsed: &Parsed) -> Vec<String> {
    parsed
        .objects
        .iter()
        .map(|o| ObjectId::of(o).to_string())
        .collect()
}

#[test]
fn line_ends_marks_and_comments_do_not_matter() {
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";
    let both = ["VirtualService default/reviews", "Service default/s"];
    for (name, text) in [
        ("plain", format!("{REVIEWS}---\n{service}")),
        (
            "CRLF",
            format!("{REVIEWS}---\n{service}").replace('\n', "\r\n"),
        ),
        ("BOM", format!("\u{feff}{REVIEWS}---\n{service}")),
        (
            "BOM and CRLF",
            format!("\u{feff}---\n{REVIEWS}---\n{service}").replace('\n', "\r\n"),
        ),
        ("ends", format!("---\n{REVIEWS}...\n---\n{service}...\n")),
        (
            "directive",
            format!("%YAML 1.2\n---\n{REVIEWS}\n---\n{service}"),
        ),
        (
            "Helm",
            format!(
                "---\n# Source: chart/templates/sa.yaml\n---\n# Source: chart/templates/a.yaml\n\n{REVIEWS}\n---\n# Source: chart/templates/empty.yaml\n\n---\n# Source: chart/templates/b.yaml\n{service}\n---\n"
            ),
        ),
        (
            "no line at the end",
            format!("{REVIEWS}---\n{}", service.trim_end()),
        ),
        (
            "notes behind",
            format!(
                "{}---  # next\n{service} # last",
                REVIEWS.replace("kind: VirtualService", "kind: VirtualService # a kind")
            ),
        ),
        (
            "blank lines",
            format!(
                "\n\n \n{}\n\n---\n\n{service}\n\n",
                REVIEWS.replace("spec:", "\nspec:")
            ),
        ),
    ] {
        let parsed = read(&text);
        assert_eq!(parsed.findings, [], "{name}");
        assert_eq!(ids(&parsed), both, "{name}");
    }
}

#[test]
fn anchors_and_merge_keys_are_what_they_stand_for() {
    let text = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, labels: &labels {app: reviews}, annotations: {<<: *labels}}
spec:
  hosts: &hosts [reviews]
  http:
  - match: [{uri: {prefix: /a}}]
    route: &to
    - destination: &v1 {host: reviews, subset: v1}
    timeout: 1s
  - route: *to
  - route:
    - destination: {<<: *v1, subset: v2}
";
    // Where rules follow one another is not what this is about.
    let parsed = read(&text.replace(
        "  - route: *to\n",
        "  - {route: *to, match: [{uri: {prefix: /b}}]}\n",
    ));
    assert_eq!(parsed.findings, []);
    let Spec::VirtualService(rule) = &parsed.objects[0].spec else {
        panic!("{parsed:?}")
    };
    let subsets: Vec<_> = rule
        .http
        .iter()
        .flat_map(|r| &r.route)
        .filter_map(|arm| arm.destination.as_ref())
        .map(|to| format!("{} {}", to.host, to.subset))
        .collect();
    assert_eq!(subsets, ["reviews v1", "reviews v1", "reviews v2"]);
}

#[test]
fn every_version_reads_alike() {
    for (group, kind, spec, versions) in [
        (
            "networking.istio.io",
            "VirtualService",
            "{hosts: [a.com], http: [{route: [{destination: {host: a.com}}]}]}",
            &["v1", "v1beta1", "v1alpha3"][..],
        ),
        (
            "networking.istio.io",
            "DestinationRule",
            "{host: a.com}",
            &["v1", "v1beta1", "v1alpha3"],
        ),
        (
            "networking.istio.io",
            "Gateway",
            "{selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
            &["v1", "v1beta1", "v1alpha3"],
        ),
        (
            "networking.istio.io",
            "ServiceEntry",
            "{hosts: [a.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}",
            &["v1", "v1beta1", "v1alpha3"],
        ),
        (
            "networking.istio.io",
            "WorkloadEntry",
            "{address: 10.0.0.1}",
            &["v1", "v1beta1", "v1alpha3"],
        ),
        (
            "networking.istio.io",
            "Sidecar",
            "{egress: [{hosts: ['./*']}]}",
            &["v1", "v1beta1", "v1alpha3"],
        ),
        (
            "security.istio.io",
            "PeerAuthentication",
            "{mtls: {mode: STRICT}}",
            &["v1", "v1beta1"],
        ),
        (
            "security.istio.io",
            "RequestAuthentication",
            "{jwtRules: [{issuer: a}]}",
            &["v1", "v1beta1"],
        ),
        (
            "security.istio.io",
            "AuthorizationPolicy",
            "{rules: [{}]}",
            &["v1", "v1beta1"],
        ),
    ] {
        let texts = versions.iter().map(|v| {
            format!("apiVersion: {group}/{v}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n")
        });
        let specs: Vec<Spec> = texts
            .map(|text| {
                let parsed = read(&text);
                assert_eq!(parsed.findings, [], "{text}");
                parsed.objects[0].spec.clone()
            })
            .collect();
        assert!(specs.windows(2).all(|two| two[0] == two[1]), "{kind}");
    }
}

/// As `kubectl get … -o yaml` and `-o json` write it: a list, metadata that the server keeps, status.
#[test]
fn what_kubectl_prints_is_read() {
    let text = r#"
apiVersion: v1
items:
- apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"networking.istio.io/v1","kind":"VirtualService","spec":{"hosts":["reviews"]}}
    creationTimestamp: "2024-02-29T12:00:00Z"
    deletionTimestamp: null
    finalizers: [a/b]
    generation: 3
    labels: null
    managedFields:
    - apiVersion: networking.istio.io/v1
      fieldsType: FieldsV1
      fieldsV1: {"f:spec": {".": {}, "f:hosts": {}}}
      manager: kubectl
      operation: Update
      time: "2024-02-29T12:00:00Z"
    name: reviews
    namespace: default
    ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: d, uid: u, controller: true}]
    resourceVersion: "123"
    selfLink: /apis/x
    uid: 1b4e28ba-2fa1-11d2-883f-0016d3cca427
  spec:
    hosts: [reviews]
    http: [{route: [{destination: {host: reviews}}]}]
  status:
    conditions: [{lastTransitionTime: "2024-02-29T12:00:00Z", status: "True", type: Reconciled}]
    observedGeneration: "3"
    validationMessages: []
- apiVersion: v1
  kind: Service
  metadata: {creationTimestamp: null, name: s, namespace: default, resourceVersion: "7"}
  spec:
    clusterIP: 10.0.0.1
    clusterIPs: [10.0.0.1]
    externalTrafficPolicy: Cluster
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    allocateLoadBalancerNodePorts: true
    ports:
    - {name: http, nodePort: 30080, port: 80, protocol: TCP, targetPort: http, appProtocol: http}
    publishNotReadyAddresses: false
    selector: {app: s}
    sessionAffinity: ClientIP
    sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}
    type: LoadBalancer
  status: {loadBalancer: {ingress: [{hostname: h}]}}
- apiVersion: discovery.k8s.io/v1
  addressType: IPv4
  endpoints:
  - addresses: [10.1.0.1]
    conditions: {ready: true, serving: true, terminating: false}
    hints: {forZones: [{name: a}]}
    nodeName: n
    targetRef: {kind: Pod, name: p, namespace: default, uid: u}
    zone: a
  kind: EndpointSlice
  metadata: {generateName: s-, labels: {kubernetes.io/service-name: s}, name: s-abc, namespace: default}
  ports: [{appProtocol: null, name: http, port: 8080, protocol: TCP}]
- apiVersion: v1
  kind: Pod
  metadata: {name: p, namespace: default, labels: {app: s}}
  spec:
    containers: [{name: c, image: i, ports: [{containerPort: 8080, name: http, protocol: TCP}], resources: {limits: {cpu: 1}}}]
    dnsPolicy: ClusterFirst
    tolerations: [{effect: NoExecute, key: k, operator: Exists, tolerationSeconds: 300}]
  status:
    conditions: [{lastProbeTime: null, lastTransitionTime: "2024-02-29T12:00:00Z", status: "True", type: Ready}]
    containerStatuses: [{ready: true, restartCount: 0}]
    phase: Running
    podIP: 10.1.0.1
    podIPs: [{ip: 10.1.0.1}]
    qosClass: Burstable
kind: List
metadata:
  resourceVersion: ""
"#;
    let expected = [
        "VirtualService default/reviews",
        "Service default/s",
        "EndpointSlice default/s-abc",
        "Pod default/p",
    ];
    let parsed = read(text);
    assert_eq!(parsed.findings, []);
    assert_eq!(ids(&parsed), expected);
    let tree: serde_json::Value = crate::yaml::from_str(text).expect("a tree");
    let json = read(&serde_json::to_string_pretty(&tree).expect("JSON"));
    assert_eq!(
        (json.findings.as_slice(), ids(&json)),
        (&[][..], ids(&parsed))
    );
    let own = text.replace("kind: List", "kind: VirtualServiceList");
    assert_eq!(ids(&read(&own)), expected);
}

#[test]
fn what_an_object_is_may_be_merged_into_it() {
    let text = "
apiVersion: v1
kind: List
items:
- &one {apiVersion: v1, kind: Service, metadata: &meta {name: a, namespace: x}, spec: {ports: [{port: 80}]}}
- {<<: *one, metadata: {<<: *meta, name: b}}
- {<<: *one, metadata: {name: c}, spec: {prots: []}}
";
    let parsed = read(text);
    assert_eq!(ids(&parsed), ["Service x/a", "Service x/b"]);
    let told: Vec<String> = parsed.findings.iter().map(ToString::to_string).collect();
    assert!(
        matches!(&told[..], [one] if one.contains("Service default/c: spec.prots: unknown field")),
        "{told:?}"
    );
}

/// Of a list nothing is passed over in silence.
#[test]
fn a_list_has_its_own_fields_and_each_once() {
    let item = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: default}}";
    for (rest, told) in [
        (
            format!("items: [{item}]\nitems: []"),
            "4:1: items: duplicate key `items`",
        ),
        (
            format!("itmes: [{item}]"),
            "3:1: itmes: unknown field `itmes`; did you mean `items`?",
        ),
        (
            format!("items: []\nspec: [{item}]"),
            "4:1: spec: unknown field `spec`",
        ),
        (format!("items: {item}"), "3:8: items: items must be a list"),
        (
            format!("items: [{{apiVersion: v1, kind: List, items: [{item}]}}]"),
            "3:9: items[0]: a list within a list",
        ),
        (format!("metadata: {item}"), "1:1: items is required"),
    ] {
        let parsed = read(&format!("apiVersion: v1\nkind: List\n{rest}\n"));
        assert!(
            parsed.findings[0].to_string().contains(told),
            "{:?}",
            parsed.findings
        );
        assert!(parsed.broken, "{rest}");
        let lost: Vec<String> = parsed.lost.iter().map(ToString::to_string).collect();
        assert_eq!(lost, ["AuthorizationPolicy default/p"], "{rest}");
    }
}
