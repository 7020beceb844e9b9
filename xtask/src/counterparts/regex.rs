//! Regular expressions: a table made by RE2 itself, compared with ours.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::scratch;
use crate::Fallible;
use crate::process;
use crate::tools;
use crate::workspace;

pub(super) fn run() -> Fallible<String> {
    let python = tools::python()?;
    let table = scratch()?.join("re2.json");
    let mut make = Command::new(python);
    make.arg(workspace::root().join("interop/python/re2_table.py"))
        .stdout(Stdio::inherit());
    process::run(make.arg(&table))?;
    process::run(&mut workspace::cargo([
        "build",
        "--locked",
        "--quiet",
        "-p",
        "mesh-testkit",
        "--bin",
        "re2",
    ]))?;
    let mut compare = Command::new(workspace::dev_program("re2"));
    let ended = process::logged(
        compare.arg(&table),
        &scratch()?.join("re2.log"),
        Duration::from_secs(300),
    )?;
    print!("{}", process::tail(&ended.text, 60));
    let last = ended
        .text
        .lines()
        .last()
        .unwrap_or("the program wrote nothing")
        .to_owned();
    if ended.status.success() {
        Ok(last)
    } else {
        Err(last.into())
    }
}
