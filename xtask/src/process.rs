//! Running other programs: to their end, with a deadline, or in the background until dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::Fallible;

/// How often a condition is polled.
const POLL: Duration = Duration::from_millis(10);

/// Runs `command` with our standard streams; an unsuccessful end is an error that names it.
pub(crate) fn run(command: &mut Command) -> Fallible {
    let status = command
        .status()
        .map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}", shown(command)).into())
    }
}

/// Runs `command` as [`run`] does; the error of an unsuccessful end repeats the lines of its standard output that `tells` picks.
pub(crate) fn run_told(command: &mut Command, tells: impl Fn(&str) -> bool) -> Fallible {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    let mut told = String::new();
    let written = child.stdout.take().expect("it was asked for");
    for line in BufReader::new(written).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if tells(&line) {
            told = told + "\n" + &line;
        }
    }
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}{told}", shown(command)).into())
    }
}

/// Runs `command` and returns its standard output; standard error stays ours.
pub(crate) fn output(command: &mut Command) -> Fallible<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", shown(command), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How a program ended, and all that it wrote to both streams.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

/// Runs `command` with both streams in the file `log`; kills it after `limit`, which is an error.
pub(crate) fn logged(command: &mut Command, log: &Path, limit: Duration) -> Fallible<Ended> {
    let mut guard = Background::start(command, log)?;
    let status = guard.wait(limit)?;
    Ok(Ended {
        status,
        text: guard.log_text(),
    })
}

/// A program that runs in the background and is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Background {
    /// Starts `command` with both streams in the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Fallible<Self> {
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = File::create(log)?;
        let name = shown(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self {
            child,
            name,
            log: log.to_path_buf(),
        })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `port` on loopback accepts a connection, or the program ends, or `limit` has passed.
    pub(crate) fn wait_port(&mut self, port: u16, limit: Duration) -> Fallible {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listening = self.poll(limit, || {
            TcpStream::connect_timeout(&address, Duration::from_millis(200))
                .is_ok()
                .then_some(())
        })?;
        listening.ok_or_else(|| {
            format!(
                "{} does not listen on port {port} after {limit:?}:\n{}",
                self.name,
                self.log_tail()
            )
            .into()
        })
    }

    /// Polls `condition` until it holds; `None` after `limit`; an error if the program ends first.
    pub(crate) fn poll<T>(
        &mut self,
        limit: Duration,
        condition: impl Fn() -> Option<T>,
    ) -> Fallible<Option<T>> {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return Ok(Some(value));
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!(
                    "{} ended early with {status}:\n{}",
                    self.name,
                    self.log_tail()
                )
                .into());
            }
            if start.elapsed() > limit {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the end; a program still running after `limit` is killed, which is an error.
    pub(crate) fn wait(&mut self, limit: Duration) -> Fallible<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                self.kill();
                return Err(format!(
                    "{} did not end within {limit:?}:\n{}",
                    self.name,
                    self.log_tail()
                )
                .into());
            }
            thread::sleep(POLL);
        }
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) -> Fallible {
        run(Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string()))
    }

    /// All that the program wrote so far.
    pub(crate) fn log_text(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.log_text(), 30)
    }

    fn kill(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that is ours until we end: nobody is given it who asks for any, and a program that we tell of it may listen
/// there, beside a socket that does not.
pub(crate) fn free_port() -> Fallible<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    // Never closed.
    Box::leak(Box::new(socket));
    Ok(address.ok_or("a socket of TCP has a port")?.port())
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
