//! Which workloads an object is for: selectors and references.

use std::collections::BTreeMap;

use super::check::{At, Check};
use crate::istio::api::{MatchLabels, PolicyTargetReference, WorkloadSelector};

/// A selector of security.istio.io and others.
pub(super) fn match_labels(c: &mut Check, at: &At<'_>, selector: Option<&MatchLabels>) {
    match_labels_in(c, &at.key("selector"), selector);
}

/// The same under another field.
pub(super) fn match_labels_in(c: &mut Check, at: &At<'_>, selector: Option<&MatchLabels>) {
    if let Some(selector) = selector {
        labels(c, at, "matchLabels", &selector.match_labels);
    }
}

/// A selector of networking.istio.io.
pub(super) fn workload_selector(c: &mut Check, at: &At<'_>, selector: Option<&WorkloadSelector>) {
    if let Some(selector) = selector {
        labels(c, &at.key("workloadSelector"), "labels", &selector.labels);
    }
}

fn labels(c: &mut Check, at: &At<'_>, field: &str, labels: &BTreeMap<String, String>) {
    let at = at.key(field);
    for (key, value) in labels {
        if key.is_empty() {
            c.error(&at, "a label's name must not be empty");
        }
        if key.contains('*') || value.contains('*') {
            c.error(
                &at.key(key),
                format_args!("wildcards are not supported in selectors: `{key}={value}`"),
            );
        }
    }
    if labels.is_empty() {
        c.warn(
            &at,
            "the selector has no labels and so selects every workload of the namespace",
        );
    }
}

/// At most one way to choose workloads, and references to what can be referred to.
pub(super) fn targets(
    c: &mut Check,
    at: &At<'_>,
    selector: Option<&MatchLabels>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    let ways = usize::from(selector.is_some())
        + usize::from(target.is_some())
        + usize::from(!targets.is_empty());
    if ways > 1 {
        c.error(
            at,
            "only one of selector, targetRef and targetRefs can be set",
        );
    }
    match_labels(c, at, selector);
    if let Some(target) = target {
        reference(c, &at.key("targetRef"), target);
    }
    for (i, target) in targets.iter().enumerate() {
        reference(c, &at.item("targetRefs", i), target);
    }
}

fn reference(c: &mut Check, at: &At<'_>, target: &PolicyTargetReference) {
    if target.name.is_empty() {
        c.error(&at.key("name"), "the name of the target is required");
    }
    if !target.namespace.is_empty() {
        c.error(
            &at.key("namespace"),
            "a target in another namespace is not supported",
        );
    }
    let known = matches!(
        (target.group.as_str(), target.kind.as_str()),
        ("" | "core", "Service")
            | ("networking.istio.io", "ServiceEntry")
            | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
    );
    if !known {
        let allowed = ["Service", "ServiceEntry", "Gateway", "GatewayClass"];
        let kind = if target.group.is_empty() {
            target.kind.clone()
        } else {
            format!("{}/{}", target.group, target.kind)
        };
        c.not_one_of(&at.key("kind"), "target kind", &kind, &allowed);
    }
}
