//! Level 0: decide, pick, finish, without I/O, for proxies that keep their own sockets.
//!
//! [`Reader::decide`] finds the route of a head, [`Decision::pick`] admits the request to an endpoint, and
//! [`Attempt::finish`](crate::cluster::Attempt::finish) tells how it went. Nothing here waits or needs a runtime.
//!
//! ```
//! use mesh_core::{
//!     Kind,
//!     cluster::{AttemptOutcome, PickKey},
//!     route::Head,
//!     snapshot::Reader,
//! };
//!
//! /// Where a request that a foreign proxy read goes to.
//! fn upstream(reader: &mut Reader, headers: &[(&[u8], &[u8])], random: u64) -> Result<String, Kind> {
//!     let head = Head { random, ..Head::new(b"GET", b"http", b"reviews:9080", b"/", headers) };
//!     let decision = reader.decide("outbound", &head)?;
//!     let attempt = decision.pick(&PickKey { random, ..PickKey::default() })?;
//!     let address = attempt.endpoint().address().to_string();
//!     attempt.finish(AttemptOutcome::Response(200));
//!     Ok(address)
//! }
//! ```

use crate::{
    Kind,
    cluster::{Attempt, PickKey},
    route::{Decision, Forwarding, Head, Headers},
    snapshot::Reader,
};

impl Reader {
    /// What to do with a request under the route configuration `table`.
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
        cluster.attempt(self.forward().config().priority, key)
    }
}
