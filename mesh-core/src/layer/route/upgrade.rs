//! Upgrades: WebSocket and its like over HTTP/1.1, CONNECT, and CONNECT with `:protocol` over HTTP/2 (RFC 8441).
//!
//! An upgrade is forwarded if the route, else the listener, allows its kind. Where one side speaks HTTP/1.1 and the other
//! HTTP/2, the handshake is translated as Envoy does. After the handshake bytes pass in both directions.

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};
use hyper::{ext::Protocol, upgrade::OnUpgrade};

use super::Front;
use crate::{
    Kind, body::ResponseBody, cluster::Cluster, model::UpstreamProtocol, route::Forwarding,
};

/// An upgrade whose answer is awaited.
#[derive(Debug)]
pub struct Upgrading {
    client: OnUpgrade,
    /// How the client asked: its answer has the same form.
    asked: Asked,
    kind: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// `connection: upgrade`.
    Http1,
    /// CONNECT, plain or with `:protocol`.
    Connect,
}

/// Both ends of an upgraded exchange.
#[derive(Debug)]
pub struct Ends {
    /// The client's.
    pub client: OnUpgrade,
    /// The upstream's.
    pub upstream: OnUpgrade,
}

/// Prepares an upgrade; `None` if the request is none.
pub(super) fn begin<B>(
    front: &Front,
    request: &mut Request<B>,
    forwarding: &Forwarding,
    cluster: &Cluster,
) -> Result<Option<Upgrading>, Kind> {
    let Some((kind, asked)) = wanted(request) else {
        return Ok(None);
    };
    let name = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let route = &forwarding.forward().config().upgrades;
    let rule = route
        .iter()
        .find(|rule| *rule.kind == *name)
        .or_else(|| front.upgrades().iter().find(|rule| *rule.kind == *name));
    // A route that matches CONNECT requests allows them.
    if !rule.is_some_and(|rule| rule.enabled) {
        return Err(Kind::UpgradeDenied);
    }
    if rule.is_some_and(|rule| rule.terminate_connect) {
        return Err(Kind::UpgradeDenied);
    }
    let client = hyper::upgrade::on(&mut *request);
    translate(
        request,
        asked,
        &kind,
        upstream_is_http2(cluster, request.version()),
    );
    Ok(Some(Upgrading {
        client,
        asked,
        kind,
    }))
}

fn upstream_is_http2(cluster: &Cluster, version: Version) -> bool {
    match cluster.config().protocol {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Downstream => version == Version::HTTP_2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Auto => false,
    }
}

/// The kind of upgrade that a request asks for.
fn wanted<B>(request: &Request<B>) -> Option<(HeaderValue, Asked)> {
    if request.method() == Method::CONNECT {
        let protocol = request.extensions().get::<Protocol>();
        let kind = protocol.map_or("CONNECT", |protocol| protocol.as_str());
        return Some((HeaderValue::from_str(kind).ok()?, Asked::Connect));
    }
    // The front leaves the header only where it asks for an upgrade.
    let kind = request.headers().get(UPGRADE)?;
    Some((kind.clone(), Asked::Http1))
}

/// Writes the request in the form of the upstream's protocol.
fn translate<B>(request: &mut Request<B>, asked: Asked, kind: &HeaderValue, to_http2: bool) {
    let plain_connect = kind == "CONNECT";
    match (asked, to_http2) {
        (Asked::Connect, false) if !plain_connect => {
            *request.method_mut() = Method::GET;
            request.extensions_mut().remove::<Protocol>();
            let headers = request.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, kind.clone());
        }
        (Asked::Http1, true) => {
            *request.method_mut() = Method::CONNECT;
            let protocol = Protocol::from_static("websocket");
            request.extensions_mut().insert(protocol);
            let headers = request.headers_mut();
            headers.remove(CONNECTION);
            headers.remove(UPGRADE);
            headers.remove(CONTENT_LENGTH);
        }
        _ => {}
    }
}

impl Upgrading {
    /// The client's answer. If the upstream agreed, both ends go into the body, where the outermost layer finds them.
    pub(super) fn answer<U>(
        self,
        mut response: Response<ResponseBody<U>>,
    ) -> Response<ResponseBody<U>> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let agreed = switched || self.kind_is_connect_success(&response);
        if !agreed {
            return response;
        }
        let upstream = hyper::upgrade::on(&mut response);
        match self.asked {
            Asked::Http1 => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, self.kind);
                headers.remove(CONTENT_LENGTH);
            }
            Asked::Connect => {
                *response.status_mut() = StatusCode::OK;
                let headers = response.headers_mut();
                headers.remove(CONNECTION);
                headers.remove(UPGRADE);
            }
        }
        response.body_mut().upgrade(Ends {
            client: self.client,
            upstream,
        });
        response
    }

    /// Over HTTP/2, and for CONNECT, success is a 2xx.
    fn kind_is_connect_success<U>(&self, response: &Response<ResponseBody<U>>) -> bool {
        let http2 = response.version() == Version::HTTP_2;
        (self.kind == "CONNECT" || http2) && response.status().is_success()
    }
}
