//! The sidecars and the gateway: this program again, as `meshd`, each a process of its own.

use std::{
    env,
    ffi::OsString,
    io,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{Options, admin::Admin, notes::Notes};
use crate::world::World;

/// The hidden first argument with which bookinfo is `meshd`.
pub const MESHD: &str = "meshd";

/// Why the sidecars are not all there.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// One cannot be started.
    #[error("{name} cannot be started: {error}")]
    Start {
        /// The sidecar's or gateway's name.
        name: String,
        /// What the system says.
        error: io::Error,
    },
    /// One ended, though nobody told it to.
    #[error("{name} died: {status}{}", said(last))]
    Died {
        /// The sidecar's or gateway's name.
        name: String,
        /// How it ended.
        status: String,
        /// What it wrote last to its standard error.
        last: String,
    },
    /// One is not ready in time.
    #[error("{name} was not ready within {within:?}")]
    NotReady {
        /// The sidecar's or gateway's name.
        name: String,
        /// The time that it had.
        within: Duration,
    },
}

fn said(last: &str) -> String {
    if last.is_empty() {
        String::new()
    } else {
        format!("; its last words: {last}")
    }
}

/// One process.
#[derive(Debug)]
struct Proxy {
    name: String,
    /// None once it has ended.
    pid: Option<Pid>,
    /// The order in which the proxies end; the gateway is first.
    rank: u8,
    admin: Admin,
    /// Closed when this process dies, however it dies; the proxy ends when it sees that.
    _tether: Option<ChildStdin>,
}

/// How a proxy ended, and what it wrote last.
type Ended = (usize, io::Result<ExitStatus>, String);

/// All proxies.
#[derive(Debug)]
pub(super) struct Fleet {
    proxies: Vec<Proxy>,
    /// Owns the processes: dropping it kills what still runs.
    waits: JoinSet<Ended>,
}

impl Fleet {
    /// Starts one for each workload, and the gateway. They may not be ready yet.
    pub(super) fn start(
        world: &World,
        options: &Options,
        notes: &Notes,
    ) -> Result<Self, FleetError> {
        let mut fleet = Self {
            proxies: Vec::new(),
            waits: JoinSet::new(),
        };
        let gateway = &world.gateway;
        fleet.spawn(
            Role::Gateway,
            (&gateway.namespace, &gateway.pod),
            (gateway.admin(), 0),
            options,
            notes,
        )?;
        for workload in &world.workloads {
            let place = (workload.admin(), workload.depth() + 1);
            fleet.spawn(
                Role::Sidecar,
                (&workload.namespace, &workload.pod),
                place,
                options,
                notes,
            )?;
        }
        Ok(fleet)
    }

    fn spawn(
        &mut self,
        role: Role,
        (namespace, pod): (&str, &str),
        (admin, rank): (SocketAddr, u8),
        options: &Options,
        notes: &Notes,
    ) -> Result<(), FleetError> {
        let name = role.name(pod);
        let fail = |error| FleetError::Start {
            name: name.clone(),
            error,
        };
        let mut child = Command::new(env::current_exe().map_err(fail)?)
            .arg(MESHD)
            .args(role.arguments(namespace, pod, admin, options))
            .stdin(Stdio::piped())
            .stdout(if options.access_log {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group; the order of ending is ours.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let relayed = |note: fn(&Notes, &str, &str)| {
            let (notes, pod) = (notes.clone(), pod.to_owned());
            move |line: &str| note(&notes, &pod, line)
        };
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(relay(stdout, relayed(Notes::show)));
        }
        let stderr = child.stderr.take();
        let stderr = stderr.map(|stderr| tokio::spawn(relay(stderr, relayed(Notes::log))));
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let tether = child.stdin.take();
        let index = self.proxies.len();
        self.proxies.push(Proxy {
            name,
            pid,
            rank,
            admin: Admin::new(admin),
            _tether: tether,
        });
        self.waits.spawn(wait(index, child, stderr));
        Ok(())
    }

    /// Waits until all are ready.
    pub(super) async fn ready(&mut self, within: Duration) -> Result<(), FleetError> {
        let deadline = Instant::now() + within;
        for at in 0..self.proxies.len() {
            while self.proxies[at].admin.text("/ready").await.is_none() {
                if Instant::now() >= deadline {
                    return Err(FleetError::NotReady {
                        name: self.proxies[at].name.clone(),
                        within,
                    });
                }
                tokio::select! {
                    () = sleep(Duration::from_millis(10)) => {}
                    error = self.died() => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Comes when one has ended, though nobody told it to.
    pub(super) async fn died(&mut self) -> FleetError {
        loop {
            match self.waits.join_next().await {
                Some(Ok((index, status, last))) => {
                    self.proxies[index].pid = None;
                    let status =
                        status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    return FleetError::Died {
                        name: self.proxies[index].name.clone(),
                        status,
                        last,
                    };
                }
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// The name of each one, and the text at `path` if it answers.
    pub(super) async fn texts(&self, path: &'static str) -> Vec<(String, Option<String>)> {
        let mut asked = JoinSet::new();
        for proxy in &self.proxies {
            let (name, admin) = (proxy.name.clone(), proxy.admin.clone());
            asked.spawn(async move { (name, admin.text(path).await) });
        }
        asked.join_all().await
    }

    /// Ends all, from the gateway inwards, so that what a request still needs ends after it. Names those that had to be
    /// killed at the deadline.
    pub(super) async fn drain(mut self, deadline: Instant) -> Vec<String> {
        for rank in 0..=self
            .proxies
            .iter()
            .map(|proxy| proxy.rank)
            .max()
            .unwrap_or(0)
        {
            for proxy in self.proxies.iter().filter(|proxy| proxy.rank == rank) {
                if let Some(pid) = proxy.pid {
                    // It may have ended in between, which is as good.
                    let _ = kill_process(pid, Signal::TERM);
                }
            }
            while self
                .proxies
                .iter()
                .any(|proxy| proxy.rank == rank && proxy.pid.is_some())
            {
                match timeout_at(deadline, self.waits.join_next()).await {
                    Ok(Some(Ok((index, ..)))) => self.proxies[index].pid = None,
                    Ok(Some(Err(_))) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        let cut = self
            .proxies
            .iter()
            .filter(|proxy| proxy.pid.is_some())
            .map(|proxy| proxy.name.clone())
            .collect();
        self.waits.shutdown().await;
        cut
    }
}

#[derive(Clone, Copy)]
enum Role {
    Gateway,
    Sidecar,
}

impl Role {
    fn name(self, pod: &str) -> String {
        match self {
            Self::Gateway => format!("gateway {pod}"),
            Self::Sidecar => format!("sidecar of {pod}"),
        }
    }

    fn arguments(
        self,
        namespace: &str,
        pod: &str,
        admin: SocketAddr,
        options: &Options,
    ) -> Vec<OsString> {
        let command = match self {
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
        };
        vec![
            command.into(),
            "--config".into(),
            options.mesh.clone().into(),
            "--workload".into(),
            format!("{namespace}/{pod}").into(),
            "--admin".into(),
            admin.to_string().into(),
            // All proxies share one machine here, so each has its usual ports on its own address.
            "--readiness".into(),
            SocketAddr::new(admin.ip(), 15021).to_string().into(),
            "--metrics".into(),
            SocketAddr::new(admin.ip(), 15090).to_string().into(),
            // Notes are for what needs a look. What a proxy says of its configuration is asked for, and shown once for all.
            "--log-level".into(),
            "warning".into(),
            "--component-log-level".into(),
            "config:error".into(),
            // A gateway listens on its Pod's address only; a sidecar's listeners have theirs in the configuration.
            "--bind".into(),
            admin.ip().to_string().into(),
        ]
    }
}

async fn wait(
    index: usize,
    mut child: Child,
    stderr: Option<tokio::task::JoinHandle<String>>,
) -> Ended {
    let status = child.wait().await;
    let last = match stderr {
        Some(stderr) => stderr.await.unwrap_or_default(),
        None => String::new(),
    };
    (index, status, last)
}

/// Hands each line on as a note, and answers the last one. An access log repeats bytes of clients that may be no text.
async fn relay(from: impl AsyncRead + Unpin, note: impl Fn(&str)) -> String {
    let mut lines = BufReader::new(from).split(b'\n');
    let mut last = String::new();
    while let Ok(Some(line)) = lines.next_segment().await {
        last = String::from_utf8_lossy(&line).into_owned();
        note(&last);
    }
    last
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn a_line_that_is_no_text_is_not_the_last() {
        let seen = RefCell::new(Vec::new());
        let last = relay(&b"one\nt\xffo\nthree"[..], |line| {
            seen.borrow_mut().push(line.to_owned());
        });
        assert_eq!(last.await, "three");
        assert_eq!(seen.into_inner(), ["one", "t\u{fffd}o", "three"]);
    }
}
