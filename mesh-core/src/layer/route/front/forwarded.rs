//! `x-forwarded-*`, `x-envoy-*` and `x-request-id`: who the client is, and which headers it may have set.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Request, header::VIA};

use super::{Front, head};
use crate::{
    layer::{Scan, respond::append},
    model::{ForwardClientCert, HttpConnectionManager, Tracing},
    names::{self, FORWARDED_PROTO, INTERNAL},
    route::Headers as _,
    scratch,
    telemetry::{
        record::Record,
        request_id::{self, TraceReason, X_REQUEST_ID},
        small_number,
    },
    transport::ConnInfo,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const FORCE_TRACE: HeaderName = HeaderName::from_static("x-envoy-force-trace");
const CLIENT_TRACE: HeaderName = HeaderName::from_static("x-client-trace-id");

/// Headers that an edge request may not set.
const EDGE_ONLY: [HeaderName; 5] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    names::ORIGINAL_PATH,
    HeaderName::from_static("x-envoy-original-host"),
];

/// Headers that no request from outside may set.
const INTERNAL_ONLY: [HeaderName; 15] = [
    names::RETRIABLE_STATUSES,
    names::RETRIABLE_HEADERS,
    names::RETRY_ON,
    names::RETRY_GRPC_ON,
    names::MAX_RETRIES,
    names::ALT_STAT_NAME,
    names::RQ_TIMEOUT,
    names::PER_TRY_TIMEOUT,
    names::ALT_RESPONSE,
    names::STREAM_DURATION,
    names::EXPECTED,
    FORCE_TRACE,
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    names::HEDGE,
];

/// Treats the headers; the client's address if `x-forwarded-for` is trusted to tell it.
pub(super) fn treat<B>(
    front: &Front,
    request: &mut Request<B>,
    scan: Scan,
    record: &Record,
    internal_only: &[HeaderName],
) -> Option<IpAddr> {
    let config = &front.config;
    let connection = record.connection().map(|connection| &**connection);
    let headers = request.headers_mut();
    if scan.has(Scan::CLIENT_CERT) {
        client_cert(headers, config, connection);
    }
    let client = client(headers, scan, config, connection);
    proto(headers, scan, config, connection);
    let internal = client.single && client.ip.is_some_and(|ip| is_internal(config, ip));
    let edge = !internal && config.use_remote_address;
    if scan.has(Scan::ENVOY) {
        headers.remove(INTERNAL);
        if !internal {
            clean(headers, edge);
        }
    }
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else {
        for name in internal_only {
            headers.remove(name);
        }
        if let Some(ip) = client.ip.filter(|_| edge)
            && let Some(value) = scratch::display_value(ip)
        {
            headers.insert(EXTERNAL_ADDRESS, value);
        }
    }
    request_id(headers, scan, config, edge);
    // A trace that was asked for can be looked up by the id that comes back (`x-envoy-force-trace`).
    if config.always_set_request_id_in_response
        || scan.has(Scan::ENVOY) && headers.contains_key(FORCE_TRACE)
    {
        record.late().returned_id = headers.get(X_REQUEST_ID).cloned().map(Box::new);
    }
    if let Some(via) = &front.via {
        append(headers, VIA, via);
    }
    let tls = connection.is_some_and(|connection| connection.security.tls);
    if let Some(scheme) = &config.scheme {
        if let Ok(proto) = HeaderValue::from_str(scheme) {
            headers.insert(FORWARDED_PROTO, proto);
        }
        set_scheme(request, scheme);
    } else if let Some(scheme) = head::lower_scheme(request, tls) {
        set_scheme(request, scheme);
    }
    if client.from_header {
        record.late().remote = client.ip;
        client.ip
    } else {
        None
    }
}

/// Who the client is.
struct Client {
    ip: Option<IpAddr>,
    /// `x-forwarded-for` names a single address.
    single: bool,
    from_header: bool,
}

fn client(
    headers: &mut HeaderMap,
    scan: Scan,
    config: &HttpConnectionManager,
    connection: Option<&ConnInfo>,
) -> Client {
    let peer = connection.and_then(|connection| connection.peer.socket());
    let hops = config.xff_num_trusted_hops;
    if !config.use_remote_address {
        let (ip, single) = match forwarded_for(headers, scan) {
            Some(list) => from_right(&list, hops),
            None => (None, false),
        };
        return Client {
            from_header: ip.is_some(),
            // Without the header a request counts as external, whatever its peer.
            single: single && ip.is_some(),
            ip: ip.or(peer.map(|peer| peer.ip())),
        };
    }
    // Several lines are one list, so that the right end is what the nearest proxy wrote.
    let list = forwarded_for(headers, scan);
    let single = list.is_none();
    let trusted = list
        .as_deref()
        .filter(|_| hops > 0)
        .and_then(|list| from_right(list, hops - 1).0);
    if let (Some(peer), false) = (peer, config.skip_xff_append) {
        // A client on this machine is told by the address that the listener itself has.
        let local = connection.and_then(|connection| connection.local.socket());
        let shown = local.filter(|_| peer.ip().is_loopback()).unwrap_or(peer);
        if let Some(list) = appended(list.as_deref(), shown.ip()) {
            headers.insert(FORWARDED_FOR, list);
        }
    }
    Client {
        from_header: trusted.is_some(),
        ip: trusted.or(peer.map(|peer| peer.ip())),
        single,
    }
}

fn forwarded_for(headers: &HeaderMap, scan: Scan) -> Option<Cow<'_, [u8]>> {
    let present = scan.has(Scan::FORWARDED_FOR);
    present.then(|| headers.joined(&FORWARDED_FOR)).flatten()
}

fn appended(list: Option<&[u8]>, address: IpAddr) -> Option<HeaderValue> {
    match list.and_then(|list| std::str::from_utf8(list).ok()) {
        Some(list) if !list.is_empty() => scratch::display_value(format_args!("{list},{address}")),
        _ => scratch::display_value(address),
    }
}

/// Makes a copy of a request one of this proxy's own, as Envoy's are.
pub(crate) fn copied(headers: &mut HeaderMap, connection: Option<&ConnInfo>) {
    headers.insert(INTERNAL, HeaderValue::from_static("true"));
    let local = connection.and_then(|connection| connection.local.socket());
    if let Some(local) = local
        && let Some(list) = appended(headers.joined(&FORWARDED_FOR).as_deref(), local.ip())
    {
        headers.insert(FORWARDED_FOR, list);
    }
}

/// The address that stands `hops` places from the right, and whether it is the only one.
fn from_right(list: &[u8], hops: u32) -> (Option<IpAddr>, bool) {
    let Ok(list) = std::str::from_utf8(list) else {
        return (None, false);
    };
    let single = !list.contains(',');
    let entry = list.rsplit(',').nth(hops as usize).map(str::trim);
    // An address with a port is none, as in Envoy.
    (entry.and_then(|entry| entry.parse().ok()), single)
}

fn proto(
    headers: &mut HeaderMap,
    scan: Scan,
    config: &HttpConnectionManager,
    connection: Option<&ConnInfo>,
) {
    let overwrite = config.use_remote_address && config.xff_num_trusted_hops == 0;
    if overwrite || !scan.has(Scan::FORWARDED_PROTO) {
        let tls = connection.is_some_and(|connection| connection.security.tls);
        let proto = HeaderValue::from_static(if tls { "https" } else { "http" });
        headers.insert(FORWARDED_PROTO, proto);
    } else if let Some(Cow::Owned(several)) = headers.joined(&FORWARDED_PROTO)
        && let Ok(one) = HeaderValue::try_from(several)
    {
        // One line, so that nobody picks the one that he likes.
        headers.insert(FORWARDED_PROTO, one);
    }
    if config.append_x_forwarded_port && (overwrite || !headers.contains_key(FORWARDED_PORT)) {
        let local = connection.and_then(|connection| connection.local.socket());
        if let Some(local) = local {
            headers.insert(FORWARDED_PORT, small_number(local.port().into()));
        }
    }
}

/// Envoy trusts no address that is not configured since 1.36: a private address may be a client's as well.
fn is_internal(config: &HttpConnectionManager, ip: IpAddr) -> bool {
    // What a client writes as an IPv6 address is in no block of IPv4, also if it stands for an IPv4 address.
    if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return false;
    }
    config
        .internal_addresses
        .iter()
        .any(|block| block.contains(ip))
}

fn clean(headers: &mut HeaderMap, edge: bool) {
    if edge {
        for name in EDGE_ONLY {
            headers.remove(name);
        }
    }
    for name in INTERNAL_ONLY {
        headers.remove(name);
    }
}

/// What becomes of the client's certificate details. Without mutual TLS on this connection there is nothing to add.
fn client_cert(
    headers: &mut HeaderMap,
    config: &HttpConnectionManager,
    connection: Option<&ConnInfo>,
) {
    let mutual = connection.is_some_and(|connection| connection.security.is_mutual());
    let keep = match config.forward_client_cert {
        ForwardClientCert::AlwaysForwardOnly => true,
        ForwardClientCert::ForwardOnly | ForwardClientCert::AppendForward => mutual,
        ForwardClientCert::Sanitize | ForwardClientCert::SanitizeSet => false,
    };
    if !keep {
        headers.remove(CLIENT_CERT);
    }
}

fn request_id(headers: &mut HeaderMap, scan: Scan, config: &HttpConnectionManager, edge: bool) {
    let forced = edge && !config.preserve_external_request_id;
    let tracing = config.tracing.as_ref();
    let known = scan.has(Scan::REQUEST_ID);
    let old = known.then(|| headers.get(X_REQUEST_ID)).flatten();
    let old = old.filter(|old| !old.is_empty());
    if config.generate_request_id && (forced || old.is_none()) {
        let id = request_id::generate(|number| match tracing {
            Some(tracing) if config.pack_trace_reason => {
                trace_reason(headers, tracing, TraceReason::None, number)
            }
            _ => TraceReason::None,
        });
        headers.insert(X_REQUEST_ID, id);
        return;
    }
    let Some((old, (number, known))) = old.and_then(|old| Some((old, request_id::parse(old)?)))
    else {
        return;
    };
    // Nobody outside decides by an id of his own what is traced.
    let trusted = if edge { TraceReason::None } else { known };
    let new = match tracing {
        Some(tracing) => trace_reason(headers, tracing, trusted, number),
        None => trusted,
    };
    if config.pack_trace_reason
        && new != known
        && let Some(id) = request_id::with_reason(old, new)
    {
        headers.insert(X_REQUEST_ID, id);
    }
}

/// Whether the request is traced. Chance is the id's own number, so that all who see the id decide alike.
fn trace_reason(
    headers: &HeaderMap,
    tracing: &Tracing,
    known: TraceReason,
    number: u32,
) -> TraceReason {
    let within = |share: u32| number % 10_000 < share;
    let client = || crate::world::random::<u32>() % 10_000 < tracing.client_sampling;
    let reason = match known {
        TraceReason::None if headers.contains_key(CLIENT_TRACE) && client() => TraceReason::Client,
        TraceReason::None if headers.contains_key(FORCE_TRACE) => TraceReason::Forced,
        TraceReason::None if within(tracing.random_sampling) => TraceReason::Sampled,
        known => known,
    };
    if within(tracing.overall_sampling) {
        reason
    } else {
        TraceReason::None
    }
}

fn set_scheme<B>(request: &mut Request<B>, scheme: &str) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_some()
        && let Ok(scheme) = scheme.parse()
    {
        parts.scheme = Some(scheme);
    }
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
}
