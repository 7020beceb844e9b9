//! CPU per request, meshd beside other proxies, with the side-by-side harness.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Reading;
use crate::Fallible;
use crate::bench;
use crate::process;
use crate::workspace;

/// A ratio of CPU per request that must not exceed `bar`: contestants `ours` and `theirs`, at saturation or at the fixed rate.
struct Ratio {
    scenario: &'static str,
    load: &'static str,
    ours: &'static str,
    theirs: &'static str,
    bar: f64,
}

const fn ratio(
    scenario: &'static str,
    load: &'static str,
    theirs: &'static str,
    bar: f64,
) -> Ratio {
    Ratio {
        scenario,
        load,
        ours: "meshd",
        theirs,
        bar,
    }
}

const SATURATION: &str = "saturation";
const FIXED: &str = "fixed";

const RATIOS: [Ratio; 11] = [
    ratio("http1-pass", SATURATION, "envoy", 0.50),
    ratio("http1-pass", FIXED, "envoy", 0.65),
    ratio("http1-pass", SATURATION, "bare", 1.12),
    ratio("http2-pass", SATURATION, "envoy", 0.90),
    ratio("http2-pass", FIXED, "envoy", 0.72),
    ratio("http2-pass", SATURATION, "bare", 1.12),
    ratio("routes-1000", SATURATION, "envoy", 0.30),
    ratio("routes-1000", FIXED, "envoy", 0.45),
    ratio("tcp-pass", SATURATION, "envoy", 0.90),
    ratio("tcp-pass", FIXED, "envoy", 0.85),
    Ratio {
        scenario: "http1-pass",
        load: SATURATION,
        ours: "bare",
        theirs: "nginx",
        bar: 1.15,
    },
];
/// What a thousand routes may cost, beside our own single route.
const ROUTES_BESIDE_ONE: f64 = 1.05;

/// Runs the scenarios with the programs in `folder` and computes the ratios.
pub(super) fn measure(folder: &Path, rounds: u32) -> Fallible<Vec<Reading>> {
    let file = workspace::target().join("xtask/ratios.json");
    let scenarios = ["http1-pass", "http2-pass", "routes-1000", "tcp-pass"];
    process::run(
        bench::harness(folder, &scenarios, "meshd,envoy,bare,nginx", rounds)?
            .arg("--json")
            .arg(&file),
    )?;
    let runs: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
    let mut readings: Vec<Reading> = RATIOS.iter().map(|ratio| read(&runs, ratio)).collect();
    readings.push(routes_beside_one(&runs));
    Ok(readings)
}

fn read(runs: &Value, ratio: &Ratio) -> Reading {
    let name = format!(
        "{} {} {}/{}",
        ratio.scenario, ratio.load, ratio.ours, ratio.theirs
    );
    let costs = |who| costs(&runs[ratio.scenario]["contestants"][who], ratio.load);
    match (costs(ratio.ours), costs(ratio.theirs)) {
        (Ok(ours), Ok(theirs)) if ours.len() != theirs.len() => {
            let why = format!("{} rounds beside {}", ours.len(), theirs.len());
            Reading::holds(name, why, format!("<= {}", ratio.bar), false)
        }
        (Ok(ours), Ok(theirs)) => {
            let each: Vec<f64> = ours
                .iter()
                .zip(&theirs)
                .map(|(ours, theirs)| ours / theirs)
                .collect();
            Reading::at_most(name, median(each), ratio.bar, "")
        }
        (Err(why), _) | (_, Err(why)) => {
            Reading::holds(name, why, format!("<= {}", ratio.bar), false)
        }
    }
}

fn routes_beside_one(runs: &Value) -> Reading {
    let name = "routes-1000/http1-pass, meshd at saturation";
    let cost =
        |scenario: &str| costs(&runs[scenario]["contestants"]["meshd"], SATURATION).map(median);
    match (cost("routes-1000"), cost("http1-pass")) {
        (Ok(many), Ok(one)) => Reading::at_most(name, many / one, ROUTES_BESIDE_ONE, ""),
        (Err(why), _) | (_, Err(why)) => {
            Reading::holds(name, why, format!("<= {ROUTES_BESIDE_ONE}"), false)
        }
    }
}

/// Microseconds of CPU per request, round by round; a contestant with any error has none.
fn costs(contestant: &Value, load: &str) -> Result<Vec<f64>, String> {
    if let Some(error) = contestant["error"].as_str() {
        return Err(format!(
            "not measured: {}",
            error.lines().next().unwrap_or_default()
        ));
    }
    let rounds = contestant[load]
        .as_array()
        .filter(|rounds| !rounds.is_empty())
        .ok_or("not measured")?;
    let cost = |round: &Value| match (round["errors"].as_u64(), round["cpu_us"].as_f64()) {
        (Some(0), Some(cost)) => Ok(cost),
        (Some(0), None) => Err("a round without a cost".to_owned()),
        (Some(errors), _) => Err(format!("invalid: {errors} errors in a round")),
        (None, _) => Err("a round that does not tell its errors".to_owned()),
    };
    rounds.iter().map(cost).collect()
}

/// The median; of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn runs(errors: u64) -> Value {
        let rounds = |costs: [f64; 3]| -> Vec<Value> {
            costs
                .iter()
                .map(|cost| json!({"cpu_us": cost, "errors": errors}))
                .collect()
        };
        json!({"http1-pass": {"contestants": {
            "meshd": {"error": null, "saturation": rounds([5.0, 6.0, 9.0])},
            "envoy": {"error": null, "saturation": rounds([10.0, 10.0, 10.0])},
            "gone": {"error": "exited with 1: no\nmore"},
        }}})
    }

    #[test]
    fn ratio_is_the_median_of_the_rounds() {
        let reading = read(&runs(0), &ratio("http1-pass", SATURATION, "envoy", 0.6));
        assert_eq!((reading.value.as_str(), reading.met), ("0.60", true));
    }

    #[test]
    fn errors_and_absent_contestants_miss_the_bar() {
        assert!(!read(&runs(1), &ratio("http1-pass", SATURATION, "envoy", 9.0)).met);
        let gone = read(&runs(0), &ratio("http1-pass", SATURATION, "gone", 9.0));
        assert_eq!(
            (gone.value.as_str(), gone.met),
            ("not measured: exited with 1: no", false)
        );
        assert!(!read(&runs(0), &ratio("no-such", SATURATION, "envoy", 9.0)).met);
    }
}
