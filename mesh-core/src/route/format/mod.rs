//! Text with `%COMMAND(args):length%` operators: header values, access logs, local replies and rewrites.
//!
//! A [`Formatter`] is parsed once, when the configuration is compiled. What an operator stands for comes from a
//! [`FormatContext`], so that the same text serves the request path (little is known yet) and the access log (all is known).

mod coalesce;
mod json;
mod operator;
mod parse;
mod time;

use std::{
    borrow::Cow,
    time::{Instant, SystemTime},
};

use http::HeaderName;

use super::head::Field;
use crate::model::{self, Name, Value};

pub use self::{
    json::{BodyFormatter, JsonFormatter},
    operator::{Item, MetadataSource, Operator, TimePoint},
};

/// What operators stand for. Every method may answer that nothing is known, which is the default.
pub trait FormatContext {
    /// A request header or pseudo header.
    fn request_header(&self, _field: &Field) -> Option<Cow<'_, [u8]>> {
        None
    }

    /// A response header.
    fn response_header(&self, _name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }

    /// A response trailer.
    fn response_trailer(&self, _name: &HeaderName) -> Option<Cow<'_, [u8]>> {
        None
    }

    /// Appends a plain value to `out`; `false` if it is not known, and nothing was appended.
    fn item(&self, _item: Item, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// A value of metadata; an empty path means the whole namespace.
    fn metadata(
        &self,
        _source: MetadataSource,
        _namespace: &str,
        _path: &[Name],
    ) -> Option<Cow<'_, Value>> {
        None
    }

    /// A value of the filter state, as text.
    fn filter_state(&self, _key: &str) -> Option<Cow<'_, [u8]>> {
        None
    }

    /// When the request began, by the wall clock.
    fn start_time(&self) -> Option<SystemTime> {
        None
    }

    /// When something happened to the request.
    fn moment(&self, _point: TimePoint) -> Option<Instant> {
        None
    }
}

/// A context that knows nothing.
impl FormatContext for () {}

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formatter {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    /// The operator and the most bytes that it may yield.
    Operator(Operator, Option<usize>),
}

/// Why a format was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid format {text:?}: {reason}")]
pub struct FormatError {
    /// The format.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Formatter {
    /// Parses `text`. `%%` stands for `%`.
    ///
    /// # Errors
    ///
    /// [`FormatError`] for an unknown operator, bad arguments or an open `%`.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let parts = parse::parts(text).map_err(|reason| FormatError {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self {
            parts: parts.into(),
        })
    }

    /// Parses a [`model::Format`].
    ///
    /// # Errors
    ///
    /// As [`Formatter::parse`].
    pub fn new(format: &model::Format) -> Result<Self, FormatError> {
        Self::parse(&format.text)
    }

    /// The text, if there is no operator in it.
    pub fn constant(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The only operator, if the text is nothing else, and the most bytes that it may yield: a JSON leaf keeps its type.
    pub fn single(&self) -> Option<(&Operator, Option<usize>)> {
        match &*self.parts {
            [Part::Operator(operator, limit)] => Some((operator, *limit)),
            _ => None,
        }
    }

    /// All operators, also those within others.
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        let parts = self.parts.iter().filter_map(|part| match part {
            Part::Operator(operator, _) => Some(operator),
            Part::Literal(_) => None,
        });
        let mut found: Vec<&Operator> = parts.collect();
        let mut at = 0;
        while let Some(operator) = found.get(at).copied() {
            if let Operator::Coalesce(all) = operator {
                found.extend(all.iter().map(|(inner, _)| inner));
            }
            at += 1;
        }
        found.into_iter()
    }

    /// Appends the text to `out`. `missing` stands for what is not known: `-` in logs, nothing in headers.
    pub fn write<C: FormatContext + ?Sized>(&self, context: &C, missing: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Operator(operator, limit) => {
                    if !operator.write_part(*limit, context, out) {
                        out.extend_from_slice(missing);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
