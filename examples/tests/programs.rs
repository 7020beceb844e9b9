//! Runs each program as a process and looks at what it does.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// More than any of this takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that serves until its input ends.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Program {
    /// Starts it, and waits for the line that says where it listens.
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut program = Self {
            child,
            stdout,
            address: ([0, 0, 0, 0], 0).into(),
        };
        let mut line = String::new();
        program.stdout.read_line(&mut line).expect("its first line");
        let (_, address) = line
            .trim()
            .rsplit_once(' ')
            .expect("NAME listens on ADDRESS");
        program.address = address.parse().expect("an address");
        program
    }

    /// Status and body of a GET.
    fn get(&self, host: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("it accepts");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        (status.expect("a status"), body.to_owned())
    }

    /// Ends its input; what it still printed, once it has ended well.
    fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        let deadline = Instant::now() + LIMIT;
        loop {
            match self.child.try_wait().expect("a status") {
                Some(status) => break assert!(status.success(), "{status}: {rest}"),
                None if Instant::now() > deadline => panic!("it does not end: {rest}"),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
        rest
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Gone already if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upstream that answers each connection with `body`.
fn upstream(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away is none of the test's business.
            let _ = answer(stream, body);
        }
    });
    port
}

fn answer(mut stream: TcpStream, body: &str) -> io::Result<()> {
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// The Envoy file of the programs with this upstream.
fn file(name: &str, reviews: u16) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, mesh_examples::envoy_file(reviews, 1)).expect("the file is written");
    path
}

#[test]
fn a_hyper_service_in_the_inbound_layer() {
    let program = Program::start(&mut Command::new(env!("CARGO_BIN_EXE_hyper_service")));
    let hello = program.get("hello", "/world");
    assert_eq!(hello, (200, "hello from /world\n".to_owned()));
    assert_eq!(program.get("hello", "/fail").0, 500);
    let metrics = program.stop();
    assert!(metrics.contains("istio_requests_total"), "{metrics}");
    assert!(metrics.contains("response_code=\"500\""), "{metrics}");
}

#[test]
fn a_custom_sidecar_carries_an_envoy_file_and_follows_it() {
    let path = file("sidecar.yaml", upstream("first"));
    let program = Program::start(Command::new(env!("CARGO_BIN_EXE_sidecar")).arg(&path));
    assert_eq!(program.get("reviews:9080", "/"), (200, "first".to_owned()));
    assert_eq!(program.get("reviews", "/blocked").0, 403);
    assert_eq!(program.get("other", "/").0, 404);
    file("sidecar.yaml", upstream("second"));
    let deadline = Instant::now() + LIMIT;
    while program.get("reviews", "/") != (200, "second".to_owned()) {
        assert!(Instant::now() < deadline, "the edit takes no effect");
    }
    assert!(program.stop().ends_with("drained, 0 connections cut off\n"));
}

#[test]
fn a_foreign_proxy_decides_picks_and_finishes() {
    let path = file("foreign.yaml", upstream("up"));
    let program = Program::start(Command::new(env!("CARGO_BIN_EXE_foreign_proxy")).arg(&path));
    assert_eq!(program.get("reviews:9080", "/a"), (200, "up".to_owned()));
    assert_eq!(program.get("other", "/").0, 404);
    let blocked = program.get("reviews", "/blocked");
    assert_eq!(blocked, (403, "blocked by the mesh\n".to_owned()));
    assert_eq!(program.get("health", "/").0, 503, "nothing listens there");
    let printed = program.stop();
    assert!(printed.contains("GET /a goes to 127.0.0.1:"), "{printed}");
}

#[test]
fn grpc_through_the_mesh() {
    let output = Command::new(env!("CARGO_BIN_EXE_grpc"))
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(printed.contains("the server is Serving"), "{printed}");
    assert!(
        printed.contains("no service is called unknown"),
        "{printed}"
    );
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        assert!(printed.contains(reporter), "{reporter}: {printed}");
    }
}

#[test]
fn an_axum_app_calls_through_the_mesh_by_each_client() {
    let program = Program::start(&mut Command::new(env!("CARGO_BIN_EXE_axum_app")));
    for path in ["/direct", "/hyper", "/reqwest"] {
        assert_eq!(
            program.get("app", path),
            (200, "five stars".to_owned()),
            "{path}"
        );
    }
    let metrics = program.stop();
    assert!(metrics.contains("istio_requests_total"), "{metrics}");
}
