//! Distributions as they are shown: by quantiles, or by the buckets that hold them.
//!
//! Envoy shows each for the last interval too, which is not kept here: what would be of it is empty.

use std::fmt::Write as _;

use mesh_core::telemetry::metrics::Histogram;
use serde_json::{Value, json};

/// The quantiles that Envoy shows, in percent.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// What is shown of distributions (`histogram_buckets`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Buckets {
    /// No buckets, but quantiles.
    #[default]
    Summary,
    /// How many values lie up to each bound.
    Cumulative,
    /// How many lie up to it and above the bound before.
    Disjoint,
    /// Those that hold any, and the quantiles.
    Detailed,
}

/// A distribution at one moment.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) name: String,
    /// Prometheus name.
    pub(super) metric: String,
    /// Prometheus labels, without braces.
    labels: String,
    buckets: Vec<(f64, u64)>,
    sum: f64,
    pub(super) count: u64,
    quantiles: [f64; QUANTILES.len()],
    /// In Prometheus' text format.
    pub(super) prometheus: String,
}

impl Shown {
    pub(super) fn of(name: String, metric: String, labels: String, histogram: &Histogram) -> Self {
        let mut prometheus = String::new();
        histogram.render(&metric, &labels, &mut prometheus);
        Self {
            name,
            metric,
            labels,
            buckets: histogram.buckets().collect(),
            sum: histogram.sum(),
            count: histogram.count(),
            quantiles: QUANTILES.map(|quantile| histogram.quantile(quantile / 100.0)),
            prometheus,
        }
    }

    /// Envoy's line.
    pub(super) fn text(&self, buckets: Buckets) -> String {
        let name = &self.name;
        if self.count == 0 {
            return format!("{name}: No recorded values\n");
        }
        match buckets {
            Buckets::Summary => format!("{name}: {}\n", self.quantiles()),
            Buckets::Cumulative | Buckets::Disjoint => {
                let parts = self.bounded(buckets).into_iter();
                let parts = parts.map(|(bound, count)| format!("B{bound}(0,{count})"));
                format!("{name}: {}\n", parts.collect::<Vec<_>>().join(" "))
            }
            Buckets::Detailed => {
                let parts = self.filled().into_iter();
                let parts = parts.map(|(lower, width, count)| format!("{lower},{width}:{count}"));
                let totals = parts.collect::<Vec<_>>().join(", ");
                let summary = self.quantiles();
                format!("{name}:\n  totals={totals}\n  intervals=\n  summary={summary}\n")
            }
        }
    }

    fn quantiles(&self) -> String {
        let parts = QUANTILES.iter().zip(self.quantiles);
        let parts = parts.map(|(quantile, value)| format!("P{quantile}(nan,{value})"));
        parts.collect::<Vec<_>>().join(" ")
    }

    /// The buckets with a bound.
    fn bounded(&self, buckets: Buckets) -> Vec<(f64, u64)> {
        let mut total = 0;
        let finite = self.buckets.iter().filter(|(bound, _)| bound.is_finite());
        finite
            .map(|(bound, count)| {
                total += count;
                match buckets {
                    Buckets::Cumulative => (*bound, total),
                    _ => (*bound, *count),
                }
            })
            .collect()
    }

    /// The buckets that hold values: lower bound, width, and how many.
    fn filled(&self) -> Vec<(f64, f64, u64)> {
        let mut lower = 0.0;
        let mut out = Vec::new();
        for (bound, count) in &self.buckets {
            if *count > 0 {
                let width = if bound.is_finite() {
                    bound - lower
                } else {
                    0.0
                };
                out.push((lower, width, *count));
            }
            lower = *bound;
        }
        out
    }

    fn json(&self, buckets: Buckets) -> Value {
        let quantiles = || {
            let value = |value: &f64| match self.count {
                0 => json!({"interval": null, "cumulative": null}),
                _ => json!({"interval": null, "cumulative": value}),
            };
            self.quantiles.iter().map(value).collect::<Value>()
        };
        match buckets {
            Buckets::Summary => json!({"name": self.name, "values": quantiles()}),
            Buckets::Cumulative | Buckets::Disjoint => {
                let list = self.bounded(buckets).into_iter().map(|(bound, count)| {
                    json!({"upper_bound": bound, "interval": 0, "cumulative": count})
                });
                json!({"name": self.name, "buckets": list.collect::<Value>()})
            }
            Buckets::Detailed => {
                let list = self.filled().into_iter().map(|(lower, width, count)| {
                    json!({"lower_bound": lower, "width": width, "count": count})
                });
                json!({
                    "name": self.name,
                    "totals": list.collect::<Value>(),
                    "intervals": [],
                    "percentiles": quantiles(),
                })
            }
        }
    }

    /// As a summary in Prometheus' text format.
    pub(super) fn summary(&self, out: &mut String) {
        let Self { metric, labels, .. } = self;
        let separator = if labels.is_empty() { "" } else { "," };
        for (quantile, value) in QUANTILES.iter().zip(self.quantiles) {
            let quantile = quantile / 100.0;
            let _ = writeln!(
                out,
                "{metric}{{{labels}{separator}quantile=\"{quantile}\"}} {value}"
            );
        }
        let _ = writeln!(out, "{metric}_sum{{{labels}}} {}", self.sum);
        let _ = writeln!(out, "{metric}_count{{{labels}}} {}", self.count);
    }
}

/// Envoy's JSON for all distributions.
pub(super) fn json(all: &[Shown], buckets: Buckets) -> Value {
    let list: Value = all.iter().map(|shown| shown.json(buckets)).collect();
    let histograms = match buckets {
        Buckets::Summary => json!({"supported_quantiles": QUANTILES, "computed_quantiles": list}),
        Buckets::Cumulative | Buckets::Disjoint => list,
        Buckets::Detailed => json!({"supported_percentiles": QUANTILES, "details": list}),
    };
    json!({ "histograms": histograms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Shown {
        let histogram = Histogram::default();
        for value in [2, 3, 400, 5_000_000] {
            histogram.record(value);
        }
        Shown::of("h".into(), "m".into(), "a=\"b\"".into(), &histogram)
    }

    #[test]
    fn buckets_are_cumulative_disjoint_or_only_those_that_hold_values() {
        let line = shown().text(Buckets::Cumulative);
        assert!(
            line.starts_with("h: B0.5(0,0) B1(0,0) B5(0,2) B10(0,2) "),
            "{line}"
        );
        assert!(line.ends_with(" B3600000(0,3)\n"), "{line}");
        let line = shown().text(Buckets::Disjoint);
        assert!(
            line.contains(" B5(0,2) B10(0,0) ") && line.contains(" B500(0,1) "),
            "{line}"
        );
        let text = shown().text(Buckets::Detailed);
        let totals = "h:\n  totals=1,4:2, 250,250:1, 3600000,0:1\n  intervals=\n  summary=P0(nan,";
        assert!(text.starts_with(totals), "{text}");
        let empty = Shown::of("e".into(), "m".into(), String::new(), &Histogram::default());
        assert_eq!(empty.text(Buckets::Detailed), "e: No recorded values\n");
    }

    #[test]
    fn json_has_envoys_members() {
        let all = [shown()];
        let of = |buckets| json(&all, buckets)["histograms"].clone();
        assert_eq!(of(Buckets::Summary)["computed_quantiles"][0]["name"], "h");
        let cumulative = of(Buckets::Cumulative);
        let third = json!({"upper_bound": 5.0, "interval": 0, "cumulative": 2});
        assert_eq!(cumulative[0]["buckets"][2], third);
        let detail = &of(Buckets::Detailed)["details"][0];
        let first = json!({"lower_bound": 1.0, "width": 4.0, "count": 2});
        assert_eq!(detail["totals"][0], first);
        assert_eq!(detail["percentiles"].as_array().map(Vec::len), Some(10));
    }

    #[test]
    fn a_summary_has_quantiles_a_sum_and_a_count() {
        let mut out = String::new();
        shown().summary(&mut out);
        assert_eq!(out.lines().count(), 12);
        assert!(out.starts_with("m{a=\"b\",quantile=\"0\"} "), "{out}");
        assert!(
            out.ends_with("m_sum{a=\"b\"} 5000405\nm_count{a=\"b\"} 4\n"),
            "{out}"
        );
    }
}
