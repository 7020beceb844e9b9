//! One program for each way to use the mesh, in `src/bin`; this is what they share.

pub mod wire;

use std::io::Read as _;

use tokio::sync::oneshot;

/// `envoy.yaml` with a free port for its listener, and its endpoints on these ports of 127.0.0.1.
pub fn envoy_file(reviews: u16, health: u16) -> String {
    include_str!("../envoy.yaml")
        .replace("port_value: 15001", "port_value: 0")
        .replace("port_value: 9080", &format!("port_value: {reviews}"))
        .replace("port_value: 9090", &format!("port_value: {health}"))
}

/// Waits until the standard input ends: the programs that serve do so until then.
pub async fn stdin_closed() {
    let (sender, closed) = oneshot::channel::<()>();
    // A thread, since a read that blocks would hold up the end of the runtime.
    std::thread::spawn(move || {
        let _sender = sender;
        wait_for_stdin();
    });
    // The sender never sends: its drop is the sign.
    let _ = closed.await;
}

/// As [`stdin_closed`], for programs without a runtime.
pub fn wait_for_stdin() {
    let mut buffer = [0; 256];
    while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
}
