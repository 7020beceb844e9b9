//! When a file should be read again.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// Looks at a file by the clock: events of the operating system miss files on network file systems and files behind
/// links that are replaced, and one look costs a system call.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    seen: Option<State>,
    last: Option<State>,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Watch {
    /// Time between two looks.
    pub(super) const INTERVAL: Duration = Duration::from_millis(200);

    pub(super) fn new(path: PathBuf) -> Self {
        let seen = state(&path);
        Self {
            path,
            seen,
            last: None,
        }
    }

    /// Whether the file has changed and then stayed the same from one look to the next: it may be in the middle of being
    /// written. So a file that is replaced is never seen as gone. A change is told of until it was [seen](Self::seen).
    pub(super) fn look(&mut self) -> bool {
        let now = state(&self.path);
        let changed = now != self.seen && now == self.last;
        self.last = now;
        changed
    }

    /// The file is about to be read as it is now.
    pub(super) fn seen(&mut self) {
        self.seen = state(&self.path);
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
