//! Request smuggling, tried on a proxy from the outside.
//!
//! Every case sends bytes to the proxy; a raw upstream behind it reads what was sent on with the [strict](crate::strict) parser. A
//! case says which targets may arrive. Cases run at once, each under a path of its own, and share upstream connections, so that one
//! request swallowing another one shows as well.

pub mod cases;
mod h2;
mod upstream;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::strict::Request;

pub use cases::{CASES, Case, Want};
pub use upstream::{Seen, Upstream};

/// How long a connection may stay quiet until the case counts as answered.
const QUIET: Duration = Duration::from_millis(700);
/// The longest that a case may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Plays all cases through the proxy at `proxy`, whose upstream is `upstream`; one outcome for each case, in their order.
///
/// # Errors
///
/// The proxy cannot be reached at all.
pub fn play(
    proxy: SocketAddr,
    upstream: &Upstream,
) -> std::io::Result<Vec<(&'static str, Result<(), String>)>> {
    TcpStream::connect(proxy)?;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = CASES
            .iter()
            .enumerate()
            .map(|(n, case)| scope.spawn(move || send(proxy, &case.bytes(n))))
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("the client panicked".to_owned()))
            })
            .collect()
    });
    let seen = upstream.seen();
    Ok(CASES
        .iter()
        .enumerate()
        .zip(answers)
        .map(|((n, case), answer)| {
            (
                case.name,
                answer.and_then(|answer| judge(case, n, &answer, &seen)),
            )
        })
        .collect())
}

/// Sends `bytes`, then reads until the proxy closes or stays quiet.
fn send(proxy: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut socket = TcpStream::connect(proxy).map_err(|error| error.to_string())?;
    socket
        .set_read_timeout(Some(QUIET))
        .map_err(|error| error.to_string())?;
    // A proxy that refuses early may close before all is written; what it answered is still read below.
    let _ = socket.write_all(bytes);
    let (mut answer, mut block, start) = (Vec::new(), [0; 4096], Instant::now());
    while start.elapsed() < LIMIT {
        match socket.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(n) => answer.extend_from_slice(&block[..n]),
        }
    }
    let _ = socket.shutdown(Shutdown::Both);
    Ok(answer)
}

fn judge(case: &Case, n: usize, answer: &[u8], seen: &Seen) -> Result<(), String> {
    let prefix = cases::prefix(n);
    if let Some(violation) = seen.violations.iter().find(|text| text.contains(&prefix)) {
        return Err(format!("not strict upstream: {violation}"));
    }
    let arrived: Vec<&Request> = seen
        .requests
        .iter()
        .filter(|request| request.target.contains(&prefix))
        .collect();
    let targets: Vec<&str> = arrived
        .iter()
        .map(|request| request.target.as_str())
        .collect();
    let status = if case.is_h2() {
        h2::status(answer)
    } else {
        h1_status(answer)
    };
    let told = format!("arrived {targets:?}, answer {status:?}");
    let full = |names: &[&str]| {
        names
            .iter()
            .map(|name| format!("{prefix}{name}"))
            .collect::<Vec<_>>()
    };
    match case.want {
        Want::Refuse if !targets.is_empty() => return Err(format!("expected a refusal, {told}")),
        Want::Refuse if status.is_some_and(|status| status < 400) => {
            return Err(format!("expected a refusal, {told}"));
        }
        Want::Forward(names) if targets != full(names) => {
            return Err(format!("expected {names:?} to arrive, {told}"));
        }
        Want::AtMost(names)
            if !full(names)
                .starts_with(&targets.iter().map(ToString::to_string).collect::<Vec<_>>()) =>
        {
            return Err(format!("expected at most {names:?} to arrive, {told}"));
        }
        _ => {}
    }
    arrived.iter().try_for_each(|request| (case.check)(request))
}

/// The status code of the last head in an HTTP/1 answer that is not 1xx; a refusal after a good answer counts as refusal.
fn h1_status(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    let codes = text
        .match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    codes.filter(|code| *code >= 200).last()
}
