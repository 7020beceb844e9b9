//! The bodies of the fuzz targets: each takes any bytes and must neither panic nor run away.
//!
//! `fuzz/` wraps them for cargo-fuzz; a test here plays its corpora, and mutations of them, on the stable tool chain.

use mesh_core::model::Regex;
use mesh_xds::yaml::{self, Limits, Reader};
use serde::de::IgnoredAny;

/// A target: its name, which is the name of its corpus folder, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("yaml", yaml), ("regex", regex)];

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
