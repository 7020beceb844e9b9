use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::Response;
use tower_service::Service;

use super::{Answer, CellTable, Front, ResponseFuture, TableOf};
#[cfg(feature = "net")]
use super::{
    ahead::{Own, Place},
    redirect::{Follow, Router},
};
use crate::{
    Error, Kind,
    body::{MeshBody, RequestBody, ResponseBody},
    layer::{Exchange, Routed, Scan},
    route::{ConnectionFacts, Decision, Forwarding, Head},
    telemetry::{context::RecordContext, record::Record},
    transport::ConnInfo,
};

/// Routes requests by the newest table of a cell.
#[derive(Clone, Debug)]
pub struct Route<S, T = CellTable> {
    inner: S,
    front: Arc<Front>,
    table: T,
    facts: ConnectionFacts,
}

impl<S, T> Route<S, T> {
    /// Routes requests to `inner` by `table`, after `front` has treated them. `connection`: the downstream
    /// connection; `None` for calls of the program itself.
    pub fn new(inner: S, front: Arc<Front>, table: T, connection: Option<&ConnInfo>) -> Self {
        Self {
            inner,
            front,
            table,
            facts: connection.map_or_else(ConnectionFacts::default, facts),
        }
    }
}

/// What routes may ask of a connection.
fn facts(connection: &ConnInfo) -> ConnectionFacts {
    let security = &connection.security;
    ConnectionFacts {
        source: connection.peer.socket(),
        direct_source: connection.direct_peer.socket(),
        destination: connection.local.socket(),
        tls: security.tls,
        server_name: security.server_name.clone(),
        peer_certificate_presented: security.peer_identity.is_some(),
        peer_certificate_validated: security.peer_identity.is_some(),
    }
}

impl<S, B, U, T> Service<Exchange<RequestBody<B>>> for Route<S, T>
where
    T: TableOf,
    S: Service<Routed<RequestBody<B>>, Response = Response<ResponseBody<U>>, Error = Error> + Clone,
    B: MeshBody,
{
    type Response = Response<ResponseBody<U>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, U>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut exchange: Exchange<RequestBody<B>>) -> Self::Future {
        let Self {
            inner,
            front,
            table,
            facts,
        } = self;
        let table = match table.table(&exchange.request) {
            Ok(table) => table,
            Err(kind) => {
                exchange
                    .record
                    .see_request(&exchange.request, front.wants());
                return ResponseFuture::answer(&exchange.record, kind.into());
            }
        };
        let treated = match front.treat(&mut exchange, table.internal_only_headers()) {
            Ok(treated) => treated,
            Err(answer) => return ResponseFuture::answer(&exchange.record, answer),
        };
        let mut trusted;
        let facts = match treated.remote {
            Some(remote) => {
                trusted = facts.clone();
                trusted.source = Some(std::net::SocketAddr::new(remote, 0));
                &trusted
            }
            None => &*facts,
        };
        let random = rand::random();
        let mut head = Head::of(&exchange.request);
        head.connection = facts;
        head.random = random;
        // HTTP/1 names no scheme: it is the trusted `x-forwarded-proto`, which was set where it was absent.
        if exchange.request.uri().scheme().is_none() {
            head.scheme = if front.writes_proto(treated.scan) {
                if facts.tls { b"https" } else { b"http" }
            } else {
                match head.forwarded_proto() {
                    b"https" => b"https",
                    _ => b"http",
                }
            };
        } else if facts.tls {
            head.scheme = b"https";
        }
        #[cfg(feature = "net")]
        let protocol = exchange.request.extensions().get::<hyper::ext::Protocol>();
        #[cfg(feature = "net")]
        {
            head.protocol = protocol.map(|protocol| protocol.as_str().as_bytes());
        }
        let https = head.scheme == b"https";
        match table.decide(&head) {
            Decision::Forward(forwarding) => {
                let follows = forwarding.forward().config().internal_redirect.is_some();
                let counted = forwarding.counted(&head);
                #[cfg(feature = "net")]
                let met = absent(front, &exchange, &forwarding);
                match forward(front, exchange, forwarding, random, treated.scan, counted) {
                    #[cfg(feature = "net")]
                    Ok((mut routed, None)) if follows => {
                        let router = Router {
                            front,
                            table,
                            facts,
                            https,
                        };
                        let follow = Follow::new(inner.clone(), router, &mut routed);
                        ResponseFuture::following(inner.call(routed), follow)
                    }
                    #[cfg(feature = "net")]
                    Ok((routed, upgrading)) => {
                        ResponseFuture::routed(inner.call(routed), upgrading)
                    }
                    #[cfg(not(feature = "net"))]
                    Ok(routed) => {
                        let _ = (follows, https);
                        ResponseFuture::routed(inner.call(routed))
                    }
                    #[cfg(feature = "net")]
                    Err((record, error)) => {
                        ResponseFuture::own(&record, Own::new(&record, met, error.into()))
                    }
                    #[cfg(not(feature = "net"))]
                    Err((record, error)) => ResponseFuture::answer(&record, error.into()),
                }
            }
            #[cfg(feature = "net")]
            Decision::Redirect(_) | Decision::DirectResponse(_)
                if is_refused(front, &mut exchange) =>
            {
                ResponseFuture::answer(&exchange.record, Kind::UpgradeDenied.into())
            }
            own => {
                #[cfg(feature = "net")]
                let met = front.meet(&exchange, Place::Own(own.route().map(|route| &**route)));
                let own = match own {
                    Decision::Redirect(_) | Decision::DirectResponse(_) => {
                        own_answer(&exchange, own)
                    }
                    // There is no application behind a proxy's routes that it could go on to.
                    _ => {
                        #[cfg(feature = "net")]
                        super::upgrade::unrouted(&exchange.request);
                        Kind::NoRoute.into()
                    }
                };
                #[cfg(feature = "net")]
                let answered =
                    ResponseFuture::own(&exchange.record, Own::new(&exchange.record, met, own));
                #[cfg(not(feature = "net"))]
                let answered = ResponseFuture::answer(&exchange.record, own);
                answered
            }
        }
    }
}

/// What a request to a cluster that is not there meets of the filters ahead of the router.
#[cfg(feature = "net")]
pub(super) fn absent<B>(
    front: &Front,
    exchange: &Exchange<B>,
    forwarding: &Forwarding,
) -> Option<super::ahead::Met> {
    match forwarding.cluster() {
        Some(_) => None,
        None => front.meet(exchange, Place::Forward(forwarding)),
    }
}

/// Whether the request asks for an upgrade that the listener does not allow, on a route that says nothing of upgrades.
#[cfg(feature = "net")]
fn is_refused<B>(front: &Front, exchange: &mut Exchange<B>) -> bool {
    super::upgrade::begin(front, &mut exchange.request, &exchange.record, &[]).is_err()
}

/// What is answered here, without an upstream.
pub(super) fn own_answer<B>(exchange: &Exchange<B>, decision: Decision) -> Answer {
    let record = &exchange.record;
    let route = decision.route();
    if let Some(reads) = route.and_then(|route| route.response_mutations().reads()) {
        record.see_also(&exchange.request, reads);
    }
    let mut late = record.late();
    Answer::Response(Box::new(match decision {
        Decision::Redirect(redirection) => {
            late.route = redirection.route().cloned();
            redirection.response(&RecordContext::new(record, &late))
        }
        Decision::DirectResponse(route) => {
            late.route = Some(route.clone());
            route.direct_response(&RecordContext::new(record, &late))
        }
        // There is no application behind a proxy's routes that it could go on to.
        _ => return Kind::NoRoute.into(),
    }))
}

#[cfg(feature = "net")]
pub(super) type Forwarded<B> = (Routed<B>, Option<Box<super::Upgrading>>);
#[cfg(not(feature = "net"))]
pub(super) type Forwarded<B> = Routed<B>;

/// The request on its way to its cluster; the record stays with the error otherwise.
pub(super) fn forward<B>(
    front: &Front,
    exchange: Exchange<B>,
    forwarding: Forwarding,
    random: u64,
    scan: Scan,
    counted: Option<Box<crate::route::Counted>>,
) -> Result<Forwarded<B>, (Arc<Record>, Error)> {
    let Exchange {
        mut request,
        record,
    } = exchange;
    {
        let mut late = record.late();
        late.route = Some(forwarding.route().clone());
        late.arm = forwarding.arm_index() as u32;
        late.cluster = forwarding.cluster().cloned();
        late.counted = counted;
    }
    if let Some(reads) = forwarding.response_reads() {
        record.see_also(&request, reads);
    }
    let Some(cluster) = forwarding.cluster().cloned() else {
        let status = forwarding.forward().config().cluster_not_found_status;
        return Err((record, Error::new(Kind::NoCluster).with_status(status)));
    };
    if cluster.is_in_mesh()
        && let Some(introduction) = front.introduction()
    {
        introduction.write(request.headers_mut());
    }
    #[cfg(feature = "net")]
    let rules = &forwarding.forward().config().upgrades;
    #[cfg(feature = "net")]
    let upgrading = match super::upgrade::begin(front, &mut request, &record, rules) {
        Ok(upgrading) => upgrading,
        Err(kind) => return Err((record, kind.into())),
    };
    let routed = Routed {
        request,
        record,
        forwarding,
        cluster,
        random,
        attempt: 1,
        tried: Vec::new(),
        host_attempts: 0,
        scan,
        redirected: false,
    };
    #[cfg(feature = "net")]
    return Ok((routed, upgrading));
    #[cfg(not(feature = "net"))]
    Ok(routed)
}
