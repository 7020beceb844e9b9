//! The attacks: what each sends, and how it may end.

use std::time::Duration;

use super::super::h2::{self, END_HEADERS, END_STREAM};
use super::{Ends, Flood, MOST, Plan};

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
        ends: Ends::Stopped,
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
        ends: Ends::Stopped,
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
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: DATA of one byte",
        rfc: "9113, 10.5",
        plan: || body_flood(frame(h2::DATA, 0, 1, b"a")),
        ends: Ends::Stopped,
    },
    Flood {
        name: "h2: HPACK bomb (CVE-2016-1544)",
        rfc: "9113, 10.5.1",
        plan: || streams(50, hpack_bomb),
        ends: Ends::Stopped,
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
        ends: Ends::Status(&[431]),
    },
];
