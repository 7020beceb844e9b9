//! The live table: figures from the sidecars' own metrics, as a terminal or a file wants them.

pub mod figures;
mod plain;
pub mod prometheus;
mod screen;

pub use plain::Plain;
pub use screen::{Input, Screen};

use std::collections::VecDeque;

use figures::Row;

/// All that the table shows at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// One row for each caller and each service and version that it calls.
    pub rows: Vec<Row>,
    /// The state of the configuration: one line if all is well, else what was refused and why.
    pub config: ConfigState,
    /// The age of the newest edit; `None`: there was none since the start.
    pub edited: Option<Edited>,
    /// What sidecars and the demo itself had to say lately, the newest at the end.
    pub notes: VecDeque<String>,
    /// How many notes there were in all, with those that are no longer kept.
    pub noted: u64,
    /// Where the page is.
    pub page: String,
    /// The newest generation of the configuration at any proxy; 0 if none has answered.
    pub generation: u64,
}

impl View {
    /// The most notes that are kept.
    const NOTES: usize = 500;

    /// Adds a note; the oldest goes when there are too many.
    pub fn note(&mut self, note: String) {
        if self.notes.len() == Self::NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
        self.noted += 1;
    }

    /// Takes in that the proxies are at this generation of the configuration; 0 if none has answered.
    pub(crate) fn generation(&mut self, now: std::time::Instant, generation: u64) {
        if generation <= self.generation {
            return;
        }
        if self.generation > 0 {
            let count = self.edited.map_or(0, |edited| edited.count) + 1;
            self.edited = Some(Edited { count, at: now });
        }
        self.generation = generation;
    }
}

/// The state of the configuration, as the sidecars report it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ConfigState {
    /// No sidecar has answered yet.
    #[default]
    Unknown,
    /// The folder as it stands is in force.
    InForce(String),
    /// The folder as it stands is refused; the last good configuration stays in force. One text for each reason.
    Refused(Vec<String>),
}

/// The newest edit of the configuration that was looked at, taken or refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Edited {
    /// How many there were, with this one.
    pub count: u64,
    /// When it was noticed.
    pub at: std::time::Instant,
}

/// Something that shows a view each second.
pub trait Show {
    /// Shows it.
    ///
    /// # Errors
    /// What the terminal or file answers.
    fn show(&mut self, view: &View) -> std::io::Result<()>;
}
