//! Plain lines, for a pipe or a file: the table, notes and the state of the configuration, each when it changes.

use std::io::{self, Write};

use super::{ConfigState, Show, View, figures::Row};

/// Writes to any writer.
#[derive(Debug)]
pub struct Plain<W> {
    out: W,
    rows: Vec<Row>,
    config: ConfigState,
    edits: u64,
    noted: u64,
}

impl<W: Write> Plain<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self {
            out,
            rows: Vec::new(),
            config: ConfigState::Unknown,
            edits: 0,
            noted: 0,
        }
    }

    fn config(&mut self, config: &ConfigState) -> io::Result<()> {
        match config {
            ConfigState::Unknown => {}
            ConfigState::InForce(what) => writeln!(self.out, "config in force: {what}")?,
            ConfigState::Refused(why) => {
                for reason in why {
                    writeln!(
                        self.out,
                        "config refused, the last good one stays: {reason}"
                    )?;
                }
            }
        }
        self.config = config.clone();
        Ok(())
    }
}

impl<W: Write> Show for Plain<W> {
    fn show(&mut self, view: &View) -> io::Result<()> {
        let new = usize::try_from(view.noted.saturating_sub(self.noted)).unwrap_or(usize::MAX);
        for note in view.notes.iter().skip(view.notes.len().saturating_sub(new)) {
            writeln!(self.out, "{note}")?;
        }
        self.noted = view.noted;
        let edits = view.edited.map_or(0, |edited| edited.count);
        if view.config != self.config || edits != self.edits {
            self.edits = edits;
            self.config(&view.config)?;
        }
        if view.rows != self.rows {
            for row in &view.rows {
                writeln!(
                    self.out,
                    "{} -> {}/{} rps={:.1} share={:.0}% success={:.1}% p50={:.1}ms p99={:.1}ms",
                    row.edge.caller,
                    row.edge.service,
                    row.edge.version,
                    row.rate,
                    row.share * 100.0,
                    row.success * 100.0,
                    row.p50,
                    row.p99
                )?;
            }
        }
        self.rows.clone_from(&view.rows);
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::figures::Edge;

    #[test]
    fn rows_notes_and_a_refusal_are_lines() {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        let edge = Edge {
            caller: "productpage-v1".into(),
            service: "reviews".into(),
            version: "v3".into(),
        };
        let mut view = View {
            rows: vec![Row {
                edge,
                rate: 12.34,
                share: 0.5,
                success: 1.0,
                p50: 1.25,
                p99: 20.0,
            }],
            notes: ["one".into()].into(),
            noted: 1,
            ..View::default()
        };
        plain.show(&view).expect("writing to memory");
        view.config = ConfigState::Refused(vec!["a.yaml:3:5: no such field".into()]);
        plain.show(&view).expect("writing to memory");
        plain.show(&view).expect("writing to memory");
        let text = String::from_utf8(out).expect("text");
        let row =
            "productpage-v1 -> reviews/v3 rps=12.3 share=50% success=100.0% p50=1.2ms p99=20.0ms\n";
        let refusal = "config refused, the last good one stays: a.yaml:3:5: no such field\n";
        assert_eq!(text, format!("one\n{row}{refusal}"));
    }
}
