//! Istio's sample files and its validation data set, read as a user's folder is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_xds::istio::read::{self, Finding, Level, Parsed, TextOptions};
use mesh_xds::yaml::{self, Limits, Segment};
use serde_json::{Value, json};

use super::read_text;
use crate::conformance::{Ctx, SuiteResult};

/// `istio-samples`: every object of a mesh group is taken or listed; with one field of an Istio object misspelt the file is
/// refused at that field's path.
pub fn samples(ctx: &Ctx) -> SuiteResult {
    let mut result = SuiteResult::new("istio-samples");
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    for path in yaml_files(&ctx.dir("istio-samples")) {
        let name = relative(&ctx.dir("istio-samples"), &path);
        result.case(
            &name,
            read_text(&path).and_then(|text| sample(&text, &mut listed)),
        );
    }
    for (what, count) in listed {
        result.note(format!("{what}: {count}"));
    }
    result
}

fn sample(text: &str, listed: &mut BTreeMap<String, usize>) -> Result<(), String> {
    let parsed = parse(text);
    no_refusal(&parsed)?;
    for finding in parsed
        .findings
        .iter()
        .filter(|f| matches!(f.level, Level::Inactive | Level::Foreign))
    {
        let kind = finding.resource.as_ref().map_or("no object", |id| &id.kind);
        let level = if finding.level == Level::Inactive {
            "not served"
        } else {
            "foreign"
        };
        *listed.entry(format!("{level} {kind}")).or_default() += 1;
    }
    let Ok(documents) = documents(text) else {
        // No YAML at all: then it must have been listed as foreign, not been read half.
        let foreign =
            parsed.findings.iter().any(|f| f.level == Level::Foreign) && parsed.objects.is_empty();
        return if foreign {
            Ok(())
        } else {
            Err("expected a foreign file, seen objects".to_owned())
        };
    };
    let in_mesh = documents
        .iter()
        .filter(|d| is_group(d, ".istio.io") || is_group(d, "gateway.networking.k8s.io"))
        .count();
    let operators = documents
        .iter()
        .filter(|d| is_group(d, "install.istio.io"))
        .count();
    let taken = objects_of_istio(&parsed);
    let unserved = parsed.findings.iter().filter(|f| is_unserved(f)).count();
    if taken + unserved < in_mesh {
        return Err(format!(
            "expected {in_mesh} objects ({operators} of the installer) taken or listed, seen {taken} and {unserved}"
        ));
    }
    for (index, document) in documents
        .iter()
        .enumerate()
        .filter(|(_, d)| is_group(d, ".istio.io"))
    {
        misspelt(text, index, document)?;
    }
    Ok(())
}

fn is_unserved(finding: &Finding) -> bool {
    let group = finding.resource.as_ref().map_or("", |id| &id.group);
    finding.level == Level::Inactive
        && (group.contains("istio.io") || group.starts_with("gateway.networking."))
}

/// Misspells each field of the document in turn.
fn misspelt(text: &str, index: usize, document: &Value) -> Result<(), String> {
    let mut fields = Vec::new();
    for key in ["metadata", "spec"] {
        if let Some(value) = document.get(key) {
            let path = vec![Segment::Key(key.to_owned())];
            fields.push(path.clone());
            collect_fields(value, &path, false, &mut fields);
        }
    }
    for field in fields {
        let path: yaml::Path = field.iter().cloned().collect();
        let Some(Segment::Key(key)) = field.last() else {
            continue;
        };
        let at = yaml::locate(text, index, &path)
            .ok_or_else(|| format!("{path}: not found in the text"))?;
        let changed = format!("{key}Zz");
        let altered = replace_at(text, at, key, &changed)
            .ok_or_else(|| format!("{path}: not found at {at}"))?;
        let mut wanted = field.clone();
        wanted.pop();
        wanted.push(Segment::Key(changed));
        let wanted: yaml::Path = wanted.into_iter().collect();
        let parsed = parse(&altered);
        if !parsed
            .findings
            .iter()
            .any(|f| f.level == Level::Refused && f.path == wanted)
        {
            return Err(format!(
                "expected a refusal at {wanted}, seen {:?}",
                texts(&parsed)
            ));
        }
    }
    Ok(())
}

/// Maps with keys that users choose.
const MAPS: &[&str] = &[
    "labels",
    "annotations",
    "matchLabels",
    "selector",
    "headers",
    "withoutHeaders",
    "queryParams",
    "sourceLabels",
    "set",
    "add",
    "ports",
    "to",
    "environmentVariables",
    "customTags",
    "tagOverrides",
    "portLevelMtls",
    "label",
];

/// Fields whose content is not Istio's.
const OPAQUE: &[&str] = &[
    "value",
    "pluginConfig",
    "values",
    "meshConfig",
    "unvalidatedValues",
    "filterClass",
];

fn collect_fields(value: &Value, path: &[Segment], in_map: bool, fields: &mut Vec<Vec<Segment>>) {
    let below = |segment: Segment| [path, &[segment]].concat();
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                collect_fields(item, &below(Segment::Index(i)), false, fields);
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let path = below(Segment::Key(key.clone()));
                if !in_map {
                    fields.push(path.clone());
                }
                if OPAQUE.contains(&key.as_str()) && (value.is_object() || value.is_array()) {
                    continue;
                }
                collect_fields(value, &path, !in_map && is_map(key, value), fields);
            }
        }
        _ => {}
    }
}

/// `headers` of a route holds `request` and `response`; `selector` of a policy holds `matchLabels`.
fn is_map(key: &str, value: &Value) -> bool {
    let fixed = ["request", "response", "matchLabels"];
    MAPS.contains(&key)
        && value
            .as_object()
            .is_some_and(|map| !map.keys().any(|k| fixed.contains(&k.as_str())))
}

/// Replaces `old` where it stands at this place, with or without quotes before it.
fn replace_at(text: &str, at: yaml::Location, old: &str, new: &str) -> Option<String> {
    let line = text
        .split('\n')
        .take(usize::try_from(at.line).ok()? - 1)
        .map(|l| l.len() + 1)
        .sum::<usize>();
    let column = text[line..]
        .char_indices()
        .nth(usize::try_from(at.column).ok()? - 1)?
        .0;
    let start = line + column;
    let start = start + text[start..].find(old).filter(|skip| *skip <= 1)?;
    Some(format!(
        "{}{new}{}",
        &text[..start],
        &text[start + old.len()..]
    ))
}

/// `istio-validation-dataset`: every file is accepted, and refused with the annotation that always rejects. Kinds that are
/// served count; the others are reported apart.
pub fn validation_dataset(ctx: &Ctx) -> SuiteResult {
    const SERVED: &[&str] = &[
        "VirtualService",
        "DestinationRule",
        "Gateway",
        "ServiceEntry",
        "WorkloadEntry",
        "Sidecar",
        "ProxyConfig",
    ];
    let mut result = SuiteResult::new("istio-validation-dataset");
    let (mut apart, mut apart_failed) = (0, 0);
    for path in yaml_files(&ctx.dir("istio-validation-dataset")) {
        let name = relative(&ctx.dir("istio-validation-dataset"), &path);
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                result.fail(&name, error);
                continue;
            }
        };
        let kinds: Vec<String> = documents(&text)
            .unwrap_or_default()
            .iter()
            .filter_map(kind_of)
            .collect();
        let outcome = accepted(&text);
        if kinds.is_empty() || kinds.iter().any(|k| SERVED.contains(&k.as_str())) {
            result.case(&name, outcome);
        } else {
            apart += 1;
            if let Err(error) = outcome {
                apart_failed += 1;
                result.note(format!("apart: {name}: {error}"));
            }
        }
    }
    result.note(format!(
        "files of other kinds, reported apart: {} accepted, {apart_failed} not",
        apart - apart_failed
    ));
    result
}

fn objects_of_istio(parsed: &Parsed) -> usize {
    let objects = parsed.objects.iter();
    objects
        .filter(|object| object.group.ends_with(".istio.io"))
        .count()
}

fn accepted(text: &str) -> Result<(), String> {
    let parsed = parse(text);
    no_refusal(&parsed)?;
    let documents = documents(text)?;
    let wanted = documents
        .iter()
        .filter(|d| is_group(d, ".istio.io"))
        .count();
    let taken = objects_of_istio(&parsed);
    if taken < wanted {
        return Err(format!("expected {wanted} objects, seen {taken}"));
    }
    for mut document in documents.into_iter().filter(|d| is_group(d, ".istio.io")) {
        document["metadata"]["annotations"] =
            json!({"internal.istio.io/webhook-always-reject": ""});
        if parse(&document.to_string()).refused.is_empty() {
            return Err(
                "expected a refusal with the annotation that always rejects, seen acceptance"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

pub(super) fn parse(text: &str) -> Parsed {
    read::parse(&Arc::from("case.yaml"), text, &TextOptions::default())
}

fn no_refusal(parsed: &Parsed) -> Result<(), String> {
    match parsed.findings.iter().find(|f| f.level == Level::Refused) {
        Some(finding) => Err(format!("expected acceptance, seen {finding}")),
        None => Ok(()),
    }
}

pub(super) fn texts(parsed: &Parsed) -> Vec<String> {
    parsed.findings.iter().map(ToString::to_string).collect()
}

/// The documents of a text as plain values.
fn documents(text: &str) -> Result<Vec<Value>, String> {
    let mut reader = yaml::Reader::new(text, &Limits::default());
    let mut documents = Vec::new();
    while reader.next_document().map_err(|e| e.to_string())?.is_some() {
        documents.push(
            reader
                .read(std::marker::PhantomData)
                .map_err(|e| e.to_string())?,
        );
    }
    Ok(documents)
}

fn kind_of(document: &Value) -> Option<String> {
    document.get("kind")?.as_str().map(str::to_owned)
}

fn is_group(document: &Value, suffix: &str) -> bool {
    let version = document
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or_default();
    version
        .rsplit_once('/')
        .is_some_and(|(group, _)| group.ends_with(suffix))
}

fn yaml_files(root: &Path) -> Vec<PathBuf> {
    files(root, &["yaml", "yml"])
}

pub(super) fn files(root: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| extensions.iter().any(|x| e == *x))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}
