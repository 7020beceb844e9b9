//! Attacks on a proxy from the outside: request smuggling, floods and slow peers.
//!
//! Every smuggling case sends bytes to the proxy; a raw upstream behind it reads what was sent on with the [strict](crate::strict)
//! parser. A case says which targets may arrive. Cases run at once, each under a path of its own, and share upstream connections, so
//! that one request swallowing another one shows as well. Each of the [`floods`] has a proxy of its own, so that what it costs can be
//! told, and [`start`] starts the proxy, its access log included.

pub mod cases;
pub mod floods;
mod h2;
mod upstream;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::program::{Program, free_port};
use crate::strict::Request;

pub use cases::{Case, Want};
pub use upstream::{Seen, Upstream};

/// The configuration, with places for ports and log.
const CONFIG: &str = include_str!("proxy.yaml");
/// How long a connection may stay quiet until the case counts as answered.
const QUIET: Duration = Duration::from_millis(1500);
/// The longest that a case may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts the program at `path` with `upstream` behind it; where it listens.
///
/// # Errors
///
/// As of [`Program::start`].
pub fn start(path: &Path, upstream: SocketAddr) -> std::io::Result<(Program, SocketAddr)> {
    let port = free_port()?;
    let program = Program::start(path, &[port], |folder, admin| {
        CONFIG
            .replace("{listen_port}", &port.to_string())
            .replace("{admin_port}", &admin.to_string())
            .replace("{upstream_port}", &upstream.port().to_string())
            .replace("{log}", &folder.join("access.log").display().to_string())
    })?;
    Ok((program, ([127, 0, 0, 1], port).into()))
}

/// The lines of an access log about the connection from a port, without that address.
pub fn lines_of(log: &str, port: u16) -> Vec<String> {
    let of = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        let (_, seen) = address.rsplit_once(':')?;
        (seen == port.to_string()).then(|| rest.to_owned())
    };
    log.lines().filter_map(of).collect()
}

/// A case after it was played.
#[derive(Debug)]
pub struct Played {
    /// The case.
    pub case: &'static Case,
    /// What the client and the upstream saw, in short.
    pub answer: String,
    /// The proxy answered, reset the stream or said goodbye.
    pub answered: bool,
    /// The client's port, by which the access log names the connection.
    pub port: u16,
    /// Whether it is as the case wants it.
    pub verdict: Result<(), String>,
}

/// Plays all cases through the proxy at `proxy`, whose upstream is `upstream`, and gives them in their order.
///
/// # Errors
///
/// The proxy cannot be reached at all.
pub fn play(proxy: SocketAddr, upstream: &Upstream) -> std::io::Result<Vec<Played>> {
    TcpStream::connect(proxy)?;
    let answers: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = cases::all()
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
    Ok(cases::all()
        .enumerate()
        .zip(answers)
        .map(|((n, case), answer)| match answer {
            Ok(answer) => Played {
                case,
                answer: describe(case, n, &answer, &seen),
                answered: answer.is_some(case),
                port: answer.port,
                verdict: judge(case, n, &answer, &seen),
            },
            Err(error) => Played {
                case,
                answer: error.clone(),
                answered: false,
                port: 0,
                verdict: Err(error),
            },
        })
        .collect())
}

/// What a client saw.
struct Answer {
    bytes: Vec<u8>,
    closed: bool,
    port: u16,
}

impl Answer {
    fn is_some(&self, case: &Case) -> bool {
        if case.is_h2() {
            h2::answer(&self.bytes) != h2::Answer::default()
        } else {
            self.status(case).is_some()
        }
    }

    fn status(&self, case: &Case) -> Option<u16> {
        if case.is_h2() {
            h2::answer(&self.bytes).status
        } else {
            h1_status(&self.bytes)
        }
    }
}

/// Sends `bytes`, then reads until the proxy closes or stays quiet.
fn send(proxy: SocketAddr, bytes: &[u8]) -> Result<Answer, String> {
    let mut socket = TcpStream::connect(proxy).map_err(|error| error.to_string())?;
    let port = socket.local_addr().map_or(0, |address| address.port());
    socket
        .set_read_timeout(Some(QUIET))
        .map_err(|error| error.to_string())?;
    // A proxy that refuses early may close before all is written; what it answered is still read below.
    let _ = socket.write_all(bytes);
    let (mut answer, mut block, start) = (Vec::new(), [0; 4096], Instant::now());
    let mut closed = false;
    while start.elapsed() < LIMIT {
        match socket.read(&mut block) {
            Ok(0) => closed = true,
            Err(error) => closed = error.kind() == std::io::ErrorKind::ConnectionReset,
            Ok(n) => {
                answer.extend_from_slice(&block[..n]);
                continue;
            }
        }
        break;
    }
    let _ = socket.shutdown(Shutdown::Both);
    Ok(Answer {
        bytes: answer,
        closed,
        port,
    })
}

/// The targets of a case that arrived, without its prefix.
fn arrived(n: usize, seen: &Seen) -> Vec<&str> {
    let prefix = cases::prefix(n);
    let targets = seen.requests.iter().map(|request| request.target.as_str());
    targets
        .filter_map(|target| Some(target.split_once(&prefix)?.1))
        .collect()
}

/// The answer in a few words.
fn describe(case: &Case, n: usize, answer: &Answer, seen: &Seen) -> String {
    let mut words = Vec::new();
    words.extend(answer.status(case).map(|status| status.to_string()));
    if case.is_h2() {
        let answer = h2::answer(&answer.bytes);
        words.extend(answer.reset.map(|code| format!("RST_STREAM {code}")));
        words.extend(answer.goaway.map(|code| format!("GOAWAY {code}")));
    }
    match (answer.closed, words.is_empty()) {
        (true, _) => words.push("closed".to_owned()),
        (false, true) => words.push("waits".to_owned()),
        (false, false) => {}
    }
    let arrived = arrived(n, seen);
    if !arrived.is_empty() {
        words.push(format!("sent on: {}", arrived.join(" ")));
    }
    words.join(", ")
}

fn judge(case: &Case, n: usize, answer: &Answer, seen: &Seen) -> Result<(), String> {
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
    let status = answer.status(case);
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
        Want::Refuse if !answer.is_some(case) && !answer.closed => {
            return Err("expected a refusal, nothing was said".to_owned());
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

#[cfg(test)]
mod tests {
    use super::lines_of;

    #[test]
    fn a_log_line_begins_with_the_clients_address() {
        let log = "127.0.0.1:4711 400 DPE http1.codec_error\n127.0.0.1:471 200 - -\nnothing\n";
        assert_eq!(lines_of(log, 4711), ["400 DPE http1.codec_error"]);
        assert_eq!(lines_of(log, 47), [""; 0]);
    }
}
