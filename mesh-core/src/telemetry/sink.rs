//! Who is told of finished requests.

use std::fmt;

use http::HeaderName;

use super::record::{Late, Record};

/// Where finished records go.
pub trait Sink: fmt::Debug + Send + Sync {
    /// Headers that it wants to see at the end; they are copied as references into the record.
    fn wants(&self) -> &Wants {
        const { &Wants::NONE }
    }

    /// Takes note of a finished request.
    fn finish(&self, record: &Record, late: &Late);
}

/// What a [`Sink`] reads of a request's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Method, path and authority.
    pub head: bool,
    /// The upstream connection.
    pub upstream: bool,
    /// Request headers.
    pub request: Vec<HeaderName>,
    /// Response headers.
    pub response: Vec<HeaderName>,
    /// Response trailers.
    pub trailers: Vec<HeaderName>,
}

impl Wants {
    /// Method, path and authority alone.
    pub(crate) const HEAD: Self = Self {
        head: true,
        upstream: false,
        request: Vec::new(),
        response: Vec::new(),
        trailers: Vec::new(),
    };

    const NONE: Self = Self {
        head: false,
        upstream: false,
        request: Vec::new(),
        response: Vec::new(),
        trailers: Vec::new(),
    };

    /// Adds what `other` reads.
    pub fn merge(&mut self, other: &Self) {
        self.head |= other.head;
        self.upstream |= other.upstream;
        for (list, more) in [
            (&mut self.request, &other.request),
            (&mut self.response, &other.response),
            (&mut self.trailers, &other.trailers),
        ] {
            for name in more {
                if !list.contains(name) {
                    list.push(name.clone());
                }
            }
        }
    }
}
