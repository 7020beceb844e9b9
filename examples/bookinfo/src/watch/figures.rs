//! From counters to figures: requests per second, share, success and latency over the last few seconds.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::prometheus;

/// Figures cover at most this time.
const WINDOW: Duration = Duration::from_secs(5);

/// Who calls whom.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Edge {
    /// The calling workload.
    pub caller: String,
    /// The service that it calls.
    pub service: String,
    /// The version that answered; `-` when none did, `missing` when the mesh led to one that does not exist.
    pub version: String,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Who calls whom.
    pub edge: Edge,
    /// Requests per second.
    pub rate: f64,
    /// This version's part of what the caller asks of the service, from 0 to 1.
    pub share: f64,
    /// The part of the requests that was answered with a status below 500, from 0 to 1.
    pub success: f64,
    /// The median time of a request, in milliseconds.
    pub p50: f64,
    /// The time that one request in a hundred exceeds, in milliseconds.
    pub p99: f64,
}

/// Counters of one edge, as they stand or as a difference.
#[derive(Clone, Debug, Default)]
struct Counts {
    requests: f64,
    good: f64,
    /// Cumulative counts by upper bound in milliseconds; bounds as bits, to be ordered (all are positive).
    buckets: BTreeMap<u64, f64>,
}

type Snapshot = BTreeMap<Edge, Counts>;

/// Keeps what was read in the last seconds.
#[derive(Debug, Default)]
pub struct Figures {
    history: VecDeque<(Instant, Snapshot)>,
}

impl Figures {
    /// Takes in what all sidecars say at one moment. A sidecar that is missing once keeps its last counters.
    pub fn take<'a>(&mut self, now: Instant, texts: impl IntoIterator<Item = &'a str>) {
        let mut snapshot = self
            .history
            .back()
            .map(|(_, last)| last.clone())
            .unwrap_or_default();
        for (edge, counts) in read(texts) {
            snapshot.insert(edge, counts);
        }
        self.history.push_back((now, snapshot));
        while self
            .history
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW)
        {
            self.history.pop_front();
        }
    }

    /// One row for each edge that was in use within the window.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let (Some((from, first)), Some((to, last))) = (self.history.front(), self.history.back())
        else {
            return Vec::new();
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds <= 0.0 {
            return Vec::new();
        }
        let used: Vec<_> = last
            .iter()
            .map(|(edge, counts)| {
                (
                    edge,
                    first
                        .get(edge)
                        .map_or_else(|| counts.clone(), |before| counts.since(before)),
                )
            })
            .filter(|(_, counts)| counts.requests > 0.0)
            .collect();
        let mut asked: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for (edge, counts) in &used {
            *asked.entry((&edge.caller, &edge.service)).or_default() += counts.requests;
        }
        let row = |(edge, counts): &(&Edge, Counts)| Row {
            edge: (*edge).clone(),
            rate: counts.requests / seconds,
            share: counts.requests / asked[&(edge.caller.as_str(), edge.service.as_str())],
            success: counts.good / counts.requests,
            p50: counts.quantile(0.50),
            p99: counts.quantile(0.99),
        };
        used.iter().map(row).collect()
    }
}

fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for sample in texts.into_iter().flat_map(prometheus::samples) {
        if !sample.name.starts_with("istio_request") || sample.label("reporter") != "source" {
            continue;
        }
        let or_dash = |label| match sample.label(label) {
            "" | "unknown" => "-".to_owned(),
            known => known.to_owned(),
        };
        let edge = Edge {
            caller: or_dash("source_workload"),
            service: or_dash("destination_service_name"),
            version: match is_missing(sample.label("response_flags")) {
                true => "missing".to_owned(),
                false => or_dash("destination_version"),
            },
        };
        match sample.name {
            "istio_requests_total" => {
                let counts = snapshot.entry(edge).or_default();
                counts.requests += sample.value;
                if is_good(sample.label("response_code")) {
                    counts.good += sample.value;
                }
            }
            "istio_request_duration_milliseconds_bucket" => {
                if let Ok(bound) = sample.label("le").trim_start_matches('+').parse::<f64>() {
                    *snapshot
                        .entry(edge)
                        .or_default()
                        .buckets
                        .entry(bound.to_bits())
                        .or_default() += sample.value;
                }
            }
            _ => {}
        }
    }
    snapshot
}

/// Whether the flags say that there is no such cluster, as of a subset that no DestinationRule has.
fn is_missing(flags: &str) -> bool {
    flags.split(',').any(|flag| flag == "NC")
}

/// `0` is a request that the caller gave up.
fn is_good(code: &str) -> bool {
    code.parse::<u16>()
        .is_ok_and(|code| (100..500).contains(&code))
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        if self.requests < before.requests {
            return self.clone(); // the sidecar began anew
        }
        let mut buckets = self.buckets.clone();
        for (bound, count) in &mut buckets {
            *count -= before.buckets.get(bound).copied().unwrap_or_default();
        }
        Self {
            requests: self.requests - before.requests,
            good: self.good - before.good,
            buckets,
        }
    }

    /// The value below which this part of the requests lies; within a bucket, they are taken as spread evenly.
    fn quantile(&self, part: f64) -> f64 {
        let total = self
            .buckets
            .last_key_value()
            .map_or(0.0, |(_, count)| *count);
        let rank = part * total;
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, &count) in &self.buckets {
            let bound = f64::from_bits(*bound);
            if count >= rank && count > below {
                if bound.is_infinite() {
                    return low;
                }
                return low + (bound - low) * (rank - below) / (count - below);
            }
            (low, below) = (bound, count);
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: &str, ok: u32, failed: u32, buckets: &[(&str, u32)]) -> String {
        let labels = format!(
            "reporter=\"source\",source_workload=\"productpage-v1\",destination_service_name=\"reviews\",destination_version=\"{version}\""
        );
        let mut text = format!(
            "istio_requests_total{{{labels},response_code=\"200\"}} {ok}\nistio_requests_total{{{labels},response_code=\"503\"}} {failed}\n"
        );
        for (bound, count) in buckets {
            text += &format!(
                "istio_request_duration_milliseconds_bucket{{{labels},le=\"{bound}\"}} {count}\n"
            );
        }
        text
    }

    #[test]
    fn rates_shares_success_and_latency_of_the_window() {
        let start = Instant::now();
        let mut figures = Figures::default();
        let before = [text("v1", 100, 0, &[("1", 100), ("5", 100), ("+Inf", 100)])];
        figures.take(start, before.iter().map(String::as_str));
        assert!(figures.rows().is_empty(), "one reading is no rate");
        let after = [
            text("v1", 190, 0, &[("1", 145), ("5", 190), ("+Inf", 190)]),
            text("v3", 5, 5, &[("1", 0), ("5", 10), ("+Inf", 10)]),
        ];
        figures.take(
            start + Duration::from_secs(2),
            after.iter().map(String::as_str),
        );
        let rows = figures.rows();
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].rate, rows[0].share, rows[0].success),
            (45.0, 0.9, 1.0)
        );
        assert!(
            (rows[0].p50 - 1.0).abs() < 1e-9 && (rows[0].p99 - 4.92).abs() < 1e-9,
            "{:?}",
            rows[0]
        );
        assert_eq!(
            (rows[1].rate, rows[1].share, rows[1].success),
            (5.0, 0.1, 0.5)
        );
    }

    #[test]
    fn an_edge_that_is_no_longer_used_leaves_and_a_restart_counts_from_zero() {
        let start = Instant::now();
        let mut figures = Figures::default();
        let high = text("v1", 100, 0, &[]);
        for second in 0..=6 {
            figures.take(start + Duration::from_secs(second), [high.as_str()]);
        }
        assert!(figures.rows().is_empty());
        figures.take(
            start + Duration::from_secs(7),
            [text("v1", 10, 0, &[]).as_str()],
        );
        assert_eq!(figures.rows().len(), 1);
        assert!(figures.rows()[0].rate > 0.0);
    }

    #[test]
    fn a_version_that_does_not_exist_is_missing() {
        let mut figures = Figures::default();
        let start = Instant::now();
        let lost = text("unknown", 0, 9, &[]).replace("503\"", "503\",response_flags=\"NC,DI\"");
        figures.take(start, [""]);
        figures.take(start + Duration::from_secs(1), [lost.as_str()]);
        let missing = figures
            .rows()
            .into_iter()
            .find(|row| row.edge.version == "missing");
        let missing = missing.expect("a row");
        assert_eq!((missing.rate, missing.success), (9.0, 0.0));
    }

    #[test]
    fn what_the_destination_reports_is_not_counted_twice() {
        let mut figures = Figures::default();
        let start = Instant::now();
        let inbound = text("v1", 10, 0, &[]).replace("\"source\"", "\"destination\"");
        figures.take(start, [""]);
        figures.take(start + Duration::from_secs(1), [inbound.as_str()]);
        assert!(figures.rows().is_empty());
    }
}
