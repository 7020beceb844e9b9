//! A proxy that is started for a play: anything with Envoy's command line and bootstrap.

use std::fs;
use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running proxy; killed on drop.
#[derive(Debug)]
pub struct Program {
    child: Child,
    admin: u16,
    folder: PathBuf,
}

/// What a proxy has used so far, where the system says it.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// The most memory that it has had resident, in KiB.
    pub peak: Option<u64>,
    /// Processor time.
    pub cpu: Option<Duration>,
}

impl Program {
    /// Starts the program at `path` and waits until it listens on all of `ports`. `config` is its bootstrap, given a folder of its
    /// own, where its access log is `access.log`, and the port of its admin server.
    ///
    /// # Errors
    ///
    /// It does not start, or does not listen in time.
    pub fn start(
        path: &Path,
        ports: &[u16],
        config: impl FnOnce(&Path, u16) -> String,
    ) -> Result<Self> {
        let admin = free_port()?;
        let folder = std::env::temp_dir().join(format!("mesh-play-{admin}"));
        fs::create_dir_all(&folder)?;
        let file = folder.join("proxy.yaml");
        fs::write(&file, config(&folder, admin))?;
        let out = fs::File::create(folder.join("out.log"))?;
        let child = Command::new(path)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["-l", "warning"])
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let mut program = Self {
            child,
            admin,
            folder,
        };
        let start = Instant::now();
        for port in ports {
            while TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err() {
                if start.elapsed() > PATIENCE || program.child.try_wait()?.is_some() {
                    let said = program.said()?;
                    return Err(Error::other(format!("no listener on {port}: {said}")));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(program)
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

    fn said(&self) -> Result<String> {
        fs::read_to_string(self.folder.join("out.log"))
    }

    /// Ends it in good order, so that its access log is whole, and gives the log; empty if it writes none.
    ///
    /// # Errors
    ///
    /// It does not end, or has panicked.
    pub fn finish(mut self) -> Result<String> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin))?;
        socket.write_all(b"POST /quitquitquit HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let _ = socket.read_to_end(&mut Vec::new());
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > PATIENCE {
                return Err(Error::other("does not end"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let said = self.said()?;
        if said.contains("panicked at") {
            return Err(Error::other(said));
        }
        let log = self.folder.join("access.log");
        match log.exists() {
            true => fs::read_to_string(log),
            false => Ok(String::new()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A loopback port that is ours until we end: nobody is given it who asks for any, and a program that is told of it may listen
/// there, beside a socket that does not.
///
/// # Errors
///
/// No port is left.
pub fn free_port() -> Result<u16> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    // Never closed.
    let kept: &'static _ = Box::leak(Box::new(socket));
    Ok(kept.local_addr()?.port())
}
