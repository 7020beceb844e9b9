//! Istio's exchange of metadata over HTTP headers: who calls says which workload it is, so that who is called can name it in
//! its metrics.
//!
//! The header `x-envoy-peer-metadata` holds a `google.protobuf.Struct` in base64, whose few fields are read and written here
//! by hand. What a caller says of itself is not proven: it labels metrics and decides nothing.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::metrics::Workload;
use crate::{model::Name, sync::lock};

const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
const ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

/// Peers that a process tells apart; whoever comes after them stays unknown, so that nobody can grow the metrics at will.
const MAX_PEERS: usize = 1024;

/// Longer headers are not read. Istio's own have some hundred bytes.
const MAX_LENGTH: usize = 8192;

/// Labels that make an app, a version, and the canonical service and revision.
const LABELS: [&str; 4] = [
    "app",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "version",
];

/// Someone who called.
#[derive(Debug)]
#[non_exhaustive]
pub struct Peer {
    /// Differs from peer to peer for as long as the process lives; never 0.
    pub id: u64,
    /// What it says of itself.
    pub workload: Workload,
}

/// What a process says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    metadata: HeaderValue,
    id: HeaderValue,
}

impl Introduction {
    /// `None`: the workload has no name, or one that no header can hold.
    pub(crate) fn of(workload: &Workload) -> Option<Self> {
        if workload.name.is_empty() {
            return None;
        }
        let id = format!("{}.{}", workload.name, workload.namespace);
        Some(Self {
            metadata: HeaderValue::from_str(&base64::encode(&encode(workload))).ok()?,
            id: HeaderValue::from_str(&id).ok()?,
        })
    }

    /// Writes it over whatever the application said.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(METADATA, self.metadata.clone());
        headers.insert(ID, self.id.clone());
    }
}

/// Everyone who called so far.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Sorted by header.
    known: ArcSwap<Vec<(HeaderValue, Arc<Peer>)>>,
    /// Held by who adds one.
    adding: Mutex<()>,
}

impl Peers {
    /// Takes what the caller says of itself out of the headers.
    pub(crate) fn take(&self, headers: &mut HeaderMap) -> Option<Arc<Peer>> {
        let said = headers.remove(METADATA);
        headers.remove(ID);
        let said = said?;
        {
            let known = self.known.load();
            if let Ok(index) = find(&known, &said) {
                return Some(known[index].1.clone());
            }
            if known.len() >= MAX_PEERS || said.len() > MAX_LENGTH {
                return None;
            }
        }
        let workload = decode(&base64::decode(said.as_bytes())?)?;
        self.add(said, workload)
    }

    fn add(&self, said: HeaderValue, workload: Workload) -> Option<Arc<Peer>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let _adding = lock(&self.adding);
        let known = self.known.load();
        let at = match find(&known, &said) {
            Ok(index) => return Some(known[index].1.clone()),
            Err(at) => at,
        };
        if known.len() >= MAX_PEERS {
            return None;
        }
        let peer = Arc::new(Peer {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            workload,
        });
        let mut more = (**known).clone();
        more.insert(at, (said, peer.clone()));
        self.known.store(Arc::new(more));
        Some(peer)
    }
}

fn find(known: &[(HeaderValue, Arc<Peer>)], said: &HeaderValue) -> Result<usize, usize> {
    known.binary_search_by(|(one, _)| one.as_bytes().cmp(said.as_bytes()))
}

/// The bytes of a `google.protobuf.Struct`.
fn encode(workload: &Workload) -> Vec<u8> {
    let values: [&Name; 4] = [
        &workload.app,
        &workload.canonical_service,
        &workload.canonical_revision,
        &workload.version,
    ];
    let mut labels = Vec::new();
    for (label, value) in LABELS.into_iter().zip(values) {
        member(&mut labels, label, &text(value));
    }
    let mut out = Vec::new();
    member(&mut out, "CLUSTER_ID", &text(&workload.cluster));
    member(&mut out, "LABELS", &field(STRUCT, &labels));
    member(&mut out, "NAME", &text(&workload.name));
    member(&mut out, "NAMESPACE", &text(&workload.namespace));
    member(&mut out, "WORKLOAD_NAME", &text(&workload.name));
    out
}

/// Numbers of fields: of `Struct`, of an entry of its map, and of `Value`.
const FIELDS: u64 = 1;
const KEY: u64 = 1;
const VALUE: u64 = 2;
const STRING: u64 = 3;
const STRUCT: u64 = 5;

/// A field with a length.
fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    varint(&mut out, number << 3 | 2);
    varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn text(value: &str) -> Vec<u8> {
    field(STRING, value.as_bytes())
}

fn member(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let mut entry = field(KEY, key.as_bytes());
    entry.extend(field(VALUE, value));
    out.extend(field(FIELDS, &entry));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The workload in the bytes of a `google.protobuf.Struct`; `None` if they are none.
fn decode(bytes: &[u8]) -> Option<Workload> {
    let mut workload = Workload::default();
    let mut labels: Vec<(&str, &str)> = Vec::new();
    for (key, value) in members(bytes)? {
        match key {
            "CLUSTER_ID" => workload.cluster = string(value)?.into(),
            "NAMESPACE" => workload.namespace = string(value)?.into(),
            "WORKLOAD_NAME" => workload.name = string(value)?.into(),
            "LABELS" => {
                let (_, inner) = parts(value)?.into_iter().find(|part| part.0 == STRUCT)?;
                let inner = members(inner)?.into_iter();
                labels = inner
                    .filter_map(|(key, value)| Some((key, string(value)?)))
                    .collect();
            }
            _ => {}
        }
    }
    let label = |name: &'static str| {
        let found = labels.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value)
    };
    Some(Workload {
        cluster: workload.cluster,
        ..Workload::labelled(&workload.name, &workload.namespace, label)
    })
}

fn members(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let mut out = Vec::new();
    for (_, entry) in parts(bytes)?.into_iter().filter(|part| part.0 == FIELDS) {
        let entry = parts(entry)?;
        let of = |number| {
            entry
                .iter()
                .find(|part| part.0 == number)
                .map(|part| part.1)
        };
        out.push((std::str::from_utf8(of(KEY)?).ok()?, of(VALUE)?));
    }
    Some(out)
}

fn string(value: &[u8]) -> Option<&str> {
    let parts = parts(value)?;
    let (_, text) = parts.iter().find(|part| part.0 == STRING)?;
    std::str::from_utf8(text).ok()
}

/// The fields of a message that have a length; others are passed over.
fn parts(mut bytes: &[u8]) -> Option<Vec<(u64, &[u8])>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                take_varint(&mut bytes)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut bytes)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let part = bytes.get(..length)?;
        bytes = &bytes[length..];
        if tag & 7 == 2 {
            out.push((tag >> 3, part));
        }
    }
    Some(out)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Base64 of RFC 4648, section 4.
mod base64 {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let mut group = [0; 3];
            group[..chunk.len()].copy_from_slice(chunk);
            let [a, b, c] = group.map(u32::from);
            let bits = a << 16 | b << 8 | c;
            for digit in 0..4 {
                let value = bits >> (18 - 6 * digit) & 63;
                out.push(match digit <= chunk.len() {
                    true => char::from(DIGITS[value as usize]),
                    false => '=',
                });
            }
        }
        out
    }

    /// What a byte stands for as a digit; `NONE`: nothing.
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < DIGITS.len() {
            values[DIGITS[value] as usize] = value as u8;
            value += 1;
        }
        values
    };
    const NONE: u8 = u8::MAX;

    /// Padding may be missing.
    pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let end = text
            .iter()
            .rposition(|byte| *byte != b'=')
            .map_or(0, |at| at + 1);
        let mut out = Vec::with_capacity(end * 3 / 4);
        let (mut bits, mut count) = (0_u32, 0);
        for byte in &text[..end] {
            let value = VALUES[usize::from(*byte)];
            if value == NONE {
                return None;
            }
            bits = bits << 6 | u32::from(value);
            count += 6;
            if count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload::parse("reviews-v2;default;reviews;v2;Kubernetes")
    }

    #[test]
    fn a_workload_is_understood_as_it_was_written() {
        let mut headers = HeaderMap::new();
        headers.insert(ID, HeaderValue::from_static("the application's own"));
        let own = Introduction::of(&workload()).expect("a name");
        own.write(&mut headers);
        assert_eq!(headers[ID], "reviews-v2.default");
        let peers = Peers::default();
        let first = peers.take(&mut headers).expect("a peer");
        assert_eq!(first.workload, workload());
        assert!(headers.is_empty(), "the application does not see it");
        own.write(&mut headers);
        let again = peers.take(&mut headers).expect("a peer");
        assert!(Arc::ptr_eq(&first, &again));
        assert!(Introduction::of(&Workload::default()).is_none());
    }

    #[test]
    fn more_than_is_read_is_passed_over() {
        // Istio tells the owner too, and a Struct may hold numbers (field 2 of `Value`, eight bytes).
        let mut bytes = encode(&workload());
        member(
            &mut bytes,
            "OWNER",
            &text("kubernetes://apis/apps/v1/namespaces/default/deployments/x"),
        );
        member(&mut bytes, "OTHER", &[0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
        assert_eq!(decode(&bytes), Some(workload()));
        bytes.truncate(bytes.len() - 1);
        assert_eq!(decode(&bytes), None, "half a message is none");
        for end in 0..bytes.len() {
            // Whatever is cut off: no panic.
            let _ = decode(&bytes[..end]);
        }
    }

    #[test]
    fn what_is_altered_at_random_is_understood_or_passed_over() {
        let whole = encode(&workload());
        let mut seed = 1_u64;
        let mut random = |bound: usize| {
            // Xorshift, so that each run plays the same.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % bound
        };
        let (mut understood, mut passed_over) = (0, 0);
        for _ in 0..50_000 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, [0, 0x7f, 0x80, 0xff][random(4)]),
                }
            }
            let text = base64::encode(&bytes);
            assert_eq!(base64::decode(text.as_bytes()), Some(bytes.clone()));
            match decode(&bytes) {
                Some(_) => understood += 1,
                None => passed_over += 1,
            }
        }
        assert!(understood > 1000 && passed_over > 1000);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64::encode(plain.as_bytes()), text);
            assert_eq!(
                base64::decode(text.as_bytes()).as_deref(),
                Some(plain.as_bytes())
            );
        }
        assert_eq!(base64::decode(b"Zg-="), None);
    }

    #[test]
    fn what_is_no_metadata_leaves_the_caller_unknown() {
        let peers = Peers::default();
        let long = base64::encode(&encode(&Workload {
            version: "v".repeat(MAX_LENGTH).into(),
            ..workload()
        }));
        for said in ["", "!", "AAAA", "CgA", "//////////////8=", &*long] {
            let mut headers = HeaderMap::new();
            headers.insert(METADATA, HeaderValue::from_str(said).expect("a value"));
            let peer = peers.take(&mut headers);
            let name = peer
                .map(|peer| peer.workload.name.to_string())
                .unwrap_or_default();
            assert_eq!(name, "", "{said}");
        }
    }

    #[test]
    fn callers_beyond_the_limit_stay_unknown() {
        let peers = Peers::default();
        let mut call = |number: usize| {
            let mut headers = HeaderMap::new();
            let own = Workload::parse(&format!("w{number};n;s;v;c"));
            Introduction::of(&own).expect("a name").write(&mut headers);
            peers.take(&mut headers).is_some()
        };
        assert!((0..MAX_PEERS).all(&mut call));
        assert!(!call(MAX_PEERS));
        assert!(call(0), "who is known stays known");
    }
}
