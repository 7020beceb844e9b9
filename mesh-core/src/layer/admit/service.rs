use std::{
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderName, Method, Request, Response, header::HOST};
use tower_service::Service;

use super::{ByShadow, FixedAdmit, ResponseFuture};
use crate::{
    Error, Kind,
    body::{MeshBody, RequestBody},
    cluster::{Attempt, Cluster, Omit, PickKey},
    layer::{ByRoute, Routed, mirror::Shadow},
    model::{ConnectConfig, Discovery, Priority},
    pool::Outgoing,
    route::{Field, Forwarding, HeadMut},
};

/// Admits requests to clusters.
#[derive(Clone, Debug)]
pub struct Admit<S, P> {
    inner: S,
    policy: P,
    quiet: bool,
}

impl<S, P> Admit<S, P> {
    /// Sends through `inner`, a pool, to the cluster that `policy` says.
    pub fn new(inner: S, policy: P) -> Self {
        Self {
            inner,
            policy,
            quiet: false,
        }
    }

    /// Adds no `x-envoy-*` header of its own (`suppress_envoy_headers`).
    #[must_use]
    pub fn quiet(mut self, quiet: bool) -> Self {
        self.quiet = quiet;
        self
    }
}

impl<S, B, U> Service<Routed<RequestBody<B>>> for Admit<S, ByRoute>
where
    S: Service<Outgoing<RequestBody<B>>, Response = Response<U>, Error = Error>,
    B: MeshBody,
    U: MeshBody,
{
    type Response = Response<crate::body::ResponseBody<U>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, routed: Routed<RequestBody<B>>) -> Self::Future {
        let mut attempt = match attempt(&routed) {
            Ok(attempt) => attempt,
            Err(error) => {
                routed.record.late().attempts = routed.attempt;
                return ResponseFuture::refused(error);
            }
        };
        if routed.forwarding.policies().retries().is_some() {
            attempt.defer();
        }
        let Routed {
            mut request,
            record,
            forwarding,
            cluster,
            attempt: number,
            timed,
            ..
        } = routed;
        if forwarding.forward().auto_host_rewrite() {
            let hostname = attempt.endpoint().hostname();
            // Envoy changes the head of the attempt before once more.
            for _ in 0..number.min(2) {
                forwarding.rewrite_host_for_endpoint(&mut *request, hostname, !self.quiet);
            }
            record.see_request_again(&request);
        }
        let (wanted, asked_life) = {
            let mut late = record.late();
            late.endpoint = Some(attempt.endpoint().clone());
            late.attempts = number;
            late.upstream = None;
            let asked = late.asked.as_ref().and_then(|asked| asked.life);
            let wanted = late.wants_upstream()
                || late.expectation.is_some()
                || cluster.sends_interims()
                || timed;
            (wanted, asked)
        };
        let life = asked_life.or(cluster.config().max_stream_duration);
        let connect = ends_here(request.method(), &forwarding);
        let outgoing = Outgoing {
            request: request.into_inner(),
            connect,
            cluster,
            endpoint: attempt.endpoint().clone(),
            priority: attempt.priority(),
            downstream: record.connection().cloned(),
            record: wanted.then(|| record.clone()),
        };
        ResponseFuture::sent(self.inner.call(outgoing), attempt, Some(record), life)
    }
}

/// Whether the request ends here and its payload goes on as TCP.
fn ends_here(method: &Method, forwarding: &Forwarding) -> Option<ConnectConfig> {
    if *method != Method::CONNECT && *method != Method::POST {
        return None;
    }
    let upgrades = &forwarding.forward().config().upgrades;
    let config = upgrades.iter().find_map(|upgrade| upgrade.connect)?;
    (*method == Method::CONNECT || config.allow_post).then_some(config)
}

/// Where an original-destination cluster sends the request: to the address that its header names, else to where the connection was
/// meant to go. As in Envoy, a header that holds no address counts as absent, and a connection that nobody redirected was meant for
/// nowhere else: sent on to the address that it came to, it would come back for ever.
fn destination<B: 'static>(routed: &Routed<B>) -> Option<SocketAddr> {
    if let Discovery::OriginalDst(config) = &routed.cluster.config().discovery
        && let Some(name) = &config.header
        && let Some(address) = named(&routed.request, name)
    {
        return Some(address);
    }
    routed.record.connection()?.original_dst
}

/// The address that the header `name` holds.
fn named<B>(request: &Request<B>, name: &HeaderName) -> Option<SocketAddr> {
    let headers = request.headers();
    let value = match *name == HOST {
        true => request.field(&Field::Authority)?,
        false => headers.get(name)?.as_bytes().into(),
    };
    std::str::from_utf8(&value).ok()?.parse().ok()
}

fn attempt<B: 'static>(routed: &Routed<B>) -> Result<Attempt, Error> {
    let key = PickKey {
        random: routed.random,
        hash: None,
        original_dst: destination(routed),
        exclude: &routed.tried,
        host_attempts: routed.host_attempts,
        turn: 0,
        omit: omit(routed),
    };
    let priority = routed.forwarding.forward().config().priority;
    routed.cluster.attempt(priority, &key).map_err(|kind| {
        match (kind, &routed.cluster.config().refuse) {
            (Kind::FailClosed, Some(reason)) => {
                Error::detailed(kind, format!("cluster {}: {reason}", routed.cluster.name()))
            }
            _ => kind.into(),
        }
    })
}

/// What a retry avoids.
fn omit<B: 'static>(routed: &Routed<B>) -> Option<&Omit> {
    if routed.attempt == 1 {
        return None;
    }
    routed.forwarding.policies().retries()?.omit()
}

impl<S, B, U> Service<(Shadow, Request<B>)> for Admit<S, ByShadow>
where
    S: Service<Outgoing<B>, Response = Response<U>, Error = Error>,
    U: MeshBody,
{
    type Response = Response<crate::body::ResponseBody<U>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, (shadow, request): (Shadow, Request<B>)) -> Self::Future {
        match &shadow.cluster {
            Some(cluster) => send(&mut self.inner, request, cluster, Priority::Default),
            None => ResponseFuture::refused(Kind::NoCluster.into()),
        }
    }
}

/// Sends a request that has no route to `cluster`.
fn send<S, B>(
    inner: &mut S,
    request: Request<B>,
    cluster: &Arc<Cluster>,
    priority: Priority,
) -> ResponseFuture<S::Future>
where
    S: Service<Outgoing<B>>,
{
    let key = PickKey {
        random: crate::world::random(),
        ..PickKey::default()
    };
    let attempt = match cluster.attempt(priority, &key) {
        Ok(attempt) => attempt,
        Err(kind) => return ResponseFuture::refused(kind.into()),
    };
    let life = cluster.config().max_stream_duration;
    let outgoing = Outgoing {
        request,
        cluster: cluster.clone(),
        endpoint: attempt.endpoint().clone(),
        priority,
        downstream: None,
        connect: None,
        record: None,
    };
    ResponseFuture::sent(inner.call(outgoing), attempt, None, life)
}

impl<S, B, U> Service<Request<B>> for Admit<S, FixedAdmit>
where
    S: Service<Outgoing<B>, Response = Response<U>, Error = Error>,
    U: MeshBody,
{
    type Response = Response<crate::body::ResponseBody<U>>;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let FixedAdmit { cluster, priority } = &self.policy;
        send(&mut self.inner, request, cluster, *priority)
    }
}
