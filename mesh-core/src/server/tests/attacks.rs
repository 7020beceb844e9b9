//! Requests that the codec answers by itself: each leaves a line with its flag in the access log. Floods and slow peers of HTTP/2.

use std::{path::PathBuf, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, RST_STREAM, frame},
    support::*,
};
use crate::{
    Kind,
    model::{self, CodecType, HttpConnectionManager},
};

/// A listener with an access log in a file of its own.
struct Logged {
    server: Running,
    path: PathBuf,
}

impl Logged {
    fn start(name: &str, mut manager: HttpConnectionManager) -> Self {
        let file = format!("mesh-attacks-{}-{name}.log", std::process::id());
        let path = std::env::temp_dir().join(file);
        manager.stat_prefix = "test".into();
        manager.access_log = vec![model::AccessLog {
            sink: model::LogSink::File(path.clone()),
            format: Some(model::FormatKind::Text(model::Format {
                text: "%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"
                    .into(),
            })),
            filter: None,
            omit_empty: false,
        }];
        let server = Running::http(manager);
        Self { server, path }
    }

    /// The lines, once there are so many.
    async fn lines(&self, count: usize) -> Vec<String> {
        let written = async {
            loop {
                let text = std::fs::read_to_string(&self.path).unwrap_or_default();
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if lines.len() >= count {
                    return lines;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, written).await.expect("lines are written")
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn each_http1_head_that_the_codec_answers_leaves_one_line() {
    let logged = Logged::start("http1", HttpConnectionManager::default());
    let large = format!(
        "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(200)
    );
    let cases = [
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "400 DPE http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
            "400 DPE http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\r\nhost : x\r\n\r\n",
            "400 DPE http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
            "400 DPE http1.codec_error",
        ),
        ("GET / HTTP/1.1\r\n\r\n", "400 - missing_host_header"),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "501 DPE http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "501 DPE http1.invalid_transfer_encoding",
        ),
        (BOTH, "400 DPE http1.content_length_and_chunked_not_allowed"),
        (&large, "431 DPE http1.headers_too_large"),
        (&many, "431 DPE http1.headers_too_large"),
    ];
    for (n, (bytes, wanted)) in cases.iter().enumerate() {
        logged.server.exchange(bytes.as_bytes()).await;
        logged.server.idle().await;
        let lines = logged.lines(n + 1).await;
        assert_eq!(lines.len(), n + 1, "one line each: {lines:?}");
        assert_eq!(lines[n], format!("HTTP/1.1 {wanted}"), "{bytes:.80}");
    }
}

/// A body declared by length and in chunks.
const BOTH: &str = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";

fn http2() -> HttpConnectionManager {
    HttpConnectionManager {
        codec: CodecType::Http2,
        stat_prefix: "test".into(),
        ..HttpConnectionManager::default()
    }
}

/// A field that is not indexed.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    [&[0][..], &text(name), &text(value)].concat()
}

/// A head over all limits, in several frames.
fn long_head(stream: u32) -> Vec<u8> {
    let mut block = GET.to_vec();
    for n in 0..700 {
        block.extend(literal(&format!("a{n}"), &"b".repeat(100)));
    }
    let mut pieces = block.chunks(16_000).peekable();
    let first = pieces.next().expect("a first");
    let mut out = frame(HEADERS, END_STREAM, stream, first);
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        out.extend(frame(CONTINUATION, flags, stream, piece));
    }
    out
}

#[tokio::test]
async fn each_http2_head_that_the_codec_answers_leaves_one_line() {
    let logged = Logged::start("http2", http2());
    let mut client = logged.server.connect().await;
    client.preface().await;
    let bad = [
        [GET, &literal("connection", "close")].concat(),
        [GET, &literal("transfer-encoding", "chunked")].concat(),
        // Without a path.
        [&GET[..2], &GET[3..]].concat(),
        [GET, &literal(":path", "/second")].concat(),
    ];
    let (mut stream, mut wanted) = (1, Vec::new());
    for block in &bad {
        // Good ones before, between and after, so that both kinds have to be told apart.
        for block in [GET, block] {
            let flags = END_STREAM | END_HEADERS;
            client.send(&frame(HEADERS, flags, stream, block)).await;
            stream += 2;
        }
        let (_, reset, reason) = client.frame_of(RST_STREAM).await.expect("refused");
        assert_eq!((reset, reason[3]), (stream - 2, 1), "PROTOCOL_ERROR");
        wanted.push("HTTP/2 0 DPE codec_error:the_codec_refused_the_request");
    }
    assert_eq!(logged.lines(bad.len()).await, wanted);
    // A head over the limit is answered by the codec too.
    client.send(&long_head(stream)).await;
    while client.frame_of(HEADERS).await.expect("answered").1 != stream {}
    let lines = logged.lines(bad.len() + 1).await;
    assert_eq!(
        lines[bad.len()],
        "HTTP/2 431 DPE http2.header_list_size_too_large"
    );
    // A frame that ends the connection.
    client.send(&frame(DATA, 0, 0, b"x")).await;
    client.frame_of(GOAWAY).await.expect("told to go");
    drop(client);
    logged.server.idle().await;
    let lines = logged.lines(bad.len() + 2).await;
    assert_eq!(lines.len(), bad.len() + 2, "{lines:?}");
    assert!(
        lines[bad.len() + 1].starts_with("HTTP/2 0 DPE codec_error:"),
        "{lines:?}"
    );
    assert_eq!(logged.server.stat("http.test.downstream_rq_active"), 0);
}

#[tokio::test]
async fn a_slow_http2_head_ends_the_connection_even_beside_others() {
    let mut slow = http2();
    slow.request_headers_timeout = Some(Duration::from_millis(100));
    for beside in [false, true] {
        let logged = Logged::start(&format!("slow-{beside}"), slow.clone());
        let mut client = logged.server.connect().await;
        client.preface().await;
        if beside {
            // A request whose body never ends.
            client.send(&frame(HEADERS, END_HEADERS, 1, GET)).await;
        }
        client.send(&frame(HEADERS, END_STREAM, 3, GET)).await;
        while client.frame().await.is_some() {}
        drop(client);
        logged.server.idle().await;
        assert_eq!(
            logged.lines(1).await,
            ["HTTP/2 408 - request_header_timeout"]
        );
        assert_eq!(
            logged.server.stat("http.test.downstream_rq_header_timeout"),
            1
        );
    }
}

/// Sends `flood` until the server ends the connection; how many bytes it took.
async fn flooded(server: &Running, open: &[u8], flood: &[u8]) -> usize {
    let mut client = server.connect().await;
    client.preface().await;
    client.send(open).await;
    let mut sent = 0;
    while sent < 64 << 20 && client.0.write_all(flood).await.is_ok() {
        sent += flood.len();
    }
    drop(client);
    server.idle().await;
    sent
}

#[tokio::test]
async fn floods_of_empty_frames_end_the_connection() {
    let body = frame(HEADERS, END_HEADERS, 1, GET);
    let head = frame(HEADERS, END_STREAM, 1, GET);
    let cases = [
        ("empty DATA", &body, frame(DATA, 0, 1, &[])),
        ("padding only", &body, frame(DATA, 8, 1, &[1, 0])),
        ("empty CONTINUATION", &head, frame(CONTINUATION, 0, 1, &[])),
    ];
    for (what, open, piece) in cases {
        let server = Running::http(http2());
        let sent = flooded(&server, open, &piece.repeat(1000)).await;
        assert!(sent < 32 << 20, "{what}: {sent} bytes were taken");
        let rejected = server.rejected();
        assert_eq!(rejected[0].kind, Kind::DownstreamProtocol, "{what}");
        assert!(
            rejected[0].reason.contains("excessive load"),
            "{what}: {rejected:?}"
        );
    }
}

#[tokio::test]
async fn an_hpack_bomb_never_unfolds() {
    let server = Running::http(http2());
    let mut client = server.connect().await;
    client.preface().await;
    // 3,900 bytes enter the table; each further byte of the block names them once more: 46 MiB a head.
    let mut bomb = GET.to_vec();
    bomb.extend([0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    bomb.extend([b'b'; 3900]);
    bomb.extend([0x80 | 62; 12_000]);
    client
        .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb))
        .await;
    while client.frame().await.is_some() {}
    drop(client);
    server.idle().await;
    let rejected = server.rejected();
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(rejected[0].kind, Kind::DownstreamProtocol);
    assert_eq!(server.stat("http.test.downstream_rq_active"), 0);
}
