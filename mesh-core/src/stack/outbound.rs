//! From a request to its upstream: listeners of both directions, and calls that a program makes itself.

use std::sync::Arc;

use tower_layer::Layer;

use crate::{
    layer::{
        ByRoute,
        admit::{Admit, AdmitLayer, ByShadow},
        cors::{Cors, CorsLayer},
        fault::{Fault, FaultLayer, RouteFaults},
        headers::{Headers, HeadersLayer, RouteRules},
        mirror::{Mirror, MirrorLayer, RouteMirrors},
        observe::{Observe, ObserveLayer},
        respond::{Respond, RespondLayer},
        retry::{Retry, RetryLayer},
        route::{CellTable, Route},
        timeout::{Timeout, TimeoutLayer},
    },
    snapshot::Http,
    transport::{ConnInfo, TokioExec},
};

/// What a routed request passes. `L` is the pool, `X` starts the tasks of mirrors.
pub type Upstream<L, X = TokioExec> = Cors<
    Fault<
        Mirror<
            Timeout<Headers<Retry<Admit<L, ByRoute>, ByRoute>, RouteRules>, ByRoute>,
            RouteMirrors,
            Admit<L, ByShadow>,
            X,
        >,
        RouteFaults,
    >,
    ByRoute,
>;

/// The whole stack. `T` says which route table a request goes by.
pub type Outbound<L, X = TokioExec, T = CellTable> = Observe<Respond<Route<Upstream<L, X>, T>>>;

/// What the stacks of a listener's connections have in common. Cloning shares.
#[derive(Clone, Debug)]
pub struct OutboundParts<L, X = TokioExec> {
    http: Arc<Http>,
    leaf: L,
    exec: X,
}

impl<L: Clone, X: Clone> OutboundParts<L, X> {
    /// Stacks for the connection manager `http` over the pool `leaf`.
    pub fn new(http: Arc<Http>, leaf: L, exec: X) -> Self {
        Self { http, leaf, exec }
    }

    /// The connection manager.
    pub fn http(&self) -> &Arc<Http> {
        &self.http
    }

    /// The stack for one downstream connection.
    pub fn connection(&self, connection: Option<Arc<ConnInfo>>) -> Outbound<L, X> {
        let table = CellTable::new(self.http.routes().clone());
        self.stack(table, connection)
    }

    /// The stack that goes by the tables of `table`.
    pub fn stack<T>(&self, table: T, connection: Option<Arc<ConnInfo>>) -> Outbound<L, X, T> {
        let http = &self.http;
        let front = http.front().clone();
        let route = Route::new(self.upstream(), front, table, connection.as_deref());
        let respond = RespondLayer::new(http.replies().clone()).layer(route);
        ObserveLayer::new(http.observer().clone(), connection).layer(respond)
    }

    fn upstream(&self) -> Upstream<L, X> {
        let http = &self.http;
        let quiet = http.config().suppress_envoy_headers;
        let (faults, active) = http.faults();
        let admit = AdmitLayer::new(ByRoute)
            .quiet(quiet)
            .layer(self.leaf.clone());
        let retry = RetryLayer::new(ByRoute).layer(admit);
        let headers = HeadersLayer::new(RouteRules { quiet }).layer(retry);
        let timeout = TimeoutLayer::new(ByRoute, http.stream_limits())
            .quiet(quiet)
            .layer(headers);
        let shadow = AdmitLayer::new(ByShadow).layer(self.leaf.clone());
        let mirror =
            MirrorLayer::new(RouteMirrors { quiet }, shadow, self.exec.clone()).layer(timeout);
        let fault = FaultLayer::new(faults.clone(), active.clone()).layer(mirror);
        CorsLayer::new(ByRoute, http.cors())
            .stats(http.cors_stats().cloned())
            .layer(fault)
    }
}
