//! Where things are: the workspace, its target folder, the material beside it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;
use crate::process;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The target folder, as cargo sees it: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Waits until no other run of ours works in the target folder, whose logs and scratch files two would overwrite for each
/// other; the file returned keeps the next one waiting until it is dropped.
pub(crate) fn alone() -> Fallible<File> {
    let dir = target().join("xtask");
    fs::create_dir_all(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    if lock.try_lock().is_err() {
        println!("waiting: another run works in {}", dir.display());
        lock.lock()?;
    }
    Ok(lock)
}

/// A folder of shared material: the environment variable, else `../shared/NAME` beside the workspace or beside a parent of it.
pub(crate) fn shared(variable: &str, name: &str) -> PathBuf {
    if let Some(dir) = env::var_os(variable) {
        return PathBuf::from(dir);
    }
    let root = root();
    root.ancestors()
        .skip(1)
        .map(|parent| parent.join("shared").join(name))
        .find(|candidate| candidate.is_dir())
        .unwrap_or_else(|| root.join("../shared").join(name))
}

/// A cargo command in the workspace, with the cargo that runs us.
pub(crate) fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// The program `name` of `mesh-testkit`, built in the dev profile.
pub(crate) fn testkit(name: &str) -> Fallible<Command> {
    let build = [
        "build",
        "--locked",
        "--quiet",
        "-p",
        "mesh-testkit",
        "--bin",
    ];
    process::run(cargo(build).arg(name))?;
    Ok(Command::new(dev_program(name)))
}

/// The program `name` as the dev profile built it.
pub(crate) fn dev_program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// Where the release profile puts programs.
pub(crate) fn release_folder() -> PathBuf {
    target().join("release")
}

/// The program `name` as the release profile built it.
pub(crate) fn release_program(name: &str) -> PathBuf {
    release_folder().join(name)
}
