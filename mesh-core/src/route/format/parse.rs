//! From text to the parts of a format.

use http::HeaderName;

use super::{
    Part, coalesce,
    operator::{ABSENT, Item, MetadataSource, Operator, Precision, TimePoint},
    time::TimeFormat,
};
use crate::{model::Name, route::head::Field};

/// Splits `text` into literals and operators; the error is a reason.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        literal.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            literal.push(b'%');
            rest = after;
            continue;
        }
        let (command, after) = command(rest)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        let operator = operator(command.name, command.arguments, command.limit)?;
        parts.push(Part::Operator(operator, command.limit));
        rest = after;
    }
    literal.extend_from_slice(rest.as_bytes());
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

struct Command<'a> {
    name: &'a str,
    arguments: Option<&'a str>,
    limit: Option<usize>,
}

/// Reads `NAME(ARGUMENTS):LIMIT%`. Arguments may hold `%` and `)`: they end at the first `)` that `%` or `:LIMIT%` follows.
fn command(text: &str) -> Result<(Command<'_>, &str), String> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return Err("a % that is no operator must be written %%".to_owned());
    }
    let Some(inner) = rest.strip_prefix('(') else {
        let (limit, rest) = tail(rest).ok_or_else(|| format!("operator {name} is not closed"))?;
        let command = Command {
            name,
            arguments: None,
            limit,
        };
        return Ok((command, rest));
    };
    inner
        .match_indices(')')
        .find_map(|(at, _)| {
            let (limit, rest) = tail(&inner[at + 1..])?;
            let command = Command {
                name,
                arguments: Some(&inner[..at]),
                limit,
            };
            Some((command, rest))
        })
        .ok_or_else(|| format!("operator {name} is not closed"))
}

/// Reads `%` or `:LIMIT%`.
fn tail(text: &str) -> Option<(Option<usize>, &str)> {
    if let Some(rest) = text.strip_prefix('%') {
        return Some((None, rest));
    }
    let text = text.strip_prefix(':')?;
    // Digits alone: to look for the `%` would read the rest of the format for each `):` in an argument.
    let (limit, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    Some((Some(limit.parse().ok()?), rest.strip_prefix('%')?))
}

/// The operator of a name and its arguments; the error is a reason.
pub(super) fn operator(
    name: &str,
    arguments: Option<&str>,
    limit: Option<usize>,
) -> Result<Operator, String> {
    if limit.is_some() && !takes_limit(name) {
        return Err(format!("operator {name} takes no length"));
    }
    match arguments {
        // Empty ones are as none.
        None | Some("") => plain(name),
        Some(text) if text.contains('\n') => Err(format!("operator {name} holds a line break")),
        Some(arguments) => with_arguments(name, arguments),
    }
}

/// Whether a length may stand behind the operator, as Envoy has it.
fn takes_limit(name: &str) -> bool {
    matches!(
        name,
        "REQ"
            | "RESP"
            | "TRAILER"
            | "REQUEST_HEADER"
            | "RESPONSE_HEADER"
            | "RESPONSE_TRAILER"
            | "REQ_WITHOUT_QUERY"
            | "PATH"
            | "QUERY_PARAM"
            | "QUERY_PARAMS"
            | "DYNAMIC_METADATA"
            | "METADATA"
            | "FILTER_STATE"
            | "UPSTREAM_FILTER_STATE"
            | "ENVIRONMENT"
            | "COALESCE"
    )
}

fn plain(name: &str) -> Result<Operator, String> {
    use TimePoint as P;
    let duration = |from, to| Ok(Operator::Duration(from, to, Precision::Milliseconds));
    match name {
        "START_TIME" => Ok(Operator::StartTime(TimeFormat::default())),
        "EMIT_TIME" => Ok(Operator::EmitTime(TimeFormat::default())),
        "DURATION" => duration(P::DownstreamReceiveBegin, P::DownstreamSendEnd),
        "REQUEST_DURATION" => duration(P::DownstreamReceiveBegin, P::DownstreamReceiveEnd),
        "REQUEST_TX_DURATION" => duration(P::DownstreamReceiveBegin, P::UpstreamSendEnd),
        "RESPONSE_DURATION" => duration(P::DownstreamReceiveBegin, P::UpstreamReceiveBegin),
        "RESPONSE_TX_DURATION" => duration(P::UpstreamReceiveBegin, P::DownstreamSendEnd),
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => {
            duration(P::DownstreamReceiveBegin, P::UpstreamSendBegin)
        }
        "PATH" => Ok(Operator::RequestHeader(original_path(), Some(Field::Path))),
        "STREAM_ID" => Ok(Operator::RequestHeader(
            Field::Header(HeaderName::from_static("x-request-id")),
            None,
        )),
        "HOSTNAME" => Ok(Operator::Fixed(host_name())),
        "CEL" | "TYPED_CEL" => Err(no_cel(name)),
        _ => {
            let absent = ABSENT.iter().find(|known| **known == name);
            Item::parse(name)
                .map(Operator::Item)
                .or_else(|| absent.copied().map(Operator::Absent))
                .ok_or_else(|| format!("unknown operator {name}"))
        }
    }
}

fn no_cel(name: &str) -> String {
    format!("operator {name}: expressions are not supported")
}

fn with_arguments(name: &str, arguments: &str) -> Result<Operator, String> {
    Ok(match name {
        "REQ" | "REQUEST_HEADER" => {
            let (one, other) = alternatives(name, arguments, field)?;
            Operator::RequestHeader(one, other)
        }
        "REQ_WITHOUT_QUERY" => {
            let (one, other) = alternatives(name, arguments, field)?;
            Operator::RequestPath(one, other)
        }
        "RESP" | "RESPONSE_HEADER" => response_header(name, arguments)?,
        "TRAILER" | "RESPONSE_TRAILER" => {
            let (one, other) = alternatives(name, arguments, header)?;
            Operator::ResponseTrailer(one, other)
        }
        "QUERY_PARAM" => Operator::QueryParameter(arguments.into()),
        "PATH" => path(arguments)?,
        "START_TIME" => Operator::StartTime(TimeFormat::parse(arguments)?),
        "EMIT_TIME" => Operator::EmitTime(TimeFormat::parse(arguments)?),
        "DYNAMIC_METADATA" => metadata(name, MetadataSource::Dynamic, arguments)?,
        "CLUSTER_METADATA" => metadata(name, MetadataSource::Cluster, arguments)?,
        "UPSTREAM_METADATA" => metadata(name, MetadataSource::UpstreamHost, arguments)?,
        "METADATA" => any_metadata(name, arguments)?,
        "FILTER_STATE" | "PER_REQUEST_STATE" | "UPSTREAM_FILTER_STATE" => {
            filter_state(name, arguments)?
        }
        "COMMON_DURATION" => common_duration(arguments)?,
        // One that is not set is a dash, in headers too.
        "ENVIRONMENT" => {
            let value = std::env::var(arguments).unwrap_or_else(|_| "-".to_owned());
            Operator::Fixed(Some(value.into()))
        }
        "COALESCE" => coalesce::operator(arguments)?,
        _ => options(name, arguments)?,
    })
}

/// Operators whose arguments choose among a few forms.
fn options(name: &str, arguments: &str) -> Result<Operator, String> {
    let unknown = || Err(format!("{name}: unknown choice {arguments:?}"));
    Ok(match (name, arguments) {
        ("GRPC_STATUS", "NUMBER") => Operator::Item(Item::GrpcStatusNumber),
        ("GRPC_STATUS", "CAMEL_STRING") => Operator::Item(Item::GrpcStatus),
        ("GRPC_STATUS", "SNAKE_STRING") => Operator::Item(Item::GrpcStatusSnake),
        ("QUERY_PARAMS", "ORIG") => Operator::Item(Item::QueryParams),
        ("QUERY_PARAMS", "DECODED") => Operator::DecodedQuery,
        // The details have no white space of their own.
        ("RESPONSE_CODE_DETAILS", _) => Operator::Item(Item::ResponseCodeDetails),
        ("REQUESTED_SERVER_NAME", _) => server_name(arguments)?,
        ("GRPC_STATUS" | "QUERY_PARAMS", _) => return unknown(),
        (
            "START_TIME_LOCAL"
            | "EMIT_TIME_LOCAL"
            | "DOWNSTREAM_PEER_CERT_V_START"
            | "DOWNSTREAM_PEER_CERT_V_END"
            | "UPSTREAM_PEER_CERT_V_START"
            | "UPSTREAM_PEER_CERT_V_END",
            _,
        ) => plain(name)?,
        ("CEL" | "TYPED_CEL", _) => return Err(no_cel(name)),
        _ if name.ends_with("ADDRESS_WITHOUT_PORT") => {
            let bits = arguments.parse();
            let bits = bits.map_err(|_| format!("{name}: no length of a prefix: {arguments:?}"))?;
            match plain(name)? {
                Operator::Item(item) => Operator::Network(item, bits),
                other => other,
            }
        }
        _ if plain(name).is_ok() => return Err(format!("operator {name} takes no arguments")),
        _ => return Err(format!("unknown operator {name}")),
    })
}

/// `%FILTER_STATE(KEY:PLAIN|TYPED|FIELD:NAME)%`.
fn filter_state(name: &str, arguments: &str) -> Result<Operator, String> {
    let (key, form) = arguments.split_once(':').unwrap_or((arguments, "TYPED"));
    let field = form.strip_prefix("FIELD:");
    let known = matches!(form, "PLAIN" | "TYPED") || field.is_some_and(|name| !name.is_empty());
    if key.is_empty() || !known {
        return Err(format!(
            "{name} takes a key, and PLAIN, TYPED or FIELD:NAME"
        ));
    }
    Ok(Operator::FilterState(key.into()))
}

/// `%REQUESTED_SERVER_NAME(SNI_ONLY|SNI_FIRST|HOST_FIRST:ORIG|HOST|ORIG_OR_HOST)%`.
fn server_name(arguments: &str) -> Result<Operator, String> {
    let (first, source) = arguments.split_once(':').unwrap_or((arguments, ""));
    let original = || Field::Header(HeaderName::from_static("x-envoy-original-host"));
    let host = match source {
        "" | "ORIG_OR_HOST" => Operator::RequestHeader(original(), Some(Field::Authority)),
        "ORIG" => Operator::RequestHeader(original(), None),
        "HOST" => Operator::RequestHeader(Field::Authority, None),
        _ => return Err(format!("REQUESTED_SERVER_NAME: unknown choice {source:?}")),
    };
    let name = Operator::Item(Item::RequestedServerName);
    let order = match first {
        "" | "SNI_ONLY" => return Ok(name),
        "SNI_FIRST" => [name, host],
        "HOST_FIRST" => [host, name],
        _ => return Err(format!("REQUESTED_SERVER_NAME: unknown choice {first:?}")),
    };
    Ok(Operator::Coalesce(order.map(|one| (one, None)).into()))
}

fn alternatives<T>(
    name: &str,
    arguments: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<(T, Option<T>), String> {
    let parse = |text: &str| parse(text).ok_or_else(|| format!("{name}: no header {text:?}"));
    match arguments.split_once('?') {
        Some((_, other)) if other.contains('?') => {
            Err(format!("{name}: more than one alternative"))
        }
        Some((one, "")) | Some(("", one)) => Ok((parse(one)?, None)),
        Some((one, other)) => Ok((parse(one)?, Some(parse(other)?))),
        None => Ok((parse(arguments)?, None)),
    }
}

/// `%RESP(A?B)%`. Of the pseudo headers of a response there is `:status`.
fn response_header(name: &str, arguments: &str) -> Result<Operator, String> {
    let status = |text: &str| text.eq_ignore_ascii_case(":status");
    match arguments.split_once('?').unwrap_or((arguments, "")) {
        (one, _) if status(one) => Ok(Operator::ResponseStatus),
        (one, other) if status(other) => {
            let (one, _) = alternatives(name, one, header)?;
            let order = [
                Operator::ResponseHeader(one, None),
                Operator::ResponseStatus,
            ];
            Ok(Operator::Coalesce(order.map(|one| (one, None)).into()))
        }
        _ => {
            let (one, other) = alternatives(name, arguments, header)?;
            Ok(Operator::ResponseHeader(one, other))
        }
    }
}

fn field(name: &str) -> Option<Field> {
    Field::parse(name)
}

fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

fn original_path() -> Field {
    Field::Header(HeaderName::from_static("x-envoy-original-path"))
}

/// `%PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)%`: with or without query, and which path.
fn path(arguments: &str) -> Result<Operator, String> {
    let (query, which) = arguments.split_once(':').unwrap_or((arguments, ""));
    let (one, other) = match which {
        "" | "ORIG_OR_PATH" => (original_path(), Some(Field::Path)),
        "ORIG" => (original_path(), None),
        "PATH" => (Field::Path, None),
        _ => return Err(format!("PATH: unknown choice {which:?}")),
    };
    match query {
        "" | "WQ" => Ok(Operator::RequestHeader(one, other)),
        "NQ" => Ok(Operator::RequestPath(one, other)),
        _ => Err(format!("PATH: unknown choice {query:?}")),
    }
}

/// `NAMESPACE:KEY:…`, or the older `["NAMESPACE", "KEY", …]`.
fn metadata(name: &str, source: MetadataSource, arguments: &str) -> Result<Operator, String> {
    let words: Vec<Name> = match arguments.trim().strip_prefix('[') {
        Some(list) => list
            .strip_suffix(']')
            .ok_or_else(|| format!("{name}: the list is not closed"))?
            .split(',')
            .map(|word| {
                let word = word.trim();
                let inner = word
                    .strip_prefix('"')
                    .and_then(|word| word.strip_suffix('"'));
                inner
                    .map(Name::from)
                    .ok_or_else(|| format!("{name}: {word} is no quoted text"))
            })
            .collect::<Result<_, _>>()?,
        None => arguments.split(':').map(Name::from).collect(),
    };
    match words.split_first() {
        // As in Envoy none need be named: nothing has that name.
        Some((namespace, path)) => Ok(Operator::Metadata(source, namespace.clone(), path.to_vec())),
        None => Err(format!("{name}: the namespace is missing")),
    }
}

/// `%METADATA(TYPE:NAMESPACE:KEY)%`.
fn any_metadata(name: &str, arguments: &str) -> Result<Operator, String> {
    let (kind, rest) = arguments.split_once(':').unwrap_or((arguments, ""));
    let source = match kind {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "ROUTE" => MetadataSource::Route,
        "VIRTUAL_HOST" => MetadataSource::VirtualHost,
        "UPSTREAM_HOST" => MetadataSource::UpstreamHost,
        "LISTENER" | "LISTENER_FILTER_CHAIN" => MetadataSource::Listener,
        _ => return Err(format!("{name}: unknown type {kind:?}")),
    };
    metadata(name, source, rest)
}

fn common_duration(arguments: &str) -> Result<Operator, String> {
    let words: Vec<&str> = arguments.split(':').collect();
    let (from, to, precision) = match words[..] {
        [from, to] => (from, to, "ms"),
        [from, to, precision] => (from, to, precision),
        _ => return Err("COMMON_DURATION takes from, to and precision".to_owned()),
    };
    let precision = match precision {
        "ms" => Precision::Milliseconds,
        "us" => Precision::Microseconds,
        "ns" => Precision::Nanoseconds,
        _ => return Err(format!("unknown precision {precision:?}")),
    };
    // Others are names that extensions of Envoy give to what they note.
    Ok(match TimePoint::parse(from).zip(TimePoint::parse(to)) {
        Some((from, to)) => Operator::Duration(from, to, precision),
        None => Operator::Absent("COMMON_DURATION"),
    })
}

/// The machine's name, as the kernel or the environment tells it.
fn host_name() -> Option<Name> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().into())
        .filter(|name: &Name| !name.is_empty())
}
