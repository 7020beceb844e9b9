//! The mesh's data plane: sidecar, gateway, or a proxy on an Envoy file.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    meshd::main_with_args(std::env::args_os())
}
