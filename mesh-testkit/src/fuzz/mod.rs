//! The bodies of the fuzz targets: each takes any bytes and must neither panic nor run away.
//!
//! `fuzz/` wraps them for cargo-fuzz; a test plays its corpora, and mutations of them, on the stable tool chain. Where there is an
//! invariant to hold, a body asserts it.

mod format;
mod istio;
mod request;
mod route;

use mesh_core::model::{EscapedSlashes, Regex};
use mesh_core::route::path as paths;
use mesh_core::snapshot::Mesh;
use mesh_core::transport::detect::{self, Verdict};
use mesh_core::transport::proxy_protocol::{self, Parsed};
use mesh_xds::file::FileSource;
use mesh_xds::yaml::{self, Limits, Reader};
use mesh_xds::{decode, json};
use serde::de::IgnoredAny;

pub use format::format;
pub use istio::istio;
pub use request::request;
pub use route::{head, host};

/// A target: its name, which is the name of its corpus folder, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("yaml", yaml),
    ("envoy_json", envoy_json),
    ("wire", wire),
    ("regex", regex),
    ("host", host),
    ("path", path),
    ("head", head),
    ("sniff", sniff),
    ("istio", istio),
    ("format", format),
    ("request", request),
];

/// Reads bytes as YAML; each document is read to its end or refused.
pub fn yaml(data: &[u8]) {
    let limits = Limits {
        max_bytes: 1 << 20,
        ..Limits::default()
    };
    let Ok(text) = yaml::text(data, &limits) else {
        return;
    };
    let mut reader = Reader::new(text, &limits);
    while let Ok(Some(_)) = reader.next_document() {
        if reader.read(std::marker::PhantomData::<IgnoredAny>).is_err() {
            return;
        }
    }
}

/// Reads bytes as Envoy's bootstrap (YAML, of which JSON is a part) and compiles what it holds.
pub fn envoy_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let source = match FileSource::parse("envoy.json", text) {
        Ok(source) => source,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says nothing");
            return;
        }
    };
    let update = source.first().cloned().unwrap_or_default();
    let (mesh, mut driver) = Mesh::builder().source(source).build();
    driver.apply(update);
    assert!(mesh.snapshot().generation() > 0, "nothing was compiled");
}

/// Decodes bytes as resources of a control plane. What keeps the rules of the API survives the way to JSON and back.
pub fn wire(data: &[u8]) {
    const MESSAGES: [&str; 4] = [
        "envoy.config.listener.v3.Listener",
        "envoy.config.route.v3.RouteConfiguration",
        "envoy.config.cluster.v3.Cluster",
        "envoy.config.endpoint.v3.ClusterLoadAssignment",
    ];
    let refused = [
        decode::listener(data).value.is_none(),
        decode::routes(data).value.is_none(),
        decode::cluster(data).value.is_none(),
        decode::endpoints(data).value.is_none(),
    ];
    for (name, refused) in MESSAGES.into_iter().zip(refused) {
        let document = json::wire_to_value(name, data);
        if json::check(name, data).is_err() {
            assert!(refused, "{name}: what breaks the rules was taken");
            continue;
        }
        let Ok(document) = document else {
            assert!(refused, "{name}: what has no JSON form was taken");
            continue;
        };
        // Types that are not known keep their bytes, which have no JSON form to read again.
        if let Ok(again) = json::to_wire(name, document.clone()) {
            assert_eq!(json::wire_to_value(name, &again), Ok(document), "{name}");
        }
    }
}

/// Compiles bytes as a regular expression.
pub fn regex(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = Regex::parse(text) {
        assert!(
            !error.reason.is_empty(),
            "a refusal of {text:?} says nothing"
        );
    }
}

/// Normalises bytes as a path: a second time changes nothing, and nothing is left that the first was to remove.
pub fn path(data: &[u8]) {
    let merged = paths::merge_slashes(data);
    let path = paths::without_query(&merged);
    // As in Envoy two are left of a path of nothing but slashes.
    assert!(
        path == b"//" || !path.windows(2).any(|pair| pair == b"//"),
        "// is left of {data:?}"
    );
    assert_eq!(paths::merge_slashes(&merged), merged);
    for action in [
        EscapedSlashes::UnescapeAndForward,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::RejectRequest,
    ] {
        // Whatever is done, it is done to the path: the query comes out as it went in.
        let query = &data[paths::without_query(data).len()..];
        match paths::unescape_slashes(data, action) {
            paths::Unescaped::Forward(path) => {
                assert!(path.ends_with(query), "the query of {data:?} changed")
            }
            paths::Unescaped::Redirect(path) => {
                assert!(path.ends_with(query), "the query of {data:?} changed")
            }
            paths::Unescaped::Reject => assert_eq!(action, EscapedSlashes::RejectRequest),
        }
    }
    let Some(normal) = paths::normalize(data) else {
        return;
    };
    let only = paths::without_query(&normal);
    assert_eq!(only.first(), Some(&b'/'), "{data:?} became {normal:?}");
    assert!(
        !only
            .split(|byte| *byte == b'/')
            .any(|part| matches!(part, b"." | b"..")),
        "{data:?} became {normal:?}"
    );
    assert_eq!(
        paths::normalize(&normal).as_deref(),
        Some(&*normal),
        "{data:?} is not normal at once"
    );
}

/// Sniffs bytes as they would come in: an answer, once given, is the answer to all that follows, and some answer is given before
/// there is much to keep. The input is followed by its own end over and over again.
pub fn sniff(data: &[u8]) {
    let last = &data[data.len() - data.len().min(8)..];
    let endless = [
        data,
        &last.repeat(4 * detect::MAX_HELLO / last.len().max(1)),
    ]
    .concat();
    if !data.is_empty() && data.len() < detect::MAX_HELLO {
        assert_ne!(detect::http(&endless), Verdict::More, "{data:?}");
        assert_ne!(detect::tls(&endless), Verdict::More, "{data:?}");
        assert_ne!(proxy_protocol::parse(&endless), Parsed::Partial, "{data:?}");
    }
    settles(data, |bytes| match detect::http(bytes) {
        Verdict::More => None,
        other => Some(other),
    });
    settles(data, |bytes| match detect::tls(bytes) {
        Verdict::More => None,
        other => Some(other),
    });
    settles(data, |bytes| match proxy_protocol::parse(bytes) {
        Parsed::Partial => None,
        other => Some(other),
    });
}

/// Checks that `judge` never changes its mind as bytes arrive.
fn settles<T: PartialEq + std::fmt::Debug>(data: &[u8], judge: impl Fn(&[u8]) -> Option<T>) {
    // Long inputs are looked at in steps, to stay linear.
    let step = 1 + data.len() / 256;
    let mut settled: Option<T> = None;
    for end in (0..=data.len()).step_by(step) {
        let verdict = judge(&data[..end]);
        if let Some(before) = &settled {
            assert_eq!(
                verdict.as_ref(),
                Some(before),
                "after {end} bytes of {data:?}"
            );
        }
        settled = verdict;
    }
}
