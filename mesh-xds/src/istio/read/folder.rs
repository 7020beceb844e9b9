//! A folder of files, read again and again; what was good stays until something good replaces it.

use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// Since when files are listed that cannot be looked at, as links to nothing: they may be about to come.
    absent: BTreeMap<PathBuf, Instant>,
    /// The objects in force at the last scan: of two files that hold the same object, one may be saved again as it is.
    in_force: Vec<Arc<Object>>,
    /// Whether there was a scan before.
    scanned: bool,
}

#[derive(Debug)]
struct FileState {
    name: Arc<str>,
    stamp: Option<Stamp>,
    objects: Vec<Arc<Object>>,
    findings: Vec<Finding>,
    /// What is refused and has no last good version here.
    lost: Vec<Lost>,
    /// Whether nothing can be told of the file.
    unread: bool,
    /// Whether the file was readable once, so that what it held stays while it is broken.
    was_read: bool,
    missing_since: Option<Instant>,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
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
    /// What is refused and has no version in force, ordered by file.
    pub lost: Vec<Lost>,
    /// Files and folders that cannot be read at all, so that nobody knows what is missing.
    pub unread: Vec<Finding>,
}

impl Folder {
    /// A folder that was not read yet.
    pub fn new(root: impl Into<PathBuf>, options: FolderOptions) -> Self {
        Self {
            root: root.into(),
            options,
            files: BTreeMap::new(),
            findings: Vec::new(),
            absent: BTreeMap::new(),
            in_force: Vec::new(),
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
                self.limit(&mut paths);
                self.removed(&paths, &unreadable, &mut scan);
                for path in paths {
                    self.file(path, &mut scan);
                }
            }
            Err(error) => {
                let name: Arc<str> = self.root.display().to_string().into();
                let message = format!("the folder cannot be read: {error}");
                self.findings
                    .push(Finding::new(Level::Refused, &name, message));
            }
        }
        self.scanned = true;
        self.collect(&mut scan);
        let mut pairs = self.in_force.iter().zip(&scan.objects);
        scan.changed |= before != self.findings
            || self.in_force.len() != scan.objects.len()
            || !pairs.all(|(old, new)| Arc::ptr_eq(old, new));
        self.in_force.clone_from(&scan.objects);
        scan
    }

    /// Leaves as many files as may be read: those that were read before, then by name. So what is in force stays.
    fn limit(&mut self, paths: &mut Vec<PathBuf>) {
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
            self.findings
                .push(Finding::new(Level::Refused, &name, message));
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
        let mut unread = false;
        let parsed = match yaml::read_file(&path, &self.options.text.limits) {
            Ok(text) => parse(&name, &text, &self.options.text),
            Err(error) => {
                let lost = lost::of_file(&name, &path, &self.options.text);
                unread = lost.is_none();
                Parsed {
                    findings: vec![Finding::refused(&name, &error)],
                    lost: lost.unwrap_or_default(),
                    broken: true,
                    ..Parsed::default()
                }
            }
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
        let suspicious = parsed.is_suspicious(known) && within(SETTLE);
        if again != stamp || suspicious || within(QUIET) {
            scan.unsettled = true;
            // At the start there is nothing better than what was read.
            if self.scanned {
                return;
            }
        }
        let old = self.files.remove(&path).or_else(|| self.renamed(stamp));
        let state = FileState {
            unread,
            ..settle(name, stamp, parsed, old.as_ref())
        };
        scan.changed |= old.is_none_or(|old| old.differs(&state));
        self.files.insert(path, state);
    }

    /// The state of a file that is gone and was the same, so that a file under a new name keeps its last good content.
    fn renamed(&mut self, stamp: Option<Stamp>) -> Option<FileState> {
        let stamp = stamp.filter(|stamp| stamp.inode != 0)?;
        let same = |state: &FileState| {
            let own = state.stamp.filter(|_| state.missing_since.is_some());
            own.is_some_and(|own| own.is_same_content(stamp))
        };
        let (path, _) = self.files.iter().find(|(_, state)| same(state))?;
        let path = path.clone();
        self.files.remove(&path)
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
        let elsewhere =
            |lost: &Lost| lost.is_named() && scan.objects.iter().any(|o| lost.may_be(o));
        scan.lost = lost.filter(|lost| !elsewhere(lost)).cloned().collect();
        let unread = self.files.values().filter(|s| s.unread);
        let unread = unread.flat_map(|s| &s.findings).chain(&self.findings);
        let refused = unread.filter(|finding| finding.level == Level::Refused);
        scan.unread = refused.cloned().collect();
    }
}

impl Stamp {
    /// Whether it is the same file with the same content, perhaps under another name.
    fn is_same_content(self, other: Self) -> bool {
        let content = |stamp: Self| (stamp.inode, stamp.modified, stamp.length);
        content(self) == content(other)
    }
}

impl Parsed {
    /// Whether the file may be half written: something that it held is gone, or something is refused that closes traffic.
    fn is_suspicious(&self, known: Option<&FileState>) -> bool {
        let Some(old) = known else {
            return !self.lost.is_empty();
        };
        let new = ids(&self.objects);
        let kept = |old: &Arc<Object>| new.contains(&ObjectId::of(old));
        let loses = self.broken || !old.objects.iter().all(kept);
        loses || self.lost.iter().any(|lost| !old.lost.contains(lost))
    }

    /// The objects that a file held and that stay in force.
    fn kept(&self, old: &FileState) -> Vec<Arc<Object>> {
        let all = self.broken || self.refuses_another_than(old);
        if !all && self.refused.is_empty() {
            return Vec::new();
        }
        let refused: HashSet<&ObjectId> = self.refused.iter().collect();
        // An object that is right elsewhere in the file replaces the last good one.
        let new = ids(&self.objects);
        let stays = |own: &&Arc<Object>| {
            let id = ObjectId::of(own);
            (all || refused.contains(&id)) && !new.contains(&id)
        };
        old.objects.iter().filter(stays).cloned().collect()
    }

    /// Whether something is refused that is none of the objects that the file held.
    fn refuses_another_than(&self, old: &FileState) -> bool {
        let mut refused = self
            .findings
            .iter()
            .filter(|f| f.level == Level::Refused)
            .peekable();
        if refused.peek().is_none() {
            return false;
        }
        let known = ids(&old.objects);
        refused.any(|finding| {
            let id = finding.resource.as_ref();
            id.is_none_or(|id| !known.contains(id))
        })
    }
}

fn ids(objects: &[Arc<Object>]) -> HashSet<ObjectId> {
    objects.iter().map(|object| ObjectId::of(object)).collect()
}

impl FileState {
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
    let kept = old.map_or_else(Vec::new, |old| parsed.kept(old));
    let mut state = FileState {
        name,
        stamp,
        lost: open(&parsed, &kept, old),
        objects: parsed.objects,
        findings: parsed.findings,
        unread: false,
        was_read: !parsed.broken || old.is_some_and(|old| old.was_read),
        missing_since: None,
    };
    state.objects.extend(kept);
    let Some(old) = old else {
        return state;
    };
    if parsed.broken && !old.objects.is_empty() {
        // It was no foreign file before.
        let findings = state.findings.iter_mut();
        findings.for_each(|finding| finding.level = Level::Refused);
    }
    // Unchanged objects keep their identity, so that they are known again at a glance.
    let before: HashMap<ObjectId, &Arc<Object>> = old
        .objects
        .iter()
        .map(|object| (ObjectId::of(object), object))
        .collect();
    for object in &mut state.objects {
        match before.get(&ObjectId::of(object)) {
            Some(same) if *same == object => *object = Arc::clone(same),
            _ => {}
        }
    }
    state
}

/// What is refused of a file and has no last good version. In a text that is broken names are guesses: there it counts how
/// many of a kind are more than before.
fn open(parsed: &Parsed, kept: &[Arc<Object>], old: Option<&FileState>) -> Vec<Lost> {
    let before: &[Lost] = match old {
        Some(old) if parsed.broken && old.was_read => &old.lost,
        _ => &[],
    };
    let (named, vague): (Vec<_>, Vec<_>) = parsed.lost.iter().partition(|lost| lost.is_named());
    let unnamed = |object: &&Arc<Object>| !named.iter().any(|lost| lost.may_be(object));
    let kinds = kept.iter().filter(unnamed).map(|object| &*object.kind);
    let same = |own: &Lost| named.iter().any(|lost| own.is_same(lost));
    let others = before.iter().filter(|own| !same(own));
    let mut left: Vec<&str> = kinds
        .chain(others.filter_map(|own| own.kind.as_deref()))
        .collect();
    let new = |lost: &&Lost| {
        let known = parsed.objects.iter().chain(kept).any(|o| lost.may_be(o));
        !known && !before.iter().any(|own| own.is_same(lost))
    };
    let mut open = before.to_vec();
    for lost in named.iter().copied().filter(new).chain(vague) {
        let may_be = |kind: &&str| match &lost.kind {
            Some(own) => **own == **kind,
            None => lost::only_protects(kind),
        };
        let exact = lost.is_named() && !parsed.broken;
        match left.iter().position(may_be).filter(|_| !exact) {
            Some(index) => {
                left.swap_remove(index);
            }
            None => open.push(lost.clone()),
        }
    }
    open
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

pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
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
