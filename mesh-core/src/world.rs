//! Time and chance, which a simulation sets so that one seed gives one run.
//!
//! Whatever mesh-core leaves to chance (shares of routes, picks, jitter, samples, ids), and every look at a clock, goes through this
//! module and the clock of requests; the lints of the crate refuse other ways. [`begin`] gives the calling thread chance of a
//! seed and a wall clock that goes with tokio's, which a simulation pauses; a mesh on that thread then does the same again:
//!
//! ```
//! # #[cfg(feature = "net")] {
//! use std::time::{Duration, SystemTime};
//!
//! use mesh_core::{telemetry::request_id, world};
//!
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
//! let run = |seed| runtime.block_on(async {
//!     let _it = world::begin(seed, SystemTime::UNIX_EPOCH);
//!     tokio::time::sleep(Duration::from_secs(3600)).await; // takes no time
//!     request_id::uuid()
//! });
//! assert_eq!(run(7), run(7));
//! assert_ne!(run(7), run(8));
//! # }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Numbers that count up in the process (of connections, endpoints) go on from run to run, and hyper writes `date` by itself.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    time::{Instant, SystemTime},
};

use rand::{
    RngExt, SeedableRng,
    distr::{Distribution, StandardUniform},
    rngs::Xoshiro256PlusPlus,
};

use crate::telemetry::clock;

thread_local! {
    static SEEDED: RefCell<Option<Xoshiro256PlusPlus>> = const { RefCell::new(None) };
    /// What time it was when.
    static WALL: Cell<Option<(SystemTime, Instant)>> = const { Cell::new(None) };
}

/// As long as it is there, the thread that made it has chance and a wall clock of its own.
#[derive(Debug)]
#[must_use = "when it is dropped, chance and time are the system's again"]
pub struct World {
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

/// Gives the calling thread chance of `seed`, the same on any machine, and a wall clock that shows `wall` now and goes with
/// tokio's clock from there. What the thread had before is over.
pub fn begin(seed: u64, wall: SystemTime) -> World {
    SEEDED.set(Some(Xoshiro256PlusPlus::seed_from_u64(seed)));
    WALL.set(Some((wall, clock::now())));
    World {
        thread: PhantomData,
    }
}

impl Drop for World {
    fn drop(&mut self) {
        SEEDED.set(None);
        WALL.set(None);
    }
}

/// A random value.
#[inline]
#[allow(clippy::disallowed_methods, reason = "this is where chance comes from")]
pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    SEEDED.with_borrow_mut(|seeded| match seeded {
        None => rand::random(),
        Some(seeded) => seeded.random(),
    })
}

/// The time of day, for lines of a log and what others say of it.
#[allow(clippy::disallowed_methods, reason = "this is where the wall clock is")]
pub(crate) fn wall() -> SystemTime {
    match WALL.get() {
        None => SystemTime::now(),
        Some((wall, since)) => wall + clock::now().saturating_duration_since(since),
    }
}
