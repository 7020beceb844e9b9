//! What of the statistics is collected at all.

use std::fmt;

use super::Kind;

/// What is collected: a large configuration has millions of statistics, and what nobody asked for is not kept.
#[derive(Default)]
pub(super) enum Only {
    #[default]
    All,
    /// Those whose names it takes.
    Named(Box<dyn Fn(&str) -> bool>),
    /// Not the counters at zero, which [`Stats::used`](super::Stats::used) drops anyway.
    Counted,
}

impl Only {
    /// Whether a statistic of that name is collected.
    pub(super) fn names(&self, name: &str) -> bool {
        match self {
            Self::Named(wanted) => wanted(name),
            Self::All | Self::Counted => true,
        }
    }

    /// Whether a statistic of that value is.
    pub(super) fn counts(&self, kind: Kind, value: u64) -> bool {
        !matches!(self, Self::Counted) || kind == Kind::Gauge || value > 0
    }
}

impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Named(_) => "Named",
            Self::Counted => "Counted",
        })
    }
}
