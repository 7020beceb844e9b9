//! Asks the linker to keep one of each set of identical functions, if it can: a tenth less code is resident.
//!
//! Only some linkers can (the one that Rust brings along for Linux on x86-64 does), so that a program of one line is linked
//! first. Where that fails, `meshd` is linked without.

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

const FOLD: &str = "-Wl,--icf=all";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    // What is debugged keeps all of its functions.
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && links(FOLD) == Some(true) {
        println!("cargo::rustc-link-arg-bins={FOLD}");
    }
}

/// Whether a program can be linked with `flag`, by the compiler and for the target of this build; `None`: cannot be tried.
fn links(flag: &str) -> Option<bool> {
    let out = env::var_os("OUT_DIR")?;
    let mut compiler = Command::new(env::var_os("RUSTC")?);
    compiler
        .args(["--crate-name", "probe", "--crate-type", "bin", "-"])
        .args(["--target", &env::var("TARGET").ok()?])
        .args(["-C", &format!("link-arg={flag}")])
        .arg("-o")
        .arg(Path::new(&out).join("probe"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.args(["-C", &format!("linker={linker}")]);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compiler.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    let mut running = compiler
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    running.stdin.take()?.write_all(b"fn main() {}").ok()?;
    Some(running.wait().ok()?.success())
}
