//! Comparing messages with what istiod made, field by field, with a written list of differences that are allowed.

use std::collections::{BTreeMap, BTreeSet};

use mesh_xds::json;
use serde_json::Value;

use crate::conformance::SuiteResult;

/// A difference that says nothing about the translation.
pub(super) struct Allowed {
    /// End of the field's path.
    pub(super) path: &'static str,
    /// Why it says nothing.
    pub(super) reason: &'static str,
    /// Whether the difference is of that kind; absent values are null.
    pub(super) holds: fn(expected: &Value, seen: &Value) -> bool,
}

/// A rule's own name, where the upstream test has no namespace.
pub(super) const NAMESPACE: Allowed = Allowed {
    path: ".metadata.filter_metadata.istio.config",
    reason: "the rule of the upstream test has no namespace, the case file says `default`",
    holds: |expected, seen| {
        let with_namespace = expected
            .as_str()
            .map(|text| text.replace("/namespaces//", "/namespaces/default/"));
        expected != seen && with_namespace.as_deref() == seen.as_str()
    },
};

/// What Istio's proxies tell each other about themselves.
pub(super) const METADATA_EXCHANGE: Allowed = Allowed {
    path: ".filters",
    reason: "the exchange of metadata on TCP connections is not served",
    holds: |expected, seen| {
        let only = expected.as_array().filter(|filters| filters.len() == 1);
        only.is_some_and(|filters| filters[0]["name"] == "istio.metadata_exchange")
            && seen.is_null()
    },
};

/// Differences that a failure names.
const SHOWN: usize = 5;

/// How often each allowed difference was used.
pub(super) struct Uses {
    allowed: &'static [Allowed],
    counts: BTreeMap<&'static str, (usize, &'static str)>,
}

impl Uses {
    pub(super) fn of(allowed: &'static [Allowed]) -> Self {
        let unused = allowed.iter().map(|one| (one.path, (0, one.reason)));
        Self {
            allowed,
            counts: unused.collect(),
        }
    }

    /// Tells what was used, and what was not.
    pub(super) fn report(self, result: &mut SuiteResult) {
        for (path, (count, reason)) in self.counts {
            result.allow(path, count, reason);
        }
    }

    /// Counts a use of something that is allowed for that reason.
    pub(super) fn count(&mut self, place: &'static str, reason: &'static str) {
        self.counts.entry(place).or_insert((0, reason)).0 += 1;
    }

    /// Takes a field away that both messages have, or neither: its content says nothing, for that reason.
    pub(super) fn set_aside(
        &mut self,
        field: &'static str,
        reason: &'static str,
        (expected, seen): (&mut Value, &mut Value),
    ) {
        if let (Some(a), Some(b)) = (expected.as_object_mut(), seen.as_object_mut())
            && a.contains_key(field)
            && b.contains_key(field)
        {
            a.remove(field);
            b.remove(field);
            self.count(field, reason);
        }
    }

    /// Takes fields away that one of the messages has, or both, for that reason.
    pub(super) fn leave_out(
        &mut self,
        fields: &[&'static str],
        reason: &'static str,
        (expected, seen): (&mut Value, &mut Value),
    ) {
        for field in fields {
            let remove = |message: &mut Value| message.as_object_mut()?.remove(*field);
            let removed = [remove(expected), remove(seen)];
            if removed.iter().any(Option::is_some) {
                self.count(field, reason);
            }
        }
    }

    /// Takes fields away that are only expected, for that reason.
    pub(super) fn excuse(
        &mut self,
        fields: &[&'static str],
        reason: &'static str,
        (expected, seen): (&mut Value, &Value),
    ) {
        for field in fields.iter().filter(|field| seen.get(**field).is_none()) {
            let map = expected.as_object_mut();
            if map.and_then(|map| map.remove(*field)).is_some() {
                self.count(field, reason);
            }
        }
    }

    /// Compares two messages, given as JSON.
    pub(super) fn compare(&mut self, expected: &Value, seen: &Value) -> Result<(), String> {
        let mut found = Vec::new();
        diff("", expected, seen, &mut found);
        found.retain(|(path, expected, seen)| {
            let allowed = self
                .allowed
                .iter()
                .find(|allowed| path.ends_with(allowed.path) && (allowed.holds)(expected, seen));
            if let Some(allowed) = allowed {
                self.count(allowed.path, allowed.reason);
            }
            allowed.is_none()
        });
        if found.is_empty() {
            return Ok(());
        }
        let shown = found
            .iter()
            .take(SHOWN)
            .map(|(path, expected, seen)| format!("at {path}: expected {expected}, seen {seen}"));
        let shown = shown.collect::<Vec<_>>().join("; ");
        Err(format!("{shown} ({} differences)", found.len()))
    }
}

/// Collects the paths at which two values differ; an empty map, as an absent one, has no fields.
fn diff(path: &str, expected: &Value, seen: &Value, out: &mut Vec<(String, Value, Value)>) {
    let empty = serde_json::Map::new();
    let field = |map: &serde_json::Map<String, Value>, key: &str| {
        map.get(key).cloned().unwrap_or(Value::Null)
    };
    match (expected, seen) {
        (Value::Object(_), Value::Object(_) | Value::Null) | (Value::Null, Value::Object(_))
            if path.ends_with("typed_per_filter_config")
                || (expected.is_object() && seen.is_object()) =>
        {
            let a = expected.as_object().unwrap_or(&empty);
            let b = seen.as_object().unwrap_or(&empty);
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                diff(
                    &format!("{path}.{key}"),
                    &field(a, key),
                    &field(b, key),
                    out,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                diff(&format!("{path}[{index}]"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push((path.to_owned(), a.clone(), b.clone())),
    }
}

/// The JSON of a message after a way through protobuf, so that both sides are written alike.
pub(super) fn normalized(kind: &str, value: &Value) -> Result<Value, String> {
    let text = value.to_string();
    let wire = json::to_wire(kind, &mut serde_json::Deserializer::from_str(&text))
        .map_err(|error| error.to_string())?;
    json::wire_to_value(kind, &wire).map_err(|_| format!("{kind} cannot be written as JSON"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALLOWED: &[Allowed] = &[Allowed {
        path: ".append_x_forwarded_host",
        reason: "a test",
        holds: |expected, seen| *expected == Value::Bool(true) && seen.is_null(),
    }];

    #[test]
    fn each_field_counts() {
        let mut uses = Uses::of(ALLOWED);
        assert!(
            uses.compare(&json!({"a": [1, {"b": 2}]}), &json!({"a": [1, {"b": 2}]}))
                .is_ok()
        );
        assert!(
            uses.compare(&json!({"a": [1, {"b": 2}]}), &json!({"a": [1, {"b": 3}]}))
                .is_err()
        );
        assert!(uses.compare(&json!({"a": []}), &json!({})).is_err());
        assert!(uses.compare(&json!({}), &json!({"a": true})).is_err());
    }

    #[test]
    fn an_allowed_field_is_allowed_only_as_written() {
        let mut uses = Uses::of(ALLOWED);
        let with = json!({"route": {"append_x_forwarded_host": true, "cluster": "c"}});
        let without = json!({"route": {"cluster": "c"}});
        assert!(uses.compare(&with, &without).is_ok());
        assert!(uses.compare(&without, &with).is_err());
        assert_eq!(
            uses.counts.values().next().map(|(count, _)| *count),
            Some(1)
        );
    }
}
