//! Attacks on a proxy: `smuggling --meshd PATH [--envoy PATH]` starts the programs, tries request smuggling, floods and slow peers,
//! reads their access logs, and prints a table of what each of them did: the one in `docs/ATTACKS.md`. Its exit code judges
//! `meshd` only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use mesh_testkit::smuggling::{
    self, Upstream, Want,
    floods::{self, FLOODS, Flood},
    lines_of,
};

/// Try request smuggling and floods on a proxy; exit 1 if any case fools it.
#[derive(Debug, Parser)]
struct Args {
    /// Program to start and judge
    #[arg(long)]
    meshd: PathBuf,
    /// Program to compare with
    #[arg(long)]
    envoy: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match table(&args.meshd, args.envoy.as_deref()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// What a program did with one case.
struct Row {
    name: &'static str,
    rfc: &'static str,
    answer: String,
    /// Lines of the access log for the connection.
    lines: Vec<String>,
    verdict: Result<(), String>,
    /// It is one request, whoever answers it.
    one: bool,
    /// The proxy said something in HTTP.
    answered: bool,
}

impl Row {
    fn cells(&self) -> String {
        let lines = if self.lines.is_empty() {
            "none".to_owned()
        } else {
            let runs = self.lines.chunk_by(|a, b| a == b);
            let words = runs.map(|run| match run {
                [line] => line.clone(),
                _ => format!("{} × {}", run.len(), run[0]),
            });
            words.collect::<Vec<_>>().join("; ")
        };
        format!("{} | {lines}", self.answer)
    }
}

/// Everything, on programs that are started for it; how often `meshd` failed.
fn table(meshd: &Path, envoy: Option<&Path>) -> std::io::Result<usize> {
    let ours = rows(meshd)?;
    let theirs = match envoy {
        Some(envoy) => rows(envoy)?,
        None => Vec::new(),
    };
    println!("| case | RFC | Envoy | its log | `meshd` | its log |\n|---|---|---|---|---|---|");
    let mut failed = Vec::new();
    for (n, row) in ours.iter().enumerate() {
        let envoy = theirs.get(n).map(Row::cells).unwrap_or_default();
        println!("| {} | {} | {envoy} | {} |", row.name, row.rfc, row.cells());
        // Whoever was answered leaves a line, whether or not a service saw the request.
        let silent = row.lines.is_empty() && row.answered;
        let verdict = match &row.verdict {
            Err(why) => Some(why.as_str()),
            Ok(()) if row.one && row.lines.len() > 1 => {
                Some("more than one line in the access log")
            }
            Ok(()) if silent => Some("no line in the access log"),
            Ok(()) => None,
        };
        if let Some(why) = verdict {
            failed.push(format!("{}: FAILED: {why}", row.name));
        }
    }
    for why in &failed {
        println!("{why}");
    }
    println!("{} attacks, {} failed", ours.len(), failed.len());
    Ok(failed.len())
}

fn rows(path: &Path) -> std::io::Result<Vec<Row>> {
    let upstream = Upstream::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (program, proxy) = smuggling::start(path, upstream.address())?;
    let played = smuggling::play(proxy, &upstream)?;
    let log = program.finish()?;
    let mut rows: Vec<Row> = played
        .into_iter()
        .map(|case| Row {
            one: matches!(case.case.want, Want::Refuse),
            name: case.case.name,
            rfc: case.case.rfc,
            lines: lines_of(&log, case.port),
            answer: case.answer,
            answered: case.answered,
            verdict: case.verdict,
        })
        .collect();
    rows.append(&mut flooded(path, upstream.address())?);
    Ok(rows)
}

/// All floods, some at a time: they wait more than they work.
fn flooded(path: &Path, upstream: SocketAddr) -> std::io::Result<Vec<Row>> {
    const LANES: usize = 6;
    let next = AtomicUsize::new(0);
    let lane = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(flood) = FLOODS.get(place) else {
                return done;
            };
            done.push((place, tried(flood, path, upstream)));
        }
    };
    let mut rows: Vec<_> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let ended = lanes.into_iter().map(|lane| lane.join());
        ended
            .flat_map(|done| done.expect("no lane panics"))
            .collect()
    });
    rows.sort_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// One flood on a program of its own, so that what it costs can be told.
fn tried(flood: &'static Flood, path: &Path, upstream: SocketAddr) -> std::io::Result<Row> {
    let (program, proxy) = smuggling::start(path, upstream)?;
    let tried = floods::attack(flood, proxy, || program.used());
    let log = program.finish()?;
    Ok(Row {
        one: false,
        name: flood.name,
        rfc: flood.rfc,
        lines: lines_of(&log, tried.port),
        answer: tried.answer,
        answered: tried.answered,
        verdict: tried.verdict,
    })
}
