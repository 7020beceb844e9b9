//! The table on a terminal.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::Line,
    widgets::{Cell, Paragraph, Row as Cells, Table, Wrap},
};
use tokio::sync::mpsc;

use super::{ConfigState, Show, View, figures::Row};

/// What a key asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Input {
    /// `q` or Ctrl-C: end.
    Quit,
    /// The window has another size: draw again.
    Redraw,
}

/// The terminal in raw mode; it is given back when the value is dropped.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    closed: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal, and starts to read its keys on a thread that ends with the value.
    ///
    /// # Errors
    /// What the terminal answers.
    pub fn open() -> io::Result<(Self, mpsc::UnboundedReceiver<Input>)> {
        let terminal = ratatui::try_init()?;
        let closed = Arc::new(AtomicBool::new(false));
        let (keys, inputs) = mpsc::unbounded_channel();
        let watched = Arc::clone(&closed);
        thread::Builder::new()
            .name("keys".into())
            .spawn(move || read_keys(&watched, &keys))?;
        Ok((Self { terminal, closed }, inputs))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        ratatui::restore();
    }
}

impl Show for Screen {
    fn show(&mut self, view: &View) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, view)).map(drop)
    }
}

fn read_keys(closed: &AtomicBool, keys: &mpsc::UnboundedSender<Input>) {
    while !closed.load(Ordering::Relaxed) {
        let input = match event::poll(Duration::from_millis(200)) {
            Ok(false) => continue,
            Ok(true) => event::read().ok().and_then(|event| meaning(&event)),
            Err(_) => return,
        };
        if input.is_some_and(|input| keys.send(input).is_err()) {
            return;
        }
    }
}

fn meaning(event: &Event) -> Option<Input> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('q') => Some(Input::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Quit)
            }
            _ => None,
        },
        Event::Resize(..) => Some(Input::Redraw),
        _ => None,
    }
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    let config = config_lines(&view.config);
    let config_height = u16::try_from(config.len()).unwrap_or(u16::MAX).clamp(1, 6);
    let rows = u16::try_from(view.rows.len())
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    let [head, table, state, notes] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Max(rows.max(4)),
        Constraint::Length(config_height + 1),
        Constraint::Fill(1),
    ])
    .areas(frame.area());
    frame.render_widget(
        Line::from(vec![
            "bookinfo".bold(),
            format!("  {}  (q ends)", view.page).into(),
        ]),
        head,
    );
    frame.render_widget(figures(&view.rows), table);
    frame.render_widget(Paragraph::new(config).wrap(Wrap { trim: false }), state);
    let room = usize::from(notes.height);
    let last = view.notes.len().saturating_sub(room);
    let lines: Vec<Line<'_>> = view
        .notes
        .iter()
        .skip(last)
        .map(|note| Line::from(note.as_str()).dim())
        .collect();
    frame.render_widget(Paragraph::new(lines), notes);
}

fn figures(rows: &[Row]) -> Table<'_> {
    let header = Cells::new([
        "caller", "calls", "rps", "share", "success", "p50 ms", "p99 ms",
    ])
    .bold();
    let cells = rows.iter().map(|row| {
        let success = Cell::from(format!("{:.1} %", row.success * 100.0));
        Cells::new([
            Cell::from(row.edge.caller.as_str()),
            Cell::from(format!("{}/{}", row.edge.service, row.edge.version)),
            Cell::from(format!("{:.1}", row.rate)),
            Cell::from(format!("{:.0} %", row.share * 100.0)),
            if row.success < 1.0 {
                success.style(Style::new().fg(Color::Red))
            } else {
                success
            },
            Cell::from(format!("{:.1}", row.p50)),
            Cell::from(format!("{:.1}", row.p99)),
        ])
    });
    let widths = [24, 20, 9, 8, 9, 9, 9].map(Constraint::Length);
    Table::new(cells, widths).header(header)
}

fn config_lines(config: &ConfigState) -> Vec<Line<'_>> {
    match config {
        ConfigState::Unknown => vec!["config: waiting for the sidecars".dim().into()],
        ConfigState::InForce(what) => vec![Line::from(format!("config in force: {what}")).green()],
        ConfigState::Refused(why) => why
            .iter()
            .map(|reason| {
                Line::from(format!("config refused, the last good one stays: {reason}")).red()
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::watch::figures::Edge;

    #[test]
    fn a_row_and_a_refusal_are_on_the_screen() {
        let edge = Edge {
            caller: "productpage-v1".into(),
            service: "reviews".into(),
            version: "v2".into(),
        };
        let view = View {
            rows: vec![Row {
                edge,
                rate: 10.0,
                share: 0.5,
                success: 0.9,
                p50: 1.0,
                p99: 2.0,
            }],
            config: ConfigState::Refused(vec!["a.yaml:3:5".into()]),
            notes: (0..100).map(|n| format!("note {n}")).collect(),
            noted: 100,
            page: "http://127.0.0.1:8080/productpage".into(),
        };
        let mut terminal = Terminal::new(TestBackend::new(100, 20)).expect("a terminal in memory");
        terminal
            .draw(|frame| draw(frame, &view))
            .expect("drawing in memory");
        let text: String = terminal
            .backend()
            .buffer()
            .content()
            .iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect();
        for wanted in [
            "productpage-v1",
            "reviews/v2",
            "50 %",
            "90.0 %",
            "a.yaml:3:5",
            "note 99",
            "8080/productpage",
        ] {
            assert!(text.contains(wanted), "{wanted} is missing in {text}");
        }
    }
}
