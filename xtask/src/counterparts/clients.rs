//! curl, h2load and a WebSocket client in Go, through one proxy to an app in Go.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Rig, play, scratch, upstream};
use crate::Fallible;
use crate::process;
use crate::tools;

/// What one call of curl must bring.
struct Call {
    name: &'static str,
    arguments: &'static [&'static str],
    path: &'static str,
    status: &'static str,
    body: Body,
}

/// What is asked of a response body.
enum Body {
    /// The app saw a request of this protocol, whose body had this many bytes.
    Echo(&'static str, u64),
    /// A body of this size.
    Size(u64),
    /// No body behind a head with this line.
    Head(&'static str),
    /// These bytes.
    Text(&'static str),
}

/// The size of the file that curl uploads.
const UPLOAD: u64 = 1_000_000;

/// The calls; `@upload` stands for a file of [`UPLOAD`] bytes.
const CALLS: [Call; 12] = [
    Call {
        name: "get",
        arguments: &["--http1.1"],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", 0),
    },
    Call {
        name: "http1.0",
        arguments: &["--http1.0"],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", 0),
    },
    Call {
        name: "post",
        arguments: &["--http1.1", "-d", "a=1"],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", 3),
    },
    Call {
        name: "expect-100",
        arguments: &["--http1.1", "-H", "Expect: 100-continue", "-T", "@upload"],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", UPLOAD),
    },
    Call {
        name: "chunked",
        arguments: &[
            "--http1.1",
            "-H",
            "Transfer-Encoding: chunked",
            "-T",
            "@upload",
        ],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", UPLOAD),
    },
    Call {
        name: "head",
        arguments: &["--http1.1", "-I"],
        path: "/bytes?n=77",
        status: "200",
        body: Body::Head("content-length: 77"),
    },
    Call {
        name: "large",
        arguments: &["--http1.1"],
        path: "/bytes?n=20000000",
        status: "200",
        body: Body::Size(20_000_000),
    },
    Call {
        name: "trailers",
        arguments: &["--http1.1"],
        path: "/trailers",
        status: "200",
        body: Body::Text("body\n"),
    },
    Call {
        name: "not-found",
        arguments: &["--http1.1"],
        path: "/absent",
        status: "404",
        body: Body::Size(19),
    },
    Call {
        name: "h2-get",
        arguments: &["--http2-prior-knowledge"],
        path: "/echo",
        status: "200",
        body: Body::Echo("HTTP/1.1", 0),
    },
    Call {
        name: "h2-upload-to-h2",
        arguments: &["--http2-prior-knowledge", "-T", "@upload"],
        path: "/h2/echo",
        status: "200",
        body: Body::Echo("HTTP/2.0", UPLOAD),
    },
    Call {
        name: "h1-large-from-h2",
        arguments: &["--http1.1"],
        path: "/h2/bytes?n=20000000",
        status: "200",
        body: Body::Size(20_000_000),
    },
];

pub(super) fn curl(rig: &Rig) -> Fallible<String> {
    let program = tools::system("curl", "curl")?;
    let (_app, port) = upstream("curl")?;
    let mut proxy = rig.start("http.yaml", "curl", port)?;
    let upload = scratch()?.join("upload.bin");
    fs::write(&upload, vec![b'u'; usize::try_from(UPLOAD)?])?;
    let mut failed = Vec::new();
    for call in &CALLS {
        match one_call(&program, call, proxy.port, &upload) {
            Ok(()) => println!("{}: passed", call.name),
            Err(error) => {
                println!("{}: FAILED: {error}", call.name);
                failed.push(call.name);
            }
        }
    }
    proxy.check()?;
    if failed.is_empty() {
        Ok(format!("{} calls", CALLS.len()))
    } else {
        Err(failed.join(", ").into())
    }
}

fn one_call(program: &Path, call: &Call, port: u16, upload: &Path) -> Fallible {
    let answer = scratch()?.join("curl-answer.bin");
    fs::write(&answer, "")?;
    let mut command = Command::new(program);
    command.args(["--silent", "--show-error", "--max-time", "20"]);
    command.args(["-w", "%{http_code}", "-o"]).arg(&answer);
    for argument in call.arguments {
        if *argument == "@upload" {
            command.arg(upload);
        } else {
            command.arg(argument);
        }
    }
    command.arg(format!("http://127.0.0.1:{port}{}", call.path));
    let status = process::output(&mut command)?;
    if status != call.status {
        return Err(format!("expected status {}, seen {status}", call.status).into());
    }
    check_body(&call.body, &fs::read(&answer)?)
}

fn check_body(wanted: &Body, body: &[u8]) -> Fallible {
    match wanted {
        Body::Size(size) if body.len() as u64 == *size => Ok(()),
        Body::Size(size) => Err(format!("expected {size} bytes, seen {}", body.len()).into()),
        Body::Head(line) => {
            let seen = String::from_utf8_lossy(body).to_ascii_lowercase();
            if seen.ends_with("\r\n\r\n") && seen.lines().any(|one| one == *line) {
                Ok(())
            } else {
                Err(format!("expected a head with {line}, seen {seen:?}").into())
            }
        }
        Body::Text(text) if body == text.as_bytes() => Ok(()),
        Body::Text(text) => Err(format!(
            "expected {text:?}, seen {:?}",
            String::from_utf8_lossy(body)
        )
        .into()),
        Body::Echo(protocol, length) => {
            let seen: Value = serde_json::from_slice(body)?;
            if seen["length"] == *length && seen["proto"] == *protocol {
                Ok(())
            } else {
                Err(format!("expected {protocol} and a body of {length}, seen {seen}").into())
            }
        }
    }
}

pub(super) fn h2load(rig: &Rig) -> Fallible<String> {
    let program = tools::system("h2load", "nghttp2-client")?;
    let (_app, port) = upstream("h2load")?;
    let mut proxy = rig.start("http.yaml", "h2load", port)?;
    let runs: [(&str, &[&str], &str); 4] = [
        ("h1 to h1", &["--h1", "-c", "32"], "/bytes?n=1024"),
        ("h1 to h2", &["--h1", "-c", "32"], "/h2/bytes?n=1024"),
        ("h2 to h1", &["-c", "8", "-m", "32"], "/bytes?n=1024"),
        ("h2 to h2", &["-c", "8", "-m", "32"], "/h2/bytes?n=100000"),
    ];
    for (name, arguments, path) in runs {
        let mut command = Command::new(&program);
        command
            .args(["-n", "10000"])
            .args(arguments)
            .arg(format!("http://127.0.0.1:{}{path}", proxy.port));
        let ended = process::logged(
            &mut command,
            &scratch()?.join("h2load-report.log"),
            Duration::from_secs(120),
        )?;
        proxy.check()?;
        let good = ended
            .text
            .contains("10000 succeeded, 0 failed, 0 errored, 0 timeout")
            && ended.text.contains("status codes: 10000 2xx");
        if !good {
            return Err(format!("{name}: {}", process::tail(&ended.text, 12)).into());
        }
        println!("{name}: 10000 succeeded");
    }
    Ok(format!(
        "{} runs of 10000 requests, none failed",
        runs.len()
    ))
}

pub(super) fn websocket(rig: &Rig) -> Fallible<String> {
    let program = tools::go_program("./wsclient", "wsclient")?;
    let (_app, port) = upstream("websocket")?;
    let mut proxy = rig.start("http.yaml", "websocket", port)?;
    let mut command = Command::new(program);
    command.args(["-url", &format!("ws://127.0.0.1:{}/ws", proxy.port)]);
    play(&mut command, "websocket", Duration::from_secs(60))?;
    proxy.check()?;
    Ok("gorilla/websocket (Go)".to_owned())
}
