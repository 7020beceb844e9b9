//! A folder of Istio YAML.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use mesh_core::config::{Change, ConfigSource as _, Rejection};
use mesh_xds::istio::{IstioOptions, IstioSource, ProxySpec};
use tokio::task::JoinSet;

use super::{Bad, Case, Temp, bomb, next, replaced, report};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, clusterIP: 127.10.9.1, ports: [{port: 9080, name: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-v1, labels: {app: reviews, version: v1}}
status: {podIP: 127.10.0.1}
";

const GOOD: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - timeout: 5s
    match:
    - uri: {prefix: /a}
    route:
    - destination: {host: reviews}
      weight: 1
";

/// The good rule with one text replaced.
fn edit(from: &str, to: &str) -> Bad {
    assert!(GOOD.contains(from), "{from}");
    Bad::Text(GOOD.replacen(from, to, 1))
}

/// The good rule with another object behind it.
fn beside(object: &str) -> Bad {
    Bad::Text(format!("{GOOD}---\n{object}"))
}

const VS: &str = "VirtualService default/reviews";

fn texts() -> Vec<Case> {
    let case = |name, bad, at, path, reason| Case {
        name,
        bad,
        at,
        resource: "file",
        path,
        reason,
    };
    let mut not_utf8 = GOOD.as_bytes().to_vec();
    not_utf8.insert(GOOD.find("reviews").expect("a name"), 0xff);
    vec![
        case("not UTF-8", Bad::Bytes(not_utf8), "4:9", "", &["not UTF-8"]),
        case(
            "a tab",
            edit("  - timeout", "\t- timeout"),
            "9:1",
            "",
            &["tab"],
        ),
        case("an alias bomb", Bad::Text(bomb()), "6:45", "", &["alias"]),
        case(
            "100 MB",
            Bad::Length(100 << 20),
            "1:1",
            "",
            &["104857600", "limit"],
        ),
        case(
            "half a text",
            Bad::Text("kind: \"half".to_owned()),
            "1:7",
            "",
            &["quot"],
        ),
        case("zeros", Bad::Bytes(vec![0; 64]), "1:1", "", &["character"]),
    ]
}

fn objects() -> Vec<Case> {
    let case = |name, bad, at, path, reason| Case {
        name,
        bad,
        at,
        resource: VS,
        path,
        reason,
    };
    vec![
        case(
            "a duplicate key",
            edit("  hosts:", "  hosts: []\n  hosts:"),
            "7:3",
            "spec.hosts",
            &["duplicate key `hosts`"],
        ),
        case(
            "a wrong type",
            edit("hosts:\n  - reviews", "hosts: reviews"),
            "6:10",
            "spec.hosts",
            &["expected a list"],
        ),
        case(
            "a text for a number",
            edit("weight: 1", "weight: one"),
            "14:15",
            "spec.http[0].route[0].weight",
            &["one", "integer"],
        ),
        Case {
            resource: "VirtualServise default/reviews",
            ..case(
                "an unknown kind",
                edit("VirtualService", "VirtualServise"),
                "2:7",
                "kind",
                &[
                    "`VirtualServise`",
                    "did you mean `VirtualService`?",
                    "allowed: ",
                ],
            )
        },
        case(
            "an unknown version",
            edit("istio.io/v1", "istio.io/v3"),
            "1:13",
            "apiVersion",
            &[
                "`networking.istio.io/v3`",
                "did you mean `networking.istio.io/v1`?",
                "allowed: networking.istio.io/v1, networking.istio.io/v1beta1, networking.istio.io/v1alpha3",
            ],
        ),
        case(
            "an unknown group",
            edit("networking.", "netwroking."),
            "1:13",
            "apiVersion",
            &["did you mean `networking.istio.io`?", "allowed: "],
        ),
        case(
            "an unknown field",
            edit("timeout", "timeuot"),
            "9:5",
            "spec.http[0].timeuot",
            &[
                "unknown field `timeuot`",
                "did you mean `timeout`?",
                "allowed: ",
            ],
        ),
        Case {
            resource: "VirtualService default/(no name)",
            ..case(
                "a missing name",
                edit("  name: reviews", "  labels: {}"),
                "3:1",
                "metadata.name",
                &["required"],
            )
        },
        case(
            "a missing host",
            edit("{host: reviews}", "{}"),
            "13:7",
            "spec.http[0].route[0].destination.host",
            &["required"],
        ),
        case(
            "a missing destination",
            edit("destination: {host: reviews}\n      weight", "weight"),
            "13:7",
            "spec.http[0].route[0].destination",
            &["required"],
        ),
        case(
            "weights of 0",
            edit(
                "weight: 1",
                "weight: 0\n    - {destination: {host: reviews}, weight: 0}",
            ),
            "12:5",
            "spec.http[0].route",
            &["weight", "0"],
        ),
        case(
            "a negative weight",
            edit("weight: 1", "weight: -1"),
            "14:7",
            "spec.http[0].route[0].weight",
            &["negative"],
        ),
        case(
            "an invalid regex",
            edit("prefix: /a", "regex: '/a[0-9+'"),
            "11:13",
            "spec.http[0].match[0].uri.regex",
            &["invalid regular expression", "missing ]", "RE2"],
        ),
        case(
            "an invalid host",
            edit("- reviews", "- re_views!"),
            "7:5",
            "spec.hosts[0]",
            &["re_views!"],
        ),
        case(
            "an invalid duration",
            edit("5s", "5 seconds"),
            "9:14",
            "spec.http[0].timeout",
            &["`5 seconds` is no duration", "1.5s", "did you mean `5s`?"],
        ),
        case(
            "a number for a duration",
            edit("5s", "5"),
            "9:14",
            "spec.http[0].timeout",
            &["`5` is no duration", "did you mean `5s`?"],
        ),
        case(
            "a negative duration",
            edit("5s", "-5s"),
            "9:14",
            "spec.http[0].timeout",
            &["`-5s`", "negative"],
        ),
        case(
            "two conditions in one",
            edit("{prefix: /a}", "{prefix: /a, exact: /b}"),
            "11:7",
            "spec.http[0].match[0].uri",
            &["only one of `exact`, `prefix` and `regex`"],
        ),
        case(
            "a null condition",
            edit("uri: {prefix: /a}", "headers: {a: null}"),
            "11:7",
            "spec.http[0].match[0].headers",
            &["`a` must not be null"],
        ),
    ]
}

fn ports() -> Vec<Case> {
    let case = |name, bad, resource, at, path, reason| Case {
        name,
        bad,
        at,
        resource,
        path,
        reason,
    };
    let istio = |kind: &str, spec: &str| {
        beside(&format!(
            "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec:\n{spec}"
        ))
    };
    vec![
        case(
            "conflicting ports of a service entry",
            istio(
                "ServiceEntry",
                "  hosts: [a.com]\n  resolution: DNS\n  ports:\n  - {number: 80, name: a, protocol: HTTP}\n  - {number: 80, name: b, protocol: TCP}\n",
            ),
            "ServiceEntry default/x",
            "24:6",
            "spec.ports[1].number",
            &["duplicate", "80"],
        ),
        case(
            "conflicting ports of a sidecar",
            istio(
                "Sidecar",
                "  ingress:\n  - port: {number: 80, name: a, protocol: HTTP}\n  - port: {number: 80, name: b, protocol: TCP}\n",
            ),
            "Sidecar default/x",
            "22:12",
            "spec.ingress[1].port.number",
            &["duplicate port 80"],
        ),
        case(
            "conflicting names of ports of a gateway",
            istio(
                "Gateway",
                "  selector: {a: b}\n  servers:\n  - {port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}\n  - {port: {number: 81, name: a, protocol: HTTP}, hosts: ['*']}\n",
            ),
            "Gateway default/x",
            "23:25",
            "spec.servers[1].port.name",
            &["duplicate port name `a`"],
        ),
        case(
            "a port out of range",
            istio(
                "ServiceEntry",
                "  hosts: [a.com]\n  resolution: DNS\n  ports:\n  - {number: 80000, name: a, protocol: HTTP}\n",
            ),
            "ServiceEntry default/x",
            "23:6",
            "spec.ports[0].number",
            &["80000", "1..65535"],
        ),
        case(
            "an unknown word",
            istio(
                "DestinationRule",
                "  host: reviews\n  trafficPolicy: {loadBalancer: {simple: RANDM}}\n",
            ),
            "DestinationRule default/x",
            "21:42",
            "spec.trafficPolicy.loadBalancer.simple",
            &["`RANDM`", "did you mean `RANDOM`?", "allowed: "],
        ),
        case(
            "a misspelt kind of Kubernetes",
            beside("apiVersion: v1\nkind: Servcie\nmetadata: {name: x}\n"),
            "Servcie default/x",
            "17:7",
            "kind",
            &["did you mean `Service`?"],
        ),
        case(
            "a misspelt field of a Service",
            beside(
                "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{prot: 80}]}\n",
            ),
            "Service default/x",
            "19:17",
            "spec.ports[0].prot",
            &["did you mean `port`?"],
        ),
    ]
}

fn options(folder: &Path) -> IstioOptions {
    let proxy = ProxySpec {
        namespace: "default".to_owned(),
        name: "reviews-v1".to_owned(),
        ..ProxySpec::default()
    };
    IstioOptions::new(folder, proxy)
}

async fn in_a_folder(case: Case) -> Result<(), String> {
    let temp = Temp::new(case.name);
    temp.write("services.yaml", SERVICES);
    temp.write("rule.yaml", GOOD);
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    let first = next(&mut source).await;
    let routes = |change: &Change| matches!(change, Change::Routes(_));
    if !first.rejections.is_empty() || !first.changes.iter().any(routes) {
        return Err(format!("{}: a bad start: {first:?}", case.name));
    }
    replaced(&case, &temp, ("rule.yaml", GOOD), &mut source).await
}

#[tokio::test]
async fn istio_yaml() {
    let cases: Vec<Case> = texts()
        .into_iter()
        .chain(objects())
        .chain(ports())
        .collect();
    let count = cases.len();
    let running: JoinSet<_> = cases.into_iter().map(in_a_folder).collect();
    report(running.join_all().await, count);
}

/// A file that is written in pieces, each of them valid by itself, acts once it is whole.
#[tokio::test]
async fn a_half_written_file_of_istio_yaml_is_not_believed() {
    let temp = Temp::new("half");
    temp.write("services.yaml", SERVICES);
    temp.write("rule.yaml", GOOD);
    let path = temp.0.join("rule.yaml");
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    next(&mut source).await;
    // A file that nobody writes to for long is believed, so a writer that the machine held up shows nothing.
    for timeout in 11..40 {
        let (pause, seen) = written_in_pieces(&mut source, &path, &format!("{timeout}s")).await;
        if pause < Duration::from_millis(45) {
            return seen.expect("the file is whole");
        }
    }
    panic!("this machine is too busy to write a file in pieces");
}

/// Writes the rule with this timeout in pieces: the longest time between two of them, and what was wrong with what was
/// understood meanwhile.
async fn written_in_pieces(
    source: &mut IstioSource,
    path: &Path,
    timeout: &str,
) -> (Duration, Result<(), String>) {
    let second = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: r}\nspec: {host: reviews}\n";
    let whole = format!("{second}---\n{}", GOOD.replace("5s", timeout));
    let writer = path.to_path_buf();
    let (started, begin) = tokio::sync::oneshot::channel();
    let writing = tokio::task::spawn_blocking(move || {
        let mut file = fs::File::create(writer).expect("created");
        started.send(()).expect("somebody waits");
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        for piece in whole.split_inclusive('\n') {
            file.write_all(piece.as_bytes()).expect("written");
            longest = longest.max(last.elapsed());
            last = Instant::now();
            // Slow enough that the folder is read between two pieces.
            std::thread::sleep(Duration::from_millis(25));
        }
        longest
    });
    begin.await.expect("it began");
    // Whatever is read meanwhile, the rule of the service stays, and nothing is refused.
    let mut seen = Ok(());
    let mut updates = 0;
    loop {
        let update = next(source).await;
        updates += 1;
        if !update.rejections.is_empty() {
            seen = Err(format!("{:?}", update.rejections));
        }
        let routes = update.changes.iter().find_map(|c| match c {
            Change::Routes(routes) => Some(format!("{routes:?}")),
            _ => None,
        });
        match routes {
            Some(routes) if routes.contains(timeout) => break,
            Some(routes) => seen = Err(format!("half of the file acts: {routes}")),
            None => {}
        }
    }
    if updates > 2 {
        seen = seen.and(Err(format!("{updates} updates")));
    }
    (writing.await.expect("written"), seen)
}

/// Istio's rules do not know all of Envoy's: what only the decoder or the compiler refuses is told of at its object as well.
#[tokio::test]
async fn what_the_data_path_refuses_is_placed_at_the_rule_that_made_it() {
    let temp = Temp::new("placed");
    temp.write("services.yaml", SERVICES);
    let headers = "headers: {request: {set: {x: '%NO_SUCH_OPERATOR%'}}}";
    let other = GOOD.replacen("name: reviews", "name: other", 1);
    let other = other.replacen("  - reviews", "  - other.test", 1);
    temp.write("other.yaml", &other);
    let bad = GOOD.replacen("timeout: 5s", headers, 1);
    temp.write("bad.yaml", &format!("# the rule\n{bad}"));
    let mut source = IstioSource::new(options(&temp.0)).expect("a folder");
    let update = next(&mut source).await;
    let [refused] = update.rejections.as_slice() else {
        panic!("{:?}", update.rejections)
    };
    assert_eq!(&*refused.resource, "route configuration 9080");
    assert!(refused.path.ends_with(".header.value"), "{refused}");
    assert!(refused.location.ends_with("/bad.yaml:2"), "{refused}");

    temp.write("bad.yaml", GOOD);
    let update = next(&mut source).await;
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    let at = "virtual_hosts[0].routes[0].route.path_rewrite";
    let mut compiled = [Rejection::new("route configuration 9080", at, "wrong")];
    source.locate(&mut compiled);
    let [placed] = &compiled;
    assert!(placed.location.ends_with("/bad.yaml:1"), "{placed}");
}

#[tokio::test]
async fn dangling_references_and_conflicting_ports_are_named() {
    let temp = Temp::new("dangling");
    let gateways = "
apiVersion: v1
kind: Pod
metadata: {name: edge, labels: {istio: edge}}
status: {podIP: 127.10.0.2}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: one}
spec: {selector: {istio: edge}, servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: two}
spec: {selector: {istio: edge}, servers: [{port: {number: 8000, name: tcp, protocol: TCP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: ['*']
  gateways: [one, three]
  http:
  - route: [{destination: {host: nobody}}]
";
    temp.write("mesh.yaml", &format!("{SERVICES}---{gateways}"));
    let mut edge = options(&temp.0);
    edge.proxy.kind = mesh_xds::istio::index::ProxyKind::Router;
    edge.proxy.name = "edge".to_owned();
    let update = next(&mut IstioSource::new(edge).expect("a folder")).await;
    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
    let notes: Vec<String> = update
        .notes
        .iter()
        .map(|n| format!("{} {}: {}", n.resource, n.path, n.reason))
        .collect();
    for parts in [
        [
            "VirtualService default/edge spec.gateways[1]",
            "three",
            "mesh.yaml:",
        ],
        [
            "VirtualService default/edge spec.http[0].route[0].destination.host",
            "nobody",
            "mesh.yaml:",
        ],
        [
            "Gateway default/two",
            "port is opened by Gateway default/one",
            "mesh.yaml:",
        ],
    ] {
        let named = notes
            .iter()
            .any(|note| parts.iter().all(|part| note.contains(part)));
        assert!(named, "{parts:?} in {notes:#?}");
    }
}
