//! Programs that the tests need and install by themselves, pinned, under the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;
use crate::process;
use crate::workspace;

/// The version of cargo-deny that judges dependencies.
const CARGO_DENY: &str = "0.20.2";

/// cargo-deny, installed on first use.
pub(crate) fn cargo_deny() -> Fallible<PathBuf> {
    let root = workspace::target()
        .join("tools")
        .join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        let arguments = [
            "install",
            "cargo-deny",
            "--locked",
            "--version",
            CARGO_DENY,
            "--root",
        ];
        // Its own target folder is dropped by cargo at the end; ours must not be locked meanwhile.
        process::run(
            workspace::cargo(arguments)
                .arg(&root)
                .env_remove("CARGO_TARGET_DIR"),
        )?;
    }
    Ok(program)
}

/// A Go program of `interop/go`, built on first use and after each change of its pins or sources.
pub(crate) fn go_program(package: &str, name: &str) -> Fallible<PathBuf> {
    let dir = workspace::target().join("tools/go");
    fs::create_dir_all(&dir)?;
    let program = dir.join(name);
    // Go's own build cache decides whether there is anything to do.
    let mut build = Command::new("go");
    build
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(package);
    build.current_dir(workspace::root().join("interop/go"));
    process::run(&mut build)
        .map_err(|error| format!("{error} (Go is needed: https://go.dev/doc/install)"))?;
    Ok(program)
}

/// The Python interpreter of a virtual environment with the packages of `interop/python/requirements.txt`.
pub(crate) fn python() -> Fallible<PathBuf> {
    let pins = workspace::root().join("interop/python/requirements.txt");
    let wanted = fs::read_to_string(&pins)?;
    let dir = workspace::target().join("tools/python");
    let stamp = dir.join("installed.txt");
    let program = dir.join("bin/python");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && program.is_file() {
        return Ok(program);
    }
    process::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&dir),
    )?;
    let mut install = Command::new(&program);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "-r",
    ]);
    process::run(install.arg(&pins))?;
    fs::write(&stamp, wanted)?;
    Ok(program)
}

/// A program of the system; where it is absent, `apt-get` is asked for `package`.
pub(crate) fn system(program: &str, package: &str) -> Fallible<PathBuf> {
    if let Some(found) = on_path(program) {
        return Ok(found);
    }
    process::run(Command::new("apt-get").args([
        "install",
        "--yes",
        "--quiet",
        "--no-install-recommends",
        package,
    ]))
    .map_err(|error| format!("{program} is not on PATH and could not be installed: {error}"))?;
    on_path(program).ok_or_else(|| format!("package {package} did not bring {program}").into())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| Path::is_file(candidate))
}
