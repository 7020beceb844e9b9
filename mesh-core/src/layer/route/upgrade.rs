//! Upgrades: WebSocket and its like over HTTP/1.1, CONNECT, and CONNECT with `:protocol` over HTTP/2 (RFC 8441).
//!
//! As in Envoy an upgrade over HTTP/2 is routed and logged as one of HTTP/1.1: a GET with `upgrade`. The front makes it one,
//! the pool writes it as the upstream's protocol wants it. An upgrade is forwarded if the route, else the listener, allows
//! its kind. After the handshake bytes pass in both directions.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header::UPGRADE};
use hyper::upgrade::OnUpgrade;

use super::Front;
use crate::{
    Error, Kind,
    body::ResponseBody,
    layer::Scan,
    model::Upgrade,
    telemetry::record::Record,
    transport::{End, Switched, Ticket, UpstreamKind},
};

/// An upgrade whose answer is awaited.
#[derive(Debug)]
pub(crate) struct Upgrading {
    client: OnUpgrade,
    asked: Asked,
    kind: HeaderValue,
    record: Arc<Record>,
    ticket: Option<Ticket>,
}

/// How the client asked: its answer has the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `connection: upgrade`.
    Http1,
    /// CONNECT without `:protocol` over HTTP/1.1.
    Http1Connect,
    /// CONNECT without `:protocol` over HTTP/2.
    Http2Connect,
    /// CONNECT with `:protocol`.
    Extended,
}

/// Both ends of an upgraded exchange.
pub(crate) struct Ends {
    pub(crate) client: OnUpgrade,
    pub(crate) asked: Asked,
    /// The upstream's, if it is hyper's.
    pub(crate) upstream: OnUpgrade,
    pub(crate) end: End,
    /// Counts the upgrade as long as it lives.
    pub(crate) ticket: Option<Ticket>,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends")
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

/// Prepares an upgrade; `None` if the request is none. `route`: what its route says of upgrades.
pub(super) fn begin<B>(
    front: &Front,
    request: &mut Request<B>,
    scan: Scan,
    record: &Arc<Record>,
    route: &[Upgrade],
) -> Result<Option<Box<Upgrading>>, Kind> {
    let Some((kind, asked)) = wanted(request, scan) else {
        return Ok(None);
    };
    let ticket = request.extensions_mut().remove::<Ticket>();
    let name = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let rule = |rules: &[Upgrade]| {
        let found = rules.iter().find(|rule| *rule.kind == *name);
        found.map(|rule| rule.enabled)
    };
    let allowed = rule(route).or_else(|| rule(front.upgrades()));
    if allowed != Some(true) {
        if let Some(ticket) = &ticket {
            ticket.0.refused();
        }
        return Err(Kind::UpgradeDenied);
    }
    if let Some(ticket) = &ticket {
        ticket.0.allowed();
    }
    if matches!(asked, Asked::Http1Connect | Asked::Http2Connect) {
        // Its payload is the request body, so that the request has not arrived as long as the tunnel is open.
        record.request_begins();
    }
    Ok(Some(Box::new(Upgrading {
        client: hyper::upgrade::on(&mut *request),
        asked,
        kind,
        record: record.clone(),
        ticket,
    })))
}

/// Takes note of an upgrade for which there is no route.
pub(super) fn unrouted<B>(request: &Request<B>) {
    if wanted(request, Scan::UNKNOWN).is_some()
        && let Some(ticket) = request.extensions().get::<Ticket>()
    {
        ticket.0.asked();
    }
}

/// The kind of upgrade that a request asks for.
fn wanted<B>(request: &Request<B>, scan: Scan) -> Option<(HeaderValue, Asked)> {
    let http2 = request.version() == Version::HTTP_2;
    if request.method() == Method::CONNECT {
        let asked = match http2 {
            true => Asked::Http2Connect,
            false => Asked::Http1Connect,
        };
        return Some((HeaderValue::from_static("CONNECT"), asked));
    }
    if !scan.has(Scan::UPGRADE) {
        return None;
    }
    // The front leaves the header only where it asks for an upgrade.
    let kind = request.headers().get(UPGRADE)?;
    let asked = if http2 { Asked::Extended } else { Asked::Http1 };
    Some((kind.clone(), asked))
}

impl Upgrading {
    /// The client's answer. If the upstream agreed, both ends go into the body, where the outermost layer finds them.
    ///
    /// # Errors
    ///
    /// An upstream that agreed to what the codec knows nothing of.
    pub(super) fn answer<U>(
        self,
        mut response: Response<ResponseBody<U>>,
    ) -> Result<Response<ResponseBody<U>>, Error> {
        if response.body().is_local() {
            return Ok(response);
        }
        let connect = self.kind == "CONNECT";
        let agreed = match connect {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        };
        if !agreed {
            return Ok(self.not_agreed(response));
        }
        let switched = response.extensions_mut().remove::<Switched>();
        let end = switched.and_then(|switched| switched.take());
        let end = end.unwrap_or_else(|| End {
            kind: match (response.version(), connect) {
                (Version::HTTP_2, _) => UpstreamKind::Http2,
                (_, true) => UpstreamKind::Http1Connect,
                (_, false) => UpstreamKind::Http1Upgrade,
            },
            raw: None,
            held: None,
        });
        if end.kind == UpstreamKind::Http2 && connect && response.status() != StatusCode::OK {
            // The codec makes a tunnel of 200 only.
            return Err(Kind::UpstreamProtocol.into());
        }
        let upstream = hyper::upgrade::on(&mut response);
        response.body_mut().upgrade(Ends {
            client: self.client,
            asked: self.asked,
            upstream,
            end,
            ticket: self.ticket,
        });
        Ok(response)
    }

    /// A refusal passes on. Any other answer to a WebSocket handshake over HTTP/1.1 loses its body, as in Envoy.
    fn not_agreed<U>(&self, mut response: Response<ResponseBody<U>>) -> Response<ResponseBody<U>> {
        let websocket = self.kind.as_bytes().eq_ignore_ascii_case(b"websocket");
        let refused = response.status().as_u16() >= 400;
        if websocket && !refused && response.version() < Version::HTTP_2 {
            let headers = response.headers_mut();
            headers.remove(http::header::CONTENT_LENGTH);
            headers.remove(http::header::TRANSFER_ENCODING);
            *response.body_mut() = ResponseBody::empty();
            self.record.late().details = Some("websocket_handshake_unsuccessful".into());
        }
        response
    }
}
