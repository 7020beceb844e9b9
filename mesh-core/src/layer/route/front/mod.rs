//! What a connection manager does with a request head before it is routed (`ConnectionManagerUtility`).

mod forwarded;
mod head;
mod referer;

#[cfg(test)]
mod measured;
#[cfg(test)]
mod tests;

#[cfg(feature = "net")]
pub(crate) use self::forwarded::copied;

#[cfg(feature = "client")]
use std::sync::OnceLock;
use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version, header::LOCATION, uri::Scheme};

#[cfg(feature = "client")]
use crate::telemetry::metrics::Metrics;
#[cfg(feature = "net")]
use crate::telemetry::{metrics::HttpStats, record::Sink};
use crate::{
    Error, Kind,
    layer::{Exchange, Scan},
    model::{HttpConnectionManager, Name, Upgrade},
    names::FORWARDED_PROTO,
    route::Head,
    snapshot::{Guard, Health},
    telemetry::{
        flags::Flag,
        late::{HEALTH_CHECK_FAILED, HEALTH_CHECK_OK},
        peer::{Introduction, Peers},
        record::Wants,
    },
};

/// How requests are treated before they are routed.
#[derive(Debug)]
pub struct Front {
    config: HttpConnectionManager,
    wants: Arc<Wants>,
    via: Option<HeaderValue>,
    /// A proxy that faces clients or applications: it writes `x-forwarded-*` and `x-request-id`.
    proxy: bool,
    /// Path of health checks that are answered here, and what is answered.
    health: Option<(Name, Health)>,
    /// Policies, in the order of the listener's filters.
    guards: Vec<Box<dyn Guard>>,
    /// Istio's exchange of metadata; boxed, since listeners of plain Envoy files have none.
    peers: Option<Box<PeerExchange>>,
    /// CORS and faults for what is answered here.
    #[cfg(feature = "net")]
    ahead: Option<Box<super::Ahead>>,
    /// Who is told of requests that go on elsewhere.
    #[cfg(feature = "net")]
    sink: Option<(Arc<dyn Sink>, Arc<HttpStats>)>,
}

/// What is done for Istio's exchange of metadata.
#[derive(Debug)]
pub(crate) enum PeerExchange {
    /// Requests into the mesh say who sends them.
    Tell(Introduction),
    /// The same, as soon as the configuration has said which workload this program is.
    #[cfg(feature = "client")]
    TellLater(Metrics, OnceLock<Introduction>),
    /// Requests are asked who sent them.
    Ask(Arc<Peers>),
}

#[cfg(feature = "client")]
impl PeerExchange {
    /// For a program that may not know yet which workload it is.
    pub(crate) fn tell_later(metrics: Metrics) -> Self {
        Self::TellLater(metrics, OnceLock::new())
    }
}

/// An answer without a route.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An error, which becomes a local reply.
    Error(Error),
    /// A response.
    Response(Box<Response<Bytes>>),
}

impl<E: Into<Error>> From<E> for Answer {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What is known of a request after it was treated.
#[derive(Debug, Default)]
pub(super) struct Treated {
    /// The client's address, if `x-forwarded-for` is trusted to tell it.
    pub(super) remote: Option<IpAddr>,
    /// What the head had when it came.
    pub(super) scan: Scan,
}

impl Front {
    /// The treatment that `config` asks for. `wants`: what the record keeps of request heads.
    pub fn new(config: &HttpConnectionManager, wants: Arc<Wants>) -> Self {
        let mut own = config.clone();
        // Tables, filters and logs are compiled elsewhere; their text need not be kept twice.
        own.routes = crate::model::RouteSource::Named("".into());
        own.filters = Vec::new();
        own.access_log = Vec::new();
        Self {
            via: HeaderValue::from_str(&own.via)
                .ok()
                .filter(|via| !via.is_empty()),
            config: own,
            wants,
            proxy: true,
            health: None,
            guards: Vec::new(),
            peers: None,
            #[cfg(feature = "net")]
            ahead: None,
            #[cfg(feature = "net")]
            sink: None,
        }
    }

    /// The treatment of calls that a program makes itself: they come over no connection, so nothing is forwarded.
    pub fn embedded(wants: Arc<Wants>) -> Self {
        Self {
            config: HttpConnectionManager::default(),
            wants,
            via: None,
            proxy: false,
            health: None,
            guards: Vec::new(),
            peers: None,
            #[cfg(feature = "net")]
            ahead: None,
            #[cfg(feature = "net")]
            sink: None,
        }
    }

    /// Requests that are answered here meet these filters too.
    #[cfg(feature = "net")]
    pub(crate) fn set_ahead(&mut self, ahead: super::Ahead) {
        self.ahead = Some(Box::new(ahead));
    }

    #[cfg(feature = "net")]
    pub(super) fn ahead(&self) -> Option<&super::Ahead> {
        self.ahead.as_deref()
    }

    /// `sink` is told of requests whose upstreams' redirects are followed; those that are not followed are counted in `stats`.
    #[cfg(feature = "net")]
    pub(crate) fn set_sink(&mut self, sink: Arc<dyn Sink>, stats: Arc<HttpStats>) {
        self.sink = Some((sink, stats));
    }

    #[cfg(feature = "net")]
    pub(super) fn sink(&self) -> Option<&dyn Sink> {
        self.sink.as_ref().map(|(sink, _)| &**sink)
    }

    #[cfg(feature = "net")]
    pub(super) fn stats(&self) -> Option<&HttpStats> {
        self.sink.as_ref().map(|(_, stats)| &**stats)
    }

    /// What the record keeps of request heads.
    pub fn wants(&self) -> &Arc<Wants> {
        &self.wants
    }

    /// Answers requests for this path by the program's own health: the check of whoever stands before the proxy.
    pub(crate) fn answer_health(&mut self, path: Name, health: Health) {
        self.health = Some((path, health));
    }

    /// Has `guard` judge requests, after those before it.
    pub(crate) fn guard(&mut self, guard: Box<dyn Guard>) {
        self.guards.push(guard);
    }

    /// Who judges requests once their route is found.
    #[inline]
    pub(crate) fn guards(&self) -> &[Box<dyn Guard>] {
        &self.guards
    }

    /// Takes part in Istio's exchange of metadata.
    pub(crate) fn exchange_metadata(&mut self, exchange: PeerExchange) {
        self.peers = Some(Box::new(exchange));
    }

    /// What this proxy says of itself to other workloads of the mesh.
    pub(super) fn introduction(&self) -> Option<&Introduction> {
        match self.peers.as_deref() {
            Some(PeerExchange::Tell(introduction)) => Some(introduction),
            #[cfg(feature = "client")]
            Some(PeerExchange::TellLater(metrics, told)) => match told.get() {
                None => {
                    let introduction = Introduction::of(metrics.workload())?;
                    Some(told.get_or_init(|| introduction))
                }
                told => told,
            },
            _ => None,
        }
    }

    /// Refuses all requests, unless there is a reason already.
    pub(crate) fn refuse(&mut self, reason: Name) {
        self.config.refuse.get_or_insert(reason);
    }

    /// Why all requests are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<&Name> {
        self.config.refuse.as_ref()
    }

    /// Upgrades that are allowed on all routes.
    pub fn upgrades(&self) -> &[Upgrade] {
        &self.config.upgrades
    }

    /// Whether `x-forwarded-proto` says what the connection is, since a request with this scan had none.
    pub(super) fn writes_proto(&self, scan: Scan) -> bool {
        self.proxy && !scan.has(Scan::FORWARDED_PROTO) && self.config.scheme.is_none()
    }

    /// No `x-envoy-*` header of our own is added.
    pub(super) fn is_quiet(&self) -> bool {
        self.config.suppress_envoy_headers
    }

    /// Checks and changes host and path that a redirect gave to a request which was treated before.
    #[cfg(feature = "net")]
    pub(super) fn treat_again<B>(
        &self,
        request: &mut http::Request<B>,
        record: &crate::telemetry::record::Record,
    ) -> Result<(), Answer> {
        if !self.proxy {
            return Ok(());
        }
        let connection = record.connection().map(|connection| &**connection);
        let _ = head::host(request, connection, &self.config)?;
        head::path(request, &self.config)
    }

    /// Checks and changes the head.
    pub(super) fn treat<B: 'static>(
        &self,
        exchange: &mut Exchange<B>,
        internal_only: &[HeaderName],
    ) -> Result<Treated, Answer> {
        if let Some(reason) = self.refusal() {
            return Err(Error::detailed(Kind::FailClosedInbound, reason.clone()).into());
        }
        let Exchange {
            request,
            record,
            scan,
        } = exchange;
        let request = &mut **request;
        if let Some(PeerExchange::Ask(peers)) = self.peers.as_deref() {
            let peer = peers.take(request.headers_mut());
            record.late().peer = peer;
        }
        let result = self.head(request, *scan, record, internal_only);
        record.see_request(request, &self.wants);
        // Over HTTP/1 the scheme is what the client is trusted to say of it.
        if self.wants.head && (self.config.scheme.is_some() || scan.has(Scan::FORWARDED_PROTO)) {
            let proto = Head::of(request).forwarded_proto();
            record.see_scheme(match proto.eq_ignore_ascii_case(b"https") {
                true => &Scheme::HTTPS,
                false => &Scheme::HTTP,
            });
        }
        result
    }

    fn head<B>(
        &self,
        request: &mut http::Request<B>,
        scan: Scan,
        record: &crate::telemetry::record::Record,
        internal_only: &[HeaderName],
    ) -> Result<Treated, Answer> {
        if let Some((path, health)) = &self.health
            && request
                .uri()
                .path_and_query()
                .is_some_and(|own| own.as_str() == &**path)
        {
            return Err(answer_check(health, record));
        }
        #[cfg(feature = "net")]
        let mut scan = match head::extended_connect(request) {
            true => Scan::of(request.headers()),
            false => scan,
        };
        if !self.proxy {
            return Ok(Treated { remote: None, scan });
        }
        head::underscores(request, self.config.underscores)?;
        let connection = record.connection().map(|connection| &**connection);
        let lost = head::host(request, connection, &self.config)?;
        #[cfg(feature = "net")]
        if let Some(port) = lost
            && head::is_connect(request, scan)
        {
            // The upstream is asked for the port that the client named.
            scan.add(Scan::CONNECT_PORT);
            record.late().connect_port = Some(port);
        }
        #[cfg(not(feature = "net"))]
        let _ = lost;
        if let Err(answer) = head::path(request, &self.config) {
            if let Answer::Response(_) = answer {
                let details = Kind::PathNormalization.reply().details;
                record.late().details = Some(details.into());
            }
            return Err(answer);
        }
        head::query(request)?;
        head::connection(request, scan)?;
        if scan.has(Scan::EXPECT) && !self.config.proxy_100_continue {
            head::expectation(request.headers_mut());
        }
        if scan.has(Scan::REFERER) {
            referer::check(request.headers_mut());
        }
        if scan.has(Scan::COOKIE) && request.version() == Version::HTTP_2 {
            head::cookies(request.headers_mut());
        }
        let remote = forwarded::treat(self, request, scan, record, internal_only);
        // Envoy has no route for a request that does not say how it came.
        let proto = || request.headers().get(&FORWARDED_PROTO);
        if scan.has(Scan::FORWARDED_PROTO) && proto().is_some_and(HeaderValue::is_empty) {
            return Err(Kind::NoRoute.into());
        }
        Ok(Treated { remote, scan })
    }
}

const CHECK_FAILS: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// What whoever checks the health of the proxy gets.
fn answer_check(health: &Health, record: &crate::telemetry::record::Record) -> Answer {
    let mut response = Response::new(Bytes::new());
    let mut late = record.late();
    late.details = Some(match health.is_failing() {
        false => HEALTH_CHECK_OK.into(),
        true => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            let headers = response.headers_mut();
            headers.insert(CHECK_FAILS, HeaderValue::from_static("true"));
            late.flags.insert(Flag::FailedLocalHealthCheck);
            HEALTH_CHECK_FAILED.into()
        }
    });
    Answer::Response(Box::new(response))
}

/// 307 to a path of the same host.
fn redirect(path: &[u8]) -> Answer {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(location) = HeaderValue::from_bytes(path) {
        response.headers_mut().insert(LOCATION, location);
    }
    Answer::Response(Box::new(response))
}
