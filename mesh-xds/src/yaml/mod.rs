//! YAML and JSON read by a stream of events, with a place for every error.
//!
//! The reader never builds a document tree: events go straight into the type that reads them. It is strict where silence
//! would hide a mistake: duplicate keys, several documents where one is asked, unquoted numbers and booleans in text
//! fields are errors. Merge keys (`<<`), anchors and aliases work; [`Limits`] bound what they stand for.
//!
//! ```
//! use serde::Deserialize;
//!
//! #[derive(Debug, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Port { number: u16 }
//!
//! let port: Port = mesh_xds::yaml::from_str("number: 80")?;
//! assert_eq!(port.number, 80);
//!
//! let error = mesh_xds::yaml::from_str::<Port>("numbr: 80").unwrap_err();
//! assert_eq!(error.to_string(), "1:1: numbr: unknown field `numbr`; did you mean `number`?; allowed: number");
//! # Ok::<(), mesh_xds::yaml::Error>(())
//! ```
//!
//! - [`read_file`] and [`text`] check size and encoding; [`from_str`] and [`from_seed`] read one document,
//!   [`Reader`] several, each with its own seed.
//! - An [`Error`] knows line, column, field path, allowed names and the nearest of them.
//! - [`locate`] finds the line of a field path again, for mistakes found after reading.

mod de;
mod error;
mod events;
mod locate;
mod scalar;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;

use serde::de::{Deserialize, DeserializeSeed};

#[cfg_attr(not(feature = "istio"), allow(unused_imports))]
pub(crate) use de::Node;
pub use error::{Error, Location, Path, Segment, nearest};
#[cfg(feature = "istio")]
pub(crate) use events::is_null;
pub(crate) use events::{Events, Token};
pub use locate::{locate, locate_all, locate_at_lines};

/// What a text may cost at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file. Default 64 MiB.
    pub max_bytes: u64,
    /// Nested lists and mappings. Default 100.
    pub max_depth: usize,
    /// Nodes that aliases and merge keys stand for, in one text, and that anchors keep for them, in one document.
    /// Default 1,000,000.
    pub max_alias_nodes: usize,
    /// Bytes of text that aliases and merge keys stand for, in one text. Default 16 MiB.
    pub max_alias_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_depth: 100,
            max_alias_nodes: 1_000_000,
            max_alias_bytes: 16 << 20,
        }
    }
}

/// Reads a file, at most [`Limits::max_bytes`] of it, and checks that it is UTF-8.
///
/// # Errors
/// The file cannot be read, is larger than the limit (found without reading all of it), or is not UTF-8.
pub fn read_file(path: &std::path::Path, limits: &Limits) -> Result<String, Error> {
    let io = |e: std::io::Error| Error::new(format!("cannot be read: {e}"));
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    if size > limits.max_bytes {
        return Err(too_large(size, limits));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // The file may grow while it is read.
    file.take(limits.max_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    text(&bytes, limits)?;
    String::from_utf8(bytes).map_err(|_| Error::new("not UTF-8"))
}

fn too_large(size: u64, limits: &Limits) -> Error {
    Error::syntax(
        format!(
            "the file has {size} bytes, the limit is {}",
            limits.max_bytes
        ),
        Location { line: 1, column: 1 },
    )
}

/// Checks size and encoding of bytes read elsewhere.
///
/// # Errors
/// More bytes than [`Limits::max_bytes`], or not UTF-8 (the error names line and column of the first bad byte).
pub fn text<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a str, Error> {
    let size = bytes.len() as u64;
    if size > limits.max_bytes {
        return Err(too_large(size, limits));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Error::syntax(
            "not UTF-8",
            Location {
                line: narrow(line),
                column: narrow(column),
            },
        )
    })
}

/// Reads a text of exactly one document (an empty text is a null) with the default [`Limits`].
///
/// # Errors
/// The text is not YAML, has more than one document, or is not what `T` asks for.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    from_seed(text, std::marker::PhantomData, &Limits::default())
}

/// Reads a text of exactly one document with a seed.
///
/// # Errors
/// As [`from_str`].
pub fn from_seed<'a, S: DeserializeSeed<'a>>(
    text: &'a str,
    seed: S,
    limits: &Limits,
) -> Result<S::Value, Error> {
    let mut reader = Reader::new(text, limits);
    if reader.next_document()?.is_none() {
        return Reader::null(limits)?.read(seed);
    }
    let value = reader.read(seed)?;
    match reader.next_document()? {
        None => Ok(value),
        Some(location) => Err(Error::new("a second document where one is allowed").at(location)),
    }
}

/// Reads the documents of a text one after the other.
pub struct Reader<'a> {
    events: Events<'a>,
    inside: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `text`.
    pub fn new(text: &'a str, limits: &Limits) -> Self {
        Self {
            events: Events::new(text, limits),
            inside: false,
        }
    }

    /// A reader before a null, which is what an empty text means.
    fn null(limits: &Limits) -> Result<Self, Error> {
        let mut reader = Self::new("~", limits);
        loop {
            let (token, location) = reader.events.next()?;
            if let Token::Scalar { .. } = token {
                reader.events.unread(token, location);
                return Ok(reader);
            }
        }
    }

    /// Goes to the next document, past what was not read of the present one. Returns where its root begins, `None` at
    /// the end of the text. A document that holds only comments or nothing is passed over.
    ///
    /// # Errors
    /// The text is not YAML; the reader is of no use after that.
    pub fn next_document(&mut self) -> Result<Option<Location>, Error> {
        loop {
            let (token, location) = self.events.next()?;
            match token {
                Token::StreamEnd => return Ok(None),
                Token::DocumentStart => {}
                Token::DocumentEnd => self.inside = false,
                _ if self.inside || events::is_null(&token) => {}
                _ => {
                    self.inside = true;
                    self.events.path.clear();
                    self.events.unread(token, location);
                    return Ok(Some(location));
                }
            }
        }
    }

    /// Reads the root of the present document.
    ///
    /// # Errors
    /// The document is not what the seed asks for; unless [`Error::is_syntax`], the next document can be read.
    pub fn read<S: DeserializeSeed<'a>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(de::Node(&mut self.events))
    }

    /// The events of the present document, for readers that decide on the way.
    pub(crate) fn events(&mut self) -> &mut Events<'a> {
        &mut self.events
    }
}
