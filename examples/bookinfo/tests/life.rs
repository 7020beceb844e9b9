//! The demo's own life: its start, broken edits, the table, the death of a sidecar, and its end.

mod support;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use support::{Demo, LONG, Mode, is_free, kill, processes};

const REVIEWS: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n  hosts: [reviews]\n  http:\n  - route:\n    - destination: {host: reviews, subset: v3}\n";

/// What a drain may take on a busy machine; five seconds on an idle one, which `cargo xtask bars demo` measures.
const DRAIN: Duration = Duration::from_secs(20);

/// Ends by signal with nothing left: no process, no port.
async fn ends_clean(demo: Demo, signal: &str) -> String {
    let world = demo.world.clone();
    let folder = demo.folder.to_path_buf();
    demo.signal(signal).await;
    let (code, text, took) = demo.end().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(took < DRAIN, "{took:?}");
    assert_eq!(processes(&folder), [], "processes are left");
    let of_workloads = world
        .workloads
        .iter()
        .flat_map(|w| [w.application, w.inbound, w.outbound, w.admin()]);
    for address in of_workloads.chain([world.gateway.address, world.gateway.admin()]) {
        assert!(is_free(address), "{address} is still in use");
    }
    text
}

#[tokio::test]
async fn ctrl_c_under_load_loses_nothing_with_sidecars() {
    let mut demo = Demo::start(Mode::Sidecars, &["--load", "20"]).await;
    demo.until("the table shows the page's calls", LONG, |text| {
        text.contains("productpage-v1 -> reviews/v3 rps=")
    })
    .await;
    let text = ends_clean(demo, "INT").await;
    assert!(
        text.contains("istio-ingressgateway -> productpage/v1 rps="),
        "{text}"
    );
    assert!(text.contains(" 0 failed, 0 not sent"), "{text}");
}

#[tokio::test]
async fn ctrl_c_under_load_loses_nothing_embedded() {
    let mut demo = Demo::start(Mode::Embedded, &["--load", "20"]).await;
    demo.until("the table shows the page's calls", LONG, |text| {
        text.contains("productpage-v1 -> reviews/v3 rps=")
    })
    .await;
    assert_eq!(demo.proxies(), [], "embedded needs no other process");
    let text = ends_clean(demo, "INT").await;
    assert!(text.contains(" 0 failed, 0 not sent"), "{text}");
}

#[tokio::test]
async fn it_ends_by_itself() {
    let start = Instant::now();
    let demo = Demo::start(Mode::Sidecars, &["--for", "2"]).await;
    let (code, text, _) = demo.end().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_sidecar_that_dies_is_named_and_ends_the_run() {
    let demo = Demo::start(Mode::Sidecars, &[]).await;
    let folder = demo.folder.to_path_buf();
    let proxies = demo.proxies();
    assert_eq!(
        proxies.len(),
        8,
        "seven sidecars and a gateway: {proxies:?}"
    );
    let (victim, _) = proxies
        .iter()
        .find(|(_, line)| line.contains("default/reviews-v3"))
        .expect("a sidecar of reviews v3");
    kill("KILL", *victim).await;
    let (code, text, _) = demo.end().await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("sidecar of reviews-v3 died: signal: 9"),
        "{text}"
    );
    assert_eq!(processes(&folder), []);
}

#[tokio::test]
async fn sidecars_end_when_the_demo_is_killed() {
    let demo = Demo::start(Mode::Sidecars, &[]).await;
    let folder = demo.folder.to_path_buf();
    demo.signal("KILL").await;
    demo.end().await;
    let deadline = Instant::now() + LONG;
    while !processes(&folder).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", processes(&folder));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_broken_edit_is_refused_with_its_place_and_the_last_good_one_stays_with_sidecars() {
    broken_edit(Mode::Sidecars).await;
}

#[tokio::test]
async fn a_broken_edit_is_refused_with_its_place_and_the_last_good_one_stays_embedded() {
    broken_edit(Mode::Embedded).await;
}

async fn broken_edit(mode: Mode) {
    let mut demo = Demo::start(mode, &[]).await;
    demo.write("mine.yaml", REVIEWS);
    all(&demo, "red").await;
    demo.write("mine.yaml", &REVIEWS.replace("subset: v3", "subsett: v1"));
    demo.until("the refusal is shown", LONG, |text| {
        text.contains("config refused")
    })
    .await;
    let text = demo.text();
    for part in [
        "mine.yaml:8:",
        "VirtualService",
        "default/reviews",
        "subsett",
        "subset",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    all(&demo, "red").await;
    demo.write("mine.yaml", &REVIEWS.replace("subset: v3", "subset: v2"));
    all(&demo, "black").await;
    demo.until("all is well again", LONG, |text| {
        text.rfind("config in force") > text.rfind("config refused")
    })
    .await;
    ends_clean(demo, "TERM").await;
}

/// Waits until all pages show these stars.
async fn all(demo: &Demo, stars: &str) {
    let deadline = Instant::now() + LONG;
    while !demo
        .pages(6, None)
        .await
        .iter()
        .all(|page| page.stars() == stars)
    {
        assert!(Instant::now() < deadline, "{stars}: {}", demo.text());
    }
}

#[tokio::test]
async fn of_two_files_with_one_object_the_later_acts_and_both_are_named() {
    let mut demo = Demo::start(Mode::Sidecars, &[]).await;
    demo.write("a.yaml", REVIEWS);
    all(&demo, "red").await;
    demo.write("b.yaml", &REVIEWS.replace("v3", "v2"));
    demo.until("both files are named", LONG, |text| {
        text.lines()
            .any(|l| l.contains("a.yaml") && l.contains("b.yaml"))
    })
    .await;
    all(&demo, "black").await;
    // What is changed later wins, whatever the files' names are.
    demo.write("a.yaml", &format!("# once more\n{REVIEWS}"));
    all(&demo, "red").await;
    ends_clean(demo, "TERM").await;
}

/// A demo with `extra/access-log.yaml` in its folder.
async fn logging(mode: Mode, arguments: &[&str]) -> Demo {
    let demo = Demo::start(mode, arguments).await;
    let file = support::shipped("extra").join("access-log.yaml");
    let text = std::fs::read_to_string(file).expect("a file of this package");
    demo.write("access-log.yaml", &text);
    demo
}

#[tokio::test]
async fn the_access_log_is_shown_once_the_mesh_asks_for_it() {
    let mut demo = logging(Mode::Sidecars, &["--access-log"]).await;
    let deadline = Instant::now() + LONG;
    while !["istio-ingressgateway", "productpage-v1", "details-v1"]
        .iter()
        .all(|proxy| demo.text().contains(&format!("\n[{proxy}] [20")))
    {
        assert!(Instant::now() < deadline, "{}", demo.text());
        demo.page(None).await;
    }
    demo.until("the page is logged", LONG, |text| {
        text.contains("\"GET /productpage HTTP/1.1\" 200 - via_upstream")
    })
    .await;
    ends_clean(demo, "TERM").await;

    let mut demo = logging(Mode::Embedded, &["--access-log", "--load", "20"]).await;
    demo.until("the page is logged", LONG, |text| {
        let mut lines = text.lines();
        lines.any(|line| {
            line.starts_with("[access log] [20")
                && line.contains("\"GET /productpage HTTP/1.1\" 200 - via_upstream")
        })
    })
    .await;
    ends_clean(demo, "TERM").await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = support::Mesh::new();
    let block = folder.block;
    for address in [
        format!("127.{block}.0.3:9081"),
        format!("127.{block}.0.250:8080"),
    ] {
        let _taken = std::net::TcpListener::bind(&address).expect("a free address");
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_bookinfo"))
            .arg("--mesh")
            .arg(&*folder)
            .output();
        let output = tokio::time::timeout(LONG, output)
            .await
            .expect("it ends")
            .expect("cargo built the program");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(&address), "{address} is not named: {text}");
        let lines: Vec<_> = text.lines().collect();
        let [_, hint] = lines[..] else {
            panic!("it is said once, then a way out: {text}");
        };
        assert!(hint.contains("bookinfo new-mesh"), "{text}");
    }
}

#[tokio::test]
async fn it_ends_in_order_when_nobody_reads_its_lines_any_more() {
    let folder = support::Mesh::new();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_bookinfo"))
        .args(["--load", "20", "--mesh"])
        .arg(&*folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo built the program");
    let mut first = String::new();
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
    lines.read_line(&mut first).await.expect("text");
    assert!(first.contains("/productpage"), "{first}");
    drop(lines);
    let output = tokio::time::timeout(LONG, child.wait_with_output())
        .await
        .expect("it ends")
        .expect("our own child");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*text), (Some(0), ""));
    assert_eq!(processes(&folder), []);
}
