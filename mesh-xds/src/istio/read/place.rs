//! Finding the line of a field again, for what is found after reading.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use super::folder::{Stamp, stamp};
use crate::istio::Object;
use crate::yaml::{self, Limits, Location, Path};

/// The places of fields that were asked for last, so that a file is looked into again only after it has changed.
#[derive(Debug, Default)]
pub struct Places {
    files: HashMap<Arc<str>, Known>,
}

/// What is known of one file.
#[derive(Debug)]
struct Known {
    stamp: Option<Stamp>,
    /// By the object's first line and the path in it.
    places: HashMap<(u32, Path), Option<Location>>,
}

impl Places {
    /// Where each field of an object stands, with as few looks into files as there are files; the object's first line where a
    /// file has changed meanwhile.
    pub fn of<'o>(
        &mut self,
        fields: impl IntoIterator<Item = (&'o Object, &'o Path)>,
    ) -> Vec<Option<Location>> {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(object, path)| (&object.origin, path))
            .collect();
        let mut wanted: HashMap<&Arc<str>, Vec<(u32, Path)>> = HashMap::new();
        for (origin, path) in fields.iter().filter(|(origin, _)| origin.line != 0) {
            let file = wanted.entry(&origin.file).or_default();
            file.push((origin.line, (*path).clone()));
        }
        self.files.retain(|file, _| wanted.contains_key(file));
        for (file, wanted) in wanted {
            let now = stamp(FilePath::new(&**file)).ok();
            let known = self.files.get(file);
            let again = known.is_some_and(|known| {
                known.stamp == now && wanted.iter().all(|field| known.places.contains_key(field))
            });
            if !again {
                let known = Known::read(file, now, wanted);
                self.files.insert(Arc::clone(file), known);
            }
        }
        let place = |(origin, path): (&crate::istio::Origin, &Path)| {
            if origin.line == 0 {
                return None;
            }
            let known = self.files.get(&origin.file)?;
            let place = known.places.get(&(origin.line, path.clone()));
            let first = Location {
                line: origin.line,
                column: 1,
            };
            Some(place.copied().flatten().unwrap_or(first))
        };
        fields.into_iter().map(place).collect()
    }
}

impl Known {
    fn read(file: &str, stamp: Option<Stamp>, wanted: Vec<(u32, Path)>) -> Self {
        let located = match yaml::read_file(FilePath::new(file), &Limits::default()) {
            Ok(text) => yaml::locate_at_lines(&text, &wanted),
            Err(_) => vec![None; wanted.len()],
        };
        Self {
            stamp,
            places: wanted.into_iter().zip(located).collect(),
        }
    }
}
