//! What share of the requests each priority gets, by the health of its endpoints, as Envoy's load balancer computes it.

use super::lb::Part;

/// Envoy's factor by which a priority is taken for healthier than it is, per cent.
pub(super) const OVERPROVISIONING: u32 = 140;

/// The endpoints of one priority.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Census {
    pub(super) all: u32,
    /// Those among them that are about to go, which do not count.
    pub(super) excluded: u32,
    pub(super) healthy: u32,
    pub(super) degraded: u32,
}

impl Census {
    fn counted(&self) -> u32 {
        self.all.saturating_sub(self.excluded).max(1)
    }

    /// Per cent of its share that the priority can take with so many of its endpoints.
    fn availability(&self, count: u32, factor: u32) -> u32 {
        let of_all = u64::from(factor) * u64::from(count) / u64::from(self.counted());
        u32::try_from(of_all.min(100)).unwrap_or(100)
    }

    /// Whether too few endpoints are left to leave the others out.
    fn is_in_panic(&self, threshold: u32) -> bool {
        let usable = f64::from(self.healthy + self.degraded);
        let percent = 100.0 * usable / f64::from(self.counted());
        percent < f64::from(threshold)
    }
}

/// Requests of one share go to one part of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Sum of this share and those before it, per cent.
    pub(super) upto: u32,
    /// Place of the priority.
    pub(super) level: usize,
    pub(super) part: Part,
}

/// The shares of priorities, first choice first; `factor` is the overprovisioning factor and `threshold` the panic
/// threshold, both per cent. Empty if there is no endpoint.
pub(super) fn shares(levels: &[Census], factor: u32, threshold: u32) -> Vec<Share> {
    let healthy: Vec<u32> = levels
        .iter()
        .map(|level| level.availability(level.healthy, factor))
        .collect();
    let degraded: Vec<u32> = levels
        .iter()
        .map(|level| level.availability(level.degraded, factor))
        .collect();
    let available = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let panics: Vec<bool> = levels
        .iter()
        .map(|level| available < 100 && level.is_in_panic(threshold))
        .collect();
    let mut loads = if panics.iter().all(|panics| *panics) {
        by_size(levels)
    } else {
        by_availability(&healthy, &degraded, available)
    };
    for (level, part, _) in &mut loads {
        if panics[*level] {
            *part = Part::All;
        }
    }
    let mut upto = 0;
    loads.retain(|(_, _, load)| *load > 0);
    loads
        .into_iter()
        .map(|(level, part, load)| {
            upto += load;
            Share { upto, level, part }
        })
        .collect()
}

type Load = (usize, Part, u32);

/// Each priority takes what it can of what those before it left; degraded endpoints take what all healthy ones left.
fn by_availability(healthy: &[u32], degraded: &[u32], available: u32) -> Vec<Load> {
    if available == 0 {
        return healthy
            .first()
            .map(|_| (0, Part::Healthy, 100))
            .into_iter()
            .collect();
    }
    let mut left = 100;
    let mut loads = Vec::new();
    for (part, availabilities) in [(Part::Healthy, healthy), (Part::Degraded, degraded)] {
        for (level, availability) in availabilities.iter().enumerate() {
            let load = left.min(availability * 100 / available);
            left -= load;
            loads.push((level, part, load));
        }
    }
    // What rounding left goes to the first that takes traffic.
    if let Some((_, _, load)) = loads.iter_mut().find(|(_, _, load)| *load > 0) {
        *load += left;
    }
    loads
}

/// Where every priority has too few healthy endpoints, all take part by their number.
fn by_size(levels: &[Census]) -> Vec<Load> {
    let total: u64 = levels.iter().map(|level| u64::from(level.all)).sum();
    let mut loads: Vec<Load> = levels
        .iter()
        .enumerate()
        .map(|(level, census)| {
            let load = 100 * u64::from(census.all) / total.max(1);
            (level, Part::All, u32::try_from(load).unwrap_or(100))
        })
        .collect();
    let given: u32 = loads.iter().map(|(_, _, load)| load).sum();
    if let Some((_, _, load)) = loads.first_mut() {
        *load += 100 - given;
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::{Census, OVERPROVISIONING, Part, shares};

    /// Shares as (priority, part, per cent).
    fn of(levels: &[(u32, u32, u32)], factor: u32, threshold: u32) -> Vec<(usize, Part, u32)> {
        let levels: Vec<Census> = levels
            .iter()
            .map(|&(all, healthy, degraded)| Census {
                all,
                excluded: 0,
                healthy,
                degraded,
            })
            .collect();
        let mut before = 0;
        shares(&levels, factor, threshold)
            .into_iter()
            .map(|share| {
                let load = share.upto - before;
                before = share.upto;
                (share.level, share.part, load)
            })
            .collect()
    }

    /// The expectations were measured against Envoy 1.40.
    #[test]
    fn shares_are_envoys() {
        use Part::{All, Degraded, Healthy};
        let by_default = |levels: &[_]| of(levels, OVERPROVISIONING, 50);
        assert_eq!(by_default(&[]), []);
        assert_eq!(by_default(&[(1, 1, 0), (1, 1, 0)]), [(0, Healthy, 100)]);
        assert_eq!(
            by_default(&[(2, 1, 0), (1, 1, 0)]),
            [(0, Healthy, 70), (1, Healthy, 30)]
        );
        assert_eq!(by_default(&[(1, 0, 0), (1, 1, 0)]), [(1, Healthy, 100)]);
        assert_eq!(by_default(&[(2, 0, 0)]), [(0, All, 100)]);
        assert_eq!(by_default(&[(4, 1, 0)]), [(0, All, 100)]);
        assert_eq!(
            by_default(&[(4, 1, 0), (1, 1, 0)]),
            [(0, Healthy, 35), (1, Healthy, 65)]
        );
        assert_eq!(by_default(&[(2, 1, 0)]), [(0, Healthy, 100)]);
        assert_eq!(
            by_default(&[(2, 1, 1)]),
            [(0, Healthy, 70), (0, Degraded, 30)]
        );
        assert_eq!(
            of(&[(2, 1, 0), (1, 1, 0)], 100, 50),
            [(0, Healthy, 50), (1, Healthy, 50)]
        );
        assert_eq!(by_default(&[(1, 0, 1), (1, 1, 0)]), [(1, Healthy, 100)]);
        assert_eq!(by_default(&[(2, 0, 1)]), [(0, Degraded, 100)]);
        assert_eq!(by_default(&[(1, 0, 0), (1, 0, 1)]), [(1, Degraded, 100)]);
        assert_eq!(
            by_default(&[(2, 0, 0), (1, 0, 0)]),
            [(0, All, 67), (1, All, 33)]
        );
        assert_eq!(
            by_default(&[(1, 0, 0), (4, 1, 0)]),
            [(0, All, 20), (1, All, 80)]
        );
        assert_eq!(of(&[(2, 0, 0)], OVERPROVISIONING, 0), [(0, Healthy, 100)]);
        assert_eq!(of(&[(4, 1, 0)], OVERPROVISIONING, 20), [(0, Healthy, 100)]);
    }

    #[test]
    fn endpoints_that_are_about_to_go_cause_no_panic() {
        let of = |excluded, healthy| {
            let census = Census {
                all: 4,
                excluded,
                healthy,
                degraded: 0,
            };
            shares(&[census], OVERPROVISIONING, 50)[0].part
        };
        assert_eq!(of(3, 1), Part::Healthy);
        assert_eq!(of(2, 0), Part::All);
        assert_eq!(of(4, 0), Part::All);
    }
}
