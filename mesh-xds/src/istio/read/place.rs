//! Finding the line of a field again, for what is found after reading.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use crate::istio::Object;
use crate::yaml::{self, Limits, Location, Path};

/// Reads files again to find lines in them; keeps each text while it lives.
#[derive(Debug, Default)]
pub struct Places {
    texts: HashMap<Arc<str>, Option<String>>,
}

impl Places {
    /// Where the field `path` of `object` stands; the object's first line if the file has changed meanwhile.
    pub fn of(&mut self, object: &Object, path: &Path) -> Option<Location> {
        let origin = &object.origin;
        if origin.line == 0 {
            return None;
        }
        let text = self
            .texts
            .entry(Arc::clone(&origin.file))
            .or_insert_with(|| {
                yaml::read_file(FilePath::new(&*origin.file), &Limits::default()).ok()
            });
        let found = text
            .as_deref()
            .and_then(|text| yaml::locate_at_line(text, origin.line, path));
        Some(found.unwrap_or(Location {
            line: origin.line,
            column: 1,
        }))
    }
}
