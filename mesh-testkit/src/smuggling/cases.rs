//! The cases, as bytes.
//!
//! In them `§` stands for the path prefix of the case, `¶` for a whole request to `§smuggled`, `‡` for the length of that request. Where
//! `¶` arrives as a request though the case does not list it, somebody was fooled.

use super::h2;
use crate::strict::Request;

/// One try.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is wrong with it.
    pub name: &'static str,
    send: Send,
    /// What may arrive upstream.
    pub want: Want,
    /// What else must hold for each request that arrives.
    pub check: fn(&Request) -> Result<(), String>,
}

#[derive(Debug, Clone, Copy)]
enum Send {
    H1(&'static str),
    H2(&'static [(&'static str, &'static str)], &'static str),
}

/// What may arrive upstream.
#[derive(Debug, Clone, Copy)]
pub enum Want {
    /// Exactly these targets.
    Forward(&'static [&'static str]),
    /// No more than these targets, or an initial part of them.
    AtMost(&'static [&'static str]),
    /// Nothing; the client sees an error or a closed connection.
    Refuse,
}

impl Case {
    /// Whether the case talks HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self.send, Send::H2(..))
    }

    /// The bytes of case number `n`.
    pub fn bytes(&self, n: usize) -> Vec<u8> {
        match self.send {
            Send::H1(text) => fill(text, n).into_bytes(),
            Send::H2(fields, body) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (fill(name, n), fill(value, n)))
                    .collect();
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                h2::connection(&fields, fill(body, n).as_bytes())
            }
        }
    }
}

/// The path prefix of case number `n`; all have the same length.
pub fn prefix(n: usize) -> String {
    format!("/c{n:03}/")
}

fn fill(text: &str, n: usize) -> String {
    let inner = format!("GET {}smuggled HTTP/1.1\r\nHost: h\r\n\r\n", prefix(n));
    text.replace('§', &prefix(n))
        .replace('‡', &inner.len().to_string())
        .replace('¶', &inner)
}

fn any(_: &Request) -> Result<(), String> {
    Ok(())
}

fn host_b(request: &Request) -> Result<(), String> {
    match request.header("host") {
        Some("b") => Ok(()),
        other => Err(format!("expected Host b upstream, seen {other:?}")),
    }
}

fn no_upgrade(request: &Request) -> Result<(), String> {
    match request
        .header("upgrade")
        .or(request.header("http2-settings"))
    {
        None => Ok(()),
        Some(value) => Err(format!("an upgrade nobody allowed was sent on: {value}")),
    }
}

fn no_secret(request: &Request) -> Result<(), String> {
    match request.header("x-secret") {
        None => Ok(()),
        Some(_) => Err("a header that Connection names was sent on".to_owned()),
    }
}

fn body_of_4(request: &Request) -> Result<(), String> {
    if request.body == b"four" {
        Ok(())
    } else {
        Err(format!(
            "expected the body \"four\", seen {:?}",
            request.body
        ))
    }
}

const fn h1(name: &'static str, want: Want, text: &'static str) -> Case {
    Case {
        name,
        send: Send::H1(text),
        want,
        check: any,
    }
}

const fn h1_check(
    name: &'static str,
    want: Want,
    check: fn(&Request) -> Result<(), String>,
    text: &'static str,
) -> Case {
    Case {
        name,
        send: Send::H1(text),
        want,
        check,
    }
}

const fn h2_case(
    name: &'static str,
    want: Want,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> Case {
    Case {
        name,
        send: Send::H2(fields, body),
        want,
        check: any,
    }
}

const A: &[&str] = &["a"];
const M: (&str, &str) = (":method", "POST");
const S: (&str, &str) = (":scheme", "http");
const P: (&str, &str) = (":path", "§a");
const H: (&str, &str) = (":authority", "h");

/// Every case. RFC 9112 (HTTP/1.1) and RFC 9113 (HTTP/2) say what is malformed.
pub const CASES: &[Case] = &[
    // Good requests, so that a proxy that refuses all cannot pass.
    h1(
        "plain",
        Want::Forward(A),
        "GET §a HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    h1(
        "pipelined",
        Want::Forward(&["a", "b"]),
        "GET §a HTTP/1.1\r\nHost: h\r\n\r\nGET §b HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    h1_check(
        "length",
        Want::Forward(A),
        body_of_4,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nfour",
    ),
    h1_check(
        "chunked",
        Want::Forward(A),
        body_of_4,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    ),
    h1_check(
        "absolute form wins over Host",
        Want::Forward(A),
        host_b,
        "GET http://b§a HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    // Framing.
    h1(
        "both framings, length covers a request",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n¶",
    ),
    h1(
        "both framings, chunk covers a request",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n¶\r\n0\r\n\r\n",
    ),
    h1(
        "two lengths that differ",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: ‡\r\n\r\n¶",
    ),
    h1(
        "two lengths in a list",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 0, ‡\r\n\r\n¶",
    ),
    h1(
        "two equal lengths",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nfour",
    ),
    h1(
        "length with a plus",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: +‡\r\n\r\n¶",
    ),
    h1(
        "negative length",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n¶",
    ),
    h1(
        "hexadecimal length",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 0x28\r\n\r\n¶",
    ),
    h1(
        "length with a space within",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 4 0\r\n\r\n¶",
    ),
    h1(
        "empty length",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n¶",
    ),
    h1(
        "length beyond all numbers",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551656\r\n\r\n¶",
    ),
    h1(
        "space before the colon of a length",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nContent-Length : ‡\r\n\r\n¶",
    ),
    h1(
        "space before the colon of a coding",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n¶",
    ),
    h1(
        "unknown coding",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n¶",
    ),
    h1(
        "chunked not last",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n¶",
    ),
    h1(
        "coding in two headers",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n¶\r\n0\r\n\r\n",
    ),
    h1(
        "coding with a vertical tab",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n¶",
    ),
    h1(
        "quoted coding",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n¶",
    ),
    h1(
        "coding in HTTP/1.0",
        Want::AtMost(A),
        "POST §a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n¶\r\n0\r\n\r\n",
    ),
    // Chunks: the head is good, so a proxy that streams has sent it on; the request must not come to a good end.
    h1(
        "chunk size with 0x",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x4\r\nfour\r\n0\r\n\r\n",
    ),
    h1(
        "negative chunk size",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-4\r\nfour\r\n0\r\n\r\n",
    ),
    h1(
        "chunk size beyond all numbers",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000004\r\nfour\r\n0\r\n\r\n",
    ),
    h1(
        "chunk longer than its size",
        Want::Refuse,
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfour\r\n0\r\n\r\n",
    ),
    h1(
        "chunk size with a bare LF",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\nfour\n0\n\n¶",
    ),
    h1(
        "chunk extension with a LF",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n2f\r\n0\r\n\r\n¶\r\n0\r\n\r\n",
    ),
    h1(
        "length in a trailer",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: ‡\r\n\r\n",
    ),
    // Lines.
    h1(
        "folded header",
        Want::AtMost(A),
        "GET §a HTTP/1.1\r\nHost: h\r\nX: a\r\n Content-Length: ‡\r\n\r\n",
    ),
    h1(
        "folded first header",
        Want::Refuse,
        "GET §a HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n",
    ),
    h1("bare LF", Want::AtMost(A), "GET §a HTTP/1.1\nHost: h\n\n"),
    h1(
        "bare LF hides a header",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nX: a\nContent-Length: ‡\r\n\r\n¶",
    ),
    h1(
        "bare CR in a value",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
    ),
    h1(
        "NUL in a value",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n",
    ),
    h1(
        "header name with a bracket",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\nX[a]: 1\r\n\r\n",
    ),
    h1(
        "empty header name",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
    ),
    h1(
        "line without a colon",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
    ),
    h1(
        "space in the target",
        Want::Refuse,
        "GET §a b HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    h1(
        "tab for space",
        Want::Refuse,
        "GET\t§a\tHTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    h1(
        "NUL in the target",
        Want::Refuse,
        "GET §a\0 HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    h1(
        "version 1.2",
        Want::AtMost(A),
        "GET §a HTTP/1.2\r\nHost: h\r\n\r\n",
    ),
    h1(
        "version 2.0",
        Want::Refuse,
        "GET §a HTTP/2.0\r\nHost: h\r\n\r\n",
    ),
    h1("no version", Want::Refuse, "GET §a\r\n\r\n"),
    h1(
        "method with a bracket",
        Want::Refuse,
        "G(ET §a HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    // Host and hop-by-hop headers.
    h1("no Host", Want::Refuse, "GET §a HTTP/1.1\r\nX: a\r\n\r\n"),
    h1(
        "two Hosts",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h\r\nHost: b\r\n\r\n",
    ),
    h1(
        "Host with a space",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h b\r\n\r\n",
    ),
    h1(
        "Host with a path",
        Want::Refuse,
        "GET §a HTTP/1.1\r\nHost: h/b\r\n\r\n",
    ),
    h1_check(
        "Connection names a header",
        Want::Forward(A),
        no_secret,
        "GET §a HTTP/1.1\r\nHost: h\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n",
    ),
    h1(
        "Connection names the length",
        Want::AtMost(A),
        "POST §a HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: ‡\r\n\r\n¶",
    ),
    h1(
        "Connection names the host",
        Want::AtMost(A),
        "GET §a HTTP/1.1\r\nHost: h\r\nConnection: host\r\n\r\n",
    ),
    h1_check(
        "upgrade to h2c",
        Want::AtMost(A),
        no_upgrade,
        "GET §a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ),
    // From HTTP/2 down to HTTP/1.1.
    h2_case("h2: plain", Want::Forward(A), &[M, S, P, H], ""),
    h2_case(
        "h2: body",
        Want::Forward(A),
        &[M, S, P, H, ("content-length", "4")],
        "four",
    ),
    h2_case(
        "h2: length of 0 with a body",
        Want::Refuse,
        &[M, S, P, H, ("content-length", "0")],
        "¶",
    ),
    h2_case(
        "h2: length shorter than the body",
        Want::Refuse,
        &[M, S, P, H, ("content-length", "4")],
        "four¶",
    ),
    h2_case(
        "h2: two lengths",
        Want::Refuse,
        &[M, S, P, H, ("content-length", "4"), ("content-length", "5")],
        "four",
    ),
    h2_case(
        "h2: coding",
        Want::Refuse,
        &[M, S, P, H, ("transfer-encoding", "chunked")],
        "0\r\n\r\n¶",
    ),
    h2_case(
        "h2: connection",
        Want::Refuse,
        &[M, S, P, H, ("connection", "close")],
        "",
    ),
    h2_case(
        "h2: CR LF in a value",
        Want::Refuse,
        &[M, S, P, H, ("x", "a\r\n\r\n¶")],
        "",
    ),
    h2_case(
        "h2: LF in a value",
        Want::Refuse,
        &[M, S, P, H, ("x", "a\nb: c")],
        "",
    ),
    h2_case(
        "h2: NUL in a value",
        Want::Refuse,
        &[M, S, P, H, ("x", "a\0b")],
        "",
    ),
    h2_case(
        "h2: CR LF in a name",
        Want::Refuse,
        &[M, S, P, H, ("x: a\r\ny", "b")],
        "",
    ),
    h2_case(
        "h2: colon in a name",
        Want::Refuse,
        &[M, S, P, H, ("x:y", "b")],
        "",
    ),
    h2_case(
        "h2: space in a name",
        Want::Refuse,
        &[M, S, P, H, ("x y", "b")],
        "",
    ),
    h2_case(
        "h2: upper case in a name",
        Want::Refuse,
        &[M, S, P, H, ("X", "b")],
        "",
    ),
    h2_case(
        "h2: request in the path",
        Want::Refuse,
        &[M, S, (":path", "§a HTTP/1.1\r\nHost: h\r\n\r\n¶"), H],
        "",
    ),
    h2_case(
        "h2: space in the path",
        Want::Refuse,
        &[M, S, (":path", "§a b"), H],
        "",
    ),
    h2_case(
        "h2: request in the method",
        Want::Refuse,
        &[
            (":method", "GET §smuggled HTTP/1.1\r\nHost: h\r\n\r\nGET"),
            S,
            P,
            H,
        ],
        "",
    ),
    h2_case(
        "h2: CR LF in the authority",
        Want::Refuse,
        &[M, S, P, (":authority", "h\r\nx: y")],
        "",
    ),
    h2_case(
        "h2: two paths",
        Want::Refuse,
        &[M, S, P, (":path", "§smuggled"), H],
        "",
    ),
    h2_case("h2: no path", Want::Refuse, &[M, S, H], ""),
    h2_case(
        "h2: empty path",
        Want::Refuse,
        &[M, S, (":path", ""), H],
        "",
    ),
    h2_case(
        "h2: unknown pseudo-header",
        Want::Refuse,
        &[M, S, P, H, (":x", "y")],
        "",
    ),
    h2_case(
        "h2: pseudo-header after a header",
        Want::Refuse,
        &[M, S, P, ("x", "y"), H],
        "",
    ),
];
