//! Interim responses (1xx): what an upstream says before its response, and a client that waits for 100.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};

use super::Deadline;
use crate::{
    names::{KEEP_ALIVE, PROXY_CONNECTION},
    sync::lock,
    telemetry::clock,
};

/// How long a client that expects 100 is left waiting for an upstream that says nothing. Such an upstream waits for the body, and
/// asking for that is what says 100 to the client.
const PATIENCE: Duration = Duration::from_secs(1);

/// Interim heads on their way to the client of one HTTP/1.1 connection (`proxy_100_continue`).
///
/// They are written between responses only, so each is held against the exchange for which it came.
pub(crate) struct Interims {
    /// Number of the exchange whose response has not begun; 0: there is none. Written by the connection's task alone.
    open: AtomicU64,
    /// Something is queued.
    queued: AtomicBool,
    /// What was read last did not end as a head does: a body came with it.
    amid: AtomicBool,
    queue: Mutex<Vec<(u64, Vec<u8>)>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Interims {
    /// `wake`: makes the connection's task flush.
    #[cfg(feature = "server")]
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            open: AtomicU64::new(0),
            queued: AtomicBool::new(false),
            amid: AtomicBool::new(false),
            queue: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    /// Exchange number `exchange` begins; 0: the response to the last one does, or its client takes no interim head.
    #[cfg(feature = "server")]
    pub(crate) fn open(&self, exchange: u64) {
        self.open.store(exchange, Ordering::Release);
    }

    /// Bytes came from the client.
    #[cfg(feature = "server")]
    pub(crate) fn came(&self, bytes: &[u8]) {
        let amid = !bytes.ends_with(b"\r\n\r\n");
        if self.amid.load(Ordering::Relaxed) != amid {
            self.amid.store(amid, Ordering::Relaxed);
        }
    }

    /// Whether the client sent a body with the head that it sent last.
    pub(crate) fn has_body(&self) -> bool {
        self.amid.load(Ordering::Relaxed)
    }

    /// Whether something is to be written ahead of the response that does not begin before.
    #[cfg(feature = "server")]
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::Acquire)
    }

    /// The exchange whose response has not begun.
    #[cfg(feature = "client")]
    pub(crate) fn exchange(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Queues an interim head that came for `exchange`; whether the client still waits for that response.
    #[cfg(feature = "client")]
    pub(crate) fn pass(&self, exchange: u64, status: StatusCode, headers: &HeaderMap) -> bool {
        if exchange == 0 || self.exchange() != exchange {
            return false;
        }
        lock(&self.queue).push((exchange, head(status, headers)));
        self.queued.store(true, Ordering::Release);
        (self.wake)();
        true
    }

    /// What is queued for the exchange whose response has not begun. Asked by the connection's task, when all that the codec wrote
    /// is out.
    #[cfg(feature = "server")]
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        if !self.is_queued() {
            return None;
        }
        let mut queue = lock(&self.queue);
        self.queued.store(false, Ordering::Release);
        let open = self.open.load(Ordering::Acquire);
        let heads = queue.drain(..);
        let heads = heads.filter(|(exchange, _)| *exchange == open);
        Some(heads.flat_map(|(_, head)| head).collect())
    }
}

impl fmt::Debug for Interims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interims").finish_non_exhaustive()
    }
}

/// An interim head as HTTP/1.1 writes it (RFC 9110 section 15.2): without a body, and without what is about the connection.
#[cfg(feature = "client")]
fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in headers {
        let hop = [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            KEEP_ALIVE,
            PROXY_CONNECTION,
        ];
        if hop.contains(name) {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A client that sends its body when it is told to (`expect: 100-continue`), as its request and the upstream's connection share it.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    state: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

const OPEN: u8 = 0;
/// Nobody will say that the body is wanted.
const WAIVED: u8 = 1;
/// The upstream said so.
const MET: u8 = 2;

impl Expectation {
    /// The upstream wants the body.
    #[cfg(feature = "client")]
    pub(crate) fn meet(&self) {
        self.set(MET);
    }

    /// The upstream cannot be heard to want the body.
    #[cfg(feature = "client")]
    pub(crate) fn waive(&self) {
        self.set(WAIVED);
    }

    #[cfg(feature = "client")]
    fn set(&self, state: u8) {
        self.state.fetch_max(state, Ordering::AcqRel);
        if let Some(waker) = lock(&self.waker).take() {
            waker.wake();
        }
    }

    fn get(&self) -> u8 {
        self.state.load(Ordering::Acquire)
    }
}

/// Keeps a body from being asked for, since that is what tells its client to send it.
#[derive(Debug)]
pub(crate) enum Hold {
    /// Until the upstream wants it.
    Until(Arc<Expectation>, Deadline),
    /// Not at all: the client is told by us.
    Never,
}

impl Hold {
    pub(crate) fn until(expectation: Arc<Expectation>) -> Self {
        let patience = clock::after(clock::now(), PATIENCE);
        Self::Until(expectation, Deadline::alone(patience))
    }

    /// Ready when the body may be asked for; whether it is we who tell the client, without its upstream.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        let Self::Until(expectation, until) = self else {
            return Poll::Ready(true);
        };
        if expectation.get() == OPEN {
            *lock(&expectation.waker) = Some(context.waker().clone());
        }
        // It may have been met before the waker was there.
        match expectation.get() {
            OPEN => Pin::new(until).poll(context).map(|()| true),
            state => Poll::Ready(state != MET),
        }
    }
}

#[cfg(all(test, feature = "server", feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_for_its_own_exchange_and_says_nothing_of_the_connection() {
        let interims = Interims::new(|| {});
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "</a>"),
            ("connection", "close"),
            ("content-length", "3"),
        ] {
            headers.insert(name, value.parse().expect("a value"));
        }
        let hint = StatusCode::from_u16(103).expect("a status");
        interims.open(1);
        assert!(interims.pass(1, hint, &headers));
        assert!(interims.is_queued());
        let taken = interims.take().expect("it was queued");
        assert_eq!(taken, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert_eq!(interims.take(), None);
        // It comes too late for its response, and must not stand before another.
        interims.open(0);
        assert!(!interims.pass(1, hint, &headers));
        interims.open(2);
        assert!(!interims.pass(1, hint, &headers));
        assert!(interims.pass(2, hint, &headers));
        interims.open(3);
        assert_eq!(interims.take().as_deref(), Some(&[][..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_held_until_it_is_wanted_or_for_a_second() {
        let begun = tokio::time::Instant::now();
        let silent = Arc::<Expectation>::default();
        let mut hold = Hold::until(silent);
        assert!(std::future::poll_fn(|cx| hold.poll_over(cx)).await);
        assert_eq!(begun.elapsed(), PATIENCE);
        let asked = Arc::<Expectation>::default();
        let mut hold = Hold::until(asked.clone());
        let waits =
            tokio::spawn(async move { std::future::poll_fn(|cx| hold.poll_over(cx)).await });
        tokio::task::yield_now().await;
        asked.meet();
        assert!(
            !waits.await.expect("it ends"),
            "the upstream tells the client"
        );
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(std::future::poll_fn(|cx| Hold::Never.poll_over(cx)).await);
    }
}
