//! Istio's own bookinfo files and ours, each copied into the mesh folder of a running demo and taken out again.

mod support;

use std::{collections::BTreeSet, ffi::OsString, time::Duration};

use bookinfo::caller::Plain;
use http::StatusCode;
use tokio::time::{Instant, sleep};

use support::{Demo, LONG, Mode, fetch, istio_samples, shipped};

/// What must be true while a file is in the folder.
enum Wanted {
    /// Pages of a user (or of nobody) show these stars, all of them and no others.
    Stars(Option<&'static str>, &'static [&'static str]),
    /// Of 100 pages, so many (from, to) show these stars.
    Share(&'static str, usize, usize),
    /// A path of the gateway answers with this status.
    Status(&'static str, u16),
    /// A page of a user takes so long, in milliseconds (from, to).
    Time(Option<&'static str>, u64, u64),
    /// The sidecar's HTTP proxy answers so for this authority.
    Egress(&'static str, u16),
    /// The demo says so.
    Said(&'static str),
}

use Wanted::{Egress, Said, Share, Stars, Status, Time};

const ANY: &[&str] = &["v1", "black", "red"];

/// Istio's own files, `samples/bookinfo/networking`.
const ISTIO: [(&str, &[Wanted]); 17] = [
    (
        "certmanager-gateway.yaml",
        &[
            Status("/.well-known/acme-challenge/x", 503),
            Stars(None, ANY),
        ],
    ),
    (
        "destination-rule-all.yaml",
        &[Stars(None, ANY), Status("/api/v1/products/0", 200)],
    ),
    ("destination-rule-reviews.yaml", &[Stars(None, ANY)]),
    (
        "egress-rule-google-apis.yaml",
        &[
            Egress("www.googleapis.com", 503),
            Stars(None, ANY),
            Said("www.googleapis.com"),
        ],
    ),
    (
        "fault-injection-details-v1.yaml",
        &[Status("/api/v1/products/0", 555), Stars(None, ANY)],
    ),
    (
        "virtual-service-all-v1.yaml",
        &[Stars(None, &["v1"]), Status("/api/v1/products/0", 200)],
    ),
    (
        "virtual-service-details-v2.yaml",
        &[
            Status("/api/v1/products/0", 503),
            Stars(None, ANY),
            Said("productpage-v1 -> details/missing rps="),
        ],
    ),
    ("virtual-service-ratings-db.yaml", &[Stars(None, &["red"])]),
    (
        "virtual-service-ratings-mysql-vm.yaml",
        &[
            Stars(None, &["?"]),
            Status("/api/v1/products/0/ratings", 503),
        ],
    ),
    (
        "virtual-service-ratings-mysql.yaml",
        &[
            Stars(None, &["?"]),
            Status("/api/v1/products/0/ratings", 503),
        ],
    ),
    (
        "virtual-service-ratings-test-abort.yaml",
        &[Stars(Some("jason"), &["v1", "?"]), Stars(None, ANY)],
    ),
    (
        "virtual-service-reviews-50-v3.yaml",
        &[Stars(None, &["v1", "red"]), Share("red", 30, 70)],
    ),
    (
        "virtual-service-reviews-80-20.yaml",
        &[Stars(None, &["v1", "black"]), Share("black", 5, 40)],
    ),
    (
        "virtual-service-reviews-90-10.yaml",
        &[Stars(None, &["v1", "black"]), Share("black", 1, 28)],
    ),
    (
        "virtual-service-reviews-jason-v2-v3.yaml",
        &[Stars(Some("jason"), &["black"]), Stars(None, &["red"])],
    ),
    (
        "virtual-service-reviews-v2-v3.yaml",
        &[Stars(None, &["black", "red"]), Share("red", 30, 70)],
    ),
    ("virtual-service-reviews-v3.yaml", &[Stars(None, &["red"])]),
];

/// Our own files, `extra/`.
const OWN: [(&str, &[Wanted]); 5] = [
    (
        "jason-sees-stars.yaml",
        &[Stars(Some("jason"), &["black"]), Stars(None, &["v1"])],
    ),
    ("ratings-delay.yaml", &[Stars(None, ANY)]),
    (
        "reviews-timeout.yaml",
        &[Stars(None, &["none"]), Time(None, 900, 2500)],
    ),
    ("gateway-health.yaml", &[Status("/bookinfo/health", 200)]),
    ("access-log.yaml", &[Stars(None, ANY)]),
];

#[test]
fn every_file_has_its_turn() {
    let own = shipped("extra");
    for (folder, names) in [
        (istio_samples(), ISTIO.map(|(name, _)| name).to_vec()),
        (own, OWN.map(|(name, _)| name).to_vec()),
    ] {
        let files = std::fs::read_dir(folder).expect("a folder").flatten();
        let files = files.map(|file| file.file_name());
        let yaml = |name: &OsString| name.to_string_lossy().ends_with(".yaml");
        let files: BTreeSet<_> = files.filter(yaml).collect();
        let names: BTreeSet<_> = names.into_iter().map(Into::into).collect();
        assert_eq!(files, names);
    }
}

#[tokio::test]
async fn every_file_acts_with_sidecars() {
    play(Mode::Sidecars).await;
}

#[tokio::test]
async fn every_file_acts_embedded() {
    play(Mode::Embedded).await;
}

/// The files in turn, under load: not one page may fail, whatever the files say.
async fn play(mode: Mode) {
    let demo = Demo::start(mode, &["--load", "10"]).await;
    for (name, wanted) in ISTIO {
        let text = std::fs::read_to_string(istio_samples().join(name)).expect("a file of Istio's");
        apply(&demo, mode, name, &text, wanted).await;
    }
    for (name, wanted) in OWN {
        let text =
            std::fs::read_to_string(shipped("extra").join(name)).expect("a file of this package");
        apply(&demo, mode, name, &text, wanted).await;
    }
    delay_for_jason(&demo).await;
    demo.signal("TERM").await;
    let (code, text, _) = demo.end().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains(" 0 failed, 0 not sent"),
        "pages failed under reloads:\n{text}"
    );
}

async fn apply(demo: &Demo, mode: Mode, name: &str, text: &str, wanted: &[Wanted]) {
    demo.write(name, text);
    for wanted in wanted {
        // Until all proxies have the file, any answer is right.
        let deadline = Instant::now() + LONG;
        loop {
            match check(demo, mode, wanted).await {
                Ok(()) => break,
                Err(seen) if Instant::now() > deadline => {
                    panic!("{name}, {mode:?}: {seen}\n{}", demo.text())
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
    demo.remove(name);
    let deadline = Instant::now() + LONG;
    while check(demo, mode, &Stars(None, ANY)).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "{name}, {mode:?}: it acts though it was taken out\n{}",
            demo.text()
        );
    }
}

async fn check(demo: &Demo, mode: Mode, wanted: &Wanted) -> Result<(), String> {
    let (what, seen, good) = match *wanted {
        Stars(user, stars) => {
            let pages = demo.pages(stars.len() * 12, user).await;
            let seen: BTreeSet<_> = pages.iter().map(support::Page::stars).collect();
            let all = seen == stars.iter().copied().collect();
            let what = format!("stars {stars:?} for {user:?}");
            (what, format!("{seen:?}"), all)
        }
        Share(stars, from, to) => {
            let pages = demo.pages(100, None).await;
            let seen = pages.iter().filter(|page| page.stars() == stars).count();
            let good = (from..=to).contains(&seen);
            (stars.to_owned(), seen.to_string(), good)
        }
        Status(path, status) => {
            let (seen, _) = demo.get(path, None).await;
            (path.to_owned(), seen.to_string(), seen.as_u16() == status)
        }
        Time(user, from, to) => {
            let start = Instant::now();
            demo.page(user).await;
            let took = start.elapsed().as_millis();
            let good = (u128::from(from)..=u128::from(to)).contains(&took);
            ("a page's time in ms".to_owned(), took.to_string(), good)
        }
        // No socket leads to the embedded client; the services call nothing outside.
        Egress(..) if mode == Mode::Embedded => return Ok(()),
        Egress(authority, status) => {
            let mut proxy = demo.world.workloads[0].outbound;
            proxy.set_port(15007);
            let (seen, _) = fetch(&Plain::new(proxy), authority, "/", None).await;
            let good = seen.as_u16() == status;
            (authority.to_owned(), seen.to_string(), good)
        }
        Said(text) => {
            let said = demo.text();
            let good = said.contains(text);
            ("said".to_owned(), said, good)
        }
    };
    match good {
        true => Ok(()),
        false => Err(format!("{what}: {seen}")),
    }
}

/// Two files at once: jason's reviews come from v2, and ratings is seven seconds late for jason.
async fn delay_for_jason(demo: &Demo) {
    for name in ["jason-sees-stars.yaml", "ratings-delay.yaml"] {
        demo.write(
            name,
            &std::fs::read_to_string(shipped("extra").join(name)).expect("a file of this package"),
        );
    }
    let deadline = Instant::now() + LONG;
    while demo.page(None).await.stars() != "v1" || demo.page(Some("jason")).await.stars() != "none"
    {
        assert!(Instant::now() < deadline, "{}", demo.text());
    }
    let start = Instant::now();
    assert_eq!(demo.page(Some("jason")).await.stars(), "none");
    // "none" tells that it did not wait for the seven seconds; only how much longer the page took depends on the machine.
    let took = start.elapsed().as_millis();
    assert!(
        took >= 5900,
        "two times three seconds are wanted, {took} ms seen"
    );
    assert_eq!(
        demo.get("/api/v1/products/0", Some("jason")).await.0,
        StatusCode::OK
    );
    for name in ["jason-sees-stars.yaml", "ratings-delay.yaml"] {
        demo.remove(name);
    }
}
