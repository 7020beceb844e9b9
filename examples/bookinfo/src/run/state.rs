//! The state of the configuration, gathered from all proxies.

use std::collections::BTreeSet;

use mesh_core::snapshot::StatusReport;
use serde_json::Value;

use crate::watch::ConfigState;

/// What all proxies say of the configuration, each thing once.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    proxies: usize,
    /// Proxies without an answer.
    silent: BTreeSet<String>,
    rejections: BTreeSet<String>,
    notes: BTreeSet<String>,
    generation: u64,
}

impl Gathered {
    /// Adds a mesh inside this process.
    pub(super) fn embedded(&mut self, report: &StatusReport) {
        if report.generation == 0 {
            return;
        }
        self.proxies += 1;
        self.generation = self.generation.max(report.generation);
        self.rejections
            .extend(report.rejections.iter().map(ToString::to_string));
        let notes = report.notes.iter();
        self.notes
            .extend(notes.map(|note| note_line(&note.resource, &note.path, &note.reason)));
    }

    /// Adds what a proxy answers at `/config_status`, if it does.
    pub(super) fn admin(&mut self, name: String, text: Option<&str>) {
        let status = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let Some(status) = status else {
            self.silent.insert(name);
            return;
        };
        self.proxies += 1;
        let generation = status.get("generation").and_then(Value::as_u64);
        self.generation = self.generation.max(generation.unwrap_or_default());
        let list = |key: &str| {
            status
                .get(key)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let field = |object: &Value, key: &str| {
            object
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        for one in list("rejections") {
            let line = note_line(
                &field(&one, "resource"),
                &field(&one, "path"),
                &field(&one, "reason"),
            );
            let place = field(&one, "location");
            self.rejections.insert(if place.is_empty() {
                line
            } else {
                format!("{place}: {line}")
            });
        }
        for one in list("not_acting") {
            self.notes.insert(note_line(
                &field(&one, "resource"),
                &field(&one, "path"),
                &field(&one, "reason"),
            ));
        }
    }

    /// One state for all.
    pub(super) fn state(&self) -> ConfigState {
        if !self.rejections.is_empty() {
            return ConfigState::Refused(self.rejections.iter().cloned().collect());
        }
        match self.proxies {
            0 => ConfigState::Unknown,
            proxies => {
                let proxies = counted(proxies, "proxy", "proxies");
                let remarks = counted(self.notes.len(), "remark", "remarks");
                let silent = self.silent.iter();
                let silent = silent.map(|name| format!(", no answer from the {name}"));
                let silent: String = silent.collect();
                ConfigState::InForce(format!("{proxies}, {remarks}{silent}"))
            }
        }
    }

    /// Goes up with each edit that was looked at, taken or refused.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// What has no effect, or is otherwise worth a word.
    pub(super) fn notes(self) -> BTreeSet<String> {
        self.notes
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn note_line(resource: &str, path: &str, reason: &str) -> String {
    match path {
        "" => format!("{resource}: {reason}"),
        path => format!("{resource}: {path}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_counted_and_the_silent_one_is_named() {
        let mut all = Gathered::default();
        all.admin("gateway".into(), Some("{\"generation\": 2}"));
        all.admin("sidecar of reviews-v1".into(), None);
        let what = "1 proxy, 0 remarks, no answer from the sidecar of reviews-v1";
        assert_eq!(all.state(), ConfigState::InForce(what.to_owned()));
        assert_eq!(all.generation(), 2);
    }

    #[test]
    fn what_all_proxies_refuse_is_said_once_with_its_place() {
        let mut all = Gathered::default();
        let text = r#"{"rejections": [{"resource": "VirtualService default/reviews", "path": "spec.http",
            "reason": "no", "location": "a.yaml:1:2"}]}"#;
        for name in ["one", "two"] {
            all.admin(name.to_owned(), Some(text));
        }
        let line = "a.yaml:1:2: VirtualService default/reviews: spec.http: no";
        assert_eq!(all.state(), ConfigState::Refused(vec![line.to_owned()]));
    }
}
