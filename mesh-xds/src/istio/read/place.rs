//! Finding the line of a field again, for what is found after reading.

use std::collections::HashMap;
use std::path::Path as FilePath;

use crate::istio::Object;
use crate::yaml::{self, Limits, Location, Path};

/// What is to be found in one file.
#[derive(Default)]
struct InFile {
    /// Among all that is asked for.
    indices: Vec<usize>,
    /// First line of the object, and path in it.
    fields: Vec<(u32, Path)>,
}

/// Where each field of an object stands, with as few looks into files as there are files; the object's first line where a
/// file has changed meanwhile.
pub fn places<'o>(
    fields: impl IntoIterator<Item = (&'o Object, &'o Path)>,
) -> Vec<Option<Location>> {
    let mut found = Vec::new();
    let mut files: HashMap<&str, InFile> = HashMap::new();
    for (index, (object, path)) in fields.into_iter().enumerate() {
        let origin = &object.origin;
        found.push((origin.line != 0).then_some(Location {
            line: origin.line,
            column: 1,
        }));
        if origin.line != 0 {
            let file = files.entry(&origin.file).or_default();
            file.indices.push(index);
            file.fields.push((origin.line, path.clone()));
        }
    }
    for (file, wanted) in files {
        let Ok(text) = yaml::read_file(FilePath::new(file), &Limits::default()) else {
            continue;
        };
        let located = yaml::locate_at_lines(&text, &wanted.fields);
        for (index, location) in wanted.indices.into_iter().zip(located) {
            found[index] = location.or(found[index]);
        }
    }
    found
}
