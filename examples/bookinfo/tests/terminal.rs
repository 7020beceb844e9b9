//! The live table on a real terminal: a pseudo-terminal, and a reader that keeps what a person would see.

mod support;

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use support::{LONG, Mesh, processes};

/// What is on a terminal: as much of its language as the demo speaks.
#[derive(Debug, Default)]
struct Seen {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A sequence that has begun.
    escape: String,
    /// The other screen of the terminal, which programs use that give the first one back as it was.
    alternate: bool,
    cursor_hidden: bool,
}

impl Seen {
    fn take(&mut self, text: &str) {
        for c in text.chars() {
            match (self.escape.is_empty(), c) {
                (true, '\x1b') => self.escape.push(c),
                (true, '\r') => self.column = 0,
                (true, '\n') => self.row += 1,
                (true, c) => self.put(c),
                (false, c) => {
                    self.escape.push(c);
                    let control = self.escape.starts_with("\x1b[");
                    if control && self.escape.len() > 2 && ('@'..='~').contains(&c)
                        || !control && c != '['
                    {
                        let sequence = std::mem::take(&mut self.escape);
                        self.control(&sequence);
                    }
                }
            }
        }
    }

    fn put(&mut self, c: char) {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        let line = &mut self.lines[self.row];
        if line.len() <= self.column {
            line.resize(self.column + 1, ' ');
        }
        line[self.column] = c;
        self.column += 1;
    }

    fn control(&mut self, sequence: &str) {
        match sequence {
            "\x1b[?1049h" | "\x1b[?1049l" => {
                self.alternate = sequence.ends_with('h');
                self.lines.clear();
            }
            "\x1b[?25l" | "\x1b[?25h" => self.cursor_hidden = sequence.ends_with('l'),
            "\x1b[2J" => self.lines.clear(),
            _ => {
                if let Some(place) = sequence
                    .strip_prefix("\x1b[")
                    .and_then(|rest| rest.strip_suffix('H'))
                {
                    let (row, column) = place.split_once(';').unwrap_or(("1", "1"));
                    let number = |text: &str| text.parse::<usize>().unwrap_or(1) - 1;
                    (self.row, self.column) = (number(row), number(column));
                }
            }
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.iter();
        let lines = lines.map(|line| line.iter().collect::<String>().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn width(&self) -> usize {
        let lines = self.text();
        let widths = lines.lines().map(|line| line.chars().count());
        widths.max().unwrap_or_default()
    }
}

/// The demo on a terminal of its own.
struct Session {
    folder: Mesh,
    child: Child,
    terminal: File,
    seen: Arc<Mutex<Seen>>,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Session {
    fn start(size: (u16, u16)) -> Self {
        Self::of(Mesh::new(), size, &[])
    }

    fn of(folder: Mesh, (columns, rows): (u16, u16), arguments: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).expect("it is ours");
        unlockpt(&terminal).expect("it is ours");
        tcsetwinsize(&terminal, size(columns, rows)).expect("it has a size");
        let name = ptsname(&terminal, Vec::new()).expect("a name");
        let path = Path::new(name.to_str().expect("a plain name"));
        let open = || {
            let slave = OpenOptions::new().read(true).write(true).open(path);
            slave.expect("its other side")
        };
        let child = Command::new(env!("CARGO_BIN_EXE_bookinfo"))
            .args(["--load", "30", "--mesh"])
            .arg(&*folder)
            .args(arguments)
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("cargo built the program");
        let terminal = File::from(terminal);
        let seen = Arc::<Mutex<Seen>>::default();
        let (mut from, to) = (terminal.try_clone().expect("a copy"), Arc::clone(&seen));
        thread::spawn(move || {
            let (mut bytes, mut kept) = ([0; 4096], Vec::new());
            // The end of the last process on the other side is an error here.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                kept.extend_from_slice(&bytes[..count]);
                let whole = match std::str::from_utf8(&kept) {
                    Ok(text) => text.len(),
                    Err(error) => error.valid_up_to(),
                };
                let text = String::from_utf8_lossy(&kept[..whole]).into_owned();
                kept.drain(..whole);
                lock(&to).take(&text);
            }
        });
        Self {
            folder,
            child,
            terminal,
            seen,
        }
    }

    /// Waits until what is seen is so.
    fn until(&mut self, what: &str, so: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + LONG;
        while !so(&lock(&self.seen)) {
            let ended = self.child.try_wait().expect("our own child");
            let text = lock(&self.seen).text();
            assert!(ended.is_none(), "ended before {what}:\n{text}");
            assert!(Instant::now() < deadline, "not in time: {what}:\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.terminal, size(columns, rows)).expect("it has a size");
        // The kernel tells only those whose controlling terminal it is.
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::WINCH).expect("it runs");
    }

    /// Waits for the end: how it ended, and what the first screen shows then.
    fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LONG;
        let status = loop {
            match self.child.try_wait().expect("our own child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let modes = tcgetattr(&self.terminal).expect("a terminal").local_modes;
        assert!(
            modes.contains(LocalModes::ICANON | LocalModes::ECHO),
            "the terminal is left raw: {modes:?}"
        );
        let deadline = Instant::now() + LONG;
        // The last words may be on their way to the reader.
        while lock(&self.seen).text().is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let seen = lock(&self.seen);
        assert!(!seen.alternate, "the first screen is not given back");
        assert!(!seen.cursor_hidden, "the cursor stays hidden");
        (status, seen.text())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Gone already if the test went well; the sidecars go with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rows of the table, as words.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split_whitespace().collect());
    lines
        .filter(|row: &Vec<_>| row.len() == 9 && row[0] != "caller")
        .collect()
}

/// Saves a broken edit, and mends it.
fn edits(demo: &mut Session) {
    let edit = demo.folder.join("edit.yaml");
    let broken = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n  - rout: []\n";
    fs::write(&edit, broken).expect("a writable folder");
    demo.until("the refusal is on the screen, whole", |seen| {
        let text: String = seen.text().split_whitespace().collect();
        [
            "configrefused",
            "edit.yaml:7:5:",
            "spec.http[0].rout:unknownfield`rout`;didyoumean`route`?",
            ";allowed:",
        ]
        .iter()
        .all(|part| text.contains(part))
    });
    fs::write(
        &edit,
        broken
            .replace("rout:", "route:")
            .replace("[]", "[{destination: {host: reviews, subset: v3}}]"),
    )
    .expect("a writable folder");
    demo.until(
        "the mended edit is in force and only v3 is called",
        |seen| {
            let text = seen.text();
            let known = rows(&text);
            let all = known
                .iter()
                .any(|row| row[1] == "reviews/v3" && row[3] == "100");
            all && text.contains("config in force") && text.contains("; edit 2 seen ")
        },
    );
}

#[test]
fn the_table_shows_figures_and_configuration_and_gives_the_terminal_back() {
    let mut demo = Session::start((100, 30));
    demo.until("every edge has a row", |seen| {
        let text = seen.text();
        let known = rows(&text);
        let edges = [
            ("istio-ingressgateway", "productpage/v1"),
            ("productpage-v1", "details/v1"),
            ("productpage-v1", "reviews/v1"),
            ("productpage-v1", "reviews/v3"),
            ("reviews-v2", "ratings/v1"),
        ];
        let has =
            |(caller, calls): &(&str, &str)| known.iter().any(|row| row[..2] == [*caller, *calls]);
        seen.alternate && edges.iter().all(has)
    });
    {
        let seen = lock(&demo.seen);
        let text = seen.text();
        let header = "caller calls rps share success p50 ms p99 ms";
        let is_header = |line: &str| line.split_whitespace().eq(header.split(' '));
        assert!(text.lines().any(is_header), "{text}");
        for row in rows(&text) {
            // caller, calls, rps, share, %, success, %, p50, p99
            assert_eq!((row[4], row[6]), ("%", "%"), "{text}");
            for number in [row[2], row[3], row[5], row[7], row[8]] {
                assert!(number.parse::<f64>().is_ok(), "{number}: {text}");
            }
        }
        assert!(text.contains("config in force: 8 proxies, "), "{text}");
        assert!(text.contains("/productpage  (q ends)"), "{text}");
    }

    edits(&mut demo);
    demo.resize(60, 20);
    demo.until("it is drawn for the smaller size", |seen| {
        let text = seen.text();
        seen.width() <= 60 && seen.lines.len() <= 20 && text.contains("config in force")
    });
    demo.terminal.write_all(b"q").expect("a key");
    let folder = demo.folder.to_path_buf();
    let (status, text) = demo.end();
    assert!(status.success(), "{status}: {text}");
    assert!(text.contains(" 0 failed, 0 not sent"), "{text}");
    assert_eq!(processes(&folder), [], "processes are left");
}

#[test]
fn the_access_log_of_embedded_services_does_not_write_over_the_table() {
    let folder = Mesh::new();
    let log = fs::read_to_string(support::shipped("extra").join("access-log.yaml"));
    let log = log.expect("a file of this package");
    let (config, file) = (folder.join("access-log.yaml"), folder.join("log.txt"));
    fs::write(&config, &log).expect("a writable folder");
    let mut demo = Session::of(folder, (100, 30), &["--embedded"]);
    demo.until("the table is there", |seen| rows(&seen.text()).len() >= 5);
    let text = lock(&demo.seen).text();
    assert!(!text.contains("via_upstream"), "{text}");
    // Lines there are: in a file that is asked for, they are seen.
    let to_file = log.replace("/dev/stdout", &file.display().to_string());
    fs::write(&config, to_file).expect("a writable folder");
    demo.until("the log is in the file", |_| {
        fs::read_to_string(&file).is_ok_and(|log| log.contains("via_upstream"))
    });
    demo.terminal.write_all(b"q").expect("a key");
    let (status, text) = demo.end();
    assert!(status.success(), "{status}: {text}");
    assert!(!text.contains("via_upstream"), "{text}");
}

#[test]
fn ctrl_c_and_the_death_of_a_sidecar_give_the_terminal_back() {
    let mut demo = Session::start((80, 24));
    demo.until("it runs", |seen| seen.text().contains("config in force"));
    demo.terminal.write_all(b"\x03").expect("a key");
    let (status, text) = demo.end();
    assert!(status.success(), "{status}: {text}");

    let mut demo = Session::start((80, 24));
    demo.until("it runs", |seen| seen.text().contains("config in force"));
    let (id, _) = processes(&demo.folder)
        .into_iter()
        .find(|(_, line)| line.contains("default/ratings-v1"))
        .expect("the sidecar of ratings runs");
    let id = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("an id");
    kill_process(id, Signal::KILL).expect("it is ours");
    let (status, text) = demo.end();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        text.contains("sidecar of ratings-v1 died: signal: 9"),
        "{text}"
    );
}
