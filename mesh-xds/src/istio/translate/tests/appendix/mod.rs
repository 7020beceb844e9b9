//! The rules of Istio's API that trip implementers, one test each, in the order in which the API's own comments have them:
//! what is refused, what is warned of, and what the resources say.

use super::*;
use crate::istio::read::Level;

mod destination_rule;
mod others;
mod virtual_service;

/// What is said of an object of namespace `a`, as `path: message`, with its level.
fn said(kind: &str, spec: &str) -> Vec<(Level, String)> {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => "security",
        "Telemetry" => "telemetry",
        _ => "networking",
    };
    let text = format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: o, namespace: a}}\nspec: {{{spec}}}\n"
    );
    let parsed = read::parse(&Arc::from("a.yaml"), &text, &read::TextOptions::default());
    let findings = parsed.findings.iter();
    findings
        .map(|f| (f.level, format!("{}: {}", f.path, f.message)))
        .collect()
}

#[track_caller]
fn refused(kind: &str, spec: &str, path: &str) {
    let said = said(kind, spec);
    let found = said
        .iter()
        .any(|(level, text)| *level == Level::Refused && text.starts_with(path));
    assert!(found, "{spec}: {path} is not refused: {said:?}");
}

#[track_caller]
fn warned(kind: &str, spec: &str, path: &str) {
    let said = said(kind, spec);
    let found = said
        .iter()
        .any(|(level, text)| *level == Level::Warning && text.starts_with(path));
    assert!(found, "{spec}: {path} is not warned of: {said:?}");
    accepted(kind, spec);
}

#[track_caller]
fn accepted(kind: &str, spec: &str) {
    let said = said(kind, spec);
    assert!(
        said.iter().all(|(level, _)| *level != Level::Refused),
        "{spec}: {said:?}"
    );
}

/// An object of namespace `a` as a document.
fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: a}}\nspec: {{{spec}}}\n"
    )
}
