//! What several integration tests need: a folder of their own, and updates of a source that come in time.

#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mesh_core::config::{ConfigSource, Update};

/// A folder of its own for each test or case, removed at its end.
pub struct Temp(pub PathBuf);

impl Temp {
    /// An empty folder; `name` tells those of one process apart.
    pub fn new(name: &str) -> Self {
        let test = env!("CARGO_CRATE_NAME");
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = std::env::temp_dir().join(format!("{test}-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary folder");
        Self(path)
    }

    /// Where a file of that name is.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file where it is.
    pub fn write(&self, name: &str, content: &(impl AsRef<[u8]> + ?Sized)) {
        fs::write(self.0.join(name), content).expect("file written");
    }

    /// Writes a file and moves it to its place, as editors do and as Envoy wants it.
    pub fn put(&self, name: &str, content: &(impl AsRef<[u8]> + ?Sized)) {
        self.write(".new", content);
        fs::rename(self.0.join(".new"), self.0.join(name)).expect("file moved");
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).expect("file removed");
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The next update; a source that says nothing has failed.
pub async fn next(source: &mut impl ConfigSource) -> Update {
    tokio::time::timeout(Duration::from_secs(60), source.next())
        .await
        .expect("an update in time")
        .expect("the source lives")
}
