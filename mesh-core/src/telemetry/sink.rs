//! Who is told of finished requests.

use std::fmt;

use http::HeaderName;

use super::record::{Late, Record};

/// Where finished records go: access logs, spans, metrics of another kind. One that is given to
/// [`MeshBuilder::sink`](crate::snapshot::MeshBuilder::sink) is told of everything that the mesh carries.
///
/// ```
/// use std::sync::Arc;
///
/// use http::HeaderName;
/// use mesh_core::{
///     config::MemorySource,
///     snapshot::Mesh,
///     telemetry::record::{Late, Record, Sink, Wants},
/// };
///
/// /// Prints a line for each request, with its trace context: that of the span which its upstream gets.
/// #[derive(Debug)]
/// struct Spans(Wants);
///
/// impl Sink for Spans {
///     fn wants(&self) -> &Wants {
///         &self.0
///     }
///
///     fn finish(&self, _: &Record, late: &Late) {
///         println!("{} after {:?}: {:?}", late.status, late.duration, late.request_headers);
///     }
/// }
///
/// let context = HeaderName::from_static("traceparent");
/// let spans = Spans(Wants { request: vec![context], ..Wants::default() });
/// let (source, _handle) = MemorySource::new();
/// let (mesh, driver) = Mesh::builder().sink(Arc::new(spans)).source(source).build();
/// ```
pub trait Sink: fmt::Debug + Send + Sync {
    /// Headers that it wants to see at the end; they are copied as references into the record.
    fn wants(&self) -> &Wants {
        const { &Wants::NONE }
    }

    /// Takes note of a finished request, or of a TCP connection ([`Late::log_type`] says when). Called on its thread, with the
    /// record's lock held, so it must be quick and leave [`Record::late`] alone.
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
