//! Notes: what the proxies, or the meshes inside this process, have to say.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

/// The same from several proxies within this time has one cause, and is shown once.
const ONE_CAUSE: Duration = Duration::from_secs(30);

/// The most texts that are known at one time; what comes on top is shown however often it is said.
const MAX_KNOWN: usize = 1000;

/// Where notes go. Cloning shares.
#[derive(Clone, Debug)]
pub(super) struct Notes {
    to: mpsc::UnboundedSender<String>,
    said: Arc<Mutex<Said>>,
}

impl Notes {
    /// Notes, and where they are read.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<String>) {
        let (to, noted) = mpsc::unbounded_channel();
        let said = Arc::default();
        (Self { to, said }, noted)
    }

    /// A line of somebody's log: shown unless somebody has said the same a moment ago.
    pub(super) fn log(&self, from: &str, line: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_news(line, Instant::now()) {
            self.show(from, line);
        }
    }

    /// A line that is shown in any case.
    pub(super) fn show(&self, from: &str, line: &str) {
        // Nobody listens any more once the demo ends.
        let _ = self.to.send(format!("[{from}] {line}"));
    }
}

/// What was said lately, without its time, and when it was said last.
#[derive(Debug, Default)]
struct Said(HashMap<String, Instant>);

impl Said {
    fn is_news(&mut self, line: &str, now: Instant) -> bool {
        let recent = |at: &Instant| now.duration_since(*at) < ONE_CAUSE;
        self.0.retain(|_, at| recent(at));
        let text = untimed(line);
        if self.0.contains_key(text) {
            return false;
        }
        if self.0.len() < MAX_KNOWN {
            self.0.insert(text.to_owned(), now);
        }
        true
    }
}

/// A line of a log without the time that it begins with.
fn untimed(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((time, text)) if time.starts_with(|c: char| c.is_ascii_digit()) => text,
        _ => line,
    }
}

/// A writer whose lines are handed on, each once it is whole.
#[derive(Debug)]
pub(super) struct Lines<F> {
    to: F,
    begun: Vec<u8>,
}

impl<F: FnMut(&str)> Lines<F> {
    pub(super) fn new(to: F) -> Self {
        let begun = Vec::new();
        Self { to, begun }
    }
}

impl<F: FnMut(&str)> io::Write for Lines<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.begun[..end]).into_owned();
            (self.to)(&line);
            self.begun.drain(..=end);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_several_say_at_one_time_is_shown_once() {
        let (notes, mut noted) = Notes::new();
        notes.log(
            "a",
            "2026-01-01T00:00:00.1Z  WARN DNS look-up failed host=x",
        );
        notes.log(
            "b",
            "2026-01-01T00:00:00.2Z  WARN DNS look-up failed host=x",
        );
        notes.log(
            "b",
            "2026-01-01T00:00:00.2Z  WARN DNS look-up failed host=y",
        );
        notes.show("b", "x");
        notes.show("b", "x");
        drop(notes);
        let mut shown = Vec::new();
        while let Some(note) = noted.blocking_recv() {
            shown.push(note);
        }
        assert_eq!(shown.len(), 4, "{shown:?}");
        assert!(shown[0].starts_with("[a] 2026") && shown[0].ends_with("host=x"));
        assert!(shown[1].ends_with("host=y"));
    }

    #[test]
    fn what_is_said_again_later_is_news() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert!(said.is_news("x", now));
        assert!(!said.is_news("x", now + ONE_CAUSE / 2));
        assert!(said.is_news("x", now + ONE_CAUSE));
    }

    #[test]
    fn lines_are_handed_on_when_they_are_whole() {
        let mut seen = Vec::new();
        let mut lines = Lines::new(|line: &str| seen.push(line.to_owned()));
        for part in ["a", "b\nc\nd", ""] {
            lines.write_all(part.as_bytes()).expect("never fails");
        }
        assert_eq!(seen, ["ab", "c"]);
    }
}
