//! Lines go into a buffer, and a thread writes what has come together. A request never waits for the disk.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::{self, Write},
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{model::LogSink, sync::lock, telemetry::clock};

/// Bytes that may wait; lines beyond are dropped and counted.
const LIMIT: usize = 4 << 20;
/// Bytes that wake the thread at once.
const BATCH: usize = 16 << 10;
/// The longest that a line waits.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long whoever drops the last clone waits for the last write. It may be a thread that carries traffic, and a pipe that nobody
/// reads takes nothing ever.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is said at most that the sink takes nothing.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Writes lines from all threads to one sink. Cloning shares; when the last clone is gone, what waits is written, as far as the
/// sink takes it within two seconds.
#[derive(Clone, Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// Tells that there is no thread any more.
    ended: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    closed: bool,
    /// The sink is to be opened again, once what waits is written.
    reopen: bool,
    /// Nobody writes any more.
    ended: bool,
}

/// The end of the thread, also by a panic.
struct End<'q>(&'q Queue);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.ended.notify_all();
    }
}

/// What lines are written to.
type Out = Box<dyn Write + Send>;

/// The writers of the process, by sink.
static WRITERS: LazyLock<Mutex<HashMap<LogSink, Weak<Shared>>>> = LazyLock::new(Mutex::default);

fn writers() -> MutexGuard<'static, HashMap<LogSink, Weak<Shared>>> {
    lock(&WRITERS)
}

impl LogWriter {
    /// A writer to `out`. If no thread can be started, lines are dropped and counted.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        let mut out: Option<Out> = Some(Box::new(out));
        Self::open(move || Ok(out.take()))
    }

    /// Lets the lines of `sink` go to `out`, in the whole process, as long as the writer that is returned lives: for a program
    /// that has its standard output for something else. Logs that were compiled before go on as they are.
    pub fn redirect(sink: LogSink, out: impl Write + Send + 'static) -> Self {
        let writer = Self::new(out);
        writers().insert(sink, Arc::downgrade(&writer.shared));
        writer
    }

    /// The writer of a sink: one in the process for each.
    pub fn shared(sink: &LogSink) -> Self {
        let mut writers = writers();
        if let Some(shared) = writers.get(sink).and_then(Weak::upgrade) {
            return Self { shared };
        }
        let kind = sink.clone();
        let writer = Self::open(move || open(&kind).map(Some));
        writers.retain(|_, shared| shared.strong_count() > 0);
        writers.insert(sink.clone(), Arc::downgrade(&writer.shared));
        writer
    }

    /// Opens the files of all sinks again, by their names, once what waits is written to the old ones: for whoever has moved
    /// them away.
    pub fn reopen_all() {
        for shared in writers().values().filter_map(Weak::upgrade) {
            shared.queue.lock().reopen = true;
            shared.queue.wake.notify_one();
        }
    }

    /// Where there is nothing (more) to open, what was opened before stays.
    fn open(mut open: impl FnMut() -> io::Result<Option<Out>> + Send + 'static) -> Self {
        let queue = Arc::new(Queue::default());
        let own = queue.clone();
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                let _end = End(&own);
                own.run(&mut open);
            });
        if let Err(error) = &thread {
            tracing::error!(%error, "Failed to start the thread of an access log");
            queue.lock().ended = true;
        }
        Self {
            shared: Arc::new(Shared { queue }),
        }
    }

    /// Queues a line, which ends with its own newline.
    pub fn write(&self, line: &[u8]) {
        let queue = &self.shared.queue;
        let mut waiting = queue.lock();
        if waiting.lines.len() + line.len() > LIMIT {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let before = waiting.lines.len();
        waiting.lines.extend_from_slice(line);
        // The first line starts the interval, a full batch ends it.
        let wake = before == 0 || before < BATCH && waiting.lines.len() >= BATCH;
        drop(waiting);
        if wake {
            queue.wake.notify_one();
        }
    }

    /// Lines that were dropped because the sink was too slow.
    pub fn dropped(&self) -> u64 {
        self.shared.queue.dropped.load(Ordering::Relaxed)
    }
}

impl Queue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn run(&self, open: &mut dyn FnMut() -> io::Result<Option<Out>>) {
        let mut opened = || {
            open().unwrap_or_else(|error| {
                tracing::error!(%error, "Failed to open an access log");
                None
            })
        };
        let mut out = opened().unwrap_or_else(|| Box::new(io::sink()));
        let mut batch = Vec::new();
        let mut said: Option<Instant> = None;
        loop {
            let (closed, reopen) = {
                let mut waiting = self.lock();
                while waiting.lines.is_empty() && !waiting.closed && !waiting.reopen {
                    waiting = self
                        .wake
                        .wait(waiting)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                if waiting.lines.len() < BATCH && !waiting.closed && !waiting.reopen {
                    waiting = self
                        .wake
                        .wait_timeout(waiting, INTERVAL)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                std::mem::swap(&mut batch, &mut waiting.lines);
                (waiting.closed, std::mem::take(&mut waiting.reopen))
            };
            if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
                    tracing::warn!(%error, "Failed to write an access log");
                    said = Some(clock::now());
                }
            }
            batch.clear();
            // Where that fails, lines go on to where they went.
            if let Some(new) = reopen.then(&mut opened).flatten() {
                out = new;
            }
            if closed && self.lock().lines.is_empty() {
                return;
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.closed = true;
        self.queue.wake.notify_one();
        // Past that time the thread ends with its write, or with the process.
        let writes = |waiting: &mut Waiting| !waiting.ended;
        let ended = self
            .queue
            .ended
            .wait_timeout_while(waiting, PATIENCE, writes);
        drop(ended);
    }
}

fn open(sink: &LogSink) -> io::Result<Out> {
    Ok(match sink {
        LogSink::Stdout => Box::new(io::stdout()),
        LogSink::Stderr => Box::new(io::stderr()),
        LogSink::File(path) => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
    })
}
