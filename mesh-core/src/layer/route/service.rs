use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use tower_service::Service;

use super::{Answer, CellTable, Front, ResponseFuture, TableOf};
#[cfg(feature = "net")]
use super::{
    ahead::{Met, Own, Place},
    redirect::{Follow, Router},
};
use crate::{
    Error, Kind,
    body::{MeshBody, RequestBody, ResponseBody},
    layer::{Exchange, Routed, Scan},
    route::{ConnectionFacts, Decision, Forwarding, Head},
    snapshot::judge,
    telemetry::{
        context::RecordContext,
        record::{Record, Wants},
    },
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
        peer_certificate_presented: security.is_mutual(),
        peer_certificate_validated: security.is_mutual(),
        peer_identity: security.peer_identity.clone(),
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
        exchange.scan = treated.scan;
        let trusted = treated.remote.map(|remote| ConnectionFacts {
            source: Some(std::net::SocketAddr::new(remote, 0)),
            ..facts.clone()
        });
        let facts = trusted.as_ref().unwrap_or(facts);
        let random = crate::world::random();
        let mut head = head(front, &exchange.request, exchange.scan, facts);
        head.random = random;
        let decision = table.decide(&head);
        let guards = front.guards();
        if !guards.is_empty()
            && let Err(error) = judge(guards, &head, &decision, Some(&exchange.record))
        {
            return ResponseFuture::answer(&exchange.record, error.into());
        }
        let forwarding = match decision {
            Decision::Forward(forwarding) => forwarding,
            own => return answer(front, exchange, own),
        };
        #[cfg(feature = "net")]
        let https = head.scheme == b"https";
        #[cfg(feature = "net")]
        let follows = forwarding.forward().config().internal_redirect.is_some();
        let counted = forwarding.counted(&head);
        let met = absent(front, &exchange, &forwarding);
        match forward(front, exchange, forwarding, random, counted) {
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
            Ok((routed, upgrading)) => ResponseFuture::routed(inner.call(routed), upgrading),
            #[cfg(not(feature = "net"))]
            Ok(routed) => ResponseFuture::routed(inner.call(routed)),
            Err((record, error)) => own(&record, met, error.into()),
        }
    }
}

/// What the table is asked for.
fn head<'a, B>(
    front: &Front,
    request: &'a Request<B>,
    scan: Scan,
    facts: &'a ConnectionFacts,
) -> Head<'a, HeaderMap> {
    let mut head = Head::of(request);
    head.connection = facts;
    // HTTP/1 names no scheme: it is the trusted `x-forwarded-proto`, which was set where it was absent.
    if request.uri().scheme().is_none() {
        head.scheme = if front.writes_proto(scan) {
            if facts.tls { b"https" } else { b"http" }
        } else {
            head.scheme()
        };
    } else if facts.tls {
        head.scheme = b"https";
    }
    #[cfg(feature = "net")]
    {
        let protocol = request.extensions().get::<hyper::ext::Protocol>();
        head.protocol = protocol.map(|protocol| protocol.as_str().as_bytes());
    }
    head
}

/// Answers a request that no cluster gets.
#[inline(never)]
#[cfg_attr(not(feature = "net"), expect(unused_mut))]
fn answer<S, B, U>(
    front: &Front,
    mut exchange: Exchange<RequestBody<B>>,
    decision: Decision,
) -> ResponseFuture<S, B, U>
where
    S: Service<Routed<RequestBody<B>>>,
    B: 'static,
{
    let owns = matches!(
        decision,
        Decision::Redirect(_) | Decision::DirectResponse(_)
    );
    #[cfg(feature = "net")]
    if owns && is_refused(front, &mut exchange) {
        return ResponseFuture::answer(&exchange.record, Kind::UpgradeDenied.into());
    }
    #[cfg(feature = "net")]
    let met = front.meet(
        &exchange,
        Place::Own(decision.route().map(|route| &**route)),
    );
    #[cfg(not(feature = "net"))]
    let met = None;
    let answer = if owns {
        own_answer(front, &exchange, decision)
    } else {
        // There is no application behind a proxy's routes that it could go on to.
        #[cfg(feature = "net")]
        super::upgrade::unrouted(&exchange.request);
        Kind::NoRoute.into()
    };
    own(&exchange.record, met, answer)
}

/// What filters ahead of the router do to an answer; there are none without the network.
#[cfg(not(feature = "net"))]
type Met = std::convert::Infallible;

/// Answers here, behind the filters.
#[cfg_attr(not(feature = "net"), expect(unused_variables))]
fn own<S, B, U>(record: &Arc<Record>, met: Option<Met>, answer: Answer) -> ResponseFuture<S, B, U>
where
    S: Service<Routed<RequestBody<B>>>,
    B: 'static,
{
    #[cfg(feature = "net")]
    return ResponseFuture::own(record, Own::new(record, met, answer));
    #[cfg(not(feature = "net"))]
    ResponseFuture::answer(record, answer)
}

/// What a request to a cluster that is not there meets of the filters ahead of the router.
#[cfg_attr(not(feature = "net"), expect(unused_variables))]
pub(super) fn absent<B: 'static>(
    front: &Front,
    exchange: &Exchange<B>,
    forwarding: &Forwarding,
) -> Option<Met> {
    #[cfg(feature = "net")]
    if forwarding.cluster().is_none() {
        return front.meet(exchange, Place::Forward(forwarding));
    }
    None
}

/// Whether the request asks for an upgrade that the listener does not allow, on a route that says nothing of upgrades.
#[cfg(feature = "net")]
fn is_refused<B: 'static>(front: &Front, exchange: &mut Exchange<B>) -> bool {
    let Exchange {
        request,
        record,
        scan,
    } = exchange;
    super::upgrade::begin(front, request, *scan, record, &[]).is_err()
}

/// What is answered here, without an upstream.
pub(super) fn own_answer<B: 'static>(
    front: &Front,
    exchange: &Exchange<B>,
    decision: Decision,
) -> Answer {
    let record = &exchange.record;
    let route = decision.route();
    if let Some(reads) = route.and_then(|route| route.response_mutations().reads()) {
        record.see_also(&exchange.request, reads);
    }
    if route.is_some_and(|route| route.is_block_all()) {
        record.see_also(&exchange.request, &Wants::HEAD);
    }
    if let Decision::Redirect(redirection) = &decision
        && let Some(path) = redirection.path()
    {
        record.see_rewritten(&exchange.request, path, !front.is_quiet());
    }
    let mut late = record.late();
    // Before the route's headers are made, which may name them.
    late.details = Some("direct_response".into());
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
pub(super) fn forward<B: 'static>(
    front: &Front,
    exchange: Exchange<B>,
    forwarding: Forwarding,
    random: u64,
    counted: Option<Box<crate::route::Counted>>,
) -> Result<Forwarded<B>, (Arc<Record>, Error)> {
    let Exchange {
        mut request,
        record,
        scan,
    } = exchange;
    {
        let mut late = record.late();
        late.route = Some(forwarding.route().clone());
        late.arm = forwarding.arm_index() as u32;
        late.cluster = forwarding.cluster().cloned();
        // As in Envoy a request without a cluster counts in no virtual cluster.
        late.counted = counted.filter(|_| forwarding.cluster().is_some());
    }
    if let Some(reads) = forwarding.response_reads() {
        record.see_also(&request, reads);
    }
    let Some(cluster) = forwarding.cluster().cloned() else {
        let status = forwarding.forward().config().cluster_not_found_status;
        return Err((record, Error::new(Kind::NoCluster).with_status(status)));
    };
    if cluster.is_catch_all() {
        // Metrics name the host that was asked for.
        record.see_also(&request, &Wants::HEAD);
    }
    if cluster.is_in_mesh()
        && let Some(introduction) = front.introduction()
    {
        introduction.write(request.headers_mut());
    }
    #[cfg(feature = "net")]
    let rules = &forwarding.forward().config().upgrades;
    #[cfg(feature = "net")]
    let upgrading = match super::upgrade::begin(front, &mut request, scan, &record, rules) {
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
        quiet: false,
        timed: false,
    };
    #[cfg(feature = "net")]
    return Ok((routed, upgrading));
    #[cfg(not(feature = "net"))]
    Ok(routed)
}
