//! Which files of a folder hold configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::finding::{Finding, Level};

/// Folders within folders that are entered.
const LEVELS: usize = 16;

/// What a folder and its sub-folders hold at one moment.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files by their names: `*.yaml`, `*.yml` and `*.json`, in order. One that cannot be looked at is reported when it is
    /// read.
    pub(super) paths: Vec<PathBuf>,
    /// Sub-folders that could not be listed: what they held is neither there nor gone.
    pub(super) unreadable: Vec<PathBuf>,
    /// What was passed over, and why.
    pub(super) findings: Vec<Finding>,
    /// The real path of the folder.
    root: PathBuf,
    /// The real paths of the links that lead to where the listing is.
    within: Vec<PathBuf>,
}

impl Listing {
    /// Lists the folder.
    ///
    /// # Errors
    /// The folder itself cannot be listed; for a sub-folder there is a finding instead.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut listing = Self {
            root: fs::canonicalize(root)?,
            ..Self::default()
        };
        listing.entries(root, 0)?;
        listing.paths.sort();
        Ok(listing)
    }

    fn entries(&mut self, folder: &Path, level: usize) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            // `lost+found` is the file system's own.
            if name.to_string_lossy().starts_with('.') || name == "lost+found" {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&path, level + 1);
            } else if kind.is_symlink() && fs::metadata(&path).is_ok_and(|m| m.is_dir()) {
                self.link(&path, level + 1);
            } else if is_named_so(&path) {
                self.file(path, kind.is_file());
            }
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, level: usize) {
        if level > LEVELS {
            let message = format!("not read: more than {LEVELS} folders within one another");
            return self.note(Level::Warning, path, message);
        }
        match self.entries(path, level) {
            // A folder that vanished meanwhile holds nothing.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.unreadable.push(path.to_owned());
                let message = format!("the folder cannot be read: {error}");
                self.note(Level::Refused, path, message);
            }
            _ => {}
        }
    }

    /// A volume of Kubernetes shows a folder as a link into its hidden copy (`..data`). Any other link to a folder may lead
    /// back here, or out to all files of the machine.
    fn link(&mut self, path: &Path, level: usize) {
        let Ok(target) = fs::canonicalize(path) else {
            return;
        };
        let hidden = target.strip_prefix(&self.root).is_ok_and(|inside| {
            let mut names = inside.iter();
            names.any(|name| name.to_string_lossy().starts_with('.'))
        });
        if !hidden || self.within.contains(&target) {
            let message = "not read: a link to a folder is followed only into a hidden folder of the same volume, once";
            return self.note(Level::Warning, path, message.to_owned());
        }
        self.within.push(target);
        self.folder(path, level);
        self.within.pop();
    }

    /// A pipe or device would be read without end.
    fn file(&mut self, path: PathBuf, plain: bool) {
        if plain || fs::metadata(&path).map_or(true, |m| m.is_file()) {
            self.paths.push(path);
        } else {
            let message = "not read: a pipe, socket or device, not a file";
            self.note(Level::Warning, &path, message.to_owned());
        }
    }

    fn note(&mut self, level: Level, path: &Path, message: String) {
        let name: Arc<str> = path.display().to_string().into();
        self.findings.push(Finding::new(level, &name, message));
    }
}

fn is_named_so(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}
