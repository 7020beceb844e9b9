//! Bad input: each is refused with file, line, column, resource, field and what is allowed, and the last good configuration
//! stays in force.

use std::fs;

use mesh_core::config::{ConfigSource, Rejection, Update};

mod envoy;
mod istio;
#[path = "../support/mod.rs"]
mod support;

use support::{Temp, next};

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
    /// Stands where the file `name` was, at once.
    fn put(&self, temp: &Temp, name: &str) {
        match self {
            Self::Text(text) => temp.put(name, text),
            Self::Bytes(bytes) => temp.put(name, bytes),
            Self::Length(length) => {
                let new = temp.0.join(".new");
                let made = fs::File::create(&new).and_then(|file| file.set_len(*length));
                made.and_then(|()| fs::rename(&new, temp.0.join(name)))
                    .expect("file written");
            }
        }
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

/// The good file `name` becomes bad, and good again: the bad one is refused as it has to be, and what was good is in force all
/// the time.
async fn replaced(
    case: &Case,
    temp: &Temp,
    (name, good): (&str, &str),
    source: &mut impl ConfigSource,
) -> Result<(), String> {
    case.bad.put(temp, name);
    case.judge(name, &next(source).await)?;
    temp.put(name, good);
    let update = next(source).await;
    if update.rejections.is_empty() && update.changes.is_empty() {
        Ok(())
    } else {
        Err(format!("{}: after the repair {update:?}", case.name))
    }
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
