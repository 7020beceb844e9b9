//! What is told of the connections of a TCP proxy, compiled.

use std::sync::Arc;

use crate::{
    config::Rejection,
    model::{self, Direction, Name, TcpProxy},
    telemetry::{
        access_log::AccessLog,
        metrics::{Metrics, Reporter, TcpMetrics},
        observer::Observer,
        record::Wants,
    },
};

/// The compiled telemetry of a [`TcpProxy`].
#[derive(Debug)]
pub struct Tcp {
    observer: Arc<Observer>,
    metrics: TcpMetrics,
}

impl Tcp {
    pub(super) fn new(
        proxy: &TcpProxy,
        direction: Direction,
        metrics: &Metrics,
        resource: &Name,
    ) -> Result<Self, Vec<Rejection>> {
        let reporter = match direction {
            Direction::Inbound => Reporter::Destination,
            _ => Reporter::Source,
        };
        Ok(Self {
            observer: Arc::new(logs(&proxy.access_log, resource)?.sinks(metrics.sinks())),
            metrics: TcpMetrics::new(metrics.clone(), reporter),
        })
    }

    /// Writes the access logs.
    pub fn observer(&self) -> &Arc<Observer> {
        &self.observer
    }

    /// Istio's TCP metrics.
    pub fn metrics(&self) -> &TcpMetrics {
        &self.metrics
    }
}

/// An observer that only writes access logs.
pub(super) fn logs(
    configs: &[model::AccessLog],
    resource: &Name,
) -> Result<Observer, Vec<Rejection>> {
    let compile = |(index, config): (usize, &model::AccessLog)| {
        AccessLog::new(config).map_err(|error| {
            let path = format!("access_log[{index}]");
            vec![Rejection::new(resource.clone(), path, error.to_string())]
        })
    };
    let logs = configs.iter().enumerate().map(compile);
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    Ok(Observer::new().logs(logs, Wants::default()))
}
