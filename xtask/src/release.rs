//! `cargo xtask release`: `meshd` as it is shipped. The compiler sees where real requests went and lays out, inlines and
//! shrinks by that: <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Fallible;
use crate::process;
use crate::workspace;

/// What is built: `bare` with the same means, so that beside it `meshd` has no advantage.
const PROGRAMS: [&str; 2] = ["meshd", "bare"];

/// Builds the programs and says where they are.
pub(crate) fn run() -> Fallible<bool> {
    let programs = build(&profdata()?)?;
    println!("{}", programs.join("meshd").display());
    Ok(true)
}

/// Builds the programs with a profile, which is taken anew whenever their code has changed; returns their folder.
pub(crate) fn build(profdata: &Path) -> Fallible<PathBuf> {
    let dir = workspace::target().join("profiled");
    let raw = dir.join("raw");
    // The same profile of cargo's in both builds: functions are known by names that depend on it.
    let counting = compile(
        &dir.join("counting"),
        &format!("-Cprofile-generate={}", raw.display()),
    )?;
    let profile = dir.join(format!("{:016x}.profdata", fingerprint(&counting)?));
    if !profile.is_file() {
        take(profdata, &counting, &raw, &profile)?;
    }
    compile(
        &dir.join("shipped"),
        &format!("-Cprofile-use={}", profile.display()),
    )
}

/// Where [`build`] puts the programs.
pub(crate) fn folder() -> Fallible<PathBuf> {
    Ok(workspace::target()
        .join("profiled/shipped")
        .join(host()?)
        .join("release"))
}

/// The tool that merges profiles, of the same LLVM as the compiler; asks rustup for it if need be.
pub(crate) fn profdata() -> Fallible<PathBuf> {
    let sysroot = process::output(Command::new(rustc()).args(["--print", "sysroot"]))?;
    let program = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host()?)
        .join("bin/llvm-profdata");
    if !program.is_file() {
        process::run(Command::new("rustup").args(["component", "add", "llvm-tools"]))
            .map_err(|error| format!("the toolchain has no llvm-profdata: {error}"))?;
    }
    Ok(program)
}

/// Plays the training traffic and merges what the programs have counted.
fn take(profdata: &Path, counting: &Path, raw: &Path, profile: &Path) -> Fallible {
    if raw.is_dir() {
        fs::remove_dir_all(raw)?;
    }
    let mut train = workspace::cargo(["run", "--quiet", "--locked", "-p", "mesh-benches"]);
    train.args(["--bin", "train", "--"]);
    train.args(PROGRAMS.map(|name| counting.join(name)));
    process::run(&mut train)?;
    process::run(
        Command::new(profdata)
            .args([OsStr::new("merge"), OsStr::new("-o")])
            .arg(profile)
            .arg(raw),
    )
}

/// Builds the programs in a folder of their own with one more flag for the compiler.
fn compile(target: &Path, flag: &str) -> Fallible<PathBuf> {
    let flags = env::var("RUSTFLAGS").unwrap_or_default() + " " + flag;
    let host = host()?;
    // A target that is named keeps the flag from build scripts and macros.
    let mut command = workspace::cargo(["build", "--release", "--locked", "--target", &host]);
    command.args(["-p", "meshd", "-p", "mesh-benches"]);
    for name in PROGRAMS {
        command.args(["--bin", name]);
    }
    command.arg("--target-dir").arg(target);
    process::run(command.env("RUSTFLAGS", flags.trim()))?;
    Ok(target.join(host).join("release"))
}

/// What changes when one of the programs does.
fn fingerprint(programs: &Path) -> Fallible<u64> {
    let mut hasher = DefaultHasher::new();
    for name in PROGRAMS {
        hasher.write(&fs::read(programs.join(name))?);
    }
    Ok(hasher.finish())
}

fn rustc() -> std::ffi::OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// The target that the compiler builds for by itself.
fn host() -> Fallible<String> {
    let text = process::output(Command::new(rustc()).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc does not say its host")?.to_owned())
}
