//! Access logs: Envoy's formats, written in batches by a thread of their own.

mod filter;
mod writer;

#[cfg(test)]
mod tests;

use std::cell::RefCell;

use http::HeaderName;

pub(crate) use self::filter::{FilterRules, from_http as grpc_from_http};
pub use self::writer::LogWriter;
use super::{
    context::RecordContext,
    record::{Late, Record, Sink, Wants},
};
use crate::{
    model::{self, FormatKind},
    route::{
        Field,
        format::{FormatError, Formatter, Item, JsonFormatter, Operator},
    },
};

/// Istio's default text format (`meshconfig.accessLogFormat` unset).
pub const ISTIO_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Envoy's default text format.
pub const ENVOY_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// One compiled access log.
#[derive(Debug)]
pub struct AccessLog {
    format: Compiled,
    wants: Wants,
    filter: Option<FilterRules>,
    writer: LogWriter,
}

#[derive(Debug)]
enum Compiled {
    Text(Formatter),
    Json(JsonFormatter),
}

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl AccessLog {
    /// Compiles a log; its lines go to the shared writer of its sink.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if the format, or a header of the filter, does not parse.
    pub fn new(config: &model::AccessLog) -> Result<Self, FormatError> {
        Self::with_writer(config, LogWriter::shared(&config.sink))
    }

    /// Compiles a log that writes to `writer`.
    ///
    /// # Errors
    ///
    /// As [`AccessLog::new`].
    pub fn with_writer(config: &model::AccessLog, writer: LogWriter) -> Result<Self, FormatError> {
        let format = match &config.format {
            None => Compiled::Text(Formatter::parse(ENVOY_TEXT)?),
            Some(FormatKind::Text(text)) => Compiled::Text(Formatter::new(text)?),
            Some(FormatKind::Json(members)) => {
                Compiled::Json(JsonFormatter::new(members, config.omit_empty)?)
            }
        };
        let mut wants = match &config.format {
            None => {
                let mut wants = Wants::default();
                want_text(ENVOY_TEXT, &mut wants)?;
                wants
            }
            Some(format) => Wants::of(format)?,
        };
        let filter = config.filter.as_ref().map(FilterRules::new).transpose();
        let filter = filter.map_err(|name| FormatError {
            text: name.to_string(),
            reason: "no header can have this name".to_owned(),
        })?;
        if let Some(filter) = &filter {
            filter.add_wants(&mut wants);
        }
        Ok(Self {
            format,
            wants,
            filter,
            writer,
        })
    }

    /// Adds what the log reads of a request.
    pub fn add_wants(&self, wants: &mut Wants) {
        wants.merge(&self.wants);
    }

    /// Writes the line of a finished request.
    pub fn write(&self, record: &Record, late: &Late) {
        let context = RecordContext::new(record, late);
        if self
            .filter
            .as_ref()
            .is_some_and(|filter| !filter.passes(&context, late))
        {
            return;
        }
        let write = |line: &mut Vec<u8>| {
            line.clear();
            match &self.format {
                Compiled::Text(format) => format.write(&context, b"-", line),
                Compiled::Json(format) => {
                    format.write(&context, line);
                    line.push(b'\n');
                }
            }
            self.writer.write(line);
        };
        // A thread that ends has no line to write into any more.
        if LINE.try_with(|line| write(&mut line.borrow_mut())).is_err() {
            write(&mut Vec::new());
        }
    }
}

/// A log of its own for a program: [`MeshBuilder::sink`](crate::snapshot::MeshBuilder::sink) gives it all that the mesh carries.
impl Sink for AccessLog {
    fn wants(&self) -> &Wants {
        &self.wants
    }

    fn finish(&self, record: &Record, late: &Late) {
        self.write(record, late);
    }
}

impl Wants {
    /// What a format reads.
    pub(crate) fn of(format: &FormatKind) -> Result<Self, FormatError> {
        let mut wants = Self::default();
        match format {
            FormatKind::Text(text) => want_text(&text.text, &mut wants)?,
            FormatKind::Json(members) => {
                for (_, value) in members {
                    want_json(value, &mut wants)?;
                }
            }
        }
        Ok(wants)
    }
}

fn want_text(text: &str, wants: &mut Wants) -> Result<(), FormatError> {
    let format = Formatter::parse(text)?;
    format
        .operators()
        .for_each(|operator| want(operator, wants));
    Ok(())
}

fn want_json(value: &model::JsonFormat, wants: &mut Wants) -> Result<(), FormatError> {
    match value {
        model::JsonFormat::Leaf(format) => want_text(&format.text, wants),
        model::JsonFormat::Constant(_) => Ok(()),
        model::JsonFormat::Object(members) => members
            .iter()
            .try_for_each(|(_, value)| want_json(value, wants)),
        model::JsonFormat::List(list) => list.iter().try_for_each(|value| want_json(value, wants)),
    }
}

/// Adds what an operator reads.
pub(crate) fn want(operator: &Operator, wants: &mut Wants) {
    let mut request = |field: &Field| match field {
        Field::Header(name) => add(&mut wants.request, name),
        _ => wants.head = true,
    };
    match operator {
        Operator::RequestHeader(field, other) | Operator::RequestPath(field, other) => {
            request(field);
            other.iter().for_each(request);
        }
        Operator::QueryParameter(_)
        | Operator::DecodedQuery
        | Operator::Item(Item::QueryParams) => wants.head = true,
        Operator::ResponseHeader(name, other) => {
            add(&mut wants.response, name);
            other.iter().for_each(|name| add(&mut wants.response, name));
        }
        Operator::ResponseTrailer(name, other) => {
            add(&mut wants.trailers, name);
            other.iter().for_each(|name| add(&mut wants.trailers, name));
        }
        Operator::Item(
            Item::UpstreamLocalAddress
            | Item::UpstreamLocalAddressWithoutPort
            | Item::UpstreamLocalPort
            | Item::UpstreamProtocol
            | Item::UpstreamConnectionId,
        )
        | Operator::Network(Item::UpstreamLocalAddressWithoutPort, _) => wants.upstream = true,
        _ => {}
    }
}

pub(crate) fn add(list: &mut Vec<HeaderName>, name: &HeaderName) {
    if !list.contains(name) {
        list.push(name.clone());
    }
}
