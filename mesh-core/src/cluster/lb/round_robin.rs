//! Members in turn, each as often as its weight says.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Endpoint;

/// Longest schedule; weights are scaled down to fit.
const MAX_SCHEDULE: u64 = 4096;

/// How many cursors there are; workers beyond share them.
const CURSORS: usize = 16;

#[derive(Debug)]
pub(super) struct RoundRobin {
    /// Places of members in the order of picks; empty when all weights are equal.
    schedule: Box<[u32]>,
    /// One a worker, each on a cache line of its own, so that workers do not contend.
    cursors: Box<[Cursor]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Cursor(AtomicUsize);

impl RoundRobin {
    pub(super) fn new(members: &[Arc<Endpoint>]) -> Self {
        let weights: Vec<u64> = members
            .iter()
            .map(|endpoint| u64::from(endpoint.weight()))
            .collect();
        let cursors = (0..if members.len() > 1 { CURSORS } else { 0 })
            .map(|_| Cursor::default())
            .collect();
        Self {
            schedule: schedule(&weights),
            cursors,
        }
    }

    pub(super) fn choose<'a>(&self, members: &'a [Arc<Endpoint>]) -> Option<&'a Arc<Endpoint>> {
        if members.len() <= 1 {
            return members.first();
        }
        let len = if self.schedule.is_empty() {
            members.len()
        } else {
            self.schedule.len()
        };
        let cursor = &self.cursors[worker() % CURSORS].0;
        let turn = cursor.load(Ordering::Relaxed);
        // The cursor is this worker's own: a lost update under sharing only repeats a member.
        cursor.store(
            if turn + 1 >= len { 0 } else { turn + 1 },
            Ordering::Relaxed,
        );
        let place = if self.schedule.is_empty() {
            turn
        } else {
            self.schedule[turn % len] as usize
        };
        members.get(place % members.len())
    }
}

/// A number for the calling thread, given in the order in which threads first pick.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static WORKER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    WORKER.with(|worker| *worker)
}

/// Earliest-deadline-first order of the weights: each member appears by its share, spread evenly.
fn schedule(weights: &[u64]) -> Box<[u32]> {
    if weights.windows(2).all(|pair| pair[0] == pair[1]) {
        return Box::default();
    }
    let divisor = weights.iter().copied().reduce(gcd).unwrap_or(1).max(1);
    let total: u64 = weights.iter().map(|weight| weight / divisor).sum();
    let scale = total.div_ceil(MAX_SCHEDULE).max(1);
    let shares: Vec<u64> = weights
        .iter()
        .map(|weight| (weight / divisor / scale).max(1))
        .collect();
    let mut turns: Vec<(f64, u32)> = shares
        .iter()
        .enumerate()
        .flat_map(|(place, share)| {
            (1..=*share).map(move |turn| (turn as f64 / *share as f64, place as u32))
        })
        .collect();
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, place)| place).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::schedule;

    #[test]
    fn schedule_gives_each_its_share_spread_out() {
        assert!(schedule(&[1, 1, 1]).is_empty());
        assert_eq!(&*schedule(&[2, 1]), &[0, 0, 1]);
        let long = schedule(&[90_000, 10_000]);
        assert_eq!(long.len(), 10);
        assert_eq!(long.iter().filter(|place| **place == 1).count(), 1);
        assert!(schedule(&[u64::from(u32::MAX), 1]).len() <= 4097);
    }
}
