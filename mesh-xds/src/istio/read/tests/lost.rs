//! What is refused and has no good version is lost, at the start as in an edit; a last good version comes first.

use super::*;

const P: &str = "AuthorizationPolicy default/p";
const Q: &str = "AuthorizationPolicy default/q";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

fn rule(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {name}, {rest}}}\n"
    )
}

const TLS: &str = "trafficPolicy: {tls: {mode: SIMPLE}}";

fn lost(scan: &Scan) -> Vec<String> {
    scan.lost.iter().map(ToString::to_string).collect()
}

fn in_force(scan: &Scan) -> Vec<String> {
    let ids = scan.objects.iter().map(|o| ObjectId::of(o).to_string());
    ids.collect()
}

/// A folder that held `before` in one file, and holds `after` there now: what is lost, and what is in force.
fn edited(name: &str, before: &str, after: &str) -> (Vec<String>, Vec<String>) {
    let temp = Temp::new(name);
    temp.write("a.yaml", before, OLD);
    let mut folder = temp.folder();
    let scan = folder.scan();
    assert_eq!(scan.lost, [], "{name}: before");
    temp.write("a.yaml", after, NEWER);
    let scan = folder.scan();
    assert_ne!(scan.findings, [], "{name}: nothing is refused");
    (lost(&scan), in_force(&scan))
}

#[test]
fn a_refused_edit_loses_what_it_adds_and_keeps_what_was_good() {
    let good = policy("p", "{}");
    let bad = policy("p", "{x: 1}");
    let other = policy("q", "{x: 1}");
    let nameless = bad.replace("{name: p,", "{nmae: p,");
    let kindless = bad.replace("kind: AuthorizationPolicy\n", "");
    let both = |a: &str, b: &str| format!("{a}---\n{b}");
    type Expected<'a> = (&'a [&'a str], &'a [&'a str]);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n".to_owned();
    let half = policy("p", "{x: [");
    let cases: [(&str, String, String, Expected<'_>); 13] = [
        ("broken", good.clone(), bad.clone(), (&[], &[P])),
        ("renamed", good.clone(), other.clone(), (&[Q], &[P])),
        ("added", good.clone(), both(&good, &other), (&[Q], &[P])),
        (
            "added first",
            good.clone(),
            both(&other, &good),
            (&[Q], &[P]),
        ),
        ("both", good.clone(), both(&bad, &other), (&[Q], &[P])),
        ("name", good.clone(), nameless.clone(), (&[], &[P])),
        (
            "one more without name",
            good.clone(),
            both(&good, &nameless),
            (&["AuthorizationPolicy default/(no name)"], &[P]),
        ),
        (
            "one more without kind",
            good.clone(),
            both(&good, &kindless),
            (&["security.istio.io default/p"], &[P]),
        ),
        ("without kind", good.clone(), kindless, (&[], &[P])),
        (
            "beside another kind",
            service.clone(),
            both(&service, &nameless),
            (
                &["AuthorizationPolicy default/(no name)"],
                &["Service default/s"],
            ),
        ),
        ("half", good.clone(), half.clone(), (&[], &[P])),
        (
            "half, of another kind",
            service,
            half,
            (&[P], &["Service default/s"]),
        ),
        (
            "half, one more",
            good.clone(),
            both(&good, &policy("q", "{x: [")),
            (&[Q], &[P]),
        ),
    ];
    for (name, before, after, expected) in cases {
        let (lost, in_force) = edited(&format!("lost-{name}"), &before, &after);
        let seen = (lost.as_slice(), in_force.as_slice());
        let expected: (Vec<&str>, Vec<&str>) = (expected.0.to_vec(), expected.1.to_vec());
        assert_eq!(seen.0, expected.0, "{name}: lost, with {:?}", seen.1);
        assert_eq!(seen.1, expected.1, "{name}: in force");
    }
}

#[test]
fn a_refused_edit_of_a_rule_keeps_the_rule() {
    let r = "DestinationRule default/r";
    let plain = rule("r", "subsets: []");
    let cases = [
        (
            "TLS is added",
            plain.clone(),
            rule("r", &format!("{TLS}, x: 1")),
            vec![],
        ),
        (
            "a key twice",
            plain.clone(),
            rule("s", &format!("host: s, {TLS}")),
            vec!["DestinationRule default/s"],
        ),
        (
            "another one",
            plain,
            rule("s", &format!("{TLS}, x: 1")),
            vec!["DestinationRule default/s"],
        ),
        (
            "TLS stays",
            rule("r", TLS),
            rule("r", &format!("{TLS}, x: 1")),
            vec![],
        ),
    ];
    for (name, before, after, expected) in cases {
        let (lost, in_force) = edited(&format!("lost-rule-{name}"), &before, &after);
        assert_eq!(
            (lost, in_force),
            (
                expected.into_iter().map(str::to_owned).collect(),
                vec![r.to_owned()]
            ),
            "{name}"
        );
    }
}

#[test]
fn what_was_lost_stays_so_until_it_is_right_or_gone() {
    let temp = Temp::new("lost");
    let age = |steps: u64| NEWER - Duration::from_secs(steps);
    temp.write("a.yaml", &policy("p", "{x: 1}"), OLD);
    let mut folder = temp.folder();
    assert_eq!(lost(&folder.scan()), [P]);
    // Still refused, in one way or another.
    temp.write("a.yaml", &policy("p", "{y: 1}"), NEWER);
    assert_eq!(lost(&folder.scan()), [P]);
    temp.write("a.yaml", &policy("p", "{y: 1"), age(1));
    assert_eq!(lost(&folder.scan()), [P]);
    temp.write("a.yaml", &policy("q", "{y: 1}"), age(2));
    assert_eq!(lost(&folder.scan()), [Q]);
    // A good version elsewhere comes first, whichever file is newer.
    temp.write("b.yaml", &policy("q", "{}"), OLD);
    let scan = folder.scan();
    assert_eq!((lost(&scan), in_force(&scan)), (vec![], vec![Q.to_owned()]));
    // Broken there, its last good version stays; with that file gone it is lost.
    temp.write("b.yaml", &policy("q", "{z: 1}"), NEWER);
    let scan = folder.scan();
    assert_eq!((lost(&scan), in_force(&scan)), (vec![], vec![Q.to_owned()]));
    fs::remove_file(temp.0.join("b.yaml")).expect("removed");
    let scan = settled(&mut folder, |scan| scan.objects.is_empty());
    assert_eq!(lost(&scan), [Q]);
    temp.write("a.yaml", &policy("q", "{}"), age(3));
    assert_eq!(lost(&folder.scan()), [""; 0]);
    temp.write(
        "a.yaml",
        &policy("q", "{}").replace("name: q", "name: p"),
        age(4),
    );
    temp.write("c.yaml", &policy("q", "{z: 1}"), OLD);
    let scan = folder.scan();
    assert_eq!(
        (lost(&scan), in_force(&scan)),
        (vec![Q.to_owned()], vec![P.to_owned()])
    );
    fs::remove_file(temp.0.join("c.yaml")).expect("removed");
    settled(&mut folder, |scan| scan.lost.is_empty());
}

#[test]
fn a_file_under_a_new_name_keeps_its_last_good_content() {
    for (index, bad) in [policy("p", "{x: 1}"), policy("p", "{x: [")]
        .into_iter()
        .enumerate()
    {
        let temp = Temp::new(&format!("moved-{index}"));
        temp.write("a.yaml", &policy("p", "{}"), OLD);
        let mut folder = temp.folder();
        folder.scan();
        temp.write("a.yaml", &bad, NEWER);
        assert_eq!(in_force(&folder.scan()), [P]);
        fs::rename(temp.0.join("a.yaml"), temp.0.join("b.yaml")).expect("renamed");
        let scan = folder.scan();
        assert_eq!((lost(&scan), in_force(&scan)), (vec![], vec![P.to_owned()]));
        assert!(
            scan.findings.iter().all(|f| f.file.ends_with("b.yaml")),
            "{:?}",
            scan.findings
        );
        // Gone while it is broken, it is gone.
        fs::remove_file(temp.0.join("b.yaml")).expect("removed");
        let scan = settled(&mut folder, |scan| scan.objects.is_empty());
        assert_eq!(lost(&scan), [""; 0]);
    }
}

#[test]
fn a_refusal_that_closes_traffic_is_believed_only_once_the_file_is_complete() {
    let temp = Temp::new("lost-soon");
    temp.write("b.yaml", REVIEWS, OLD);
    let mut folder = temp.folder();
    folder.scan();
    for file in ["a.yaml", "b.yaml"] {
        temp.write(file, &policy("p", "{x: ["), Duration::from_millis(100));
        let scan = folder.scan();
        assert_eq!((scan.unsettled, scan.lost.len()), (true, 0), "{file}");
        temp.write(file, REVIEWS, Duration::from_secs(1));
        folder.scan();
    }
    temp.write("a.yaml", &policy("p", "{x: ["), Duration::from_millis(100));
    settled(&mut folder, |scan| scan.lost.len() == 1);
}

/// A template in the place of a file takes nothing out of force, and hides nothing that protects.
#[test]
fn a_template_is_foreign_only_if_nothing_is_lost_by_it() {
    let temp = Temp::new("template");
    temp.write("a.yaml", &policy("p", "{}"), OLD);
    let mut folder = temp.folder();
    folder.scan();
    let template = "{{- if .Values.x }}\nkind: Service\n{{- end }}\n";
    temp.write("a.yaml", template, NEWER);
    let scan = folder.scan();
    assert_eq!((lost(&scan), in_force(&scan)), (vec![], vec![P.to_owned()]));
    assert_eq!(scan.findings[0].level, Level::Refused);
    temp.write("b.yaml", template, OLD);
    let level = |scan: &Scan| {
        scan.findings
            .iter()
            .find(|f| f.file.ends_with("b.yaml"))
            .map(|f| f.level)
    };
    assert_eq!(level(&folder.scan()), Some(Level::Foreign));
    temp.write(
        "b.yaml",
        &format!("{{{{- if .Values.x }}}}\n{}", policy("q", "{}")),
        NEWER,
    );
    let scan = folder.scan();
    assert_eq!(
        (level(&scan), lost(&scan)),
        (Some(Level::Refused), vec![Q.to_owned()])
    );
}

#[test]
fn what_of_a_sidecar_limits_traffic_is_lost() {
    let sidecar = |spec: &str| {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s}}\nspec: {spec}\n"
        );
        let parsed = read(&text);
        assert!(!parsed.findings.is_empty(), "{spec}");
        parsed.lost.into_iter().next().map(|lost| match lost.spec {
            Some(Spec::Sidecar(spec)) => {
                let ports = spec
                    .ingress
                    .iter()
                    .map(|own| own.port.as_ref().map_or(0, |p| p.number));
                (
                    spec.outbound_traffic_policy.is_some(),
                    ports.collect::<Vec<_>>(),
                )
            }
            other => panic!("{other:?}"),
        })
    };
    let tls = "ingress: [{port: {number: 80, protocol: HTTP, name: a}}, {port: {number: 443, protocol: HTTPS, name: b}, tls: {mode: SIMPLE, privateKey: k, serverCertificate: c}}]";
    for (spec, expected) in [
        ("{x: 1}".to_owned(), None),
        (
            "{egress: [{hosts: ['*/*']}], outboundTrafficPolicy: {mode: ALLOW_ANY}, x: 1}"
                .to_owned(),
            None,
        ),
        (
            "{egress: [{hosts: [a]}], outboundTrafficPolicy: {mode: REGISTRY_ONLY}}".to_owned(),
            Some((true, vec![])),
        ),
        (
            "{outboundTrafficPolicy: {mode: REGISTRYONLY}}".to_owned(),
            Some((true, vec![])),
        ),
        (
            "{outboundTrafficPolcy: {mode: REGISTRY_ONLY}}".to_owned(),
            Some((true, vec![])),
        ),
        (
            "{outboundTrafficPolicy: {}, x: 1}".to_owned(),
            Some((true, vec![])),
        ),
        (format!("{{{tls}, x: 1}}"), Some((false, vec![443]))),
        (
            format!("{{{}, x: 1}}", tls.replace("443", "many")),
            Some((false, vec![0])),
        ),
        (
            format!("{{{}}}", tls.replace("ingress", "ingres")),
            Some((false, vec![0])),
        ),
        (format!("{{{tls}, x: ["), Some((false, vec![0]))),
        (
            "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}, x: [".to_owned(),
            Some((true, vec![])),
        ),
    ] {
        assert_eq!(sidecar(&spec), expected, "{spec}");
    }
}

#[test]
fn refused_settings_of_the_mesh_are_lost_wherever_they_stand() {
    let map = |mesh: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\ndata:\n  mesh: |-\n    {mesh}\n"
        )
    };
    let only = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}";
    for (file, text, limited) in [
        ("mesh.yaml", format!("{only}\nx: 1\n"), Some(true)),
        ("mesh.yaml", format!("{only}\nx: [\n"), Some(true)),
        ("mesh.yaml", "x: 1\n".to_owned(), Some(false)),
        ("mesh.yaml", "connectTimeout: -1s\n".to_owned(), Some(false)),
        (
            "mesh.yaml",
            "outboundTrafficPolicy: {mode: ANY}\n".to_owned(),
            Some(true),
        ),
        ("mesh.yaml", "kind: Service\nx: [\n".to_owned(), None),
        ("a.yaml", "x: [\n".to_owned(), None),
        (
            "a.yaml",
            map("outboundTrafficPolicy: {mdoe: ALLOW_ANY}"),
            Some(true),
        ),
        ("a.yaml", map("connectTimeout: 2h"), Some(false)),
        (
            "a.yaml",
            map(only).replace("\ndata:", "\nimutable: true\ndata:"),
            Some(true),
        ),
        ("a.yaml", map(only) + "x: [\n", Some(true)),
        (
            "a.yaml",
            map(only)
                .replace("name: istio,", "name: other,")
                .replace("\ndata:", "\nx: 1\ndata:"),
            None,
        ),
    ] {
        let parsed = parse(&file.into(), &text, &TextOptions::default());
        assert!(
            parsed.findings.iter().any(|f| f.level == Level::Refused),
            "{text}: {parsed:?}"
        );
        let seen = parsed.lost.first().map(|lost| {
            assert_eq!(lost.to_string(), "MeshConfig istio-system/istio", "{text}");
            matches!(&lost.spec, Some(Spec::MeshConfig(mesh)) if mesh.outbound_traffic_policy.is_some())
        });
        assert_eq!(
            (seen, parsed.lost.len()),
            (limited, usize::from(limited.is_some())),
            "{file} {text}"
        );
    }
}

/// Objects that are no trees: their words say what they ask for.
#[test]
fn a_key_twice_hides_no_tls() {
    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  selector: {a: b}\n  selector: {a: b}\n  servers:\n  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}\n  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: c}}\n";
    let text = format!(
        "{REVIEWS}---\n{gateway}---\n{}",
        rule("r", &format!("host: r, {TLS}"))
    );
    let parsed = read(&text);
    let named: Vec<String> = parsed
        .lost
        .iter()
        .map(|l| format!("{l} {}", l.origin.line))
        .collect();
    assert_eq!(
        named,
        ["Gateway default/g 14", "DestinationRule default/r 24"]
    );
    let Some(Spec::Gateway(gateway)) = &parsed.lost[0].spec else {
        panic!("{parsed:?}")
    };
    let ports: Vec<_> = gateway
        .servers
        .iter()
        .filter_map(|s| s.port.as_ref())
        .map(|p| p.number)
        .collect();
    assert_eq!(ports, [443]);
}
