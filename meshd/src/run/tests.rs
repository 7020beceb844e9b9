use std::{ffi::OsString, path::Path};

use mesh_core::config::{MemorySource, Update};
use mesh_xds::file::FileSource;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::source::Dynamic;

const LONG: Duration = Duration::from_secs(60);

/// The whole answer of the admin server whose address stands in the file, once there is one.
async fn ask(file: &Path, request: &str) -> String {
    let address = async {
        loop {
            match std::fs::read_to_string(file).map(|text| text.parse::<SocketAddr>()) {
                Ok(Ok(address)) => break address,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let address = tokio::time::timeout(LONG, address).await;
    let mut stream = TcpStream::connect(address.expect("in time"))
        .await
        .expect("it listens");
    let head = format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn pages_are_there_before_the_first_configuration_is() {
    for admin in ["--admin 127.0.0.1:0", "--concurrency 1"] {
        early_pages(admin).await;
    }
}

fn facts() -> Facts {
    Facts {
        admin: None,
        strict_start: false,
        dump: FileSource::parse("e.yaml", "{}").expect("a file").dump(),
        dynamic: Dynamic {
            clusters: true,
            listeners: true,
        },
        settings: None,
    }
}

/// Has one update, and ends when it is told to.
struct Ending(Option<Update>, oneshot::Receiver<()>);

impl ConfigSource for Ending {
    async fn next(&mut self) -> Result<Update, SourceError> {
        if let Some(update) = self.0.take() {
            return Ok(update);
        }
        let told = (&mut self.1).await;
        Err(SourceError {
            reason: format!("no more: {told:?}"),
            source: None,
        })
    }

    fn report(&mut self, _: &mesh_core::config::Outcome) {}
}

#[tokio::test]
async fn what_is_in_force_stays_when_its_source_ends() {
    let name = format!("meshd-ending-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let line = "meshd sidecar --config m --workload n/w --readiness none --metrics none --admin 127.0.0.1:0";
    let args = line.split(' ').map(OsString::from);
    let mut options = crate::cli::parse(args).expect("a sidecar");
    options.admin_address_path = Some(file.clone());
    let log = LogControl::install(&options).expect("a log");
    let (end, ending) = oneshot::channel();
    let source = Ending(Some(Update::default()), ending);
    let asking = async {
        let begin = tokio::time::Instant::now();
        while !ask(&file, "GET /ready").await.ends_with("LIVE\n") {
            assert!(begin.elapsed() < LONG, "it does not serve");
        }
        end.send(()).expect("the source waits");
        for _ in 0..3 {
            let answer = ask(&file, "GET /ready").await;
            assert!(answer.ends_with("LIVE\n"), "{answer}");
        }
        ask(&file, "POST /quitquitquit").await
    };
    let (served, quit) = tokio::join!(serve(options, log, source, facts()), asking);
    let _ = std::fs::remove_file(file);
    assert!(quit.ends_with("OK\n"), "{quit}");
    served.expect("told to end");
}

async fn early_pages(flag: &str) {
    let name = format!("meshd-early-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let line =
        format!("meshd sidecar --config m --workload n/w --readiness none --metrics none {flag}");
    let args = line.split(' ').map(OsString::from);
    let mut options = crate::cli::parse(args).expect("a sidecar");
    // In the place of the port that is the same for all.
    options.admin = Some(([127, 0, 0, 1], 0).into());
    options.admin_address_path = Some(file.clone());
    let log = LogControl::install(&options).expect("a log");
    let facts = facts();
    let (source, configuration) = MemorySource::new();
    let asking = async {
        let waiting = ask(&file, "GET /ready").await;
        assert!(waiting.starts_with("HTTP/1.1 503 "), "{waiting}");
        assert!(waiting.ends_with("\r\n\r\nPRE_INITIALIZING\n"), "{waiting}");
        let status = ask(&file, "GET /config_status").await;
        assert!(status.contains("\"ready\": false"), "{status}");
        let unready = ask(&file, "GET /init_dump").await;
        assert!(unready.contains("unready_targets_dumps"), "{unready}");
        for page in ["/config_dump", "/clusters", "/stats", "/server_info"] {
            let answer = ask(&file, &format!("GET {page}")).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{page}: {answer}");
        }
        // What is asked for now acts once there is something that it could act on.
        ask(&file, "POST /healthcheck/fail").await;
        configuration.push(Update::default());
        let begin = tokio::time::Instant::now();
        while !ask(&file, "GET /ready").await.ends_with("DRAINING\n") {
            assert!(begin.elapsed() < LONG, "it does not serve");
        }
        ask(&file, "POST /quitquitquit").await
    };
    let (served, quit) = tokio::join!(serve(options, log, source, facts), asking);
    let _ = std::fs::remove_file(file);
    assert!(quit.ends_with("OK\n"), "{quit}");
    served.expect("told to end");
}
