//! What the access logs say of proxied connections.

use super::*;

/// What the logs say of a connection; the operators of Envoy's TCP logs.
const FORMAT: &str = "%PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_HOST%\n";

fn log(path: &std::path::Path) -> Vec<model::AccessLog> {
    vec![model::AccessLog {
        sink: model::LogSink::File(path.to_owned()),
        format: Some(model::FormatKind::Text(model::Format {
            text: FORMAT.into(),
        })),
        filter: None,
        omit_empty: false,
    }]
}

/// The newest line of a log that has `count` lines.
async fn line(path: &std::path::Path, count: usize) -> String {
    let written = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= count {
                return text.lines().next_back().unwrap_or_default().to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.expect("lines are written")
}

/// A proxy, its cluster, what the client says, and the line of the connection in both logs.
type Case = (TcpProxy, Change, Option<&'static str>, String);

/// The lines are those of Envoy 1.40 for the same connections.
fn cases(address: &Address, dead: &Address) -> Vec<Case> {
    let with = |change: fn(&mut TcpProxy)| {
        let mut proxy = proxy();
        change(&mut proxy);
        proxy
    };
    let good = |address: &Address| cluster(std::slice::from_ref(address), |_| {});
    let idle = with(|proxy| proxy.idle_timeout = Some(Duration::from_millis(50)));
    let old = with(|proxy| {
        proxy.max_downstream_connection_duration = Some(Duration::from_millis(50));
    });
    let twice = with(|proxy| proxy.max_connect_attempts = 2);
    let unknown = with(|proxy| proxy.cluster = ClusterChoice::Name("unknown".into()));
    let refused = "delayed_connect_error:_Connection_refused";
    let line = |text: &str| format!("{text} {address}");
    let said = |text, wanted: &str| (proxy(), good(address), Some(text), line(wanted));
    vec![
        said("ab", "- 2 4 2 - - - upstream 1 -"),
        said("reset", "- 5 0 5 UR - - upstream 1 -"),
        (
            idle,
            good(address),
            None,
            line("- 0 0 0 - - - upstream 1 -"),
        ),
        (
            old,
            good(address),
            None,
            line("- 0 0 0 DT - - upstream 1 -"),
        ),
        (
            twice,
            good(dead),
            None,
            format!("- 0 0 0 UF,URX - - upstream 2 {refused} {dead}"),
        ),
        (
            unknown,
            good(address),
            None,
            "- 0 0 0 NC - - - 0 - -".to_owned(),
        ),
        (
            proxy(),
            cluster(&[], |_| {}),
            None,
            "- 0 0 0 UH - - upstream 0 - -".to_owned(),
        ),
    ]
}

/// Says all twice, and resets who says `reset`.
async fn double(mut socket: tokio::net::TcpStream) {
    let mut bytes = [0; 64];
    while let Ok(count @ 1..) = socket.read(&mut bytes).await {
        if bytes.starts_with(b"reset") {
            let socket = socket2::SockRef::from(&socket);
            let _ = socket.set_linger(Some(Duration::ZERO));
            return;
        }
        let twice = bytes[..count].repeat(2);
        let _ = socket.write_all(&twice).await;
    }
}

#[tokio::test]
async fn each_connection_is_in_the_logs_of_the_proxy_and_of_the_listener() {
    let (listening, address) = upstream().await;
    let cases = cases(&address, &nobody());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listening.accept().await {
            tokio::spawn(double(socket));
        }
    });
    let folder = std::env::temp_dir().join(format!("mesh-tcp-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for (n, (mut proxy, cluster, say, wanted)) in cases.into_iter().enumerate() {
        let path = |what: &str| folder.join(format!("{n}-{what}.log"));
        proxy.access_log = log(&path("tcp"));
        let mut compiler = Compiler::default();
        compiler.apply(Update {
            changes: vec![cluster],
            ..Update::default()
        });
        let clusters = compiler.directory().clone();
        let mut config = listener(vec![chain(Network::Tcp(Box::new(proxy)))]);
        config.access_log = log(&path("listener"));
        let server = Running::with(config, compiler, Tcp(clusters));
        let mut client = server.connect().await;
        if let Some(text) = say {
            client.send(text.as_bytes()).await;
            client.0.shutdown().await.expect("half closed");
        }
        client.rest().await;
        drop(client);
        server.idle().await;
        for what in ["tcp", "listener"] {
            assert_eq!(line(&path(what), 1).await, wanted, "{what} log of case {n}");
        }
    }
    // A thread may be about to open a file of its log once more.
    let removed = async {
        while folder.exists() {
            let _ = std::fs::remove_dir_all(&folder);
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, removed).await.expect("removed");
}

/// Lines on the way: at the beginning, once connected, and in intervals.
#[tokio::test]
async fn a_connection_that_goes_on_is_logged_when_the_proxy_says_so() {
    let (listening, address) = upstream().await;
    let path = std::env::temp_dir().join(format!("mesh-tcp-on-{}.log", std::process::id()));
    let mut proxy = proxy();
    proxy.access_log = log(&path);
    proxy.access_log[0].format = Some(model::FormatKind::Text(model::Format {
        text: "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %UPSTREAM_HOST%\n".into(),
    }));
    proxy.flush_access_log_on_start = true;
    proxy.flush_access_log_on_connected = true;
    proxy.access_log_flush_interval = Some(Duration::from_millis(200));
    let (server, _) = start(proxy, cluster(std::slice::from_ref(&address), |_| {}));
    let mut client = server.connect().await;
    client.send(b"four").await;
    let (socket, _) = listening.accept().await.expect("connected");
    line(&path, 3).await;
    client.send(b"more").await;
    line(&path, 4).await;
    drop((client, socket));
    server.idle().await;
    line(&path, 5).await;
    let text = std::fs::read_to_string(&path).expect("written");
    let of = |index: usize| text.lines().nth(index).unwrap_or_default().to_owned();
    assert_eq!(of(0), "TcpConnectionStart 0 -");
    assert_eq!(of(1), format!("TcpUpstreamConnected 0 {address}"));
    assert_eq!(of(2), format!("TcpPeriodic 4 {address}"));
    let last = text.lines().next_back().unwrap_or_default();
    assert_eq!(last, format!("TcpConnectionEnd 8 {address}"));
    std::fs::remove_file(&path).expect("removed");
}

/// A listener's own log has HTTP connections too.
#[tokio::test]
async fn an_http_connection_is_in_the_log_of_its_listener() {
    let path = std::env::temp_dir().join(format!("mesh-tcp-http-{}.log", std::process::id()));
    let manager = model::HttpConnectionManager {
        stat_prefix: "test".into(),
        ..Default::default()
    };
    let mut config = listener(vec![http_chain(manager)]);
    config.access_log = log(&path);
    let server = Running::start(config);
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.get("/a").await;
        client.until("GET /a").await;
    }
    drop(client);
    server.idle().await;
    let line = line(&path, 1).await;
    assert!(
        line.starts_with("HTTP/1.1 56 "),
        "one line for both: {line}"
    );
    std::fs::remove_file(&path).expect("removed");
}
