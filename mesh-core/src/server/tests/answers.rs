//! Connections that are answered without an upstream.

use std::path::{Path, PathBuf};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::support::*;
use crate::model::{self, Network, NetworkAnswer};

/// A listener's log in a folder of its own, which goes with it.
struct Log(PathBuf);

impl Log {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("mesh-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The lines, once there are `count`.
    async fn lines(&self, count: usize) -> Vec<String> {
        let written = async {
            loop {
                let text = std::fs::read_to_string(self.path()).unwrap_or_default();
                if text.lines().count() >= count {
                    return text.lines().map(str::to_owned).collect();
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, written).await.expect("lines are written")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn answering(answer: NetworkAnswer, path: &Path) -> model::Listener {
    let format = "%RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %ACCESS_LOG_TYPE%\n";
    model::Listener {
        access_log: vec![model::AccessLog {
            sink: model::LogSink::File(path.to_owned()),
            format: Some(model::FormatKind::Text(model::Format {
                text: format.into(),
            })),
            filter: None,
            omit_empty: false,
        }],
        ..listener(vec![chain(Network::Answer(answer))])
    }
}

/// The lines are those of Envoy 1.40 for the same connections.
#[tokio::test]
async fn a_text_is_the_answer_to_everyone() {
    let log = Log::new("direct");
    let direct = NetworkAnswer::Direct("hello\n".into());
    let server = Running::start(answering(direct, &log.path()));
    assert_eq!(server.connect().await.rest().await, "hello\n");
    let mut talkative = server.connect().await;
    talkative.send(b"what is it?").await;
    assert_eq!(talkative.rest().await, "hello\n");
    drop(talkative);
    let line = "direct_response - 0 6 NotSet";
    assert_eq!(log.lines(2).await, [line, line]);
    server.idle().await;
}

#[tokio::test]
async fn an_answer_without_text_closes() {
    let log = Log::new("nothing");
    let direct = NetworkAnswer::Direct("".into());
    let server = Running::start(answering(direct, &log.path()));
    assert_eq!(server.connect().await.rest().await, "");
    assert_eq!(log.lines(1).await, ["direct_response - 0 0 NotSet"]);
}

#[tokio::test]
async fn an_echo_says_what_it_hears() {
    let log = Log::new("echo");
    let server = Running::start(answering(NetworkAnswer::Echo, &log.path()));
    let mut client = server.connect().await;
    for word in ["one", "two", &"x".repeat(100_000)] {
        client.send(word.as_bytes()).await;
        let mut heard = vec![0; word.len()];
        assert!(client.read(&mut heard).await, "all of it");
        assert_eq!(heard, word.as_bytes());
    }
    client.0.shutdown().await.expect("it is open");
    assert_eq!(client.rest().await, "");
    assert_eq!(log.lines(1).await, ["- - 100006 100006 NotSet"]);
    server.idle().await;
    // One that is broken off has its line as well.
    let mut client = server.connect().await;
    client.send(b"three").await;
    client.until("three").await;
    server.handle.abort();
    assert_eq!(log.lines(2).await[1], "- - 5 5 NotSet");
}
