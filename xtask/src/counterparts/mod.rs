//! Other people's clients and suites, each run against a real proxy process.

mod clients;
pub(crate) mod grpc;
pub(crate) mod h2spec;
mod plays;
mod regex;
mod router_socket;
mod smuggling;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Fallible;
use crate::process::{self, Background};
use crate::summary::Summary;
use crate::tools;
use crate::workspace;

/// How long a program may take until it listens.
const START: Duration = Duration::from_secs(20);

/// A counterpart: its name, and what plays it.
type Step = (&'static str, fn(&Rig) -> Fallible<String>);

/// Counterparts of which every case must pass.
pub(crate) const WHOLE: [Step; 4] = [
    ("curl", clients::curl),
    ("h2load", clients::h2load),
    ("websocket", clients::websocket),
    ("router-socket", router_socket::run),
];

/// Adds one step for each counterpart; `proxy` replaces meshd.
pub(crate) fn steps(summary: &mut Summary, proxy: Option<&Path>) {
    let rig = Rig {
        given: proxy.map(Path::to_path_buf),
        built: OnceCell::new(),
    };
    summary.step_twice("h2spec", || h2spec::run(&rig));
    summary.step_twice("grpc-interop", || grpc::run(&rig));
    for (name, run) in WHOLE {
        summary.step_twice(name, || run(&rig));
    }
    for name in plays::NAMES {
        summary.step_twice(name, || plays::run(&rig, name));
    }
    summary.step_twice("differential", || plays::differential(&rig));
    summary.step_twice("smuggling", || smuggling::run(&rig));
    summary.step("re2", regex::run);
}

/// Starts the proxy under test on the files of `interop/configs`.
#[derive(Debug, Default)]
pub(crate) struct Rig {
    given: Option<PathBuf>,
    built: OnceCell<PathBuf>,
}

/// A proxy that listens.
#[derive(Debug)]
pub(crate) struct Proxy {
    process: Background,
    /// Where it takes requests.
    pub(crate) port: u16,
}

impl Rig {
    /// A rig for this program; the default one is for meshd, as the dev profile builds it.
    pub(crate) fn of(program: PathBuf) -> Self {
        Self {
            given: Some(program),
            built: OnceCell::new(),
        }
    }

    /// Starts the proxy on `interop/configs/FILE`, in front of `upstream`; `name` keeps several of one file apart.
    pub(crate) fn start(&self, file: &str, name: &str, upstream: u16) -> Fallible<Proxy> {
        let (port, admin) = (process::free_port()?, process::free_port()?);
        let text = fs::read_to_string(workspace::root().join("interop/configs").join(file))?
            .replace("{listen_port}", &port.to_string())
            .replace("{admin_port}", &admin.to_string())
            .replace("{upstream_port}", &upstream.to_string());
        let config = scratch()?.join(format!("{name}.yaml"));
        fs::write(&config, text)?;
        let mut command = Command::new(self.program()?);
        command.arg("-c").arg(&config).args([
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
        ]);
        let mut process = Background::start(&mut command, &scratch()?.join(format!("{name}.log")))?;
        process.wait_port(port, START)?;
        Ok(Proxy { process, port })
    }

    /// The program, built if need be.
    fn program(&self) -> Fallible<&Path> {
        if let Some(given) = &self.given {
            return Ok(given);
        }
        if self.built.get().is_none() {
            process::run(&mut workspace::cargo([
                "build", "--locked", "--quiet", "-p", "meshd", "--bin", "meshd",
            ]))?;
        }
        Ok(self.built.get_or_init(|| workspace::dev_program("meshd")))
    }
}

impl Proxy {
    /// MiB that the proxy holds in memory (VmRSS).
    pub(crate) fn resident_mib(&self) -> Fallible<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .ok_or("no VmRSS in /proc")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Fails if the proxy has ended, or wrote that it panicked.
    pub(crate) fn check(&mut self) -> Fallible {
        self.process.poll(Duration::ZERO, || Some(()))?;
        let log = self.process.log_text();
        if log.contains("panicked at") {
            return Err(format!("the proxy panicked:\n{}", process::tail(&log, 20)).into());
        }
        Ok(())
    }
}

/// The app behind the proxy (`interop/go/upstream`), listening.
fn upstream(name: &str) -> Fallible<(Background, u16)> {
    let program = tools::go_program("./upstream", "upstream")?;
    let port = process::free_port()?;
    let mut command = Command::new(program);
    command.args(["-listen", &format!("127.0.0.1:{port}")]);
    let mut app = Background::start(
        &mut command,
        &scratch()?.join(format!("{name}-upstream.log")),
    )?;
    app.wait_port(port, START)?;
    Ok((app, port))
}

/// Runs a play to its end and shows what it wrote: the last line, which sums up. Where it ends unsuccessfully, that is the
/// error, with what the play says about its failed cases.
fn play(command: &mut Command, name: &str, limit: Duration) -> Fallible<String> {
    let log = scratch()?.join(format!("{name}-report.log"));
    let ended = process::logged(command, &log, limit)?;
    println!("{}", process::tail(&ended.text, 200));
    let last = ended.text.lines().last();
    let last = last.unwrap_or("the play wrote nothing");
    if ended.status.success() {
        Ok(last.to_owned())
    } else {
        Err(format!("{last}\n{}", failures(&ended.text)).into())
    }
}

/// Each line that says that a case failed, and what is told of it on lines further in.
fn failures(text: &str) -> String {
    let mut told = String::new();
    let mut failed = false;
    for line in text.lines() {
        failed = line.contains(": FAILED") || failed && line.starts_with(' ');
        if failed {
            told = told + line + "\n";
        }
    }
    told
}

/// Where configurations and logs of counterparts go.
fn scratch() -> Fallible<PathBuf> {
    let dir = workspace::target().join("xtask/interop");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_with_what_was_expected_and_seen() {
        let text =
            "a: passed\nb: FAILED\n    expected 1\n    seen     2\nc: passed\nd: FAILED: x\n";
        assert_eq!(
            failures(text),
            "b: FAILED\n    expected 1\n    seen     2\nd: FAILED: x\n"
        );
    }
}
