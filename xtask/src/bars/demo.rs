//! The bookinfo demo as its user sees it, with sidecars and embedded: time to the first page, to an edit in force, to the end.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::Reading;
use crate::Fallible;
use crate::http;
use crate::process::Background;
use crate::workspace;

/// Seconds until a page comes.
const READY: f64 = 2.0;
/// Seconds until an edit acts on every page.
const EDIT: f64 = 1.0;
/// Seconds from Ctrl-C to the end.
const DRAIN: f64 = 5.0;
/// Pages per second while edits are made.
const LOAD: &str = "100";
/// Pages in a row that must agree until an edit counts as in force; the balancer has three versions to take turns on.
const AGREE: usize = 12;
const GATEWAY: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends all of reviews to one version.
const ONE_VERSION: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: VERSION}}]
";

pub(super) fn measure() -> Fallible<Vec<Reading>> {
    let mut readings = mode("demo", &[])?;
    readings.extend(mode("embedded demo", &["--embedded"])?);
    Ok(readings)
}

fn mode(name: &str, flags: &[&str]) -> Fallible<Vec<Reading>> {
    let run = play(flags)?;
    let name = |what: &str| format!("{name}, {what}");
    let time = |what: &str, time: Duration, bar: f64| {
        Reading::at_most(name(what), time.as_secs_f64(), bar, " s")
    };
    let no_failure = run.report.contains(", 0 failed,");
    let no_error = run.status.success();
    Ok(vec![
        time("first page", run.first_page, READY),
        time("slowest of 4 edits in force", run.slowest_edit, EDIT),
        Reading::holds(
            name("pages during the edits"),
            run.report,
            "0 failed",
            no_failure,
        ),
        time("end after Ctrl-C", run.drain, DRAIN),
        Reading::holds(name("exit"), run.status.to_string(), "0", no_error),
        left_behind(name("left behind"))?,
    ])
}

/// What one run of the demo showed.
struct Run {
    first_page: Duration,
    slowest_edit: Duration,
    /// From Ctrl-C to the end.
    drain: Duration,
    status: ExitStatus,
    /// What became of its own load.
    report: String,
}

/// Runs the demo on a copy of its folder: from the start over four edits to Ctrl-C.
fn play(flags: &[&str]) -> Fallible<Run> {
    if page().is_some() {
        return Err("something else serves the page already".into());
    }
    let mesh = mesh_folder()?;
    let mut command = Command::new(workspace::release_program("bookinfo"));
    command.arg("--mesh").arg(&mesh);
    command.args(["--load", LOAD]).args(flags);
    let start = Instant::now();
    let mut demo = Background::start(&mut command, &workspace::target().join("xtask/demo.log"))?;
    let first_page = demo.poll(PATIENCE, || page().is_some().then(|| start.elapsed()))?;
    let mut slowest_edit = Duration::ZERO;
    for version in ["v3", "v1", "v2", "v3"] {
        slowest_edit = slowest_edit.max(edit(&mut demo, &mesh, version)?);
    }
    let end = Instant::now();
    demo.signal("INT")?;
    let status = demo.wait(PATIENCE)?;
    let drain = end.elapsed();
    let text = demo.log_text();
    let mut lines = text.lines().rev();
    let report = lines.find(|line| line.starts_with("load: "));
    Ok(Run {
        first_page: first_page.ok_or("no page came")?,
        slowest_edit,
        drain,
        status,
        report: report.unwrap_or("no report of the load").to_owned(),
    })
}

/// Processes of the demo and its port, of which nothing may be left.
fn left_behind(name: String) -> Fallible<Reading> {
    let program = workspace::release_program("bookinfo").canonicalize()?;
    // Programs that end meanwhile, and those of other users, have no readable link.
    let of_demo = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)
    };
    let processes = fs::read_dir("/proc")?.flatten().filter(of_demo).count();
    let port = TcpListener::bind(SocketAddr::from(GATEWAY)).map_or("taken", |_| "free");
    Ok(Reading::holds(
        name,
        format!("{processes} processes, its port {port}"),
        "0 processes, its port free",
        processes == 0 && port == "free",
    ))
}

/// Saves an edit and waits until it acts: the time until the first of [`AGREE`] pages in a row that follow it.
fn edit(demo: &mut Background, mesh: &Path, version: &str) -> Fallible<Duration> {
    fs::write(
        mesh.join("bars-reviews.yaml"),
        ONE_VERSION.replace("VERSION", version),
    )?;
    let saved = Instant::now();
    let mark = format!("reviews-{version}");
    let in_force = demo.poll(PATIENCE, || {
        let since = saved.elapsed();
        (0..AGREE)
            .all(|_| page().is_some_and(|page| page.contains(&mark)))
            .then_some(since)
    })?;
    in_force.ok_or_else(|| format!("the edit to {version} never acted").into())
}

fn page() -> Option<String> {
    let (status, body) = http::get(SocketAddr::from(GATEWAY), "/productpage").ok()?;
    (status == 200).then_some(body)
}

/// A copy of the demo's mesh folder, to edit.
fn mesh_folder() -> Fallible<PathBuf> {
    let to = workspace::target().join("xtask/mesh");
    if to.exists() {
        fs::remove_dir_all(&to)?;
    }
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(workspace::root().join("examples/bookinfo/mesh"))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(to)
}
