//! Traffic for the page: open loop, so that a slow answer does not slow the next request down.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::caller::{Caller, Plain};

/// The most requests that wait for an answer at one time; further ones are counted as not sent.
const MAX_WAITING: usize = 2048;

/// How long a page may take; Istio's own productpage takes up to nine seconds when everything times out.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Answered with status 200.
    pub good: u64,
    /// Answered with another status, or not at all.
    pub failed: u64,
    /// Not sent, since too many waited.
    pub unsent: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "load: {} pages, {} failed, {} not sent",
            self.good, self.failed, self.unsent
        )
    }
}

#[derive(Debug, Default)]
struct Counters {
    good: AtomicU64,
    failed: AtomicU64,
    unsent: AtomicU64,
}

impl Counters {
    fn report(&self) -> Report {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            good: read(&self.good),
            failed: read(&self.failed),
            unsent: read(&self.unsent),
        }
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Load {
    /// Asks for `http://address/productpage` so many times a second, until it is stopped.
    #[must_use]
    pub fn start(address: SocketAddr, per_second: f64) -> Self {
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(generate(
            address,
            per_second,
            Arc::clone(&counters),
            stopped,
        ));
        Self {
            counters,
            stop,
            task,
        }
    }

    /// What became of the requests so far.
    #[must_use]
    pub fn report(&self) -> Report {
        self.counters.report()
    }

    /// Sends no more, and waits for the answers until the deadline. Requests without one by then count as failed.
    pub async fn stop(self, deadline: Instant) -> Report {
        self.stop.send_replace(true);
        let mut task = self.task;
        if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
            task.abort();
            let _ = task.await;
        }
        self.counters.report()
    }
}

async fn generate(
    address: SocketAddr,
    per_second: f64,
    counters: Arc<Counters>,
    mut stopped: watch::Receiver<bool>,
) {
    let caller = Plain::new(address);
    let every = Duration::from_secs_f64(1.0 / per_second);
    let mut due = Instant::now();
    let mut waiting = JoinSet::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due) => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
        due += every;
        while waiting.try_join_next().is_some() {}
        if waiting.len() >= MAX_WAITING {
            counters.unsent.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        waiting.spawn(page(caller.clone(), address, Arc::clone(&counters)));
    }
    while waiting.join_next().await.is_some() {}
}

/// Counts itself as failed unless the answer says otherwise, so a request that is cut off is counted, too.
async fn page(caller: Plain, address: SocketAddr, counters: Arc<Counters>) {
    let mut outcome = Outcome {
        counters,
        good: false,
    };
    let Ok(request) =
        Request::get(format!("http://{address}/productpage")).body(Empty::<Bytes>::new())
    else {
        return;
    };
    let answer = tokio::time::timeout(PATIENCE, caller.call(request)).await;
    outcome.good = matches!(answer, Ok(Ok(answer)) if answer.status() == StatusCode::OK);
}

struct Outcome {
    counters: Arc<Counters>,
    good: bool,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let counter = if self.good {
            &self.counters.good
        } else {
            &self.counters.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
