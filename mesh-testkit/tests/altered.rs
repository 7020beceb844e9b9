//! Tests of the conformance runner: one asserted value of each case is altered in a temporary copy, and that case must fail.
//!
//! A suite that passes whatever its files say would be found here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_testkit::conformance::{self, Ctx, SuiteResult};
use mesh_testkit::suites;
use serde_json::{Value, json};

/// What is added to texts.
const MARK: &str = "-altered";

/// Alters a copy of the suite's folder; returns how many of its cases keep what they assert.
type Alter = fn(&Path) -> usize;

/// How each suite is altered.
const ALTERATIONS: &[(&str, Alter)] = &[
    ("envoy-router-check", router_check),
    ("envoy-route-config", route_config),
    ("istio-virtualservice-routes", virtual_service_routes),
    ("istio-sidecar-route-configs", sidecar_route_configs),
    ("istio-samples", yaml_files),
    ("istio-validation-dataset", yaml_files),
    ("istio-validation-cases", validation_cases),
    ("istio-traffic-simulation", traffic_simulation),
    ("istio-clusters", clusters),
];

#[test]
fn every_suite_has_an_alteration() {
    let known: BTreeSet<&str> = ALTERATIONS.iter().map(|(name, _)| *name).collect();
    let missing: Vec<&str> = suites::SUITES
        .iter()
        .map(|suite| suite.name)
        .filter(|name| !known.contains(name))
        .collect();
    assert!(missing.is_empty(), "no alteration for {missing:?}");
}

#[test]
fn every_case_fails_once_a_value_that_it_asserts_is_altered() {
    for suite in suites::SUITES {
        let Some((_, alter)) = ALTERATIONS.iter().find(|(name, _)| *name == suite.name) else {
            continue;
        };
        let original = conformance::play(suite, &Ctx::new(conformance::default_root()));
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("altered");
        let copy = root.join(suite.name);
        copy_folder(&conformance::default_root().join(suite.name), &copy);
        let kept = alter(&copy);
        let altered = conformance::play(suite, &Ctx::new(&root));
        let cases = |result: &SuiteResult| result.passed + result.failed;
        assert_eq!(
            cases(&altered),
            cases(&original),
            "{}: another number of cases",
            suite.name
        );
        // A verdict that was wrong before may be right once it is turned round.
        assert!(
            altered.passed <= kept + original.failed,
            "{}: {} cases passed, of which {kept} assert what they did",
            suite.name,
            altered.passed
        );
        fs::remove_dir_all(&copy).expect("the copy can be removed");
    }
}

/// Entries of the router check tool: the first value under `validate`, or the verdict where the entry must be refused.
fn router_check(dir: &Path) -> usize {
    let list = dir.join("cases.json");
    let mut cases = read_json(&list);
    for case in cases.as_array_mut().expect("a list of cases") {
        if case["expect"] == "fail" {
            case["expect"] = json!("pass");
            continue;
        }
        let golden = dir
            .join("golden")
            .join(case["golden"].as_str().expect("names its golden file"));
        let mut entries = read_json(&golden);
        let tests = entries["tests"].as_array_mut().expect("a list of entries");
        let entry = tests
            .iter_mut()
            .find(|entry| entry["test_name"] == case["test_name"])
            .expect("the entry exists");
        if !entry.to_string().contains(MARK) {
            alter_asserted(&mut entry["validate"]);
        }
        write_json(&golden, &entries);
    }
    write_json(&list, &cases);
    0
}

/// The first expected value of each request.
fn route_config(dir: &Path) -> usize {
    let list = dir.join("cases.json");
    let mut cases = read_json(&list);
    for case in cases.as_array_mut().expect("a list of cases") {
        for request in case["requests"].as_array_mut().expect("a list of requests") {
            let expect = &mut request["expect"];
            if expect.get("no_route").is_some() {
                *expect = json!({ "cluster": MARK });
            } else {
                alter_asserted(expect);
            }
        }
    }
    write_json(&list, &cases);
    0
}

/// The match of the first route; where no route may be built, one is asked for.
fn virtual_service_routes(dir: &Path) -> usize {
    for file in files(dir, "json") {
        let mut case = read_json(&file);
        match case.get_mut("routes").and_then(|routes| routes.get_mut(0)) {
            Some(route) => alter_asserted(&mut route["match"]),
            None => {
                let fields = case.as_object_mut().expect("a case is an object");
                fields.remove("error");
                fields.insert("routes".to_owned(), json!([{ "name": MARK }]));
            }
        }
        write_json(&file, &case);
    }
    0
}

/// The first domain of the first virtual host; where there is none, a whole configuration.
fn sidecar_route_configs(dir: &Path) -> usize {
    for file in files(dir, "json") {
        let mut case = read_json(&file);
        match case.pointer_mut("/route_configs/0/virtualHosts/0/domains/0") {
            Some(domain) => alter_asserted(domain),
            // It asserts that there is nothing.
            None => {
                case["route_configs"] =
                    json!([{ "name": "80", "virtualHosts": [{ "name": MARK, "domains": [MARK] }] }])
            }
        }
        write_json(&file, &case);
    }
    0
}

/// Files that must be accepted: each object of an Istio group gets a field that does not exist.
fn yaml_files(dir: &Path) -> usize {
    let mut kept = 0;
    for file in files(dir, "yaml").into_iter().chain(files(dir, "yml")) {
        let text = fs::read_to_string(&file).expect("case files are text");
        let altered: Vec<String> = documents(&text)
            .iter()
            .map(|document| with_unknown_field(document))
            .collect();
        let altered = altered.join("---\n");
        kept += usize::from(altered == documents(&text).join("---\n"));
        fs::write(&file, altered).expect("the copy can be written");
    }
    kept
}

/// The verdict on each object.
fn validation_cases(dir: &Path) -> usize {
    for file in files(dir, "json") {
        let mut cases = read_json(&file);
        for case in cases.as_array_mut().expect("a list of cases") {
            let valid = case["valid"].as_bool().expect("a verdict");
            case["valid"] = json!(!valid);
        }
        write_json(&file, &cases);
    }
    0
}

/// The other name of the first cluster in statistics.
fn clusters(dir: &Path) -> usize {
    for file in files(dir, "json") {
        let mut case = read_json(&file);
        alter_asserted(&mut case["clusters"][0]["altStatName"]);
        write_json(&file, &case);
    }
    0
}

/// The first value that each call asserts, or an error where none is.
fn traffic_simulation(dir: &Path) -> usize {
    for file in files(&dir.join("cases"), "json") {
        let mut case = read_json(&file);
        for call in case["calls"].as_array_mut().expect("a list of calls") {
            let expect = call["expect"].as_object_mut().expect("an object");
            // Nothing written: there is no error.
            if expect.is_empty() {
                expect.insert("error".to_owned(), json!(MARK));
                continue;
            }
            alter_asserted(&mut call["expect"]);
        }
        write_json(&file, &case);
    }
    0
}

fn documents(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            out.push(String::new());
        } else if let Some(document) = out.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    out
}

fn with_unknown_field(document: &str) -> String {
    let ours = |line: &str| line.starts_with("apiVersion:") && line.contains(".istio.io/");
    if !document.lines().any(ours) {
        return document.to_owned();
    }
    document
        .lines()
        .map(|line| {
            if ours(line) {
                format!("altered: 1\n{line}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}

/// Alters the first value found, depth first. Names, by which a list is searched, are not what is asserted.
fn alter_asserted(value: &mut Value) {
    assert!(alter(value), "nothing to alter in {value}");
}

fn alter(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(key, _)| *key != "name")
            .any(|(_, value)| alter(value)),
        Value::Array(items) => items.iter_mut().any(alter),
        Value::String(text) => {
            text.push_str(MARK);
            true
        }
        Value::Number(number) => {
            *value = json!(number.as_f64().expect("a finite number") + 1.0);
            true
        }
        Value::Bool(flag) => {
            *flag = !*flag;
            true
        }
        Value::Null => {
            *value = json!(MARK);
            true
        }
    }
}

fn read_json(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("case files are text");
    serde_json::from_str(&text).expect("case files are JSON")
}

fn write_json(file: &Path, value: &Value) {
    fs::write(file, value.to_string()).expect("the copy can be written");
}

/// The files below `dir` whose names end in `.extension`.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).expect("the folder exists").flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            out.push(path);
        }
    }
    out
}

fn copy_folder(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("an old copy can be removed");
    }
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from)
        .expect("the conformance cases are there; MESH_CONFORMANCE names another folder")
        .flatten()
    {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a case can be copied");
        }
    }
}
