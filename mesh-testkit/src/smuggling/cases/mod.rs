//! The cases, as bytes.
//!
//! In them `§` stands for the path prefix of the case, `¶` for a whole request to `§smuggled`, `‡` for the length of that request. Where
//! `¶` arrives as a request though the case does not list it, somebody was fooled.

mod http1;
mod http2;

use super::h2;
use crate::strict::Request;

/// One try.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is wrong with it.
    pub name: &'static str,
    /// The RFC and its section.
    pub rfc: &'static str,
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

const fn h1(name: &'static str, rfc: &'static str, want: Want, text: &'static str) -> Case {
    Case {
        name,
        rfc,
        send: Send::H1(text),
        want,
        check: any,
    }
}

const fn h1_check(
    name: &'static str,
    rfc: &'static str,
    want: Want,
    check: fn(&Request) -> Result<(), String>,
    text: &'static str,
) -> Case {
    Case {
        name,
        rfc,
        send: Send::H1(text),
        want,
        check,
    }
}

const fn h2_case(
    name: &'static str,
    rfc: &'static str,
    want: Want,
    fields: &'static [(&'static str, &'static str)],
    body: &'static str,
) -> Case {
    Case {
        name,
        rfc,
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

/// Every case, in their order.
pub fn all() -> impl Iterator<Item = &'static Case> {
    http1::CASES.iter().chain(http2::CASES)
}
