//! The applications: each listens on its workload's own address, on tasks of this process.
//!
//! Only the sidecars are processes of their own. An application needs none: it shares nothing with the others but the
//! runtime, and reaches them through its sidecar alone.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    caller::{Caller, Plain},
    world::World,
};

/// An application cannot listen on its address.
#[derive(Debug, thiserror::Error)]
#[error("{pod} cannot listen on {address}: {error}")]
pub struct AppError {
    pod: String,
    address: SocketAddr,
    error: io::Error,
}

/// The applications, running.
#[derive(Debug)]
pub(super) struct Apps {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Apps {
    /// Starts all of them.
    pub(super) async fn start(world: &World) -> Result<Self, AppError> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for workload in &world.workloads {
            let address = workload.application;
            let listener = TcpListener::bind(address).await.map_err(|error| AppError {
                pod: workload.pod.clone(),
                address,
                error,
            })?;
            let caller: Arc<dyn Caller> = Arc::new(Plain::new(workload.outbound));
            let router = workload.service.router(&workload.pod, caller);
            let mut stopped = stopped.clone();
            tasks.spawn(async move {
                let end = async move { drop(stopped.wait_for(|stop| *stop).await) };
                // `axum::serve` retries what fails on accept and never answers an error.
                let _ = axum::serve(listener, router)
                    .with_graceful_shutdown(end)
                    .await;
            });
        }
        Ok(Self { stop, tasks })
    }

    /// Lets requests in flight end until the deadline.
    pub(super) async fn stop(mut self, deadline: Instant) {
        self.stop.send_replace(true);
        while let Ok(Some(_)) = timeout_at(deadline, self.tasks.join_next()).await {}
        self.tasks.shutdown().await;
    }
}
