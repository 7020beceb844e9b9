//! A proxy that is started for the attacks: anything with Envoy's command line and bootstrap.

use std::fs;
use std::io::{Error, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::floods::Used;

/// The configuration, with places for ports and log.
const CONFIG: &str = include_str!("proxy.yaml");
/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// So often a start is tried.
const TRIES: u32 = 3;

/// A running proxy; killed on drop.
#[derive(Debug)]
pub struct Program {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    folder: PathBuf,
}

/// A line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The client's port.
    pub port: u16,
    /// Status, flags and details, as written.
    pub text: String,
}

impl Program {
    /// Starts the program at `path`, with `upstream` behind it, and waits until it listens.
    ///
    /// # Errors
    ///
    /// It does not start, or does not listen in time.
    pub fn start(path: &Path, upstream: SocketAddr) -> Result<Self> {
        // Ports that were free may be taken before the program has them.
        let mut tries = 1..TRIES;
        loop {
            match Self::start_once(path, upstream) {
                Err(_) if tries.next().is_some() => {}
                started => return started,
            }
        }
    }

    fn start_once(path: &Path, upstream: SocketAddr) -> Result<Self> {
        let (proxy, admin) = (free_address()?, free_address()?);
        let folder = std::env::temp_dir().join(format!("mesh-attacks-{}", proxy.port()));
        fs::create_dir_all(&folder)?;
        let log = folder.join("access.log");
        let text = CONFIG
            .replace("{listen_port}", &proxy.port().to_string())
            .replace("{admin_port}", &admin.port().to_string())
            .replace("{upstream_port}", &upstream.port().to_string())
            .replace("{log}", &log.display().to_string());
        let config = folder.join("proxy.yaml");
        fs::write(&config, text)?;
        let out = fs::File::create(folder.join("out.log"))?;
        let child = Command::new(path)
            .arg("-c")
            .arg(&config)
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "warning",
            ])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let mut program = Self {
            child,
            proxy,
            admin,
            folder,
        };
        let start = Instant::now();
        while TcpStream::connect(proxy).is_err() {
            if start.elapsed() > PATIENCE || program.child.try_wait()?.is_some() {
                let out = fs::read_to_string(program.folder.join("out.log")).unwrap_or_default();
                return Err(Error::other(format!("does not listen: {out}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(program)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.proxy
    }

    /// What it has used so far.
    pub fn used(&self) -> Used {
        Used {
            peak: self.peak(),
            cpu: self.cpu(),
        }
    }

    fn peak(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name in brackets may hold spaces; user and system time are the 14th and 15th field of all.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: u64 =
            fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // `USER_HZ` is 100 on every Linux.
        Some(Duration::from_millis(ticks * 10))
    }

    /// Ends it in good order, so that its log is whole, and gives the log.
    ///
    /// # Errors
    ///
    /// It does not end, has written no log, or has panicked.
    pub fn finish(mut self) -> Result<Vec<LogLine>> {
        let mut socket = TcpStream::connect(self.admin)?;
        socket.write_all(b"POST /quitquitquit HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let _ = socket.read_to_end(&mut Vec::new());
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err(Error::other("does not end"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = fs::read_to_string(self.folder.join("out.log"))?;
        if said.contains("panicked at") {
            return Err(Error::other(said));
        }
        let text = fs::read_to_string(self.folder.join("access.log"))?;
        Ok(text.lines().filter_map(line).collect())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn line(text: &str) -> Option<LogLine> {
    let (address, rest) = text.split_once(' ')?;
    Some(LogLine {
        port: address.rsplit_once(':')?.1.parse().ok()?,
        text: rest.to_owned(),
    })
}

fn free_address() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_begins_with_the_clients_address() {
        let seen = line("127.0.0.1:4711 400 DPE http1.codec_error");
        let wanted = LogLine {
            port: 4711,
            text: "400 DPE http1.codec_error".to_owned(),
        };
        assert_eq!(seen, Some(wanted));
        assert_eq!(line("nothing"), None);
    }
}
