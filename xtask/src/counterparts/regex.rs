//! Regular expressions: a table made by RE2 itself, compared with ours.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{play, scratch};
use crate::Fallible;
use crate::process;
use crate::tools;
use crate::workspace;

pub(super) fn run() -> Fallible<String> {
    let table = scratch()?.join("re2.json");
    let mut make = Command::new(tools::python()?);
    make.arg(workspace::root().join("interop/python/re2_table.py"))
        .stdout(Stdio::inherit());
    process::run(make.arg(&table))?;
    let mut compare = workspace::testkit("re2")?;
    play(compare.arg(&table), "re2", Duration::from_secs(300))
}
