//! Tests of the conformance runner: values that the cases assert are altered in a temporary copy, and those cases must fail.
//!
//! Each kind of value (a field's path, whatever its place in lists) has a round of its own, in which each case that asserts such
//! a value has one of them altered: exactly these cases must fail then. A suite that passes whatever its files say, and one that
//! does not look at some field, would be found here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mesh_testkit::conformance::{self, Allowance, Ctx, Suite, SuiteResult};
use mesh_testkit::suites;
use serde_json::{Value, json};

/// What is added to texts.
const MARK: &str = "-altered";

/// Alters one value of that kind in each case of a copy of the suite's folder; the cases that then assert another thing.
type Alter = fn(dir: &Path, kind: &str) -> BTreeSet<String>;

/// How a suite is altered.
struct Alteration {
    suite: &'static str,
    /// The kinds of values that its cases assert.
    kinds: fn(dir: &Path) -> BTreeSet<String>,
    alter: Alter,
}

const ALTERATIONS: &[Alteration] = &[
    Alteration {
        suite: "envoy-router-check",
        kinds: |dir| kinds(&router_check(dir)),
        alter: |dir, kind| alter_sites(&router_check(dir), kind),
    },
    Alteration {
        suite: "envoy-route-config",
        kinds: |dir| kinds(&route_config(dir)),
        alter: |dir, kind| alter_sites(&route_config(dir), kind),
    },
    Alteration {
        suite: "istio-virtualservice-routes",
        kinds: |dir| kinds(&files_with(dir, "/routes")),
        alter: |dir, kind| alter_sites(&files_with(dir, "/routes"), kind),
    },
    Alteration {
        suite: "istio-sidecar-route-configs",
        kinds: |dir| kinds(&files_with(dir, "/route_configs")),
        alter: |dir, kind| alter_sites(&files_with(dir, "/route_configs"), kind),
    },
    Alteration {
        suite: "istio-clusters",
        kinds: |dir| kinds(&clusters(dir)),
        alter: |dir, kind| alter_sites(&clusters(dir), kind),
    },
    Alteration {
        suite: "istio-samples",
        kinds: |_| BTreeSet::from([String::new()]),
        alter: yaml_files,
    },
    Alteration {
        suite: "istio-validation-dataset",
        kinds: |_| BTreeSet::from([String::new()]),
        alter: yaml_files,
    },
    Alteration {
        suite: "istio-validation-cases",
        kinds: |dir| kinds(&validation_cases(dir)),
        alter: |dir, kind| alter_sites(&validation_cases(dir), kind),
    },
];

/// Alters the cases of a copied suite.
type Damage = fn(&Path);

/// Suites of which only the first value of each case is altered, and the failures counted.
const COUNTED: [(&str, Damage); 1] = [("istio-traffic-simulation", traffic_simulation)];

/// Values that are left out: the runner's list of allowed differences allows all of them.
const NOT_COMPARED: [&str; 5] = [
    "[].typedPerFilterConfig.envoy.filters.http.stateful_session",
    ".transportSocket",
    ".filters[].typedConfig",
    ".typedDnsResolverConfig.typedConfig",
    ".typedExtensionProtocolOptions.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.upstreamHttpProtocolOptions.autoSanValidation",
];

#[test]
fn every_suite_has_an_alteration() {
    let known = ALTERATIONS.iter().map(|one| one.suite);
    let known: BTreeSet<&str> = known.chain(COUNTED.iter().map(|(name, _)| *name)).collect();
    let suites: BTreeSet<&str> = suites::SUITES.iter().map(|suite| suite.name).collect();
    assert_eq!(known, suites);
}

#[test]
fn every_case_fails_once_a_value_that_it_asserts_is_altered() {
    for suite in suites::SUITES {
        let alteration = ALTERATIONS.iter().find(|one| one.suite == suite.name);
        let Some(alteration) = alteration else {
            continue;
        };
        let from = conformance::default_root().join(suite.name);
        let mut kinds = (alteration.kinds)(&from);
        kinds.retain(|kind| {
            !NOT_COMPARED
                .iter()
                .any(|left_out| kind.starts_with(left_out))
        });
        let mut altered = BTreeSet::new();
        let before = conformance::play(suite, &Ctx::new(conformance::default_root()));
        assert_eq!(before.needless(), [] as [&Allowance; 0], "{}", suite.name);
        for kind in &kinds {
            altered.append(&mut round(suite, &before, alteration.alter, kind));
        }
        let counted = before.passed + before.failed;
        let rounds = kinds.len();
        println!(
            "{}: {} cases altered in {rounds} rounds",
            suite.name,
            altered.len()
        );
        // Cases that are reported apart are altered as well.
        assert!(
            altered.len() >= counted,
            "{}: {} of {counted} cases assert something",
            suite.name,
            altered.len()
        );
    }
}

#[test]
fn no_case_passes_once_its_first_value_is_altered() {
    for (name, alter) in COUNTED {
        let suite = suites::find(name).expect("it is registered");
        let before = conformance::play(suite, &Ctx::new(conformance::default_root()));
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("counted");
        let copy = root.join(name);
        copy_folder(&conformance::default_root().join(name), &copy);
        alter(&copy);
        let after = conformance::play(suite, &Ctx::new(&root));
        fs::remove_dir_all(&copy).expect("the copy can be removed");
        let cases = |result: &SuiteResult| result.passed + result.failed;
        assert_eq!(cases(&after), cases(&before), "{name}: other cases");
        // A verdict that was wrong before may be right once it is turned round.
        assert!(after.passed <= before.failed, "{name}: {after}");
    }
}

/// Plays a copy in which one kind of values is altered; the cases that were altered, each of which has failed.
fn round(suite: &Suite, before: &SuiteResult, alter: Alter, kind: &str) -> BTreeSet<String> {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("altered");
    let copy = root.join(suite.name);
    copy_folder(&conformance::default_root().join(suite.name), &copy);
    let altered = alter(&copy, kind);
    let after = conformance::play(suite, &Ctx::new(&root));
    fs::remove_dir_all(&copy).expect("the copy can be removed");
    let place = format!("{} {kind}", suite.name);
    assert_ne!(altered.len(), 0, "{place}: no case has it");
    let cases = |result: &SuiteResult| result.passed + result.failed;
    assert_eq!(cases(&after), cases(before), "{place}: other cases");
    // A verdict that was wrong before may be right once it is turned round.
    for case in altered.iter().filter(|case| !fails(before, case)) {
        assert!(fails(&after, case), "{place}: {case} passed");
    }
    for line in lines(&after) {
        let known = lines(before).any(|other| other == line);
        let altered = altered.iter().any(|case| is_of(line, case));
        assert!(known || altered, "{place}: nobody altered {line}");
    }
    altered
}

/// What a result says of failed cases, those that are reported apart among them.
fn lines(result: &SuiteResult) -> impl Iterator<Item = &str> {
    let apart = result
        .notes
        .iter()
        .filter_map(|note| note.strip_prefix("apart: "));
    result.failures.iter().map(String::as_str).chain(apart)
}

fn is_of(line: &str, case: &str) -> bool {
    line.strip_prefix(case)
        .is_some_and(|rest| rest.starts_with(": "))
}

fn fails(result: &SuiteResult, case: &str) -> bool {
    lines(result).any(|line| is_of(line, case))
}

/// Where a case says what it asserts.
struct Site {
    case: String,
    file: PathBuf,
    /// JSON pointer within the file.
    place: String,
}

/// Entries of the router check tool: what stands under `validate`, or the verdict where the entry must be refused.
fn router_check(dir: &Path) -> Vec<Site> {
    let list = dir.join("cases.json");
    let cases = read_json(&list);
    let site = |(n, case): (usize, &Value)| {
        let id = text(&case["id"]);
        if case["expect"] == "fail" {
            return Site {
                case: id,
                file: list.clone(),
                place: format!("/{n}/expect"),
            };
        }
        let golden = dir.join("golden").join(text(&case["golden"]));
        let entries = read_json(&golden);
        let entries = entries["tests"].as_array().expect("a list of entries");
        let mut entries = entries.iter();
        let at = entries.position(|entry| entry["test_name"] == case["test_name"]);
        Site {
            case: id,
            file: golden,
            place: format!("/tests/{}/validate", at.expect("the entry exists")),
        }
    };
    list_of(&cases).iter().enumerate().map(site).collect()
}

/// What is expected of each request.
fn route_config(dir: &Path) -> Vec<Site> {
    let file = dir.join("cases.json");
    let cases = read_json(&file);
    let mut sites = Vec::new();
    for (n, case) in list_of(&cases).iter().enumerate() {
        for (m, request) in list_of(&case["requests"]).iter().enumerate() {
            sites.push(Site {
                case: text(&request["id"]),
                file: file.clone(),
                place: format!("/{n}/requests/{m}/expect"),
            });
        }
    }
    sites
}

/// One case a file, which says at `place` what it expects.
fn files_with(dir: &Path, place: &str) -> Vec<Site> {
    let site = |file: PathBuf| Site {
        case: file.file_stem().expect("a name").to_string_lossy().into(),
        place: place.to_owned(),
        file,
    };
    files(dir, "json").into_iter().map(site).collect()
}

/// Each cluster, but for those of redirected traffic, which are compared in part.
fn clusters(dir: &Path) -> Vec<Site> {
    let mut sites = Vec::new();
    for all in files_with(dir, "/clusters") {
        let case = read_json(&all.file);
        for (n, cluster) in list_of(&case["clusters"]).iter().enumerate() {
            let name = text(&cluster["name"]);
            if name != "InboundPassthroughCluster" && !name.starts_with("inbound|") {
                sites.push(Site {
                    case: all.case.clone(),
                    file: all.file.clone(),
                    place: format!("/clusters/{n}"),
                });
            }
        }
    }
    sites
}

/// The verdict on each object.
fn validation_cases(dir: &Path) -> Vec<Site> {
    let mut sites = Vec::new();
    for file in files(dir, "json") {
        let cases = read_json(&file);
        for (n, case) in list_of(&cases).iter().enumerate() {
            sites.push(Site {
                case: text(&case["id"]),
                file: file.clone(),
                place: format!("/{n}/valid"),
            });
        }
    }
    sites
}

/// The kinds of values at the sites.
fn kinds(sites: &[Site]) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for site in sites {
        let mut file = read_json(&site.file);
        each_value("", asserted(&mut file, &site.place), &mut |kind, _, _| {
            kinds.insert(kind.to_owned());
        });
    }
    kinds
}

/// Alters the last value of that kind at each site.
fn alter_sites(sites: &[Site], kind: &str) -> BTreeSet<String> {
    let mut by_file: BTreeMap<&Path, Vec<&Site>> = BTreeMap::new();
    for site in sites {
        by_file.entry(&site.file).or_default().push(site);
    }
    let mut cases = BTreeSet::new();
    for (file, sites) in by_file {
        let mut content = read_json(file);
        for site in sites {
            let value = asserted(&mut content, &site.place);
            let mut left = 0;
            each_value("", value, &mut |found, _, _| {
                left += usize::from(found == kind)
            });
            if left == 0 {
                continue;
            }
            cases.insert(site.case.clone());
            each_value("", value, &mut |found, key, value| {
                left -= usize::from(found == kind);
                if left == 0 && found == kind {
                    *value = another(key, value);
                }
            });
        }
        fs::write(file, content.to_string()).expect("the copy can be written");
    }
    cases
}

/// What a case asserts; nothing is said as null too.
fn asserted<'a>(file: &'a mut Value, place: &str) -> &'a mut Value {
    let (parent, key) = place.rsplit_once('/').expect("a pointer has a slash");
    let parent = file.pointer_mut(parent).expect("the case is there");
    match key.parse::<usize>() {
        Ok(index) => &mut parent[index],
        Err(_) => &mut parent[key],
    }
}

/// Calls `tell` with kind, key and value of each value below `value`. Names by which the runner searches, and which it therefore
/// does not compare, are left out.
fn each_value(kind: &str, value: &mut Value, tell: &mut impl FnMut(&str, &str, &mut Value)) {
    const SEARCHED: &[&str] = &[
        ".request_header_matches[].name",
        ".response_header_matches[].name",
    ];
    let key = kind
        .rsplit(['.', ']'])
        .next()
        .unwrap_or_default()
        .to_owned();
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                each_value(&format!("{kind}.{name}"), value, tell);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                each_value(&format!("{kind}[]"), item, tell);
            }
        }
        _ if SEARCHED.contains(&kind) => {}
        value => tell(kind, &key, value),
    }
}

/// Another value of the same type.
fn another(key: &str, value: &Value) -> Value {
    // Enumerations have no other values than their own.
    const WORDS: &[(&str, &str)] = &[
        ("OVERWRITE_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT"),
        ("INTERNAL_SERVER_ERROR", "NOT_FOUND"),
        ("PERMANENT_REDIRECT", "FOUND"),
        ("fail", "pass"),
    ];
    match value {
        Value::String(text) => match WORDS.iter().find(|(word, _)| word == text) {
            Some((_, other)) => json!(other),
            // Numbers and durations stay what they are.
            None if text.starts_with(|first: char| first.is_ascii_digit()) => {
                json!(format!("1{text}"))
            }
            None => json!(format!("{text}{MARK}")),
        },
        // A range that ends where nothing is left of it.
        Value::Number(_) if key == "end" => json!(1),
        Value::Number(number) => match number.as_u64() {
            Some(whole) => json!(whole + 100),
            None => json!(number.as_f64().expect("a finite number") + 100.0),
        },
        Value::Bool(flag) => json!(!flag),
        // Where nothing was asserted to be there, something is.
        _ => json!([{ "name": MARK }]),
    }
}

/// Files that must be accepted: each object of an Istio group gets a field that does not exist; where there is none, an object
/// of a kind that does not exist stands in the file's place.
fn yaml_files(dir: &Path, _: &str) -> BTreeSet<String> {
    const UNKNOWN: &str =
        "apiVersion: networking.istio.io/v1\nkind: Altered\nmetadata: {name: altered}\n";
    let mut cases = BTreeSet::new();
    for file in files(dir, "yaml").into_iter().chain(files(dir, "yml")) {
        let text = fs::read_to_string(&file).expect("case files are text");
        let documents = documents(&text);
        let mut altered: Vec<String> = documents
            .iter()
            .map(|one| with_unknown_field(one))
            .collect();
        if altered == documents {
            altered = vec![UNKNOWN.to_owned()];
        }
        fs::write(&file, altered.join("---\n")).expect("the copy can be written");
        let name = file.strip_prefix(dir).expect("it is below");
        cases.insert(name.display().to_string());
    }
    cases
}

/// The first value that each call asserts, or an error where none is.
fn traffic_simulation(dir: &Path) {
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

fn write_json(file: &Path, value: &Value) {
    fs::write(file, value.to_string()).expect("the copy can be written");
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
    let line = |line: &str| match ours(line) {
        true => format!("altered: 1\n{line}\n"),
        false => format!("{line}\n"),
    };
    document.lines().map(line).collect()
}

fn read_json(file: &Path) -> Value {
    let text = fs::read_to_string(file)
        .expect("the conformance cases are there; MESH_CONFORMANCE names another folder");
    serde_json::from_str(&text).expect("case files are JSON")
}

fn list_of(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
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
