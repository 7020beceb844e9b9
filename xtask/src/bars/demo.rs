//! The bookinfo demo as its user sees it, with sidecars and embedded: time to the first page, to an edit in force, to the end.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::Reading;
use crate::Fallible;
use crate::http;
use crate::process::{self, Background};
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
/// Edits of the long run.
const RELOADS: usize = 1000;
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
    let mut demo = Demo::start(flags)?;
    let mut slowest = Duration::ZERO;
    for version in ["v3", "v1", "v2", "v3"] {
        slowest = slowest.max(edit(&mut demo.process, &demo.mesh, version, AGREE)?);
    }
    let first = demo.first_page;
    let end = demo.end()?;
    Ok(vec![
        Reading::at_most(
            format!("{name}, first page"),
            first.as_secs_f64(),
            READY,
            " s",
        ),
        Reading::at_most(
            format!("{name}, slowest of 4 edits in force"),
            slowest.as_secs_f64(),
            EDIT,
            " s",
        ),
        end.none_failed(format!("{name}, pages during the edits")),
        Reading::at_most(
            format!("{name}, end after Ctrl-C"),
            end.drain.as_secs_f64(),
            DRAIN,
            " s",
        ),
        Reading::holds(
            format!("{name}, exit"),
            end.status.to_string(),
            "0",
            end.status.success(),
        ),
    ])
}

/// Edits the mesh of a loaded demo again and again; each edit is seen to act before the next one is made.
pub(super) fn reloads() -> Fallible<Vec<Reading>> {
    let mut demo = Demo::start(&[])?;
    let start = Instant::now();
    for n in 0..RELOADS {
        edit(&mut demo.process, &demo.mesh, ["v1", "v2", "v3"][n % 3], 1)?;
    }
    println!(
        "{RELOADS} reloads in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    Ok(vec![
        demo.end()?
            .none_failed(format!("pages during {RELOADS} reloads")),
    ])
}

/// The demo, with a first page served.
struct Demo {
    process: Background,
    mesh: PathBuf,
    first_page: Duration,
}

/// How a demo ended.
struct End {
    drain: Duration,
    status: ExitStatus,
    report: String,
}

impl Demo {
    fn start(flags: &[&str]) -> Fallible<Self> {
        process::run(&mut workspace::cargo([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "-p",
            "bookinfo",
        ]))?;
        let mesh = mesh_folder()?;
        let mut command = Command::new(workspace::release_program("bookinfo"));
        command
            .arg("--mesh")
            .arg(&mesh)
            .args(["--load", LOAD])
            .args(flags);
        let start = Instant::now();
        let mut process =
            Background::start(&mut command, &workspace::target().join("xtask/demo.log"))?;
        let first_page = process
            .poll(PATIENCE, || page().is_some().then(|| start.elapsed()))?
            .ok_or("no page came")?;
        Ok(Self {
            process,
            mesh,
            first_page,
        })
    }

    fn end(mut self) -> Fallible<End> {
        let start = Instant::now();
        self.process.signal("INT")?;
        let status = self.process.wait(PATIENCE)?;
        let drain = start.elapsed();
        let text = self.process.log_text();
        let report = text
            .lines()
            .rev()
            .find(|line| line.starts_with("load: "))
            .unwrap_or("no report of the load");
        Ok(End {
            drain,
            status,
            report: report.to_owned(),
        })
    }
}

impl End {
    fn none_failed(&self, name: String) -> Reading {
        Reading::holds(
            name,
            &self.report,
            "0 failed",
            self.report.contains(", 0 failed,"),
        )
    }
}

/// Saves an edit and waits until it acts: the time until the first of `agree` pages in a row that follow it.
fn edit(demo: &mut Background, mesh: &Path, version: &str, agree: usize) -> Fallible<Duration> {
    fs::write(
        mesh.join("bars-reviews.yaml"),
        ONE_VERSION.replace("VERSION", version),
    )?;
    let saved = Instant::now();
    let mark = format!("reviews-{version}");
    let in_force = demo.poll(PATIENCE, || {
        let since = saved.elapsed();
        (0..agree)
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
