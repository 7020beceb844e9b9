//! Bad input: each is refused with file, line, column, resource, field and what is allowed, and the last good configuration
//! stays in force.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::config::{ConfigSource, Rejection, Update};

mod envoy;
mod istio;

/// A folder of its own for each case, removed at its end.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = std::env::temp_dir().join(format!("mesh-bad-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is written in place of a good file.
#[derive(Clone)]
enum Bad {
    /// This text.
    Text(String),
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes, all zero.
    Length(u64),
}

impl Bad {
    fn write(&self, path: &Path) {
        // Moved into place, as editors do.
        let new = path.with_extension("new");
        match self {
            Self::Text(text) => fs::write(&new, text),
            Self::Bytes(bytes) => fs::write(&new, bytes),
            Self::Length(length) => fs::File::create(&new).and_then(|file| file.set_len(*length)),
        }
        .expect("file written");
        fs::rename(&new, path).expect("file moved");
    }
}

/// One bad input and the rejection that it has to get.
struct Case {
    name: &'static str,
    bad: Bad,
    /// Line and column.
    at: &'static str,
    resource: &'static str,
    path: &'static str,
    /// Parts of the reason.
    reason: &'static [&'static str],
}

impl Case {
    fn judge(&self, file: &str, update: &Update) -> Result<(), String> {
        let seen = || format!("{}: {:#?}", self.name, update.rejections);
        let [rejection] = update.rejections.as_slice() else {
            return Err(format!("not one rejection: {}", seen()));
        };
        let Rejection {
            resource,
            path,
            reason,
            location,
            ..
        } = rejection;
        let place = if self.at.is_empty() {
            file.to_owned()
        } else {
            format!("{file}:{}", self.at)
        };
        let mut wrong = Vec::new();
        if !location.ends_with(&place) {
            wrong.push(format!("place {location}, not {place}"));
        }
        // A file is named by its path as well.
        let known = **resource == *self.resource
            || (self.resource == "file" && resource.starts_with("file "));
        if !known {
            wrong.push(format!("resource {resource}, not {}", self.resource));
        }
        if **path != *self.path {
            wrong.push(format!("path {path}, not {}", self.path));
        }
        for part in self.reason.iter().filter(|part| !reason.contains(**part)) {
            wrong.push(format!("reason `{reason}` without `{part}`"));
        }
        if !update.changes.is_empty() {
            wrong.push(format!("{} changes", update.changes.len()));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(format!("{}: {}", self.name, wrong.join("\n    ")))
        }
    }
}

async fn next(source: &mut impl ConfigSource) -> Update {
    let update = tokio::time::timeout(Duration::from_secs(60), source.next()).await;
    update
        .expect("an update in time")
        .expect("the source lives")
}

fn report(results: Vec<Result<(), String>>, cases: usize) {
    assert_eq!(results.len(), cases);
    let wrong: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let alias = format!("*a{}, ", level - 1).repeat(10);
        text += &format!("a{level}: &a{level} [{alias}]\n");
    }
    text
}
