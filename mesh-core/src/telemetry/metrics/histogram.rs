use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets, which Envoy uses for every histogram of Istio's.
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// The bounds in thousandths.
const THOUSANDTHS: [u64; BOUNDS.len()] = {
    let mut whole = [0; BOUNDS.len()];
    let mut at = 0;
    while at < whole.len() {
        whole[at] = (BOUNDS[at] * 1000.0) as u64;
        at += 1;
    }
    whole
};

/// A histogram of milliseconds or bytes.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The last bucket holds what is above all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Thousandths.
    sum: AtomicU64,
}

impl Histogram {
    /// Adds a value, given in thousandths (microseconds for milliseconds).
    pub fn record_thousandths(&self, value: u64) {
        let index = THOUSANDTHS.partition_point(|bound| *bound < value);
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        if value != 0 {
            self.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Adds a time, in milliseconds.
    pub fn record_time(&self, time: Duration) {
        self.record_thousandths(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a whole value.
    pub fn record(&self, value: u64) {
        self.record_thousandths(value.saturating_mul(1000));
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        let buckets = self.buckets.iter();
        buckets.map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// The value below which a share of the values lies, interpolated within its bucket; 0 if there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        let count = self.count();
        if count == 0 {
            return 0.0;
        }
        let wanted = share * count as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            let here = bucket.load(Ordering::Relaxed) as f64;
            let Some(upper) = BOUNDS.get(index) else {
                return lower;
            };
            if here > 0.0 && below + here >= wanted {
                return lower + (upper - lower) * ((wanted - below) / here);
            }
            below += here;
            lower = *upper;
        }
        lower
    }

    /// The buckets: upper bound, and how many values lie up to it and above the bound before. The last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.buckets.iter();
        bounds.zip(counts.map(|bucket| bucket.load(Ordering::Relaxed)))
    }

    /// Appends it in Prometheus' text format; `labels` are written as they are, without braces.
    pub fn render(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        let separator = if labels.is_empty() { "" } else { "," };
        for (bound, count) in self.buckets() {
            total += count;
            let bound = match bound.is_finite() {
                true => bound.to_string(),
                false => "+Inf".to_owned(),
            };
            let _ = writeln!(
                out,
                "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {total}"
            );
        }
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.sum());
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}
