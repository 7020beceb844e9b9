//! Plays in Python (hyper-h2 and raw sockets): upgrades, peers that leave or break, filters, and what the admin server says.

use std::process::Command;
use std::time::Duration;

use super::{Rig, scratch};
use crate::Fallible;
use crate::process;
use crate::tools;
use crate::workspace;

/// Runs `interop/python/NAME.py` against the proxy.
pub(super) fn run(rig: &Rig, name: &str) -> Fallible<String> {
    let program = rig.program()?;
    let mut command = Command::new(tools::python()?);
    command
        .arg(
            workspace::root()
                .join("interop/python")
                .join(format!("{name}.py")),
        )
        .arg("--proxy")
        .arg(program)
        .arg("--scratch")
        .arg(scratch()?);
    // The expectations were written down from Envoy, and say where meshd differs.
    let file = program.file_name().unwrap_or_default();
    if file.to_string_lossy().contains("envoy") {
        command.arg("--envoy");
    }
    let ended = process::logged(
        &mut command,
        &scratch()?.join(format!("{name}-report.log")),
        Duration::from_secs(300),
    )?;
    print!("{}", ended.text);
    let last = ended
        .text
        .lines()
        .last()
        .unwrap_or("the play wrote nothing")
        .to_owned();
    if ended.status.success() {
        Ok(last)
    } else {
        Err(format!("{last}\n{}", failures(&ended.text)).into())
    }
}

/// What the play says about its failed cases: each line that says so, and the two after it.
fn failures(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let failed = (0..lines.len()).filter(|&at| lines[at].ends_with(": FAILED"));
    failed
        .flat_map(|at| &lines[at..lines.len().min(at + 3)])
        .fold(String::new(), |told, line| told + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_with_what_was_expected_and_seen() {
        let text = "a: passed\nb: FAILED\n    expected 1\n    seen     2\nc: passed\nd: FAILED\n";
        assert_eq!(
            failures(text),
            "b: FAILED\n    expected 1\n    seen     2\nd: FAILED\n"
        );
    }
}
