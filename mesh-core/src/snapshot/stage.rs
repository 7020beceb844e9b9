//! The seam for policies that another crate knows: authorization, tokens, limits.

use std::fmt;

use super::Http;
use crate::{
    Error,
    model::{Direction, HttpFilter, Metadata},
    route::{Decision, FilterSetting, Head, Headers},
    telemetry::record::Record,
};

/// Compiles HTTP filters that mesh-core does not understand
/// ([`HttpFilterKind::Opaque`](crate::model::HttpFilterKind)). Given to
/// [`MeshBuilder::stage`](crate::snapshot::MeshBuilder::stage); a filter that no stage takes makes its listener refuse all requests.
pub trait Stage: fmt::Debug + Send + Sync {
    /// Whether it understands messages of this type, as filters of listeners and as settings of routes. Routes with settings that
    /// nobody understands are refused.
    fn knows(&self, type_url: &str) -> bool;

    /// Compiles `filter`, whose type it knows, of a listener of that direction. The guard of a filter that is
    /// [`disabled`](HttpFilter::disabled) acts on the routes that turn it on alone: it is asked on all.
    ///
    /// # Errors
    ///
    /// What is wrong with it: the listener is refused, and its last good version stays in force.
    fn compile(&self, filter: &HttpFilter, direction: Direction) -> Result<Box<dyn Guard>, String>;
}

/// A compiled policy. It judges each request of a listener once its head is treated and its route found, also where that answers
/// by itself, ahead of CORS, faults and all else; those of one listener in the order of its filters.
pub trait Guard: fmt::Debug + Send + Sync {
    /// Judges a request, on its thread and without waiting. What it learns of it goes into `found`, under its namespace: guards
    /// behind it read that, and so does `%DYNAMIC_METADATA(…)%`. A shadow policy writes there what it would have done.
    fn judge(&self, request: &Judged<'_>, found: &mut Metadata) -> Verdict;
}

/// What becomes of a request.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is answered with this error, for example [`Kind::Denied`](crate::Kind) or [`Kind::RateLimited`](crate::Kind).
    Refuse(Error),
}

/// A request that is judged.
#[non_exhaustive]
pub struct Judged<'a> {
    /// Its head and its connection: addresses, server name, the identity of the peer.
    pub head: Head<'a, dyn Headers + 'a>,
    /// The route that was found for it.
    pub decision: &'a Decision,
    /// What else is known of it; `None` outside of a stack.
    pub record: Option<&'a Record>,
}

impl Judged<'_> {
    /// What its route sets for the filter of that name, the most specific level first.
    pub fn setting(&self, filter: &str) -> Option<&FilterSetting> {
        match self.decision {
            Decision::Forward(forwarding) => forwarding.filter(filter),
            other => other.route()?.filter(filter),
        }
    }
}

impl fmt::Debug for Judged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judged")
            .field("decision", self.decision)
            .finish_non_exhaustive()
    }
}

impl Http {
    /// Asks the guards of its listener.
    ///
    /// # Errors
    ///
    /// Why the request is refused.
    pub(crate) fn judge<H: Headers + ?Sized>(
        &self,
        head: &Head<'_, H>,
        decision: &Decision,
    ) -> Result<(), Error> {
        match self.front().guards() {
            [] => Ok(()),
            guards => judge(guards, head, decision, None),
        }
    }
}

/// Asks `guards` in order, and gives the record what they found out.
#[inline(never)]
pub(crate) fn judge<H: Headers + ?Sized>(
    guards: &[Box<dyn Guard>],
    head: &Head<'_, H>,
    decision: &Decision,
    record: Option<&Record>,
) -> Result<(), Error> {
    let headers = &head.headers;
    let judged = Judged {
        head: head.with_headers(headers as &dyn Headers),
        decision,
        record,
    };
    let mut found = Metadata::default();
    let mut verdicts = guards.iter().map(|guard| guard.judge(&judged, &mut found));
    let refused = verdicts.find_map(|verdict| match verdict {
        Verdict::Pass => None,
        Verdict::Refuse(error) => Some(error),
    });
    if let Some(record) = record {
        let mut late = record.late();
        if !found.namespaces.is_empty() {
            late.dynamic = Some(Box::new(found));
        }
        if refused.is_some() {
            late.route = decision.route().cloned();
        }
    }
    refused.map_or(Ok(()), Err)
}
