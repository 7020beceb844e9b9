//! What is noted: fields without effect, and references that lead nowhere.

use mesh_core::model::{Discovery, Listener, Name, Note, RouteConfiguration, RouteSource};

use super::{Entry, State, join, references};

/// Adds the place of each note, where there is one, to its reason.
pub(super) fn place(notes: &mut [Note], places: &[Name]) {
    for (note, place) in notes.iter_mut().zip(places) {
        if !place.is_empty() {
            note.reason = format!("{} ({place})", note.reason).into();
        }
    }
}

impl State {
    /// All notes, each with its path in the source's text.
    pub(super) fn notes(&self) -> Vec<(String, Note)> {
        let mut notes = Vec::new();
        for entry in self.clusters.entries.values() {
            decoded(entry, &mut notes);
            if let Discovery::Eds(service) = &entry.model.discovery
                && !self.endpoints.entries.contains_key(service)
            {
                let note = Note {
                    resource: format!("cluster {}", entry.model.name).into(),
                    path: "eds_cluster_config".into(),
                    reason: format!(
                        "no endpoints are known under {service:?}: its requests answer 503"
                    )
                    .into(),
                };
                add(entry, note, &mut notes);
            }
        }
        for entry in self.endpoints.entries.values() {
            decoded(entry, &mut notes);
        }
        for entry in self.routes.entries.values() {
            decoded(entry, &mut notes);
            let resource = format!("route configuration {}", entry.model.name);
            for (path, name) in self.missing(&entry.model) {
                add(entry, unknown(&resource, path, name), &mut notes);
            }
        }
        for entry in self.listeners.entries.values() {
            decoded(entry, &mut notes);
            self.listener(entry, &mut notes);
        }
        notes
    }

    /// What a listener refers to and is not there.
    fn listener(&self, entry: &Entry<Listener>, notes: &mut Vec<(String, Note)>) {
        let name = &entry.model.name;
        let resource = format!("listener {name}");
        let terminal = |chain: &str| self.listeners.terminal(name, chain);
        for (chain, manager) in references::managers(&entry.model) {
            match &manager.routes {
                RouteSource::Inline(table) => {
                    for (path, name) in self.missing(table) {
                        let path = format!("{}.route_config.{path}", terminal(&chain));
                        add(entry, unknown(&resource, path, name), notes);
                    }
                }
                RouteSource::Named(name) if !self.routes.entries.contains_key(name) => {
                    let note = Note {
                        resource: resource.as_str().into(),
                        path: format!("{}.rds.route_config_name", terminal(&chain)).into(),
                        reason: format!(
                            "route configuration {name:?} is not known: requests answer 404"
                        )
                        .into(),
                    };
                    add(entry, note, notes);
                }
                RouteSource::Named(_) => {}
            }
        }
        for (chain, path, name) in references::tcp_clusters(&entry.model, |name| self.lacks(name)) {
            let path = format!("{}.{path}", terminal(&chain));
            add(entry, unknown(&resource, path, name), notes);
        }
    }

    fn lacks(&self, cluster: &Name) -> bool {
        !self.clusters.entries.contains_key(cluster)
    }

    /// Paths and names of clusters that a table names and that are not there.
    fn missing<'m>(&self, table: &'m RouteConfiguration) -> Vec<(String, &'m Name)> {
        references::clusters(table, |name| self.lacks(name))
    }
}

fn decoded<T>(entry: &Entry<T>, notes: &mut Vec<(String, Note)>) {
    for note in &entry.notes {
        add(entry, note.clone(), notes);
    }
}

fn add<T>(entry: &Entry<T>, note: Note, notes: &mut Vec<(String, Note)>) {
    notes.push((join(&entry.place, &note.path), note));
}

fn unknown(resource: &str, path: String, name: &Name) -> Note {
    Note {
        resource: resource.into(),
        path: path.into(),
        reason: format!("unknown cluster {name:?}: its requests answer 503").into(),
    }
}
