//! A compiled connection manager: what the layers of its stack are made of.

use std::sync::Arc;

use super::{RouteCell, Stage};
#[cfg(feature = "net")]
use crate::layer::{
    fault::{ActiveFaults, RouteFaults},
    route::Ahead,
    timeout::StreamLimits,
};
use crate::{
    config::Rejection,
    layer::{
        cors::Acts,
        respond::Replies,
        route::{Front, PeerExchange},
    },
    model::{Direction, HttpConnectionManager, HttpFilterKind, Name},
    telemetry::{
        access_log::AccessLog,
        metrics::{CorsStats, HttpStats, Metrics, Reporter, RequestMetrics},
        observer::Observer,
        peer::Introduction,
        record::Wants,
    },
};

/// Istio's filter that exchanges metadata of workloads.
const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";

/// A compiled [`HttpConnectionManager`]. Connections keep the one that they began with.
#[derive(Debug)]
pub struct Http {
    config: Arc<HttpConnectionManager>,
    routes: Arc<RouteCell>,
    direction: Direction,
    front: Arc<Front>,
    replies: Arc<Replies>,
    observer: Arc<Observer>,
    cors: Acts,
    cors_stats: Option<Arc<CorsStats>>,
    #[cfg(feature = "net")]
    faults: RouteFaults,
    #[cfg(feature = "net")]
    active_faults: ActiveFaults,
}

impl Http {
    /// Compiles `config`, whose table is in `routes`. `resource` names it in rejections.
    ///
    /// An HTTP filter that nothing here understands makes the manager refuse every request: it may be protection.
    ///
    /// # Errors
    ///
    /// What is wrong with a format, a header name or a filter.
    pub fn new(
        config: Arc<HttpConnectionManager>,
        routes: Arc<RouteCell>,
        direction: Direction,
        metrics: &Metrics,
        resource: &Name,
    ) -> Result<Self, Vec<Rejection>> {
        Self::with_stages(config, routes, direction, metrics, resource, &[])
    }

    /// The same, where `stages` may understand more filters.
    ///
    /// # Errors
    ///
    /// As [`Http::new`], and what a stage says of its filter.
    pub fn with_stages(
        config: Arc<HttpConnectionManager>,
        routes: Arc<RouteCell>,
        direction: Direction,
        metrics: &Metrics,
        resource: &Name,
        stages: &[Arc<dyn Stage>],
    ) -> Result<Self, Vec<Rejection>> {
        let rejected =
            |path: &str, reason: String| vec![Rejection::new(resource.clone(), path, reason)];
        let replies = Replies::new(&config.local_reply)
            .map_err(|error| rejected("local_reply_config", error.to_string()))?
            .server(config.server_name.clone(), config.server_header)
            .via(&config.via)
            .quiet(config.suppress_envoy_headers);
        let mut logs = Vec::new();
        for (index, log) in config.access_log.iter().enumerate() {
            let path = format!("access_log[{index}]");
            logs.push(AccessLog::new(log).map_err(|error| rejected(&path, error.to_string()))?);
        }
        let mut wants = Wants::default();
        replies.add_wants(&mut wants);
        let reporter = match direction {
            Direction::Inbound => Reporter::Destination,
            _ => Reporter::Source,
        };
        let stats = metrics.http(&config.stat_prefix);
        let observer = Observer::new()
            .logs(logs, wants)
            .metrics(RequestMetrics::new(metrics.clone(), reporter))
            .stats(stats.clone())
            .sinks(metrics.sinks());
        let front = Front::new(&config, observer.shared_wants());
        let mut this = Self {
            front: Arc::new(front),
            replies: Arc::new(replies),
            observer: Arc::new(observer),
            routes,
            direction,
            cors: Acts::Never,
            cors_stats: None,
            #[cfg(feature = "net")]
            faults: RouteFaults::none(),
            #[cfg(feature = "net")]
            active_faults: ActiveFaults::default(),
            config,
        };
        this.filters(&stats, metrics, stages)
            .map_err(|(index, reason)| rejected(&format!("http_filters[{index}]"), reason))?;
        #[cfg(feature = "net")]
        this.set_ahead();
        #[cfg(feature = "net")]
        {
            let observer = this.observer.clone();
            this.front_mut().set_sink(observer, stats);
        }
        Ok(this)
    }

    fn filters(
        &mut self,
        stats: &HttpStats,
        metrics: &Metrics,
        stages: &[Arc<dyn Stage>],
    ) -> Result<(), (usize, String)> {
        let config = self.config.clone();
        for (index, filter) in config.filters.iter().enumerate() {
            match &filter.kind {
                HttpFilterKind::Cors => {
                    self.cors_stats = Some(stats.cors().clone());
                    self.cors = match filter.disabled {
                        true => Acts::WhereSet,
                        false => Acts::Always,
                    };
                }
                #[cfg(feature = "net")]
                HttpFilterKind::Fault(fault) => {
                    self.active_faults = ActiveFaults::new(stats.fault().clone());
                    let name = filter.name.clone();
                    self.faults = RouteFaults::filter(name, (**fault).clone(), filter.disabled)
                        .map_err(|name| (index, format!("{name} is no header name")))?;
                }
                #[cfg(not(feature = "net"))]
                HttpFilterKind::Fault(_) => {
                    let _ = stats;
                    return Err((index, "needs the feature `net` of mesh-core".to_owned()));
                }
                HttpFilterKind::Telemetry(name) if &**name == PEER_METADATA => {
                    self.exchange_metadata(metrics);
                }
                HttpFilterKind::HealthCheck(path) => self
                    .front_mut()
                    .answer_health(path.clone(), metrics.health().clone()),
                HttpFilterKind::Opaque(kind, _) => {
                    match stages.iter().find(|stage| stage.knows(kind)) {
                        Some(stage) => {
                            let guard = stage.compile(filter, self.direction);
                            self.front_mut()
                                .guard(guard.map_err(|reason| (index, reason))?);
                        }
                        // Routes that turn it on are refused by themselves.
                        None if filter.disabled => {}
                        None => {
                            let reason = format!("HTTP filter {} cannot act here", filter.name);
                            self.front_mut().refuse(reason.into());
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is answered without an upstream meets the same filters.
    #[cfg(feature = "net")]
    fn set_ahead(&mut self) {
        if self.cors != Acts::Never || self.faults.is_present() {
            let ahead = Ahead {
                cors: self.cors,
                cors_stats: self.cors_stats.clone(),
                faults: self.faults.clone(),
                active: self.active_faults.clone(),
            };
            self.front_mut().set_ahead(ahead);
        }
    }

    /// Outbound, requests say who sends them; inbound, they are asked.
    fn exchange_metadata(&mut self, metrics: &Metrics) {
        let exchange = match self.direction {
            Direction::Inbound => Some(PeerExchange::Ask(metrics.peers().clone())),
            _ => Introduction::of(metrics.workload()).map(PeerExchange::Tell),
        };
        if let Some(exchange) = exchange {
            self.front_mut().exchange_metadata(exchange);
        }
    }

    /// The same for calls that the program makes itself: heads are not treated as those of a proxy. If the program is a
    /// workload of a mesh, it says so to others, as its sidecar would.
    #[cfg(feature = "client")]
    pub(crate) fn without_proxy(mut self, metrics: &Metrics) -> Self {
        let mut front = Front::embedded(self.observer.shared_wants());
        front.exchange_metadata(PeerExchange::tell_later(metrics.clone()));
        let stats = metrics.http(&self.config.stat_prefix);
        front.set_sink(self.observer.clone(), stats);
        self.front = Arc::new(front);
        self
    }

    fn front_mut(&mut self) -> &mut Front {
        Arc::get_mut(&mut self.front).expect("the front is shared only once it is complete")
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<HttpConnectionManager> {
        &self.config
    }

    /// Direction of its listener.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The cell of its route table.
    pub fn routes(&self) -> &Arc<RouteCell> {
        &self.routes
    }

    /// The treatment of request heads.
    pub fn front(&self) -> &Arc<Front> {
        &self.front
    }

    /// Local replies.
    pub fn replies(&self) -> &Arc<Replies> {
        &self.replies
    }

    /// What is told of requests.
    pub fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }

    /// Which CORS policies act.
    pub fn cors(&self) -> Acts {
        self.cors
    }

    /// Where origins are counted, if there is a filter that judges them.
    pub fn cors_stats(&self) -> Option<&Arc<CorsStats>> {
        self.cors_stats.as_ref()
    }

    /// Faults of the listener and its routes.
    #[cfg(feature = "net")]
    pub fn faults(&self) -> (&RouteFaults, &ActiveFaults) {
        (&self.faults, &self.active_faults)
    }

    /// Limits of every stream.
    #[cfg(feature = "net")]
    pub fn stream_limits(&self) -> StreamLimits {
        StreamLimits {
            idle: self.config.stream_idle_timeout,
            max_stream: self.config.max_stream_duration,
            request: self.config.request_timeout,
            respect_expected: self.config.respect_expected_rq_timeout,
        }
    }
}
