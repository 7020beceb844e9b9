//! The table on a terminal.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::Stylize,
    text::Line,
    widgets::{Paragraph, Row as Cells, Table},
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
        let now = Instant::now();
        let drawn = self.terminal.draw(|frame| draw(frame, view, now));
        drawn.map(drop)
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

fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) {
    let area = frame.area();
    let width = usize::from(area.width);
    let height = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX);
    // A refusal is worth more than the table is, but not all of it.
    let config = at_most(
        usize::from(area.height / 2).max(1),
        config_lines(view, now, width),
    );
    let config_height = height(config.len());
    let rows = height(view.rows.len()).saturating_add(2);
    let [head, table, state, notes] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Max(rows.max(4)),
        Constraint::Length(config_height + 1),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(
        Line::from(vec![
            "bookinfo".bold(),
            format!("  {}  (q ends)", view.page).into(),
        ]),
        head,
    );
    frame.render_widget(figures(&view.rows), table);
    frame.render_widget(Paragraph::new(config), state);
    // The newest, as many as there is room for.
    let newest = view.notes.iter().rev();
    let lines = newest.flat_map(|note| wrapped(note, width).into_iter().rev());
    let mut lines: Vec<Line<'_>> = lines
        .take(usize::from(notes.height))
        .map(|line| Line::from(line).dim())
        .collect();
    lines.reverse();
    frame.render_widget(Paragraph::new(lines), notes);
}

fn figures(rows: &[Row]) -> Table<'_> {
    let number = |text: String| Line::from(text).right_aligned();
    let header =
        Cells::new(["caller", "calls"].map(Line::from).into_iter().chain(
            ["rps", "share", "success", "p50 ms", "p99 ms"].map(|name| number(name.into())),
        ))
        .bold();
    let cells = rows.iter().map(move |row| {
        let success = number(format!("{:.1} %", row.success * 100.0));
        Cells::new([
            Line::from(row.edge.caller.as_str()),
            Line::from(format!("{}/{}", row.edge.service, row.edge.version)),
            number(format!("{:.1}", row.rate)),
            number(format!("{:.0} %", row.share * 100.0)),
            if row.success < 1.0 {
                success.red()
            } else {
                success
            },
            number(format!("{:.1}", row.p50)),
            number(format!("{:.1}", row.p99)),
        ])
    });
    let callers = rows.iter().map(|row| row.edge.caller.len());
    let calls = rows.iter();
    let calls = calls.map(|row| row.edge.service.len() + 1 + row.edge.version.len());
    let names = [callers.max(), calls.max()]
        .map(|longest| u16::try_from(longest.unwrap_or_default()).unwrap_or(u16::MAX))
        .map(|longest| Constraint::Length(longest.max(10)));
    let numbers = [8, 6, 8, 8, 8].map(Constraint::Length);
    Table::new(cells, names.into_iter().chain(numbers)).header(header)
}

fn config_lines(view: &View, now: Instant, width: usize) -> Vec<Line<'static>> {
    let edited = view.edited.map(|edited| {
        let seconds = now.saturating_duration_since(edited.at).as_secs();
        format!("; edit {} seen {seconds} s ago", edited.count)
    });
    let edited = edited.unwrap_or_default();
    match &view.config {
        ConfigState::Unknown => vec!["config: waiting for the proxies".dim().into()],
        ConfigState::InForce(what) => {
            let text = format!("config in force: {what}{edited}");
            let lines = wrapped(&text, width).into_iter();
            lines.map(|line| Line::from(line).green()).collect()
        }
        ConfigState::Refused(why) => {
            let head = format!("config refused, the last good one stays{edited}:");
            let lines = std::iter::once(&head).chain(why);
            lines
                .flat_map(|line| wrapped(line, width))
                .map(|line| Line::from(line).red())
                .collect()
        }
    }
}

/// So many lines, the last of which says how many more there are.
fn at_most(room: usize, mut lines: Vec<Line<'static>>) -> Vec<Line<'static>> {
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(Line::from(format!("... {more} more lines")).red());
    }
    lines
}

/// Lines of at most `width` characters, broken between words where there are any.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if used > 0 && used + length > width {
            lines.push(String::new());
            used = 0;
        }
        for c in word.chars() {
            if used == width {
                if c == ' ' {
                    continue;
                }
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().expect("there is one").push(c);
            used += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::watch::{Edited, figures::Edge};

    fn row(caller: &str, calls: (&str, &str), success: f64) -> Row {
        Row {
            edge: Edge {
                caller: caller.into(),
                service: calls.0.into(),
                version: calls.1.into(),
            },
            rate: 10.0,
            share: 0.5,
            success,
            p50: 1.0,
            p99: 1234.5,
        }
    }

    /// The lines of a screen of this size.
    fn drawn(view: &View, now: Instant, (width, height): (u16, u16)) -> Vec<String> {
        let backend = TestBackend::new(width, height);
        let mut terminal = Terminal::new(backend).expect("a terminal in memory");
        terminal
            .draw(|frame| draw(frame, view, now))
            .expect("drawing in memory");
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(width));
        lines
            .map(|line| line.iter().map(ratatui::buffer::Cell::symbol).collect())
            .collect()
    }

    #[test]
    fn a_screen_of_usual_size_shows_all() {
        let now = Instant::now();
        let view = View {
            rows: vec![
                row("istio-ingressgateway", ("productpage", "v1"), 1.0),
                row("productpage-v1", ("reviews", "v2"), 0.9),
            ],
            config: ConfigState::InForce("8 proxies, 0 remarks".into()),
            edited: Some(Edited { count: 3, at: now }),
            notes: (0..100).map(|n| format!("note {n}")).collect(),
            noted: 100,
            page: "http://127.0.0.1:8080/productpage".into(),
            ..View::default()
        };
        let lines = drawn(&view, now + Duration::from_secs(2), (80, 24));
        let expected = [
            "bookinfo  http://127.0.0.1:8080/productpage  (q ends)",
            "",
            "caller               calls               rps  share  success   p50 ms   p99 ms",
            "istio-ingressgateway productpage/v1     10.0   50 %  100.0 %      1.0   1234.5",
            "productpage-v1       reviews/v2         10.0   50 %   90.0 %      1.0   1234.5",
            "",
            "config in force: 8 proxies, 0 remarks; edit 3 seen 2 s ago",
            "",
        ];
        let seen: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
        assert_eq!(seen[..8], expected, "{lines:#?}");
        assert_eq!(seen.last(), Some(&"note 99"));
    }

    #[test]
    fn a_refusal_is_shown_whole_however_narrow_the_screen_is() {
        let reason = "mesh/reviews.yaml:8:5: VirtualService default/reviews: spec.http[0].rout: \
                      unknown field `rout`; did you mean `route`?; allowed: name, match, route";
        let view = View {
            config: ConfigState::Refused(vec![reason.into()]),
            ..View::default()
        };
        for width in [20, 40, 80, 200] {
            let lines = drawn(&view, Instant::now(), (width, 40));
            let text: String = lines.concat().split_whitespace().collect();
            let wanted: String = reason.split_whitespace().collect();
            assert!(text.contains(&wanted), "{lines:#?}");
        }
    }

    #[test]
    fn a_long_note_is_shown_whole_and_what_of_a_refusal_has_no_room_is_counted() {
        let note = "VirtualService default/reviews: spec.http[0].headers: no effect yet";
        let view = View {
            config: ConfigState::Refused((0..30).map(|n| format!("reason {n}")).collect()),
            notes: ["earlier".into(), note.into()].into(),
            ..View::default()
        };
        let lines = drawn(&view, Instant::now(), (30, 24));
        let seen: Vec<_> = lines.iter().map(|line| line.trim_end()).collect();
        let tail = [
            "reason 8",
            "... 21 more lines",
            "",
            "earlier",
            "VirtualService",
            "default/reviews:",
            "spec.http[0].headers: no",
            "effect yet",
        ];
        let lines = &seen[seen.len() - tail.len()..];
        assert_eq!(lines, tail, "{seen:#?}");
    }

    #[test]
    fn a_tiny_screen_does_no_harm() {
        let view = View {
            rows: vec![row("a", ("b", "v1"), 1.0); 30],
            config: ConfigState::Refused(vec!["no".repeat(500)]),
            ..View::default()
        };
        for size in [(1, 1), (3, 2), (10, 5)] {
            drawn(&view, Instant::now(), size);
        }
    }

    #[test]
    fn lines_break_between_words_and_long_words_inside() {
        assert_eq!(wrapped("one two three", 8), ["one two ", "three"]);
        assert_eq!(wrapped("one two", 7), ["one two"]);
        assert_eq!(wrapped("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
