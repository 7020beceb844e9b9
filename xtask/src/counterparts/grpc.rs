//! gRPC's own interop client and server, through two proxies in a row.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Rig, START, scratch};
use crate::Fallible;
use crate::process::{self, Background};
use crate::tools;

/// Every case of the client that needs neither TLS nor a cloud, but `pick_first_unary`: that one fails against the pinned
/// server also without a proxy, as the server does not name itself.
pub(crate) const CASES: [&str; 18] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "cancel_after_begin",
    "cancel_after_first_response",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "orca_per_rpc",
    "orca_oob",
    "rpc_soak",
    "channel_soak",
];
/// Calls of each soak; none may fail.
pub(crate) const SOAK: &str = "1000";
/// The balancer of the client that the two cases with load reports ask for.
const ORCA: &str = r#"{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}"#;

pub(crate) fn run(rig: &Rig) -> Fallible<String> {
    let failed = play_all(rig)?;
    if failed.is_empty() {
        Ok(format!(
            "{} cases through two proxies, soaks of {SOAK} calls without a failure",
            CASES.len()
        ))
    } else {
        Err(format!(
            "{} of {} cases failed: {}",
            failed.len(),
            CASES.len(),
            failed.join(", ")
        )
        .into())
    }
}

/// Plays all cases; returns those that failed.
pub(crate) fn play_all(rig: &Rig) -> Fallible<Vec<&'static str>> {
    let client = tools::go_program("google.golang.org/grpc/interop/client", "grpc-client")?;
    let server = tools::go_program("google.golang.org/grpc/interop/server", "grpc-server")?;
    let port = process::free_port()?;
    let mut serve = Command::new(server);
    serve.args(["-port", &port.to_string()]);
    let mut app = Background::start(&mut serve, &scratch()?.join("grpc-server.log"))?;
    app.wait_port(port, START)?;
    let mut inbound = rig.start("grpc.yaml", "grpc-inbound", port)?;
    let mut outbound = rig.start("grpc.yaml", "grpc-outbound", inbound.port)?;
    let mut failed = Vec::new();
    for case in CASES {
        match play(&client, case, outbound.port) {
            Ok(()) => println!("{case}: passed"),
            Err(error) => {
                println!("{case}: FAILED: {error}");
                failed.push(case);
            }
        }
    }
    inbound.check()?;
    outbound.check()?;
    Ok(failed)
}

fn play(client: &Path, case: &str, port: u16) -> Fallible {
    let mut command = Command::new(client);
    command.args([
        "-server_host",
        "127.0.0.1",
        "-server_port",
        &port.to_string(),
        "-test_case",
        case,
    ]);
    if case.starts_with("orca") {
        command.args(["-service_config_json", ORCA]);
    }
    if case.ends_with("soak") {
        command.args([
            "-soak_iterations",
            SOAK,
            "-soak_num_threads",
            "4",
            "-soak_max_failures",
            "0",
        ]);
        command.args(["-soak_overall_timeout_seconds", "120"]);
    }
    let ended = process::logged(
        &mut command,
        &scratch()?.join(format!("grpc-{case}.log")),
        Duration::from_secs(150),
    )?;
    if ended.status.success() {
        Ok(())
    } else {
        Err(process::tail(&ended.text, 5).into())
    }
}
