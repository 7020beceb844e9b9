//! When a file should be read again.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;

/// Looks at a file by the clock: events of the operating system miss files on network file systems and files behind
/// links that are replaced, and one look costs a system call.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    seen: Option<State>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Watch {
    const INTERVAL: Duration = Duration::from_millis(200);

    pub(super) fn new(path: PathBuf) -> Self {
        let seen = state(&path);
        Self { path, seen }
    }

    /// Waits until the file has changed and then stayed the same for one interval: it may be in the middle of being
    /// written. A file that is gone counts as unchanged.
    ///
    /// Cancel safe: a change that was not answered is found again.
    pub(super) async fn changed(&mut self) {
        let mut last = None;
        loop {
            sleep(Self::INTERVAL).await;
            let now = state(&self.path);
            if now.is_some() && now != self.seen && now == last {
                self.seen = now;
                return;
            }
            last = now;
        }
    }
}

fn state(path: &PathBuf) -> Option<State> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(State {
        modified: metadata.modified().ok(),
        len: metadata.len(),
        inode: metadata.ino(),
    })
}
