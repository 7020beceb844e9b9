//! What local replies look like, and what every response gets.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, SERVER, TRANSFER_ENCODING, UPGRADE, VIA},
};

use crate::{
    Error, Kind,
    body::ResponseBody,
    model::{LocalReply, Name, ReplyMapper, ServerHeader},
    names::{ATTEMPT_COUNT, GRPC_STATUS, KEEP_ALIVE, PROXY_CONNECTION, RATE_LIMITED},
    route::{
        Headers as _, Mutations,
        format::{BodyFormatter, FormatError},
    },
    telemetry::{
        access_log::{FilterRules, grpc_from_http},
        context::RecordContext,
        flags::Flag,
        record::{Late, Record, Wants},
        small_number,
    },
};

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// In the text of a request that its upstream reset, and what takes its place after a retry.
const RESET_REASON: &str = "reset reason";
const RETRIED_REASON: &str = "retried and the latest reset reason";

/// What a request asks of a reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asks {
    /// It is gRPC.
    pub(super) grpc: bool,
    /// Its method is HEAD.
    pub(super) head: bool,
}

/// How responses leave.
#[derive(Debug, Default)]
pub struct Replies {
    /// `server`, unless the upstream's passes.
    server: Option<(HeaderValue, ServerHeader)>,
    via: Option<HeaderValue>,
    mappers: Vec<Mapper>,
    body: Option<BodyFormatter>,
    /// No `x-envoy-*` header is added.
    quiet: bool,
}

#[derive(Debug)]
struct Mapper {
    filter: FilterRules,
    status: Option<StatusCode>,
    body: Option<Name>,
    format: Option<BodyFormatter>,
    headers: Mutations,
}

impl Replies {
    /// Compiles `local_reply_config`.
    ///
    /// # Errors
    ///
    /// [`FormatError`] of the first format or header that does not parse.
    pub fn new(config: &LocalReply) -> Result<Self, FormatError> {
        Ok(Self {
            mappers: config
                .mappers
                .iter()
                .map(Mapper::new)
                .collect::<Result<_, _>>()?,
            body: config.body.as_ref().map(BodyFormatter::new).transpose()?,
            ..Self::default()
        })
    }

    /// Sets what happens to `server`.
    #[must_use]
    pub fn server(mut self, name: HeaderValue, mode: ServerHeader) -> Self {
        self.server = (mode != ServerHeader::PassThrough).then_some((name, mode));
        self
    }

    /// Appends `via`; empty for none.
    #[must_use]
    pub fn via(mut self, via: &str) -> Self {
        self.via = HeaderValue::from_str(via)
            .ok()
            .filter(|via| !via.is_empty());
        self
    }

    /// Adds no `x-envoy-*` header (`suppress_envoy_headers`).
    #[must_use]
    pub fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }

    /// Adds what the mappers read of a request.
    pub(crate) fn add_wants(&self, wants: &mut Wants) {
        for mapper in &self.mappers {
            mapper.filter.add_wants(wants);
        }
        let own = self
            .mappers
            .iter()
            .filter_map(|mapper| mapper.format.as_ref());
        for format in own.chain(&self.body) {
            wants.merge(format.wants());
        }
        for mapper in &self.mappers {
            if let Some(reads) = mapper.headers.reads() {
                wants.merge(reads);
            }
        }
    }

    /// The reply for an error, whose flag and details go into the record.
    pub(super) fn reply(
        &self,
        error: &Error,
        asks: Asks,
        record: Option<&Record>,
    ) -> Response<Bytes> {
        let row = error.kind().reply();
        let mut reply = Draft {
            status: StatusCode::from_u16(error.status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Bytes::from_static(row.body.as_bytes()),
            content_type: None,
            headers: HeaderMap::new(),
        };
        if reply.status == StatusCode::NO_CONTENT {
            reply.body = Bytes::new();
        }
        if let Some(detail) = error.detail() {
            reply.body = Bytes::copy_from_slice(detail.as_bytes());
        }
        if !self.quiet {
            match error.kind() {
                Kind::Overflow => drop(reply.headers.insert(OVERLOADED, TRUE)),
                Kind::RateLimited => drop(reply.headers.insert(RATE_LIMITED, TRUE)),
                _ => {}
            }
        }
        if let Some(record) = record {
            self.tell(error, &mut reply, record);
        }
        let mut response = if asks.grpc && !is_codecs(error.kind()) {
            let code = error.grpc_override().unwrap_or(match error.kind() {
                // An injected or changed HTTP status says more than the kind.
                _ if reply.status.as_u16() != row.http => grpc_from_http(reply.status.as_u16()),
                _ => row.grpc,
            });
            reply.grpc(code, asks.head)
        } else {
            reply.http(asks.head)
        };
        if row.close {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    /// Takes an error into the record, and what that knows of the request into the reply.
    fn tell(&self, error: &Error, reply: &mut Draft, record: &Record) {
        let row = error.kind().reply();
        let mut late = record.late();
        let left = match error.kind() {
            Kind::DownstreamTermination => record.left(late.version).reply(),
            _ => row,
        };
        late.flags.extend(left.flag);
        late.details = Some(match left.details == row.details {
            true => details(error),
            false => left.details.into(),
        });
        if late.interims[0] > 0
            && let Some(cause) = late
                .details
                .as_deref()
                .and_then(|all| all.strip_prefix(BEFORE))
        {
            late.details = Some(format!("{AFTER}{cause}").into());
        }
        if late.attempts > 1 && error.detail().is_none() && row.body.contains(RESET_REASON) {
            let body = row.body.replace(RESET_REASON, RETRIED_REASON);
            reply.body = body.into();
        }
        let forwards = || late.route.as_ref().is_some_and(|it| it.forward().is_some());
        if is_routers(error.kind()) && (error.kind() != Kind::FaultAbort || forwards()) {
            reply.route(record, &late);
        }
        self.map(reply, record, &mut late);
    }

    /// The reply that a route or the listener gives by itself, as `local_reply_config` changes it.
    pub(super) fn own(
        &self,
        response: Response<Bytes>,
        asks: Asks,
        record: Option<&Record>,
    ) -> Response<Bytes> {
        let (head, body) = response.into_parts();
        let mut reply = Draft {
            status: head.status,
            body,
            content_type: None,
            headers: head.headers,
        };
        reply.headers.remove(CONTENT_LENGTH);
        if let Some(record) = record {
            self.map(&mut reply, record, &mut record.late());
        }
        match asks.grpc {
            true => {
                let code = grpc_from_http(reply.status.as_u16());
                reply.grpc(code, asks.head)
            }
            false => reply.http(asks.head),
        }
    }

    /// Applies the first mapper that matches, then the format.
    fn map(&self, reply: &mut Draft, record: &Record, late: &mut Late) {
        late.status = reply.status.as_u16();
        let context = RecordContext::new(record, late);
        let mapper = self
            .mappers
            .iter()
            .find(|mapper| mapper.filter.passes(&context, late));
        let mut format = self.body.as_ref();
        let old = reply.body.clone();
        let known = reply.headers.get(CONTENT_TYPE).cloned();
        if let Some(mapper) = mapper {
            mapper.headers.apply_response(&mut reply.headers, &context);
            if let Some(status) = mapper.status {
                reply.status = status;
                // What comes next reads the new one.
                late.status = status.as_u16();
            }
            if let Some(body) = &mapper.body {
                reply.body = Bytes::copy_from_slice(body.as_bytes());
            }
            format = mapper.format.as_ref().or(format);
        }
        if let Some(format) = format {
            let mut out = Vec::new();
            let context = RecordContext::new(record, late).with_body(&reply.body);
            format.write(&context, &mut out);
            reply.body = out.into();
        }
        // A new body has the type of its format, unless the mapper sets one.
        if reply.body != old && reply.headers.get(CONTENT_TYPE) == known.as_ref() {
            let own = format.map(|format| format.content_type.clone());
            reply.content_type = Some(own.unwrap_or(TEXT));
        }
    }

    /// What every response gets: `server`, `via`, and no headers of the upstream connection.
    pub(super) fn finish<U>(&self, response: &mut Response<ResponseBody<U>>) {
        let local = response.body().is_local();
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        if !local && !switching {
            strip_connection(headers);
        }
        match &self.server {
            Some((name, ServerHeader::Overwrite)) => {
                headers.insert(SERVER, name.clone());
            }
            Some((name, _)) => {
                headers.entry(SERVER).or_insert_with(|| name.clone());
            }
            None => {}
        }
        if let Some(via) = &self.via {
            append(headers, VIA, via);
        }
    }
}

/// Whether Envoy's codec refuses the request, which does not know yet that it is gRPC.
fn is_codecs(kind: Kind) -> bool {
    let reply = kind.reply();
    reply.close && reply.flag == Some(Flag::DownstreamProtocolError)
}

/// Whether the reply gets what the route adds to responses: those of Envoy's router and of its faults do.
fn is_routers(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::FaultAbort
            | Kind::NoCluster
            | Kind::NoHealthyUpstream
            | Kind::Overflow
            | Kind::ConnectFailure
            | Kind::ConnectTimeout
            | Kind::ConnectionTermination
            | Kind::RemoteReset
            | Kind::RefusedStream
            | Kind::UpstreamProtocol
            | Kind::LocalReset
            | Kind::UpstreamTimeout
            | Kind::PerTryTimeout
            | Kind::PerTryIdleTimeout
            | Kind::MaxDuration
    )
}

/// How details of a lost response begin; an interim response is one that has started.
const BEFORE: &str = "upstream_reset_before_response_started";
const AFTER: &str = "upstream_reset_after_response_started";

/// `%RESPONSE_CODE_DETAILS%` of an error. That of a connection that was refused names what the system said, as Envoy's does.
fn details(error: &Error) -> Cow<'static, str> {
    let row = error.kind().reply();
    match (error.connect_reason(), row.details.strip_suffix('}')) {
        (Some(reason), Some(details)) => format!("{details}|{reason}}}").into(),
        _ => row.details.into(),
    }
}

/// Removes the headers that speak of the connection to the upstream.
fn strip_connection(headers: &mut HeaderMap) {
    static NAMES: [HeaderName; 5] = [
        CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ];
    // One look over the names, since most responses have one of them or none.
    let mut present = 0_u8;
    for name in headers.keys() {
        let name = name.as_str();
        if !matches!(name.len(), 7 | 10 | 16 | 17) {
            continue;
        }
        present |= match name {
            "connection" => 1,
            "transfer-encoding" => 1 << 1,
            "upgrade" => 1 << 2,
            "keep-alive" => 1 << 3,
            "proxy-connection" => 1 << 4,
            _ => 0,
        };
    }
    if present == 0 {
        return;
    }
    for (index, name) in NAMES.iter().enumerate() {
        if present & 1 << index != 0 {
            headers.remove(name);
        }
    }
}

/// Appends to a list header.
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    // Several lines are one list, as Envoy has it.
    let joined = headers
        .joined(&name)
        .and_then(|old| HeaderValue::from_bytes(&[&*old, b", ", value.as_bytes()].concat()).ok());
    headers.insert(name, joined.unwrap_or_else(|| value.clone()));
}

impl Mapper {
    fn new(config: &ReplyMapper) -> Result<Self, FormatError> {
        let filter = FilterRules::new(&config.filter).map_err(|name| FormatError {
            text: name.to_string(),
            reason: "no header can have this name".to_owned(),
        })?;
        let headers = Mutations::new(&[(&[], &config.headers)]).map_err(|(_, _, error)| error)?;
        Ok(Self {
            filter,
            status: config.status,
            body: config.body.clone(),
            format: config
                .body_format
                .as_ref()
                .map(BodyFormatter::new)
                .transpose()?,
            headers,
        })
    }
}

/// A reply while it is made.
struct Draft {
    status: StatusCode,
    body: Bytes,
    /// Takes the place of the one in the headers.
    content_type: Option<HeaderValue>,
    headers: HeaderMap,
}

impl Draft {
    /// What the route adds to responses.
    fn route(&mut self, record: &Record, late: &Late) {
        let Some(route) = &late.route else {
            return;
        };
        let changes = route.changes(late.arm);
        if !changes.is_empty() {
            changes.apply_response(&mut self.headers, &RecordContext::new(record, late));
        }
        if late.attempts > 0 && route.host().config().include_attempt_count_in_response {
            let count = small_number(late.attempts.into());
            self.headers.insert(ATTEMPT_COUNT, count);
        }
    }

    /// `head`: the body is only told of.
    fn http(self, head: bool) -> Response<Bytes> {
        let mut headers = self.headers;
        // A mapper may have made it a response that has no body.
        let bodiless = matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if self.body.is_empty() || bodiless {
            headers.remove(CONTENT_TYPE);
        } else {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
            match self.content_type {
                Some(own) => drop(headers.insert(CONTENT_TYPE, own)),
                None => drop(headers.entry(CONTENT_TYPE).or_insert(TEXT)),
            }
        }
        let body = match head || bodiless {
            true => Bytes::new(),
            false => self.body,
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }

    /// A response that consists of trailers only.
    fn grpc(self, code: u8, head: bool) -> Response<Bytes> {
        let mut headers = self.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, small_number(code.into()));
        // The newline that ends JSON is not part of it.
        let json = self.content_type.as_ref().is_some_and(|own| own == JSON);
        let message = self.body.strip_suffix(b"\n").filter(|_| json);
        let message = message.unwrap_or(&self.body);
        if let Ok(message) = HeaderValue::try_from(percent_encoded(message))
            && !message.is_empty()
            && !head
        {
            headers.insert(GRPC_MESSAGE, message);
        }
        let mut response = Response::new(Bytes::new());
        *response.headers_mut() = headers;
        response
    }
}

/// gRPC's encoding of messages: all but printable ASCII, and `%`, is escaped; `~` too, as Envoy does.
fn percent_encoded(message: &[u8]) -> String {
    let mut out = String::with_capacity(message.len());
    for &byte in message {
        if (b' '..=b'}').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
