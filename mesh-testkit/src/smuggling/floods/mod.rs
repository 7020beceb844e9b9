//! Attacks by size, by time and by number: each is one connection, which must not cost the proxy more than a connection may.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::h2;
use crate::program::Used;

mod list;

pub use list::FLOODS;

/// The longest that an attack may go on.
const LIMIT: Duration = Duration::from_secs(15);
/// A peer that takes nothing for so long holds back.
const HELD: Duration = Duration::from_secs(1);
/// What the proxy says after the last byte is waited for so long.
const QUIET: Duration = Duration::from_secs(6);
/// Most bytes that a flood without an end sends.
const MOST: usize = 64 << 20;
/// KiB of memory that a single connection may cost at most. Windows of HTTP/2 are below.
const MOST_MEMORY: u64 = 32 << 10;
/// Processor time that it may cost at most.
const MOST_CPU: Duration = Duration::from_secs(5);

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// What is sent.
    pub name: &'static str,
    /// The RFC and its section.
    pub rfc: &'static str,
    plan: fn() -> Plan,
    /// How it may end.
    ends: Ends,
}

/// How an attack may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The proxy answers with one of these statuses, or closes.
    Status(&'static [u16]),
    /// The proxy ends the connection, or reads no further.
    Stopped,
    /// The proxy may take all: each byte costs it no more than it costs the peer.
    Any,
}

/// What is sent on a connection.
struct Plan {
    /// At once.
    first: Vec<u8>,
    /// Again and again, with a pause before each.
    piece: Vec<u8>,
    times: usize,
    pause: Duration,
    /// The peer reads nothing while it sends.
    deaf: bool,
    h2: bool,
}

/// An attack after it was tried.
#[derive(Debug)]
pub struct Tried {
    /// What the client saw, in short.
    pub answer: String,
    /// The proxy answered, reset the stream or said goodbye.
    pub answered: bool,
    /// The client's port, by which the access log names the connection.
    pub port: u16,
    /// Whether it ended as it may.
    pub verdict: Result<(), String>,
}

/// Tries one attack on the proxy at `proxy`, of which `used` tells what it has used.
pub fn attack(flood: &'static Flood, proxy: SocketAddr, used: impl Fn() -> Used) -> Tried {
    let before = used();
    let mut tried = Tried {
        answer: String::new(),
        answered: false,
        port: 0,
        verdict: Ok(()),
    };
    let seen = match run(&(flood.plan)(), proxy) {
        Ok(seen) => seen,
        Err(error) => {
            tried.verdict = Err(error.to_string());
            return tried;
        }
    };
    tried.port = seen.port;
    tried.answered = if seen.h2 {
        h2::answer(&seen.bytes) != h2::Answer::default()
    } else {
        seen.status().is_some()
    };
    tried.answer = seen.words();
    tried.verdict = seen.judge(flood.ends);
    let after = used();
    if let (Some(before), Some(after)) = (before.peak, after.peak) {
        let grown = after.saturating_sub(before);
        if grown > MOST_MEMORY {
            tried.verdict = Err(format!("{grown} KiB more memory; {}", tried.answer));
        }
    }
    if let (Some(before), Some(after)) = (before.cpu, after.cpu) {
        let spent = after.saturating_sub(before);
        if spent > MOST_CPU {
            tried.verdict = Err(format!("{spent:?} of processor time; {}", tried.answer));
        }
    }
    if let Err(error) = healthy(proxy) {
        tried.verdict = Err(format!("others suffer: {error}; {}", tried.answer));
    }
    tried
}

/// A plain request on another connection is still answered.
fn healthy(proxy: SocketAddr) -> Result<(), String> {
    let ask = || {
        let mut socket = TcpStream::connect(proxy)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"GET /healthy HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 200") => Ok(()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What the client of an attack saw.
struct Outcome {
    port: u16,
    h2: bool,
    bytes: Vec<u8>,
    closed: bool,
    /// All was sent.
    complete: bool,
    sent: usize,
    /// The proxy stopped reading.
    held: bool,
    after: Duration,
}

impl Outcome {
    fn status(&self) -> Option<u16> {
        if self.h2 {
            h2::answer(&self.bytes).status
        } else {
            super::h1_status(&self.bytes)
        }
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.status().map(|status| status.to_string()));
        if self.h2 {
            let answer = h2::answer(&self.bytes);
            let resets = answer.resets;
            words.extend(answer.reset.map(|code| match resets {
                1 => format!("RST_STREAM {code}"),
                _ => format!("{resets} × RST_STREAM {code}"),
            }));
            words.extend(answer.goaway.map(|code| format!("GOAWAY {code}")));
        }
        if self.closed {
            words.push(match self.after.as_secs() {
                0 => "closed".to_owned(),
                seconds => format!("closed after {seconds} s"),
            });
        }
        if self.held {
            words.push("reads no further".to_owned());
        }
        if !self.complete {
            words.push(format!("{} KiB taken", self.sent >> 10));
        } else if words.is_empty() {
            words.push("takes all".to_owned());
        }
        words.join(", ")
    }

    fn judge(&self, ends: Ends) -> Result<(), String> {
        let good = match ends {
            Ends::Status(statuses) => match self.status() {
                Some(status) => statuses.contains(&status),
                None => self.closed,
            },
            Ends::Stopped => self.closed || self.held || h2::answer(&self.bytes).goaway.is_some(),
            Ends::Any => true,
        };
        if good {
            Ok(())
        } else {
            Err(format!("expected {ends:?}, seen {}", self.words()))
        }
    }
}

fn run(plan: &Plan, proxy: SocketAddr) -> std::io::Result<Outcome> {
    let mut socket = TcpStream::connect(proxy)?;
    socket.set_write_timeout(Some(HELD))?;
    socket.set_read_timeout(Some(QUIET))?;
    let port = socket.local_addr()?.port();
    let start = Instant::now();
    let (begin, begun) = mpsc::channel();
    let reader = std::thread::spawn({
        let socket = socket.try_clone()?;
        move || read(socket, &begun, start)
    });
    if !plan.deaf {
        let _ = begin.send(());
    }
    let (mut sent, mut held, mut complete) = (0, false, true);
    let pieces = std::iter::repeat_n(&plan.piece, plan.times);
    for (n, piece) in std::iter::once(&plan.first).chain(pieces).enumerate() {
        if n > 0 && !plan.pause.is_zero() {
            std::thread::sleep(plan.pause);
        }
        if let Err(error) = socket.write_all(piece) {
            held = error.kind() == std::io::ErrorKind::WouldBlock;
            complete = false;
            break;
        }
        sent += piece.len();
        if start.elapsed() > LIMIT || (!plan.pause.is_zero() && reader.is_finished()) {
            complete = false;
            break;
        }
    }
    if held {
        // It has been seen that the proxy waits; what it would say later matters no more.
        let _ = socket.shutdown(Shutdown::Both);
    }
    let _ = begin.send(());
    let (bytes, closed, after) = reader.join().unwrap_or_default();
    let _ = socket.shutdown(Shutdown::Both);
    Ok(Outcome {
        port,
        h2: plan.h2,
        bytes,
        closed: closed && !held,
        complete,
        sent,
        held,
        after,
    })
}

/// Reads until the proxy closes or stays quiet: the bytes, whether it closed, and when that was.
fn read(
    mut socket: TcpStream,
    begun: &mpsc::Receiver<()>,
    start: Instant,
) -> (Vec<u8>, bool, Duration) {
    let _ = begun.recv();
    let (mut bytes, mut block) = (Vec::new(), [0; 64 << 10]);
    loop {
        match socket.read(&mut block) {
            Ok(0) => return (bytes, true, start.elapsed()),
            Ok(n) if bytes.len() < MOST => bytes.extend_from_slice(&block[..n]),
            Ok(_) => {}
            Err(error) => {
                let closed = error.kind() != std::io::ErrorKind::WouldBlock;
                return (bytes, closed, start.elapsed());
            }
        }
    }
}
