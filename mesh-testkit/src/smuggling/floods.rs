//! Attacks by size, by time and by number: each is one connection, which must not cost the proxy more than a connection may.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::h2::{self, END_HEADERS, END_STREAM};

/// The longest that an attack may go on.
const LIMIT: Duration = Duration::from_secs(15);
/// A peer that takes nothing for so long holds back.
const HELD: Duration = Duration::from_secs(1);
/// What the proxy says after the last byte is waited for so long.
const QUIET: Duration = Duration::from_secs(6);
/// Most bytes that a flood without an end sends.
const MOST: usize = 64 << 20;
/// What a single connection may cost at most: 32 MiB of memory, 15 s of processor time. Windows of HTTP/2 are below.
const MOST_MEMORY: u64 = 32 << 10;

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
    /// The attack.
    pub flood: &'static Flood,
    /// What the client saw, in short.
    pub answer: String,
    /// The proxy answered, reset the stream or said goodbye.
    pub answered: bool,
    /// The client's port, by which the access log names the connection.
    pub port: u16,
    /// Whether it ended as it may.
    pub verdict: Result<(), String>,
}

/// Tries one attack on the proxy at `proxy`. `memory` gives the proxy's peak in KiB, where it is known.
pub fn attack(flood: &'static Flood, proxy: SocketAddr, memory: impl Fn() -> Option<u64>) -> Tried {
    let before = memory();
    let mut tried = Tried {
        flood,
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
    if let (Some(before), Some(after)) = (before, memory()) {
        let grown = after.saturating_sub(before);
        if grown > MOST_MEMORY {
            tried.verdict = Err(format!("{grown} KiB more memory; {}", tried.answer));
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

/// Sends `first`, then waits.
fn once(first: impl Into<Vec<u8>>) -> Plan {
    Plan {
        first: first.into(),
        piece: Vec::new(),
        times: 0,
        pause: Duration::ZERO,
        deaf: false,
        h2: false,
    }
}

/// `piece` again and again, until so many bytes are sent.
fn repeated(first: impl Into<Vec<u8>>, piece: Vec<u8>, bytes: usize) -> Plan {
    Plan {
        times: bytes / piece.len(),
        piece,
        ..once(first)
    }
}

/// A piece every fifth of a second.
fn slow(first: &str, piece: &str) -> Plan {
    Plan {
        piece: piece.into(),
        times: 60,
        pause: Duration::from_millis(200),
        ..once(first)
    }
}

fn h2_flood(first: Vec<u8>, piece: Vec<u8>, bytes: usize) -> Plan {
    Plan {
        h2: true,
        ..repeated([h2::preface(), first].concat(), piece, bytes)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    h2::frame(&mut out, kind, flags, stream, payload);
    out
}

/// A request head in HPACK.
fn head(method: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "http"),
        (":path", "/flood"),
        (":authority", "h"),
    ] {
        h2::field(&mut block, name, value);
    }
    block
}

/// Stream after stream, each with what `each` gives for it.
fn streams(count: u32, each: impl Fn(u32) -> Vec<u8>) -> Plan {
    let all = (0..count).flat_map(|n| each(2 * n + 1)).collect::<Vec<_>>();
    Plan {
        h2: true,
        ..once([h2::preface(), all].concat())
    }
}

/// A stream whose body has begun, and then `piece` for ever.
fn body_flood(piece: Vec<u8>) -> Plan {
    let open = frame(h2::HEADERS, END_HEADERS, 1, &head("POST"));
    h2_flood(open, piece.repeat(1000), 4 << 20)
}

/// A large field enters the table once, and is then named by one byte each time.
fn hpack_bomb(stream: u32) -> Vec<u8> {
    let mut block = head("GET");
    if stream == 1 {
        h2::indexed_field(&mut block, "bomb", &"b".repeat(3900));
    }
    // The newest entry of the dynamic table has index 62.
    block.extend(std::iter::repeat_n(0x80 | 62, 12_000));
    frame(h2::HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

fn deaf(plan: Plan) -> Plan {
    Plan { deaf: true, ..plan }
}

/// All attacks, in their order.
pub const FLOODS: &[Flood] = &[
    Flood {
        name: "a header of 70 KiB",
        rfc: "6585, 5",
        plan: || {
            once(format!(
                "GET /flood HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n",
                "a".repeat(70 << 10)
            ))
        },
        ends: Ends::Status(&[431]),
    },
    Flood {
        name: "200 headers",
        rfc: "6585, 5",
        plan: || {
            once(format!(
                "GET /flood HTTP/1.1\r\nHost: h\r\n{}\r\n",
                "X: a\r\n".repeat(200)
            ))
        },
        ends: Ends::Status(&[431]),
    },
    Flood {
        name: "a target of 70 KiB",
        rfc: "9112, 3",
        plan: || {
            once(format!(
                "GET /{} HTTP/1.1\r\nHost: h\r\n\r\n",
                "a".repeat(70 << 10)
            ))
        },
        ends: Ends::Status(&[414, 431]),
    },
    Flood {
        name: "headers without an end",
        rfc: "9110, 5.4",
        plan: || {
            repeated(
                "GET /flood HTTP/1.1\r\nHost: h\r\n",
                b"X: aaaa\r\n".repeat(1000),
                MOST,
            )
        },
        ends: Ends::Status(&[431]),
    },
    Flood {
        name: "empty lines without an end",
        rfc: "9112, 2.2",
        plan: || repeated("", b"\r\n".repeat(4096), MOST),
        ends: Ends::Status(&[400, 408, 431]),
    },
    Flood {
        name: "a chunk extension without an end",
        rfc: "9112, 7.1.1",
        plan: || {
            repeated(
                "POST /flood HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4;",
                b"a".repeat(8192),
                MOST,
            )
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "trailers without an end",
        rfc: "9112, 7.1.2",
        plan: || {
            repeated(
                "POST /flood HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                b"x: aaaa\r\n".repeat(1000),
                MOST,
            )
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "a head that stops",
        rfc: "9110, 15.5.9",
        plan: || once("GET /flood HTTP/1.1\r\nHost: h\r\n"),
        ends: Ends::Status(&[408]),
    },
    Flood {
        name: "a head byte by byte",
        rfc: "9110, 15.5.9",
        plan: || slow("GET /flood HTTP/1.1\r\nHost: h\r\nX: ", "a"),
        ends: Ends::Status(&[408]),
    },
    Flood {
        name: "a body that stops",
        rfc: "9110, 15.5.9",
        plan: || once("POST /flood HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nfour"),
        ends: Ends::Status(&[408, 504]),
    },
    Flood {
        name: "a body byte by byte",
        rfc: "9110, 15.5.9",
        plan: || {
            slow(
                "POST /flood HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n",
                "a",
            )
        },
        ends: Ends::Status(&[408, 504]),
    },
    Flood {
        name: "h2: half a preface",
        rfc: "9113, 3.4",
        plan: || once("PRI * HTTP/2.0\r\n\r\nSM"),
        ends: Ends::Status(&[400, 408, 505]),
    },
    Flood {
        name: "h2: a body that stops",
        rfc: "9113, 10.5",
        plan: || {
            h2_flood(
                frame(h2::HEADERS, END_HEADERS, 1, &head("POST")),
                b"?".to_vec(),
                0,
            )
        },
        ends: Ends::Status(&[408, 504]),
    },
    Flood {
        name: "h2: HEADERS without their end",
        rfc: "9113, 6.10",
        plan: || {
            h2_flood(
                frame(h2::HEADERS, END_STREAM, 1, &head("GET")),
                b"?".to_vec(),
                0,
            )
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: rapid reset (CVE-2023-44487)",
        rfc: "9113, 10.5",
        plan: || {
            streams(20_000, |stream| {
                let open = frame(h2::HEADERS, END_STREAM | END_HEADERS, stream, &head("GET"));
                [open, frame(h2::RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
            })
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: resets that the server has to send (CVE-2025-8671)",
        rfc: "9113, 10.5",
        plan: || {
            streams(20_000, |stream| {
                let open = frame(h2::HEADERS, END_STREAM | END_HEADERS, stream, &head("GET"));
                [
                    open,
                    frame(h2::WINDOW_UPDATE, 0, stream, &0u32.to_be_bytes()),
                ]
                .concat()
            })
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: streams over the limit",
        rfc: "9113, 5.1.2",
        plan: || {
            streams(2_000, |stream| {
                frame(h2::HEADERS, END_HEADERS, stream, &head("POST"))
            })
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: CONTINUATION without an end (CVE-2024-27316)",
        rfc: "9113, 6.10",
        plan: || {
            let mut block = Vec::new();
            h2::field(&mut block, "x", &"a".repeat(16_000));
            let open = frame(h2::HEADERS, END_STREAM, 1, &head("GET"));
            h2_flood(open, frame(h2::CONTINUATION, 0, 1, &block), MOST)
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: empty CONTINUATION without an end",
        rfc: "9113, 10.5",
        plan: || {
            let open = frame(h2::HEADERS, END_STREAM, 1, &head("GET"));
            h2_flood(
                open,
                frame(h2::CONTINUATION, 0, 1, &[]).repeat(1000),
                4 << 20,
            )
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: SETTINGS, answers unread (CVE-2019-9515)",
        rfc: "9113, 10.5",
        plan: || {
            deaf(h2_flood(
                Vec::new(),
                frame(h2::SETTINGS, 0, 0, &[]).repeat(1000),
                MOST,
            ))
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: SETTINGS, answers read",
        rfc: "9113, 10.5",
        plan: || {
            h2_flood(
                Vec::new(),
                frame(h2::SETTINGS, 0, 0, &[]).repeat(1000),
                4 << 20,
            )
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: PING, answers unread (CVE-2019-9512)",
        rfc: "9113, 10.5",
        plan: || {
            deaf(h2_flood(
                Vec::new(),
                frame(h2::PING, 0, 0, &[0; 8]).repeat(1000),
                MOST,
            ))
        },
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: PING, answers read",
        rfc: "9113, 10.5",
        plan: || {
            h2_flood(
                Vec::new(),
                frame(h2::PING, 0, 0, &[0; 8]).repeat(1000),
                4 << 20,
            )
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: PRIORITY (CVE-2019-9513)",
        rfc: "9113, 10.5",
        plan: || {
            h2_flood(
                Vec::new(),
                frame(h2::PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(1000),
                4 << 20,
            )
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: WINDOW_UPDATE",
        rfc: "9113, 10.5",
        plan: || {
            h2_flood(
                Vec::new(),
                frame(h2::WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()).repeat(1000),
                4 << 20,
            )
        },
        ends: Ends::Any,
    },
    Flood {
        name: "h2: empty DATA (CVE-2019-9518)",
        rfc: "9113, 10.5",
        plan: || body_flood(frame(h2::DATA, 0, 1, &[])),
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: DATA that is padding only",
        rfc: "9113, 10.5",
        plan: || body_flood(frame(h2::DATA, 8, 1, &[1, 0])),
        ends: Ends::Any,
    },
    Flood {
        name: "h2: DATA of one byte",
        rfc: "9113, 10.5",
        plan: || body_flood(frame(h2::DATA, 0, 1, b"a")),
        ends: Ends::Any,
    },
    Flood {
        name: "h2: HPACK bomb (CVE-2016-1544)",
        rfc: "9113, 10.5.1",
        plan: || streams(50, hpack_bomb),
        ends: Ends::Any,
    },
    Flood {
        name: "h2: a header of 70 KiB",
        rfc: "9113, 10.5.1",
        plan: || {
            let mut block = head("GET");
            h2::field(&mut block, "x", &"a".repeat(70 << 10));
            let mut pieces = block.chunks(16_384);
            let first = pieces.next().unwrap_or_default();
            let mut bytes = frame(h2::HEADERS, END_STREAM, 1, first);
            let mut rest = pieces.peekable();
            while let Some(piece) = rest.next() {
                let flags = if rest.peek().is_none() {
                    END_HEADERS
                } else {
                    0
                };
                bytes.extend(frame(h2::CONTINUATION, flags, 1, piece));
            }
            h2_flood(bytes, b"?".to_vec(), 0)
        },
        ends: Ends::Any,
    },
];
