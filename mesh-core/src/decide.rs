//! Level 0: decide, pick, finish, without I/O, for proxies that keep their own sockets.
//!
//! [`Reader::chain`] finds the filter chain of a connection and [`Chain::decide`] the route of a head; [`Reader::decide`] asks
//! a route configuration by its name. [`Decision::pick`] admits the request to an endpoint, and
//! [`Attempt::finish`](crate::cluster::Attempt::finish) tells how it went. Nothing here waits or needs a runtime.
//!
//! What else the route says is the caller's to do: [`Forwarding::finalize_request`] changes the head, and
//! [`ForwardEntry::config`](crate::route::ForwardEntry::config) has timeouts and retries. Whether the cluster wants TLS stands in
//! `attempt.cluster().config().transport`.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mesh_core::{
//!     cluster::{AttemptOutcome, PickKey},
//!     config::{Change, MemorySource, Update},
//!     model::{
//!         Action, Cluster, ClusterChoice, ClusterLoadAssignment, Discovery, Forward, PathMatch, Route, RouteConfiguration,
//!         RouteMatch, RouteRules, VirtualHost,
//!     },
//!     route::Head,
//!     snapshot::Mesh,
//! };
//!
//! // The configuration; `mesh-xds` makes it of Envoy's and Istio's files.
//! let mut reviews = Cluster::new("reviews", Discovery::Static);
//! reviews.load_assignment = ClusterLoadAssignment::of("reviews", ["127.0.0.1:9080".parse()?]);
//! let forward = Action::Forward(Box::new(Forward::to(ClusterChoice::Name("reviews".into()))));
//! let everything = RouteMatch::path(PathMatch::Prefix("/".into()));
//! let host = VirtualHost {
//!     domains: vec!["reviews:9080".into()],
//!     routes: RouteRules::List(vec![Route::new(everything, forward)]),
//!     ..VirtualHost::default()
//! };
//! let table = RouteConfiguration {
//!     name: "outbound".into(),
//!     virtual_hosts: vec![host],
//!     ..RouteConfiguration::default()
//! };
//!
//! // Without a runtime nothing runs the driver: what it is handed acts at once.
//! let (source, _) = MemorySource::new();
//! let (mesh, mut driver) = Mesh::builder().source(source).build();
//! let changes = vec![Change::Cluster(Arc::new(reviews)), Change::Routes(Arc::new(table))];
//! driver.apply(Update { changes, ..Update::default() });
//!
//! // One reader a thread; one random number a request, which decides between shares and endpoints.
//! let (mut reader, random) = (mesh.reader(), 7);
//! let headers: &[(&str, &str)] = &[("accept", "*/*")];
//! let head = Head { random, ..Head::new(b"GET", b"http", b"reviews:9080", b"/reviews/0", headers) };
//! let decision = reader.decide("outbound", &head).expect("there is such a table");
//! let attempt = decision.pick(&PickKey { random, ..PickKey::default() }).expect("an endpoint");
//! assert_eq!(attempt.endpoint().address().to_string(), "127.0.0.1:9080");
//! // The proxy sends the request there by its own means, then tells how it went.
//! attempt.finish(AttemptOutcome::Response(200));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

use std::sync::Arc;

use crate::{
    Kind,
    cluster::{Attempt, PickKey},
    route::{Decision, Forwarding, Head, Headers},
    snapshot::{ConnFacts, Http, Reader},
};

/// How the requests of one connection are decided: the connection manager of its filter chain. As in a server, the connection
/// keeps it, and each request meets the newest route table.
#[derive(Clone, Debug)]
pub struct Chain {
    http: Arc<Http>,
}

impl Chain {
    /// What to do with a request.
    ///
    /// # Errors
    ///
    /// [`Kind::FailClosedInbound`] if protection is configured that cannot act here; what a [`Guard`](crate::snapshot::Guard) of
    /// the listener refuses with.
    pub fn decide<H: Headers + ?Sized>(&self, head: &Head<'_, H>) -> Result<Decision, Kind> {
        if self.http.front().refusal().is_some() {
            return Err(Kind::FailClosedInbound);
        }
        let decision = self.http.routes().swap().load().decide(head);
        match self.http.judge(head, &decision) {
            Ok(()) => Ok(decision),
            Err(error) => Err(error.kind()),
        }
    }

    /// The compiled connection manager.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }
}

impl Reader {
    /// The filter chain of `listener` that serves a connection.
    ///
    /// # Errors
    ///
    /// [`Kind::NotReady`] if there is no such listener, or not yet; [`Kind::NoRoute`] if no chain matches, or the one that does
    /// is not HTTP; [`Kind::FailClosedInbound`] if it may serve nobody, since protection is configured that cannot act here.
    pub fn chain(&mut self, listener: &str, facts: &ConnFacts<'_>) -> Result<Chain, Kind> {
        let listener = self
            .load()
            .listeners()
            .get(listener)
            .ok_or(Kind::NotReady)?;
        let index = listener.filter_chains().find(facts).ok_or(Kind::NoRoute)?;
        let (chain, http) = listener.chains().nth(index).ok_or(Kind::NoRoute)?;
        if chain.refuse.is_some() {
            return Err(Kind::FailClosedInbound);
        }
        let http = http.ok_or(Kind::NoRoute)?.clone();
        Ok(Chain { http })
    }

    /// What to do with a request under the route configuration `table`, which has a name of its own (RDS). What a listener
    /// refuses is not seen here: [`Reader::chain`] does.
    ///
    /// # Errors
    ///
    /// [`Kind::NotReady`] if there is no such route configuration, or not yet.
    pub fn decide<H: Headers + ?Sized>(
        &mut self,
        table: &str,
        head: &Head<'_, H>,
    ) -> Result<Decision, Kind> {
        let cell = self.load().routes().get(table).ok_or(Kind::NotReady)?;
        Ok(cell.swap().load().decide(head))
    }
}

impl Decision {
    /// Admits the request to the cluster that was decided on, and picks an endpoint.
    ///
    /// # Errors
    ///
    /// [`Kind::NoRoute`] if the decision is not to send the request on; otherwise as [`Forwarding::pick`].
    pub fn pick(&self, key: &PickKey<'_>) -> Result<Attempt, Kind> {
        match self {
            Self::Forward(forwarding) => forwarding.pick(key),
            _ => Err(Kind::NoRoute),
        }
    }
}

impl Forwarding {
    /// Admits the request to its cluster, and picks an endpoint.
    ///
    /// # Errors
    ///
    /// [`Kind::NoCluster`] if there is no such cluster; otherwise as [`Cluster::attempt`](crate::cluster::Cluster::attempt).
    pub fn pick(&self, key: &PickKey<'_>) -> Result<Attempt, Kind> {
        let cluster = self.cluster().ok_or(Kind::NoCluster)?;
        let attempt = cluster.attempt(self.forward().config().priority, key)?;
        // Whether the caller gets a connection nobody tells.
        cluster.count_request(attempt.endpoint());
        Ok(attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::AttemptOutcome,
        config::{Change, MemorySource, Update},
        model::{
            self, Address, FilterChain, HttpConnectionManager, Network, RouteSource, TcpProxy,
        },
        snapshot::{Driver, Mesh, tests as fixtures},
    };

    fn chain(network: Network, port: Option<u16>) -> FilterChain {
        FilterChain {
            name: "".into(),
            matches: model::FilterChainMatch {
                destination_port: port,
                ..Default::default()
            },
            transport: Default::default(),
            transport_connect_timeout: None,
            network,
            refuse: None,
        }
    }

    fn manager(cluster: &str) -> HttpConnectionManager {
        HttpConnectionManager {
            routes: RouteSource::Inline(Arc::new(fixtures::table("", cluster))),
            ..Default::default()
        }
    }

    fn http(manager: HttpConnectionManager) -> Network {
        Network::Http(Box::new(manager))
    }

    fn apply(driver: &mut Driver<MemorySource>, chains: Vec<FilterChain>) {
        let address = Address::Socket(([127, 0, 0, 1], 0).into());
        let mut listener = model::Listener::new("out", address);
        listener.filter_chains = chains;
        driver.apply(Update {
            changes: vec![
                fixtures::eds("a"),
                fixtures::endpoints("a", 1),
                fixtures::eds("b"),
                fixtures::endpoints("b", 2),
                Change::Listener(Arc::new(listener)),
            ],
            ..Update::default()
        });
    }

    /// The chain of a connection to `port`.
    fn enter(reader: &mut Reader, port: u16) -> Result<Chain, Kind> {
        let destination = Address::Socket(([10, 0, 0, 1], port).into());
        let source = Address::Socket(([10, 0, 0, 2], 9).into());
        reader.chain("out", &ConnFacts::plain(&destination, &source))
    }

    /// The port that a request goes to.
    fn picked(chain: &Chain) -> u16 {
        let headers: &[(&str, &str)] = &[];
        let head = Head::new(b"GET", b"http", b"h", b"/", headers);
        let decision = chain.decide(&head).expect("decided");
        let attempt = decision.pick(&PickKey::default()).expect("an endpoint");
        let cluster = attempt.cluster().clone();
        let port = attempt.endpoint().address().socket().expect("TCP").port();
        assert_eq!(cluster.stats().upstream_rq_active.get(), 1);
        attempt.finish(AttemptOutcome::Response(200));
        assert_eq!(cluster.stats().upstream_rq_active.get(), 0);
        port
    }

    #[test]
    fn a_connection_decides_by_the_inline_table_of_its_chain() {
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        let mut reader = mesh.reader();
        assert_eq!(enter(&mut reader, 80).err(), Some(Kind::NotReady));
        let chains = |first: &str| {
            vec![
                chain(http(manager(first)), Some(80)),
                chain(http(manager("b")), Some(81)),
            ]
        };
        apply(&mut driver, chains("a"));
        let kept = enter(&mut reader, 80).expect("a chain");
        assert_eq!(picked(&kept), 1);
        assert_eq!(picked(&enter(&mut reader, 81).expect("a chain")), 2);
        assert_eq!(enter(&mut reader, 82).err(), Some(Kind::NoRoute));
        // As a server's, the next connection follows the change.
        apply(&mut driver, chains("b"));
        assert_eq!(picked(&enter(&mut reader, 80).expect("a chain")), 2);
    }

    #[test]
    fn what_may_serve_nobody_decides_nothing() {
        let (source, _handle) = MemorySource::new();
        let (mesh, mut driver) = Mesh::builder().source(source).build();
        let mut reader = mesh.reader();
        let refusing = HttpConnectionManager {
            refuse: Some("protected".into()),
            ..manager("a")
        };
        let mut closed = chain(http(manager("a")), Some(81));
        closed.refuse = Some("protected".into());
        let tcp = Network::Tcp(Box::new(TcpProxy::new(
            "",
            model::ClusterChoice::Name("a".into()),
        )));
        apply(
            &mut driver,
            vec![
                chain(http(refusing), Some(80)),
                closed,
                chain(tcp, Some(82)),
            ],
        );
        let headers: &[(&str, &str)] = &[];
        let head = Head::new(b"GET", b"http", b"h", b"/", headers);
        let entered = enter(&mut reader, 80).expect("a chain");
        assert_eq!(entered.decide(&head).err(), Some(Kind::FailClosedInbound));
        assert_eq!(enter(&mut reader, 81).err(), Some(Kind::FailClosedInbound));
        assert_eq!(enter(&mut reader, 82).err(), Some(Kind::NoRoute));
    }
}
