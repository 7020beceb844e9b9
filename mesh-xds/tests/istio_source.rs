//! A folder of Istio YAML as a live source: started, edited, broken, repaired.

use std::path::Path;

use mesh_core::config::{Change, ConfigSource as _, Update};
use mesh_xds::graph::Kind;
use mesh_xds::istio::index::ProxyKind;
use mesh_xds::istio::{IstioOptions, IstioSource, ProxySpec};

mod support;

use support::{Temp, next};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, labels: {app: reviews}}
spec: {selector: {app: reviews}, clusterIP: 127.10.9.1, ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, labels: {app: reviews, version: v1}}
status: {podIP: 127.10.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: productpage-v1, labels: {app: productpage, version: v1}}
status: {podIP: 127.10.0.2}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: productpage}
spec:
  workloadSelector: {labels: {app: productpage}}
  egress:
  - port: {number: 9080, protocol: HTTP, name: http}
    bind: 127.10.1.2
    captureMode: NONE
    hosts: ['*/*']
";

fn rule(subset: &str, timeout: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: reviews}}
spec:
  hosts: [reviews]
  http:
  - timeout: {timeout}
    route:
    - destination: {{host: reviews, subset: {subset}}}
"
    )
}

/// A port of the workload, at its own address.
const INBOUND: &str = "
apiVersion: v1
kind: Service
metadata: {name: productpage}
spec: {selector: {app: productpage}, ports: [{port: 9080, name: http}]}
";

fn options(folder: &Path) -> IstioOptions {
    let proxy = ProxySpec {
        kind: ProxyKind::Sidecar,
        namespace: "default".to_owned(),
        name: "productpage-v1".to_owned(),
        ..ProxySpec::default()
    };
    IstioOptions::new(folder, proxy)
}

fn cluster_names(update: &Update) -> Vec<String> {
    update
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Cluster(cluster) => Some(cluster.name.to_string()),
            _ => None,
        })
        .collect()
}

fn changed_routes(update: &Update) -> usize {
    update
        .changes
        .iter()
        .filter(|c| matches!(c, Change::Routes(_)))
        .count()
}

#[tokio::test]
async fn starts_takes_edits_and_keeps_what_was_good() {
    let temp = Temp::new("edits");
    temp.write("services.yaml", SERVICES);
    temp.write("reviews.yaml", &rule("v1", "5s"));
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    assert_eq!(source.workload(), None, "nothing is read yet");
    let update = next(&mut source).await;
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    let identity = source.workload().expect("the Pod tells it");
    assert_eq!(&*identity.name, "productpage-v1");
    assert_eq!(&*identity.app, "productpage");
    assert_eq!(&*identity.version, "v1");
    assert_eq!(&*identity.canonical_service, "productpage");
    assert_eq!(&*identity.canonical_revision, "v1");
    assert_eq!(&*identity.namespace, "default");
    assert_eq!(&*identity.cluster, "Kubernetes");
    let clusters = cluster_names(&update);
    assert!(
        clusters
            .iter()
            .any(|c| c == "outbound|9080|v1|reviews.default.svc.cluster.local"),
        "{clusters:?}"
    );
    assert_eq!(changed_routes(&update), 1, "{:?}", update.changes);
    assert!(
        update
            .changes
            .iter()
            .any(|c| matches!(c, Change::Listener(_)))
    );

    temp.write("reviews.yaml", &rule("v1", "7s"));
    let update = next(&mut source).await;
    assert_eq!(
        (changed_routes(&update), cluster_names(&update).len()),
        (1, 0)
    );

    temp.write(
        "reviews.yaml",
        &rule("v1", "9s").replace("timeout", "timeuot"),
    );
    let update = next(&mut source).await;
    assert!(update.changes.is_empty(), "{:?}", update.changes);
    let rejection = update.rejections[0].to_string();
    for part in [
        "reviews.yaml:7:5: VirtualService default/reviews: spec.http[0].timeuot: ",
        "did you mean `timeout`?",
        "allowed: ",
    ] {
        assert!(rejection.contains(part), "{rejection}");
    }

    temp.write("reviews.yaml", &rule("v1", "7s"));
    let update = next(&mut source).await;
    assert!(
        update.rejections.is_empty() && update.changes.is_empty(),
        "{update:?}"
    );

    temp.remove("reviews.yaml");
    let update = next(&mut source).await;
    assert_eq!(changed_routes(&update), 1, "{update:?}");
}

#[tokio::test]
async fn dangling_references_are_listed() {
    let temp = Temp::new("dangling");
    temp.write("services.yaml", SERVICES);
    temp.write("reviews.yaml", &rule("v7", "5s"));
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    let update = next(&mut source).await;
    let notes: Vec<String> = update
        .notes
        .iter()
        .map(|n| format!("{} {} {}", n.resource, n.path, n.reason))
        .collect();
    let wanted = "has a subset `v7`: traffic to it answers 503";
    let found = notes
        .iter()
        .find(|n| n.contains(wanted))
        .unwrap_or_else(|| panic!("{notes:?}"));
    assert!(found.contains("reviews.yaml:9:36)"), "{found}");
    // Of the rule, not of each table that holds it.
    let told = |n: &&String| n.contains("v7");
    let others: Vec<_> = notes.iter().filter(told).collect();
    assert!(
        others
            .iter()
            .all(|n| n.starts_with("VirtualService default/reviews ")),
        "{others:#?}"
    );
}

#[tokio::test]
async fn protection_refuses_traffic_unless_skipped() {
    let temp = Temp::new("protect");
    temp.write("services.yaml", SERVICES);
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny}\nspec: {}\n";
    temp.write("policy.yaml", policy);
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    let update = next(&mut source).await;
    let text = |update: &Update| format!("{:?}", update.notes);
    assert!(
        text(&update).contains("REFUSES TRAFFIC"),
        "{}",
        text(&update)
    );
    let mut skipping = options(&temp.0);
    skipping
        .insecure_skip
        .insert("AuthorizationPolicy".to_owned());
    let update = next(&mut IstioSource::new(skipping).expect("a folder")).await;
    assert!(
        !text(&update).contains("REFUSES TRAFFIC") && text(&update).contains("not enforced"),
        "{}",
        text(&update)
    );
    let mut wrong = options(&temp.0);
    wrong.insecure_skip.insert("AuthorisationPolicy".to_owned());
    let error = IstioSource::new(wrong)
        .expect_err("unknown kind")
        .to_string();
    assert!(
        error.contains("did you mean `AuthorizationPolicy`"),
        "{error}"
    );
}

/// Refused, a Sidecar or the mesh's settings let no host be reached that they would not.
#[tokio::test]
async fn a_refused_edit_opens_no_unknown_host() {
    const ONLY: &str = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    let sidecar = |spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s}}\nspec: {spec}\n"
        )
    };
    let own = "workloadSelector: {labels: {app: productpage}}";
    let cases = [
        ("s.yaml", sidecar(&format!("{{{own}, {ONLY}, x: 1}}")), true),
        ("s.yaml", sidecar(&format!("{{{ONLY}, x: 1}}")), false),
        ("s.yaml", sidecar(&format!("{{{own}, x: 1}}")), false),
        ("mesh.yaml", format!("{ONLY}\nx: 1\n"), true),
        ("mesh.yaml", "x: 1\n".to_owned(), false),
    ];
    for (index, (file, text, closed)) in cases.into_iter().enumerate() {
        let temp = Temp::new(&format!("unknown-{index}"));
        temp.write("services.yaml", SERVICES);
        let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
        let passes = |update: &Update| {
            let routes = update.changes.iter().find_map(|change| match change {
                Change::Routes(routes) => Some(format!("{routes:?}")),
                _ => None,
            });
            routes.map(|routes| routes.contains("PassthroughCluster"))
        };
        assert_eq!(passes(&next(&mut source).await), Some(true));
        temp.write(file, &text);
        let update = next(&mut source).await;
        assert_ne!(update.rejections.len(), 0, "{text}");
        assert_eq!(passes(&update), closed.then_some(false), "{text}");
        let noted = |n: &mesh_core::model::Note| n.reason.starts_with("REFUSES TRAFFIC");
        assert_eq!(
            update.notes.iter().any(noted),
            closed,
            "{text}: {:?}",
            update.notes
        );
        temp.remove(file);
        assert_eq!(
            passes(&next(&mut source).await),
            closed.then_some(true),
            "{text}"
        );
    }
}

#[tokio::test]
async fn strict_refuses_what_has_no_effect() {
    let temp = Temp::new("strict");
    temp.write("services.yaml", SERVICES);
    let mut strict = options(&temp.0);
    strict.strict = true;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n";
    let mut source = IstioSource::new(strict.clone()).expect("a folder");
    next(&mut source).await;
    temp.write("route.yaml", route);
    let update = next(&mut source).await;
    assert!(update.changes.is_empty());
    assert!(
        update.rejections[0]
            .to_string()
            .contains("HTTPRoute default/r"),
        "{:?}",
        update.rejections
    );
    let error = IstioSource::new(strict)
        .expect("a folder")
        .next()
        .await
        .expect_err("refused at start");
    assert!(error.to_string().contains("HTTPRoute"), "{error}");
}

/// What closes traffic acts though the edit that brings it is refused as a whole, and all else stays.
#[tokio::test]
async fn strict_closes_what_a_refused_edit_would_protect() {
    let without_effect =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n";
    let policy =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n";
    let refused = format!(
        "{policy}spec: {{selector: {{matchLabels: {{app: productpage}}}}, action: DENI}}\n"
    );
    let right = format!("{policy}spec: {{selector: {{matchLabels: {{app: productpage}}}}}}\n");
    let closes = |update: &Update| {
        let mut reasons = update.notes.iter().map(|note| &note.reason);
        reasons.any(|reason| reason.contains("REFUSES TRAFFIC"))
    };
    for policy in [refused, right] {
        let temp = Temp::new("strict-closes");
        temp.write("services.yaml", SERVICES);
        temp.write("inbound.yaml", INBOUND);
        temp.write("rule.yaml", &rule("v1", "1s"));
        let mut strict = options(&temp.0);
        strict.strict = true;
        strict.proxy.application_address = Some("127.0.0.1".to_owned());
        let mut source = IstioSource::new(strict).expect("a folder");
        assert!(!closes(&next(&mut source).await));
        temp.write("route.yaml", without_effect);
        temp.write("rule.yaml", &rule("v1", "2s"));
        let update = next(&mut source).await;
        assert!(update.changes.is_empty(), "{:?}", update.changes);
        assert!(!closes(&update));
        temp.write("policy.yaml", &policy);
        let update = next(&mut source).await;
        assert!(closes(&update), "{:?}", update.notes);
        let closed = |change: &Change| matches!(change, Change::Listener(listener) if listener.name.contains("127.10.0.2"));
        assert!(update.changes.iter().any(closed), "{:?}", update.changes);
        assert_eq!(changed_routes(&update), 0, "the rule is not taken");
        assert!(!update.rejections.is_empty());
        // What was refused goes, and all of the folder counts.
        std::fs::remove_file(temp.0.join("route.yaml")).expect("it is there");
        let update = next(&mut source).await;
        assert_eq!(changed_routes(&update), 1);
        assert!(closes(&update));
    }
}

#[tokio::test]
async fn an_edit_leaves_all_other_resources_as_they_were_offered() {
    let temp = Temp::new("kept");
    temp.write("services.yaml", SERVICES);
    temp.write("rule.yaml", &rule("v1", "1s"));
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    next(&mut source).await;
    let dump = source.dump();
    let versions = |kind| -> Vec<String> {
        let resources = dump.resources(kind);
        resources.iter().map(|r| r.version.to_string()).collect()
    };
    assert!(versions(Kind::Cluster).len() > 2);
    temp.write("rule.yaml", &rule("v1", "2s"));
    let update = next(&mut source).await;
    assert_eq!(update.changes.len(), 1, "{:?}", update.changes);
    for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener] {
        let others = versions(kind);
        assert!(
            others.iter().all(|version| version == "1"),
            "{kind:?}: {others:?}"
        );
    }
    assert_eq!(versions(Kind::Routes), ["2"]);
}

/// A field without effect is listed with its place, and refused by `strict`.
#[tokio::test]
async fn a_field_without_effect_is_named_by_line_and_path() {
    let temp = Temp::new("inactive");
    temp.write("services.yaml", SERVICES);
    temp.write(
        "rule.yaml",
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tunnelled}
spec:
  host: reviews
  trafficPolicy:
    tunnel: {protocol: CONNECT, targetHost: a.com, targetPort: 443}
",
    );
    let update = next(&mut IstioSource::new(options(&temp.0)).expect("a folder")).await;
    let note = update
        .notes
        .iter()
        .find(|n| &*n.path == "spec.trafficPolicy.tunnel");
    let note = note.unwrap_or_else(|| panic!("{:?}", update.notes));
    assert_eq!(&*note.resource, "DestinationRule default/tunnelled");
    assert!(note.reason.contains("rule.yaml:7:5)"), "{}", note.reason);
    let mut strict = options(&temp.0);
    strict.strict = true;
    let error = IstioSource::new(strict)
        .expect("a folder")
        .next()
        .await
        .expect_err("refused at start")
        .to_string();
    assert!(
        error.contains(
            "rule.yaml:7:5: DestinationRule default/tunnelled: spec.trafficPolicy.tunnel: "
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_proxy_without_workload_is_refused_by_name() {
    let temp = Temp::new("workload");
    temp.write("services.yaml", SERVICES);
    let mut wrong = options(&temp.0);
    wrong.proxy.name = "productpage-v2".to_owned();
    let error = IstioSource::new(wrong)
        .expect("a folder")
        .next()
        .await
        .expect_err("no workload")
        .to_string();
    assert!(
        error.contains("did you mean `default/productpage-v1`"),
        "{error}"
    );
    assert!(IstioSource::new(options(Path::new("/nonexistent"))).is_err());
}

#[tokio::test]
async fn a_gateway_that_no_gateway_object_selects_is_told_of() {
    let temp = Temp::new("idle-gateway");
    temp.write("services.yaml", SERVICES);
    let mut idle = options(&temp.0);
    idle.proxy.kind = ProxyKind::Router;
    let update = next(&mut IstioSource::new(idle).expect("a folder")).await;
    let told = |n: &&mesh_core::model::Note| n.reason.contains("no Gateway selects");
    let note = update.notes.iter().find(told).expect("a note");
    assert_eq!(&*note.resource, "proxy default/productpage-v1");
    assert!(note.is_warning(), "{note:?}");
}

/// Every proxy of bookinfo's own folder, and with each of the files that readers are told to copy into it.
#[tokio::test]
async fn bookinfo_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/bookinfo");
    let mesh = root.join("mesh");
    let gateway = ProxySpec {
        kind: ProxyKind::Router,
        namespace: "istio-system".to_owned(),
        name: "istio-ingressgateway".to_owned(),
        ..ProxySpec::default()
    };
    let mut proxies = vec![gateway];
    for name in [
        "productpage-v1",
        "details-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
        "ratings-v1",
        "ratings-v2",
    ] {
        proxies.push(ProxySpec {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            ..ProxySpec::default()
        });
    }
    for proxy in proxies {
        let name = proxy.name.clone();
        let mut source = IstioSource::new(IstioOptions::new(&mesh, proxy)).expect("a folder");
        let update = next(&mut source).await;
        assert!(
            update.rejections.is_empty(),
            "{name}: {:?}",
            update.rejections
        );
        assert!(
            update
                .changes
                .iter()
                .any(|c| matches!(c, Change::Listener(_))),
            "{name} has no listener"
        );
        let dangling: Vec<_> = update
            .notes
            .iter()
            .filter(|n| n.reason.contains("503"))
            .collect();
        assert!(dangling.is_empty(), "{name}: {dangling:?}");
    }
}

const TLS_ORIGIN: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: apis}
spec: {hosts: [www.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: https, protocol: HTTPS}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate}
spec: {host: www.example.com, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}}
";

const TLS_GATEWAY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: gw, labels: {istio: ingressgateway}}
status: {podIP: 127.10.0.9}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}
";

/// What protects traffic and cannot act yet fails closed, and says so by name.
#[tokio::test]
async fn tls_fails_closed_by_name() {
    let temp = Temp::new("tls");
    temp.write("services.yaml", SERVICES);
    temp.write("origin.yaml", TLS_ORIGIN);
    temp.write("gateway.yaml", TLS_GATEWAY);
    let text = |update: &Update| -> Vec<String> {
        update
            .notes
            .iter()
            .map(|n| format!("{} {}: {}", n.resource, n.path, n.reason))
            .collect()
    };
    // A workload that no Sidecar object limits.
    let mut caller = options(&temp.0);
    caller.proxy.name = "reviews-v1".to_owned();
    let update = next(&mut IstioSource::new(caller).expect("a folder")).await;
    let notes = text(&update);
    let named =
        |n: &&String| n.contains("443") && n.contains("www.example.com") && n.contains("TLS");
    assert!(notes.iter().any(|n| named(&n)), "{notes:#?}");

    let mut gateway = options(&temp.0);
    gateway.proxy.kind = ProxyKind::Router;
    gateway.proxy.name = "gw".to_owned();
    let update = next(&mut IstioSource::new(gateway).expect("a folder")).await;
    let open = update
        .changes
        .iter()
        .any(|c| matches!(c, Change::Listener(l) if l.name.contains("8443")));
    let notes = text(&update);
    assert!(
        !notes.iter().any(|n| n.contains("no Gateway selects")),
        "{notes:#?}"
    );
    assert!(
        !open
            || notes
                .iter()
                .any(|n| n.contains("8443") && n.contains("TLS")),
        "{notes:#?}"
    );
    assert!(notes.iter().any(|n| n.contains("secure")), "{notes:#?}");
}

#[tokio::test]
async fn what_the_process_is_told_counts_from_its_start() {
    let temp = Temp::new("settings");
    temp.write("services.yaml", SERVICES);
    temp.write("mesh.yaml", "defaultConfig: {concurrency: 3}\n");
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    let settings = source.settings();
    assert_eq!(settings.get(), None, "nothing is read yet");
    let noted = |update: &Update| {
        let mut reasons = update.notes.iter().map(|note| &note.reason);
        reasons.any(|reason| reason.contains("ProxyConfig has changed"))
    };
    let update = next(&mut source).await;
    let at_start = settings.get().expect("the mesh says it");
    assert_eq!(at_start.concurrency, Some(3));
    assert!(!noted(&update), "{:?}", update.notes);
    temp.write("mesh.yaml", "defaultConfig: {concurrency: 4}\n");
    let update = next(&mut source).await;
    assert!(noted(&update), "{:?}", update.notes);
    assert_eq!(settings.get(), Some(at_start), "threads stay as they are");
    temp.write("mesh.yaml", "defaultConfig: {concurrency: 3}\n");
    let update = next(&mut source).await;
    assert!(!noted(&update), "{:?}", update.notes);
}
