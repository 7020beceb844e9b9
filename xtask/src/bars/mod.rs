//! `cargo xtask bars`: each demand that has a number, measured and held against its bar.

mod allocations;
mod budgets;
mod demo;
mod memory;
mod ratios;
mod reloads;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::Fallible;
use crate::bench;
use crate::counterparts;
use crate::process;
use crate::suites;
use crate::workspace;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Groups of bars [default: all of them]
    #[arg(value_name = "GROUP")]
    name: Vec<Group>,
    /// Rounds of each benchmark scenario
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    #[command(flatten)]
    programs: bench::Programs,
}

/// A group of bars that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The bookinfo demo with sidecars, and embedded: ready, edit, drain
    Demo,
    /// The conformance suites, and the compiled route table beside a naive one
    Suites,
    /// Other people's clients and suites: h2spec, gRPC interop, curl, h2load, WebSocket, router check by sockets
    Counterparts,
    /// CPU per request beside other proxies
    Ratios,
    /// What the stack adds to a call: time, allocations
    Allocations,
    /// Resident memory, idle and with 10,000 clusters
    Memory,
    /// 1,000 reloads under steady load
    Reloads,
    /// Crates under mesh-core, lines of the examples
    Budgets,
}

impl Group {
    /// Whether it measures programs of the release profile.
    fn needs_programs(self) -> bool {
        matches!(self, Self::Demo | Self::Allocations | Self::Reloads)
    }
}

/// One measured value beside its bar.
#[derive(Debug)]
pub(crate) struct Reading {
    name: String,
    value: String,
    bar: String,
    met: bool,
}

impl Reading {
    /// A value that must not exceed `bar`.
    fn at_most(name: impl Into<String>, value: f64, bar: f64, unit: &str) -> Self {
        let shown = |number: f64| match number {
            whole if whole.fract() == 0.0 => format!("{whole:.0}{unit}"),
            number => format!("{number:.2}{unit}"),
        };
        Self {
            name: name.into(),
            value: shown(value),
            bar: format!("<= {}", shown(bar)),
            met: value <= bar,
        }
    }

    /// A demand that holds or not.
    fn holds(
        name: impl Into<String>,
        value: impl Into<String>,
        bar: impl Into<String>,
        met: bool,
    ) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            bar: bar.into(),
            met,
        }
    }

    /// `NAME: value (bar …)`.
    fn line(&self) -> String {
        let value = self.value.lines().next().unwrap_or_default();
        let missed = if self.met { "" } else { " MISSED" };
        format!("{}: {value} (bar {}){missed}", self.name, self.bar)
    }
}

/// Measures the groups; `true` if no bar is missed.
pub(crate) fn run(options: &Options) -> Fallible<bool> {
    let _alone = workspace::alone()?;
    let groups = if options.name.is_empty() {
        Group::value_variants()
    } else {
        &options.name
    };
    if !options.programs.no_build && groups.iter().any(|group| group.needs_programs()) {
        bench::build()?;
    }
    let mut all_met = true;
    for group in groups {
        let readings = match measure(*group, options) {
            Ok(readings) => readings,
            Err(error) => vec![Reading::holds(
                group_name(*group),
                format!("not measured: {error}"),
                "measured",
                false,
            )],
        };
        for reading in readings {
            println!("{}", reading.line());
            // What an error says besides.
            for more in reading.value.lines().skip(1) {
                eprintln!("{more}");
            }
            all_met &= reading.met;
        }
    }
    Ok(all_met)
}

fn group_name(group: Group) -> String {
    group
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn measure(group: Group, options: &Options) -> Fallible<Vec<Reading>> {
    match group {
        Group::Demo => demo::measure(),
        Group::Suites => suites_readings(),
        Group::Counterparts => Ok(counterparts_readings()),
        Group::Ratios => ratios::measure(&options.programs.folder()?, options.rounds),
        Group::Allocations => allocations::measure(),
        Group::Memory => memory::measure(&options.programs.folder()?),
        Group::Reloads => reloads::measure(),
        Group::Budgets => budgets::measure(),
    }
}

impl From<suites::Verdict> for Reading {
    fn from(verdict: suites::Verdict) -> Self {
        Self::holds(verdict.name, verdict.value, verdict.bar, verdict.met)
    }
}

fn suites_readings() -> Fallible<Vec<Reading>> {
    let mut readings: Vec<Reading> = suites::judge()?.into_iter().map(Reading::from).collect();
    let mut oracle = workspace::cargo(["test", "--locked", "-p", "mesh-core"]);
    oracle.args(["--test", "route_oracle"]);
    let log = workspace::target().join("xtask/route-oracle.log");
    let ended = process::logged(&mut oracle, &log, Duration::from_secs(1800))?;
    let agrees = ended.status.success();
    readings.push(Reading::holds(
        "compiled route table beside a naive one",
        if agrees { "the same" } else { "differs" },
        "the same for >= 100000 requests",
        agrees,
    ));
    Ok(readings)
}

fn counterparts_readings() -> Vec<Reading> {
    let rig = counterparts::Rig::default();
    let failed = |name: &str, error: Box<dyn std::error::Error>| {
        Reading::holds(name, format!("not measured: {error}"), "measured", false)
    };
    let mut readings = match counterparts::h2spec::play(&rig) {
        Ok(score) => vec![Reading::holds(
            "h2spec",
            format!("{} of {}", score.passed, score.total),
            format!(
                ">= {} of {}",
                counterparts::h2spec::BAR,
                counterparts::h2spec::TESTS
            ),
            score.met(),
        )],
        Err(error) => vec![failed("h2spec", error)],
    };
    match counterparts::grpc::play_all(&rig) {
        Ok(failures) => {
            let soaks = failures.iter().filter(|case| case.ends_with("soak"));
            readings.push(Reading::holds(
                "gRPC interop cases that fail",
                failures.len().to_string(),
                format!("0 of {}", counterparts::grpc::CASES.len()),
                failures.is_empty(),
            ));
            let soaks = soaks.count();
            readings.push(Reading::holds(
                "gRPC soaks with a failure",
                soaks.to_string(),
                format!("0, {} calls each", counterparts::grpc::SOAK),
                soaks == 0,
            ));
        }
        Err(error) => readings.push(failed("gRPC interop", error)),
    }
    readings.extend(counterparts::WHOLE.map(|(name, run)| whole(name, run(&rig))));
    readings
}

/// A counterpart of which every case must pass.
fn whole(name: &str, outcome: Fallible<String>) -> Reading {
    let (value, met) = match outcome {
        Ok(detail) => (detail, true),
        Err(error) => (error.to_string(), false),
    };
    Reading::holds(name, value, "every case passes", met)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_one_line_whatever_an_error_says() {
        let good = Reading::at_most("demo, first page", 0.5, 2.0, " s");
        assert_eq!(good.line(), "demo, first page: 0.50 s (bar <= 2 s)");
        let broken = whole("curl", Err("a program ended\nits last words".into()));
        let line = "curl: a program ended (bar every case passes) MISSED";
        assert_eq!(broken.line(), line);
    }
}
