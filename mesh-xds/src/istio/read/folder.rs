//! A folder of files, read again and again; what was good stays until something good replaces it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use super::finding::{Finding, Level, ObjectId};
use super::listing::Listing;
use super::lost;
use super::text::{Parsed, TextOptions, parse};
use crate::istio::Object;
use crate::istio::api::Lost;
use crate::yaml;

/// A file that is missing or broken may be in the middle of being saved; it is believed after this time.
const SETTLE: Duration = Duration::from_millis(300);

/// A file that was written to this short a while ago may not be complete, though what it holds reads well so far.
const QUIET: Duration = Duration::from_millis(50);

/// How a folder is read.
#[derive(Clone, Debug)]
pub struct FolderOptions {
    /// How each file is read.
    pub text: TextOptions,
    /// Files that are read at most; more are refused by name. Default 10,000.
    pub max_files: usize,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self {
            text: TextOptions::default(),
            max_files: 10_000,
        }
    }
}

/// A folder and the last good content of its files: `*.yaml`, `*.yml` and `*.json`, also in sub-folders. Names that begin
/// with a dot are passed over, since Kubernetes' volumes and editors keep their copies under such names; what else is not
/// read is told of.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    options: FolderOptions,
    files: BTreeMap<PathBuf, FileState>,
    /// Findings about the folder itself.
    findings: Vec<Finding>,
    /// What of the folder could not be read at all.
    lost: Vec<Lost>,
    /// Since when files are listed that cannot be looked at, as links to nothing: they may be about to come.
    absent: BTreeMap<PathBuf, Instant>,
    /// Whether there was a scan before.
    scanned: bool,
}

#[derive(Debug)]
struct FileState {
    name: Arc<str>,
    stamp: Option<Stamp>,
    objects: Vec<Arc<Object>>,
    findings: Vec<Finding>,
    /// What is refused since the first scan and has no last good version here.
    lost: Vec<Lost>,
    /// Whether the file was readable once, so that what it held stays while it is broken.
    was_read: bool,
    missing_since: Option<Instant>,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
    /// When content, owner or permissions changed last: seconds and nanoseconds.
    changed: (i64, i64),
}

/// What a folder holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Whether anything differs from the scan before.
    pub changed: bool,
    /// Whether a file seems to be in the middle of being saved, so that another scan should follow soon.
    pub unsettled: bool,
    /// The objects in force, ordered by file; each identity once.
    pub objects: Vec<Arc<Object>>,
    /// What is to be said, ordered by file.
    pub findings: Vec<Finding>,
    /// What is refused since the first scan and has no version in force, ordered by file.
    pub lost: Vec<Lost>,
}

impl Folder {
    /// A folder that was not read yet.
    pub fn new(root: impl Into<PathBuf>, options: FolderOptions) -> Self {
        Self {
            root: root.into(),
            options,
            files: BTreeMap::new(),
            findings: Vec::new(),
            lost: Vec::new(),
            absent: BTreeMap::new(),
            scanned: false,
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what changed since the last scan. A folder that cannot be listed keeps its content, with a finding.
    pub fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let before = std::mem::take(&mut self.findings);
        match Listing::of(&self.root) {
            Ok(listing) => {
                let Listing {
                    mut paths,
                    unreadable,
                    mut findings,
                    ..
                } = listing;
                findings.sort_by(|a, b| a.file.cmp(&b.file));
                self.findings = findings;
                let before = std::mem::take(&mut self.lost);
                self.unreadable(&unreadable, &before);
                self.limit(&mut paths, &before);
                self.removed(&paths, &unreadable, &mut scan);
                for path in paths {
                    self.file(path, &mut scan);
                }
            }
            Err(error) => {
                let name: Arc<str> = self.root.display().to_string().into();
                let message = format!("the folder cannot be read: {error}");
                if self.files.is_empty() {
                    self.lost = vec![Lost::unreadable(&name)];
                }
                self.findings
                    .push(Finding::new(Level::Refused, &name, message));
            }
        }
        self.scanned = true;
        scan.changed |= before != self.findings;
        self.collect(&mut scan);
        scan
    }

    /// What is lost in folders that cannot be listed: what they held stays in force; if that was nothing, it is not known
    /// what is missing.
    fn unreadable(&mut self, folders: &[PathBuf], before: &[Lost]) {
        for folder in folders {
            if !self.files.keys().any(|path| path.starts_with(folder)) {
                self.lose(&folder.display().to_string().into(), before);
            }
        }
    }

    /// Leaves as many files as may be read: those that were read before, then by name. So what is in force stays.
    fn limit(&mut self, paths: &mut Vec<PathBuf>, before: &[Lost]) {
        let limit = self.options.max_files;
        let Some(over @ 1..) = paths.len().checked_sub(limit) else {
            return;
        };
        let (mut taken, mut new): (Vec<_>, Vec<_>) = paths
            .drain(..)
            .partition(|path| self.files.contains_key(path));
        let refused = new.split_off(new.len().saturating_sub(over));
        taken.append(&mut new);
        taken.sort();
        *paths = taken;
        for path in refused {
            let name: Arc<str> = path.display().to_string().into();
            let message = format!("not read: the folder holds more than {limit} files");
            self.lose(&name, before);
            self.findings
                .push(Finding::new(Level::Refused, &name, message));
        }
    }

    /// Something that cannot be read is lost if that was so from the start; one is enough to say so.
    fn lose(&mut self, name: &Arc<str>, before: &[Lost]) {
        let lost = Lost::unreadable(name);
        let from_start = !self.scanned || before.iter().any(|other| lost.is_same(other));
        if from_start && self.lost.is_empty() {
            self.lost.push(lost);
        }
    }

    fn removed(&mut self, paths: &[PathBuf], unreadable: &[PathBuf], scan: &mut Scan) {
        let there = |path: &PathBuf| paths.binary_search(path).is_ok();
        self.absent.retain(|path, _| there(path));
        self.files.retain(|path, state| {
            if there(path) || unreadable.iter().any(|folder| path.starts_with(folder)) {
                state.missing_since = None;
                return true;
            }
            let since = *state.missing_since.get_or_insert_with(Instant::now);
            let keep = since.elapsed() < SETTLE;
            scan.unsettled |= keep;
            scan.changed |= !keep;
            keep
        });
    }

    fn file(&mut self, path: PathBuf, scan: &mut Scan) {
        let stamp = stamp(&path).ok();
        let known = self.files.get(&path);
        // One that could not be looked at, and cannot now, was told of.
        if known.is_some_and(|state| state.stamp == stamp) {
            return;
        }
        let name: Arc<str> = match known {
            Some(state) => Arc::clone(&state.name),
            None => path.display().to_string().into(),
        };
        let mut parsed = match yaml::read_file(&path, &self.options.text.limits) {
            Ok(text) => parse(&name, &text, &self.options.text),
            Err(error) => Parsed {
                findings: vec![Finding::refused(&name, &error)],
                lost: lost::of_file(&name, &path, &self.options.text),
                broken: true,
                ..Parsed::default()
            },
        };
        let again = self::stamp(&path).ok();
        let age = match again {
            Some(stamp) => {
                self.absent.remove(&path);
                stamp.modified.elapsed().ok()
            }
            None => {
                let since = self.absent.entry(path.clone());
                Some(since.or_insert_with(Instant::now).elapsed())
            }
        };
        let within = |time| age.is_some_and(|age| age < time);
        let suspicious = known.is_some_and(|state| parsed.loses(state)) && within(SETTLE);
        if again != stamp || suspicious || within(QUIET) {
            scan.unsettled = true;
            // At the start there is nothing better than what was read.
            if self.scanned {
                return;
            }
        }
        if self.scanned {
            self.forget(&path, &mut parsed.lost);
        }
        let old = self.files.remove(&path);
        let state = settle(name, stamp, parsed, old.as_ref());
        scan.changed |= old.is_none_or(|old| old.differs(&state));
        self.files.insert(path, state);
    }

    /// Leaves of what is refused in an edit only what was so from the start: to an edit that is refused the last good
    /// configuration is the one without it. An object may have moved to another file meanwhile.
    fn forget(&self, path: &Path, lost: &mut Vec<Lost>) {
        let same_file = self.files.get(path);
        if same_file.is_some_and(|state| !state.lost.is_empty()) {
            return;
        }
        let from_start = |one: &Lost| {
            let mut known = self.files.values().flat_map(|state| &state.lost);
            known.any(|other| one.is_same(other))
        };
        lost.retain(from_start);
    }

    /// Each identity once: of two files the one changed last wins, in one file the later object.
    fn collect(&self, scan: &mut Scan) {
        let mut winners: HashMap<ObjectId, (&FileState, &Arc<Object>)> = HashMap::new();
        scan.findings.extend(self.findings.iter().cloned());
        for state in self.files.values() {
            scan.findings.extend(state.findings.iter().cloned());
            for object in &state.objects {
                let id = ObjectId::of(object);
                let Some(&(other_state, other)) = winners.get(&id) else {
                    winners.insert(id, (state, object));
                    continue;
                };
                let newer = state.modified() >= other_state.modified();
                let (winner, loser) = if newer {
                    (object, other)
                } else {
                    (other, object)
                };
                scan.findings.push(duplicate(&id, winner, loser));
                if newer {
                    winners.insert(id, (state, object));
                }
            }
        }
        let in_force = |object: &&Arc<Object>| {
            winners
                .get(&ObjectId::of(object))
                .is_some_and(|(_, winner)| Arc::ptr_eq(winner, object))
        };
        scan.objects = self
            .files
            .values()
            .flat_map(|s| &s.objects)
            .filter(in_force)
            .cloned()
            .collect();
        let lost = self.files.values().flat_map(|s| &s.lost);
        let nowhere =
            |lost: &&Lost| !(lost.is_named() && scan.objects.iter().any(|o| lost.may_be(o)));
        scan.lost = self
            .lost
            .iter()
            .chain(lost.filter(nowhere))
            .cloned()
            .collect();
    }
}

impl Parsed {
    /// Whether something that the file held is gone: it may be half written.
    fn loses(&self, old: &FileState) -> bool {
        let kept = |old: &Arc<Object>| {
            let id = ObjectId::of(old);
            self.objects.iter().any(|object| ObjectId::of(object) == id)
        };
        self.broken || !old.objects.iter().all(kept)
    }

    /// Whether something is refused that is none of the objects that the file held.
    fn refuses_another_than(&self, old: &FileState) -> bool {
        let known = |finding: &Finding| {
            let id = finding.resource.as_ref();
            id.is_some_and(|id| old.objects.iter().any(|o| ObjectId::of(o) == *id))
        };
        let mut refused = self.findings.iter().filter(|f| f.level == Level::Refused);
        refused.any(|finding| !known(finding))
    }
}

impl FileState {
    /// Whether an object of that identity is there.
    fn has(&self, object: &Object) -> bool {
        let id = ObjectId::of(object);
        self.objects.iter().any(|own| ObjectId::of(own) == id)
    }

    fn differs(&self, other: &Self) -> bool {
        self.objects != other.objects || self.findings != other.findings || self.lost != other.lost
    }

    fn modified(&self) -> Option<SystemTime> {
        self.stamp.map(|s| s.modified)
    }
}

/// The new state of a file: what was refused keeps its last good version. When it cannot be told which object a refused
/// one was, since its kind or name is what is wrong, all that the file held stays.
fn settle(
    name: Arc<str>,
    stamp: Option<Stamp>,
    parsed: Parsed,
    old: Option<&FileState>,
) -> FileState {
    let nameless = old.is_some_and(|old| parsed.refuses_another_than(old));
    let mut state = FileState {
        name,
        stamp,
        objects: parsed.objects,
        findings: parsed.findings,
        lost: parsed.lost,
        was_read: !parsed.broken,
        missing_since: None,
    };
    let Some(old) = old else {
        return state;
    };
    if parsed.broken {
        state.objects.clone_from(&old.objects);
        if old.was_read {
            state.lost.clone_from(&old.lost);
            state.was_read = true;
        }
    } else {
        for id in &parsed.refused {
            // An object that is right elsewhere in the file replaces the last good one.
            let again = state.objects.iter().any(|o| ObjectId::of(o) == *id);
            let last_good = old.objects.iter().find(|o| ObjectId::of(o) == *id);
            state.objects.extend(last_good.filter(|_| !again).cloned());
        }
        if nameless {
            let missing = old.objects.iter().filter(|old| !state.has(old));
            let missing: Vec<_> = missing.cloned().collect();
            state.objects.extend(missing);
        }
    }
    let FileState { objects, lost, .. } = &mut state;
    lost.retain(|lost| !objects.iter().any(|object| lost.may_be(object)));
    for object in &mut state.objects {
        // Unchanged objects keep their identity, so that what was made of them can be kept too.
        if let Some(same) = old.objects.iter().find(|o| *o == object) {
            *object = Arc::clone(same);
        }
    }
    state
}

fn duplicate(id: &ObjectId, winner: &Object, loser: &Object) -> Finding {
    let why = if winner.origin.file == loser.origin.file {
        "stands later"
    } else {
        "was changed last"
    };
    let message = format!("also in {}, which {why} and is in force", winner.origin);
    let line = yaml::Location {
        line: loser.origin.line,
        column: 1,
    };
    Finding::new(Level::Warning, &loser.origin.file, message)
        .at(Some(line))
        .about(Some(id.clone()))
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    let (inode, changed) = {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.ino(), (metadata.ctime(), metadata.ctime_nsec()))
    };
    #[cfg(not(unix))]
    let (inode, changed) = (0, (0, 0));
    Ok(Stamp {
        modified: metadata.modified()?,
        length: metadata.len(),
        inode,
        changed,
    })
}
