use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::istio::Spec;
use crate::yaml::Limits;

fn read(text: &str) -> Parsed {
    parse(&"mesh/a.yaml".into(), text, &TextOptions::default())
}

fn one(text: &str) -> Finding {
    let parsed = read(text);
    assert_eq!(parsed.findings.len(), 1, "{:?}", parsed.findings);
    parsed.findings[0].clone()
}

const REVIEWS: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
        subset: v1
";

#[test]
fn objects_of_several_documents_lists_and_json() {
    let text = format!(
        "{REVIEWS}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {{name: a, namespace: x}}\n  spec:\n    ports:\n    - port: 80\n- kind: Pod\n  apiVersion: v1\n  metadata: {{name: p}}\n---\n{{\"kind\": \"Service\", \"spec\": {{}}, \"apiVersion\": \"v1\", \"metadata\": {{\"name\": \"b\"}}}}\n"
    );
    let parsed = read(&text);
    assert_eq!(parsed.findings, []);
    let names: Vec<String> = parsed
        .objects
        .iter()
        .map(|o| format!("{} {}", ObjectId::of(o), o.origin.line))
        .collect();
    assert_eq!(
        names,
        [
            "VirtualService default/reviews 1",
            "Service x/a 17",
            "Pod default/p 23",
            "Service default/b 27"
        ]
    );
    let Spec::VirtualService(vs) = &parsed.objects[0].spec else {
        panic!("kind")
    };
    assert_eq!(vs.hosts, ["reviews"]);
}

#[test]
fn a_misspelt_field_is_named_with_place_path_and_what_is_allowed() {
    let finding = one(&REVIEWS.replace("subset", "subsett"));
    assert_eq!(finding.level, Level::Refused);
    assert_eq!(
        finding.to_string(),
        "mesh/a.yaml:12:9: VirtualService default/reviews: spec.http[0].route[0].destination.subsett: \
         unknown field `subsett`; did you mean `subset`?; allowed: host, subset, port"
    );
    let finding = one(&REVIEWS.replace("spec:", "spek:"));
    assert_eq!(finding.path.to_string(), "spek");
    assert_eq!(finding.nearest.as_deref(), Some("spec"));
    let finding = one(&REVIEWS.replace("  name:", "  nmae:"));
    assert_eq!(finding.path.to_string(), "metadata.nmae");
    let finding = one(&REVIEWS.replace("apiVersion", "apiVerison"));
    assert_eq!(
        (
            finding.path.to_string().as_str(),
            finding.nearest.as_deref()
        ),
        ("apiVerison", Some("apiVersion"))
    );
}

#[test]
fn kind_version_and_group_are_checked() {
    let finding = one(&REVIEWS.replace("VirtualService", "VirtualServise"));
    assert_eq!(finding.nearest.as_deref(), Some("VirtualService"));
    assert_eq!(finding.place(), "mesh/a.yaml:2:7");
    let finding = one(&REVIEWS.replace("istio.io/v1", "istio.io/v3"));
    assert!(
        finding
            .to_string()
            .contains("allowed: networking.istio.io/v1, "),
        "{finding}"
    );
    assert_eq!(finding.place(), "mesh/a.yaml:1:13");
}

#[test]
fn wrong_types_and_missing_names_are_refused() {
    let finding = one(&REVIEWS.replace("hosts:\n  - reviews", "hosts: reviews"));
    assert_eq!(finding.path.to_string(), "spec.hosts");
    assert!(finding.message.contains("expected a list"), "{finding}");
    let finding = one(&REVIEWS.replace("  name: reviews\n", "  labels: {}\n"));
    assert!(
        finding.message.contains("metadata.name is required"),
        "{finding}"
    );
    let finding = one(&format!("{REVIEWS}  hosts: []\n"));
    assert_eq!(finding.message, "duplicate key `hosts`");
}

#[test]
fn one_bad_item_leaves_the_others() {
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {{nmae: x}}\n- apiVersion: v1\n  kind: Pod\n  metadata: {{name: y}}\n- 1\n---\n{REVIEWS}"
    );
    let parsed = read(&text);
    let names: Vec<String> = parsed
        .objects
        .iter()
        .map(|o| ObjectId::of(o).to_string())
        .collect();
    assert_eq!(names, ["Pod default/y", "VirtualService default/reviews"]);
    assert_eq!(parsed.findings.len(), 2, "{:?}", parsed.findings);
    assert_eq!(parsed.findings[0].path.to_string(), "metadata.nmae");
}

#[test]
fn foreign_and_not_served_kinds_are_listed() {
    let text = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n---\njust: values\n";
    let parsed = read(text);
    let levels: Vec<Level> = parsed.findings.iter().map(|f| f.level).collect();
    assert_eq!(levels, [Level::Foreign, Level::Inactive, Level::Foreign]);
    assert!(
        parsed.findings[1].to_string().contains(
            "HTTPRoute default/r: gateway.networking.k8s.io/v1 HTTPRoute is not served yet"
        )
    );
    assert!(parsed.objects.is_empty() && !parsed.broken);
    let helm = read("{{- if .Values.x }}\nkind: Service\n{{- end }}\n");
    assert_eq!(helm.findings[0].level, Level::Foreign);
    // A webhook's list of groups is no object of one of them.
    let rules = "rules: [{apiGroups: [\n  - security.istio.io\n";
    let webhook = read(&format!("{{{{- if .x }}}}\nkind: Webhook\n{rules}"));
    assert_eq!(webhook.findings[0].level, Level::Foreign);
    let broken = read("{{- if .x }}\nknd: Policy\napiVersion: security.istio.io/v1\n");
    assert_eq!(broken.findings[0].level, Level::Refused);
}

#[test]
fn the_head_of_a_chart_is_no_object() {
    let chart = read("apiVersion: v2\nname: tags\nversion: 1.1.0\n");
    assert_eq!(chart.findings[0].level, Level::Foreign);
    for object in [
        "apiVersion: v1\nmetadata: {name: x}\n",
        "apiVersion: v1\nknd: Service\nname: x\nversion: x\n",
        "apiVersion: security.istio.io/v1\nname: x\nversion: x\n",
    ] {
        assert_eq!(read(object).findings[0].level, Level::Refused, "{object}");
    }
}

#[test]
fn mesh_settings_come_from_mesh_yaml_or_the_config_map() {
    let file: Arc<str> = "x/mesh.yaml".into();
    let parsed = parse(
        &file,
        "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n",
        &TextOptions::default(),
    );
    let Spec::MeshConfig(config) = &parsed.objects[0].spec else {
        panic!("{parsed:?}")
    };
    assert!(config.outbound_traffic_policy.is_some());
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |-\n    accessLogFile: /dev/stdout\n    outboundTrafficPolicy:\n      mdoe: ALLOW_ANY\n";
    let finding = one(map);
    assert_eq!(
        finding.path.to_string(),
        "data.mesh.outboundTrafficPolicy.mdoe"
    );
    assert_eq!(finding.location.map(|l| l.line), Some(8));
    let good = map.replace("mdoe", "mode");
    let parsed = read(&good);
    let settings = "MeshConfig istio-system/istio";
    assert_eq!(ObjectId::of(&parsed.objects[0]).to_string(), settings);
    // There is one mesh, so settings in another namespace are the same ones.
    let other = read(&good.replace("istio-system", "default"));
    assert_eq!(ObjectId::of(&other.objects[0]).to_string(), settings);
    // What is wrong by itself has the path of the map, and nothing of it is passed over in silence.
    let finding = one(&good.replace("accessLogFile: /dev/stdout", "connectTimeout: 2h"));
    assert_eq!(
        finding.to_string(),
        format!(
            "mesh/a.yaml:5:3: {settings}: data.mesh.connectTimeout: the timeout must be at most 1h"
        )
    );
    let finding = one(&format!("{good}  meshNetworks: '{{}}'\n"));
    assert_eq!(
        (finding.level, finding.path.to_string().as_str()),
        (Level::Inactive, "data.meshNetworks")
    );
    for (text, level) in [
        (
            good.replace("name: istio,", "name: istio-canary,"),
            Level::Inactive,
        ),
        (
            good.replace("name: istio,", "name: other,")
                .replace("mesh:", "text:"),
            Level::Foreign,
        ),
    ] {
        let parsed = read(&text);
        assert_eq!(
            (
                parsed.objects.len(),
                parsed.findings.len(),
                parsed.findings[0].level
            ),
            (0, 1, level),
            "{text}"
        );
    }
}

/// A folder of its own for each test, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-read-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    /// Writes a file as if `age` ago.
    fn write(&self, name: &str, text: &str, age: Duration) {
        let path = self.0.join(name);
        fs::write(&path, text).expect("file written");
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .expect("file opened");
        file.set_modified(SystemTime::now() - age)
            .expect("time set");
    }

    fn folder(&self) -> Folder {
        Folder::new(&self.0, FolderOptions::default())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const OLD: Duration = Duration::from_secs(100);
const NEWER: Duration = Duration::from_secs(50);

fn subset(scan: &Scan) -> String {
    let Spec::VirtualService(vs) = &scan.objects[0].spec else {
        panic!("{scan:?}")
    };
    vs.http[0].route[0]
        .destination
        .as_ref()
        .expect("destination")
        .subset
        .clone()
}

#[test]
fn the_file_changed_last_wins_and_a_warning_names_both() {
    let temp = Temp::new("mtime");
    temp.write(
        "a.yaml",
        &REVIEWS.replace("v1\n", "v2\n").replace("io/v2", "io/v1"),
        NEWER,
    );
    temp.write("b.yaml", &REVIEWS.replace("io/v1", "io/v1beta1"), OLD);
    let mut folder = temp.folder();
    let scan = folder.scan();
    assert_eq!((scan.objects.len(), subset(&scan).as_str()), (1, "v2"));
    let text = scan.findings[0].to_string();
    assert!(
        text.contains("b.yaml:1:1: VirtualService default/reviews")
            && text.contains("a.yaml:1, which was changed last"),
        "{text}"
    );
    temp.write(
        "b.yaml",
        &REVIEWS.replace("io/v1", "io/v1beta1"),
        Duration::from_secs(10),
    );
    let scan = folder.scan();
    assert!(scan.changed);
    assert_eq!(subset(&scan), "v1");
}

#[test]
fn the_last_good_version_stays_per_object_and_per_file() {
    let temp = Temp::new("last-good");
    let both = format!("{REVIEWS}---\napiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n");
    temp.write("a.yaml", &both, OLD);
    let mut folder = temp.folder();
    assert_eq!(folder.scan().objects.len(), 2);
    assert!(!folder.scan().changed);

    temp.write(
        "a.yaml",
        &both
            .replace("subset: v1", "subst: v9")
            .replace("name: a", "name: b"),
        NEWER,
    );
    let scan = folder.scan();
    assert!(scan.changed);
    let mut names: Vec<String> = scan
        .objects
        .iter()
        .map(|o| ObjectId::of(o).to_string())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["Service default/b", "VirtualService default/reviews"]
    );
    assert!(
        scan.findings[0]
            .to_string()
            .contains("did you mean `subset`")
    );

    temp.write("a.yaml", "kind: \"half", NEWER);
    let scan = folder.scan();
    assert_eq!(scan.objects.len(), 2, "{scan:?}");
    assert_eq!(scan.findings.len(), 1);
    temp.write("a.yaml", "\u{0}\u{0}", NEWER);
    assert_eq!(folder.scan().objects.len(), 2);
    temp.write("a.yaml", REVIEWS, NEWER - Duration::from_secs(1));
    let scan = folder.scan();
    assert_eq!((scan.objects.len(), scan.findings.len()), (1, 0));
}

/// Scans until removed files are believed to be gone.
fn settled(folder: &mut Folder, done: impl Fn(&Scan) -> bool) -> Scan {
    let begin = Instant::now();
    loop {
        let scan = folder.scan();
        if done(&scan) {
            return scan;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{scan:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_in_the_middle_of_being_saved_is_not_believed() {
    let temp = Temp::new("settle");
    temp.write("a.yaml", REVIEWS, OLD);
    let mut folder = temp.folder();
    assert_eq!(folder.scan().objects.len(), 1);
    temp.write("a.yaml", "", Duration::ZERO);
    let scan = folder.scan();
    assert!(scan.unsettled && !scan.changed);
    assert_eq!(scan.objects.len(), 1);
    // A file that stays empty is believed in the end.
    temp.write("a.yaml", "", Duration::from_secs(1));
    assert!(folder.scan().objects.is_empty());

    temp.write("a.yaml", REVIEWS, OLD);
    assert_eq!(folder.scan().objects.len(), 1);
    fs::remove_file(temp.0.join("a.yaml")).expect("removed");
    assert_eq!(
        folder.scan().objects.len(),
        1,
        "an editor may just replace it"
    );
    let deadline = Instant::now() + Duration::from_secs(5);
    while !folder.scan().objects.is_empty() {
        assert!(
            Instant::now() < deadline,
            "a removed file never took effect"
        );
        std::thread::yield_now();
    }
}

#[test]
fn large_files_are_refused_without_reading_them() {
    let temp = Temp::new("large");
    let file = fs::File::create(temp.0.join("big.yaml")).expect("file");
    file.set_len(100 << 20).expect("sparse");
    let scan = temp.folder().scan();
    let limit = Limits::default().max_bytes;
    assert!(
        scan.findings[0]
            .to_string()
            .contains(&format!("the limit is {limit}")),
        "{:?}",
        scan.findings
    );
}

#[test]
fn a_folder_that_vanishes_keeps_what_it_held() {
    let temp = Temp::new("vanish");
    temp.write("a.yaml", REVIEWS, OLD);
    let mut folder = temp.folder();
    folder.scan();
    fs::remove_dir_all(&temp.0).expect("removed");
    let scan = folder.scan();
    assert_eq!(scan.objects.len(), 1);
    assert!(scan.findings[0].to_string().contains("cannot be read"));
    assert!(scan.changed && !folder.scan().changed);
}

#[tokio::test]
async fn an_edit_is_noticed_soon() {
    let temp = Temp::new("watch");
    let mut watch = Watch::new(&temp.0);
    let mut folder = temp.folder();
    folder.scan();
    // The clock alone would take two seconds each time; a busy machine is slow now and then.
    let mut took = Vec::new();
    for edit in 0..10 {
        let start = Instant::now();
        let text = REVIEWS.replace("reviews", &format!("reviews{edit}"));
        temp.write("a.yaml", &text, Duration::ZERO);
        while !folder.scan().changed {
            tokio::time::timeout(Duration::from_secs(30), watch.due())
                .await
                .expect("an event or a poll");
        }
        took.push(start.elapsed());
        if start.elapsed() < Duration::from_secs(1) {
            return;
        }
    }
    panic!("{took:?}");
}

#[test]
fn hand_written_services_are_strict_too() {
    let finding =
        one("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  slector: {app: a}\n");
    assert_eq!(finding.nearest.as_deref(), Some("selector"));
    assert_eq!(finding.path.to_string(), "spec.slector");
    let finding = one(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\nendpoint: []\n",
    );
    assert_eq!(finding.nearest.as_deref(), Some("endpoints"));
}

#[test]
fn unknown_words_of_an_enum_come_with_what_is_allowed() {
    let text = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec:\n  host: a\n  trafficPolicy: {tls: {mode: SIMPEL}}\n";
    let finding = one(text);
    assert_eq!(finding.nearest.as_deref(), Some("SIMPLE"));
    assert_eq!(
        finding.allowed,
        ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]
    );
    assert_eq!(finding.place(), "mesh/a.yaml:6:31");
}

mod lost;
mod styles;
mod what_is_there;
