//! What the stack adds to a call: time beside an immediate answer, allocations beside hyper's own.

use std::process::Command;

use super::Reading;
use crate::Fallible;
use crate::process;
use crate::workspace;

/// Nanoseconds that the whole stack may add to a call.
const TIME: f64 = 1000.0;
/// Texts that are made for a request are cut from blocks; the share of a request in one is no allocation of its own.
const POOLED: f64 = 0.05;
/// What the test of allocations counts, and how many a request may have.
const COUNTED: [(&str, f64); 8] = [
    ("proxy, Http1", 0.0),
    ("proxy, Http1, generated headers", 1.0),
    ("proxy, Http2", 0.0),
    ("proxy, Http2, generated headers", 1.0),
    ("client, Http1", 0.0),
    ("client, Http1, generated headers", 1.0),
    ("client, Http2", 0.0),
    ("client, Http2, generated headers", 1.0),
];

pub(super) fn measure() -> Fallible<Vec<Reading>> {
    let text = process::output(&mut Command::new(workspace::release_program("stack")))?;
    let mut readings: Vec<Reading> = ["plain", "with a retry policy"]
        .iter()
        .map(|name| time(&text, name))
        .collect();
    // In the dev profile, as the test command runs it. The exit code says no more than the lines.
    let mut test = workspace::cargo(["test", "--locked", "-p", "mesh-benches"]);
    test.args(["--test", "allocations", "--"])
        .args(["--nocapture", "--test-threads", "1"]);
    let log = workspace::target().join("xtask/allocations.log");
    let text = process::logged(&mut test, &log, std::time::Duration::from_secs(1800))?.text;
    readings.extend(COUNTED.iter().map(|(name, bar)| count(&text, name, *bar)));
    Ok(readings)
}

fn time(text: &str, name: &str) -> Reading {
    let label = format!("a call through the stack, {name}");
    match number_after(text, &format!("{name}: ")) {
        Some(nanoseconds) => Reading::at_most(label, nanoseconds, TIME, " ns"),
        None => Reading::holds(label, "not measured", format!("<= {TIME} ns"), false),
    }
}

fn count(text: &str, name: &str, bar: f64) -> Reading {
    let label = format!("allocations a request, {name}");
    let bar_text = if bar == 0.0 {
        "0".to_owned()
    } else {
        format!("<= {bar} pooled block")
    };
    match number_after(text, &format!("{name}: ")) {
        // One less than hyper alone, as buffers happen to grow, is none.
        Some(number) => Reading::holds(
            label,
            format!("{:.2}", number.max(0.0)),
            bar_text,
            number <= bar + POOLED,
        ),
        None => Reading::holds(label, "not measured", bar_text, false),
    }
}

/// The number behind `mark`, which may stand anywhere in a line: the test's own lines are mixed with the runner's.
fn number_after(text: &str, mark: &str) -> Option<f64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "test a_call ... client, Http1: -0.002 allocations a request, beside 6.000 of hyper\nclient, Http1, generated headers: 1.200 allocations\nplain: 870 ns added to a call\n";

    #[test]
    fn numbers_are_found_between_the_lines_of_the_runner() {
        assert!(count(TEXT, "client, Http1", 0.0).met);
        assert!(!count(TEXT, "client, Http1, generated headers", 1.0).met);
        assert!(time(TEXT, "plain").met);
    }

    #[test]
    fn what_was_not_measured_is_missed() {
        assert!(!count(TEXT, "proxy, Http2", 0.0).met);
        assert!(!time(TEXT, "with a retry policy").met);
    }
}
