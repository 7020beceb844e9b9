//! Attacks on a proxy.
//!
//! `smuggling --proxy PORT --upstream PORT` tries request smuggling on a proxy that runs already, both on 127.0.0.1: it must forward
//! every path to the upstream port, over HTTP/1.1, and take HTTP/1.1 and cleartext HTTP/2.
//!
//! `smuggling --meshd PATH [--envoy PATH]` starts the programs itself, tries floods and slow peers too, reads their access logs, and
//! prints a table of what each of them did: the one in `docs/ATTACKS.md`. Its exit code judges `meshd` only.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use mesh_testkit::smuggling::{
    self, Upstream, Want,
    floods::{self, FLOODS},
    program::{LogLine, Program},
};

/// Try request smuggling and floods on a proxy; exit 1 if any case fools it.
#[derive(Debug, Parser)]
struct Args {
    /// Port of the proxy
    #[arg(long, requires = "upstream", required_unless_present = "meshd")]
    proxy: Option<u16>,
    /// Port where the upstream of the proxy is to listen
    #[arg(long)]
    upstream: Option<u16>,
    /// Program to start and judge
    #[arg(long, conflicts_with = "proxy")]
    meshd: Option<PathBuf>,
    /// Program to compare with
    #[arg(long, requires = "meshd")]
    envoy: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match (&args.meshd, args.proxy, args.upstream) {
        (Some(meshd), _, _) => table(meshd, args.envoy.as_deref()),
        (None, Some(proxy), Some(upstream)) => play(proxy, upstream),
        _ => unreachable!("the command line asks for one of them"),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Smuggling only, on a proxy that runs; how many cases failed.
fn play(proxy: u16, upstream: u16) -> std::io::Result<usize> {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let upstream = Upstream::listen(loopback(upstream))?;
    let played = smuggling::play(loopback(proxy), &upstream)?;
    let mut failed = 0;
    for case in &played {
        if let Err(why) = &case.verdict {
            failed += 1;
            println!("{}: FAILED: {why}", case.case.name);
        }
    }
    println!("{} cases read strictly, {failed} failed", played.len());
    Ok(failed)
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
    let mut failed = 0;
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
            failed += 1;
            eprintln!("{}: FAILED: {why}", row.name);
        }
    }
    eprintln!("{} attacks, {failed} failed", ours.len());
    Ok(failed)
}

fn rows(path: &Path) -> std::io::Result<Vec<Row>> {
    let upstream = Upstream::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let program = Program::start(path, upstream.address())?;
    let played = smuggling::play(program.address(), &upstream)?;
    let mut tried = Vec::new();
    for flood in FLOODS {
        let before = program.cpu();
        let mut outcome = floods::attack(flood, program.address(), || program.peak());
        if let (Some(before), Some(after)) = (before, program.cpu()) {
            let spent = after.saturating_sub(before).as_millis();
            eprintln!("{}: {}: {spent} ms of CPU", path.display(), flood.name);
            if spent > 5_000 {
                outcome.verdict = Err(format!("{spent} ms of processor time"));
            }
        }
        tried.push(outcome);
    }
    let log = program.finish()?;
    let lines = |port| {
        let of = log.iter().filter(move |line: &&LogLine| line.port == port);
        of.map(|line| line.text.clone()).collect::<Vec<_>>()
    };
    let played = played.into_iter().map(|case| Row {
        one: matches!(case.case.want, Want::Refuse),
        name: case.case.name,
        rfc: case.case.rfc,
        lines: lines(case.port),
        answer: case.answer,
        answered: case.answered,
        verdict: case.verdict,
    });
    let tried = tried.into_iter().map(|tried| Row {
        one: false,
        name: tried.flood.name,
        rfc: tried.flood.rfc,
        lines: lines(tried.port),
        answer: tried.answer,
        answered: tried.answered,
        verdict: tried.verdict,
    });
    Ok(played.chain(tried).collect())
}
